"""What every store keeps in memory: sets whose members leave, and how old a view is."""

from __future__ import annotations

import heapq
import time

__all__ = ["KEPT_LONGER_SECONDS", "VIEW_SECONDS", "ExpiringSet", "Freshness"]

VIEW_SECONDS = 1.0
"""A view of what others revoked is never used when it is older."""


KEPT_LONGER_SECONDS = 900.0
"""What is past its time stays this much longer: a clock that was set forward by mistake, and
then back, must not make a spent token new."""


class ExpiringSet:
    """A set whose members leave by themselves. Times are seconds since the epoch."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._next: list[tuple[float, str]] = []

    def __contains__(self, member: str) -> bool:
        return member in self._until

    def items(self) -> list[tuple[str, float]]:
        """Each member and until when it is one."""
        return list(self._until.items())

    def __len__(self) -> int:
        return len(self._until)

    def add(self, member: str, until: float, now: float) -> bool:
        """*member* is in the set until *until*; True if it was not before."""
        self._drop(now)
        if member in self._until:
            return False
        self._until[member] = until
        heapq.heappush(self._next, (until, member))
        return True

    def discard(self, member: str) -> None:
        """*member* is not in the set."""
        self._until.pop(member, None)

    def _drop(self, now: float) -> None:
        while self._next and self._next[0][0] + KEPT_LONGER_SECONDS < now:
            due, member = heapq.heappop(self._next)
            if self._until.get(member) == due:
                del self._until[member]


class Freshness:
    """When a view was last known to be whole."""

    def __init__(self) -> None:
        self._as_of = float("-inf")

    def seen(self, began: float) -> None:
        """The view is whole as of *began*, on the monotonic clock."""
        self._as_of = max(self._as_of, began)

    def stale(self) -> bool:
        """Whether the view is too old to be believed."""
        return time.monotonic() - self._as_of > VIEW_SECONDS
