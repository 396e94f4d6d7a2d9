"""The broker that trades a CI job's identity token for a short-lived access token."""

__version__ = "0.1.0"
