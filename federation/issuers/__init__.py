"""The room that takes a subject token and proves it: keys of issuers, and what they signed."""
