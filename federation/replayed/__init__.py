"""Decides recorded events again by other documents, and never guesses what an event does not tell."""
