"""The pause before a request that failed is tried again."""

from __future__ import annotations

_DOUBLINGS = 16


def backoff_seconds(failures: int, first: float, longest: float, spread: float) -> float:
    """
    Return the pause after *failures* in a row: *first*, doubled each time up to *longest*.

    It is between half of that and all of it, as *spread* says, which is between 0 and 1: replicas
    must not all try at once.
    """
    whole = min(longest, first * 2.0 ** min(failures - 1, _DOUBLINGS))
    return whole * (0.5 + spread / 2)
