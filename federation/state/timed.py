"""A store whose every answer is timed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from federation.errors import Refusal
from federation.state import Store

__all__ = ["Observe", "TimedStore"]

Result = TypeVar("Result")

Observe = Callable[[str, bool, float], None]
"""Is told the operation, whether it was answered, and the seconds it took."""


class TimedStore:
    """*store*, telling *observe* of each claim, its return, and each revocation."""

    def __init__(self, store: Store, observe: Observe) -> None:
        self._store = store
        self._observe = observe

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*; True for the first caller."""
        return await self._timed("spend", self._store.spend(key, until, issued))

    async def restore(self, key: str) -> None:
        """Give *key* back."""
        await self._timed("restore", self._store.restore(key))

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that *jti* was ended."""
        await self._timed("revoke", self._store.revoke(jti, until))

    async def revoked(self, jti: str) -> bool:
        """Whether *jti* was ended; answered from memory, so it is not timed."""
        return await self._store.revoked(jti)

    async def run(self) -> None:
        """What others spent and revoked stays known here, until cancelled."""
        await self._store.run()

    async def aclose(self) -> None:
        """Release what the store holds open."""
        await self._store.aclose()

    async def _timed(self, operation: str, asked: Awaitable[Result]) -> Result:
        began = time.perf_counter()
        try:
            result = await asked
        except Refusal:
            self._observe(operation, False, time.perf_counter() - began)
            raise
        self._observe(operation, True, time.perf_counter() - began)
        return result
