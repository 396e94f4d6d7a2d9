"""Print the progress of a run."""

from __future__ import annotations


def say(what: str) -> None:
    """Print *what* at once, not when a buffer is full."""
    print(f"  {what}", flush=True)
