"""Loads, checks and assembles the documents that operators write."""
