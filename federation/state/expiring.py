"""In-memory parts that the stores share: a set with expiry, and the age of a cached view."""

from __future__ import annotations

import heapq
import time

VIEW_SECONDS = 1.0
"""A store never answers from a view of revoked tokens that is older than this."""

KEPT_LONGER_SECONDS = 900.0
"""Entries stay this much longer than they must. Without it, a clock that was set forward by
mistake and then back would make a spent token new again."""

_DROPPED_AT_ONCE = 4
"""Number of expired members that an addition removes: more than it adds, but few."""


class ExpiringSet:
    """A set that removes expired members. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._next: list[tuple[float, str]] = []

    def __contains__(self, member: str) -> bool:
        return member in self._until

    def items(self) -> list[tuple[str, float]]:
        """Return each member with the time when it expires."""
        return list(self._until.items())

    def add(self, member: str, until: float, now: float) -> bool:
        """Add *member* until *until*. Return False if it was in the set already."""
        self._drop(now)
        if member in self._until:
            return False
        self._until[member] = until
        heapq.heappush(self._next, (until, member))
        return True

    def discard(self, member: str) -> None:
        """Remove *member* if it is in the set."""
        self._until.pop(member, None)

    def _drop(self, now: float) -> None:
        for _ in range(_DROPPED_AT_ONCE):
            if not self._next or self._next[0][0] + KEPT_LONGER_SECONDS >= now:
                return
            due, member = heapq.heappop(self._next)
            if self._until.get(member) == due:  # else it was discarded and added again
                del self._until[member]


class Freshness:
    """Remembers when a cached view was last complete."""

    def __init__(self) -> None:
        self._as_of = float("-inf")

    def seen(self, began: float) -> None:
        """Record that the view holds everything up to *began*, on the monotonic clock."""
        self._as_of = max(self._as_of, began)

    def stale(self) -> bool:
        """Return whether the view is too old to answer from."""
        return time.monotonic() - self._as_of > VIEW_SECONDS
