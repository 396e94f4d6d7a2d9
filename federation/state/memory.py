"""A store within one process. What it knows is gone when the process ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from federation.state.expiring import ExpiringSet

__all__ = ["MemoryStore"]


class MemoryStore:
    """Two sets whose members leave by themselves."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spent = ExpiringSet()
        self._revoked = ExpiringSet()

    async def spend(self, key: str, until: float, issued: float) -> bool:
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

    async def run(self) -> None:
        """There is nothing to keep fresh."""
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Nothing is held open."""
