"""What a run tells while it goes on."""

from __future__ import annotations


def say(what: str) -> None:
    """Progress, at once."""
    print(f"  {what}", flush=True)
