"""A store within one process. What it knows is gone when the process ends."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["MemoryStore"]


class MemoryStore:
    """Two sets whose members leave by themselves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spent = _ExpiringSet()
        self._revoked = _ExpiringSet()

    async def spend(self, key: str, until: float) -> bool:
        """Claim *key*; True for the first caller."""
        return self._spent.add(key, until, self._clock())

    async def restore(self, key: str) -> None:
        """Give *key* back."""
        self._spent.discard(key)

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that *jti* was ended."""
        self._revoked.add(jti, until, self._clock())

    async def revoked(self, jti: str) -> bool:
        """Whether *jti* was ended."""
        return jti in self._revoked

    async def aclose(self) -> None:
        """Nothing is held open."""


class _ExpiringSet:
    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._next: list[tuple[float, str]] = []

    def __contains__(self, member: str) -> bool:
        return member in self._until

    def add(self, member: str, until: float, now: float) -> bool:
        while self._next and self._next[0][0] < now:
            due, gone = heapq.heappop(self._next)
            if self._until.get(gone) == due:
                del self._until[gone]
        if member in self._until:
            return False
        self._until[member] = until
        heapq.heappush(self._next, (until, member))
        return True

    def discard(self, member: str) -> None:
        self._until.pop(member, None)
