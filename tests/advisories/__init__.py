"""Attacks that must keep failing."""
