"""
Limits what one person has under way at once, and what all have together.

Otherwise a signed-in person could open a hundred followed logs, or large lists, and use up the
connections to the broker and the memory of this process, so that no other person could sign in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class AtOnce:
    """At most *of_one* things of each person, and *of_all* of all people together."""

    def __init__(self, of_one: int, of_all: int) -> None:
        self._of_one = of_one
        self._of_all = of_all
        self._under_way: Counter[str] = Counter()

    @property
    def under_way(self) -> dict[str, int]:
        """Number of things under way, by person."""
        return dict(self._under_way)

    @contextmanager
    def one(self, person: str) -> Iterator[bool]:
        """Count one more of *person* within the block. Yields False if it is one too many."""
        under_way = self._under_way
        if under_way[person] >= self._of_one or under_way.total() >= self._of_all:
            yield False
            return
        under_way[person] += 1
        try:
            yield True
        finally:
            under_way[person] -= 1
            if not under_way[person]:
                del under_way[person]
