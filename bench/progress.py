"""Print the progress of a run."""

from __future__ import annotations


def say(what: str) -> None:
    """Print *what* without waiting for a full buffer."""
    print(f"  {what}", flush=True)
