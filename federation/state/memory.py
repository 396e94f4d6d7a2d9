"""A store in the memory of one process. A restart forgets everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from federation.state import ONE_BY_ONE
from federation.state.expiring import ExpiringSet


class MemoryStore:
    """Keeps spent and revoked tokens in two expiring sets."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spent = ExpiringSet()
        self._revoked = ExpiringSet()
        self._one_by_one: dict[str, int] = {}
        """The number of tokens that were revoked, by their parent."""

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*. Return True for the first caller."""
        return self._spent.add(key, until, self._clock())

    async def restore(self, key: str) -> None:
        """Give *key* back."""
        self._spent.discard(key)

    async def revoke(self, jti: str, until: float, parent: str = "") -> str:
        """Remember that *jti* was revoked."""
        if jti in self._revoked:
            return jti
        if parent:
            count = self._one_by_one[parent] = self._one_by_one.get(parent, 0) + 1
            jti = jti if count <= ONE_BY_ONE else parent
        self._revoked.add(jti, until, self._clock())
        return jti

    async def revoked(self, jti: str) -> bool:
        """Return whether *jti* was revoked."""
        return jti in self._revoked

    async def check(self) -> str:
        """Return nothing: memory is always there."""
        return ""

    async def run(self) -> None:
        """Wait until cancelled; there is nothing to refresh."""
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Do nothing; the store holds nothing open."""
