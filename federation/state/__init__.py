"""The store of spent subject tokens and revoked tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from federation.errors import Refusal

__all__ = ["ONE_BY_ONE", "Observe", "Store", "timed"]

ONE_BY_ONE = 64
"""
How many function tokens of one access token can be revoked one by one.

An access token can be traded for any number of function tokens. If each of them could take room in
the store, one job could fill it. RFC 7009, section 2.1 lets a revocation end related tokens, and a
revocation must never be refused, so the next one ends the access token, and with it all of them.
"""

Observe = Callable[[str, bool, float], None]
"""Called with the operation, whether the store answered, and the seconds that it took."""


class Store(Protocol):
    """
    Remembers spent and revoked tokens for as long as they matter.

    Times are seconds since the epoch. Every method raises Refusal with `state_unavailable`
    if the store cannot answer: the store fails closed.
    """

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """
        Claim *key* atomically. Return True for the first caller and False for every other.

        The key alone counts: a caller that says another *until* is no first one.
        *issued* is when the token was made. A store that lost its data refuses older tokens.
        """

    async def restore(self, key: str) -> None:
        """Give *key* back, because the token that it was spent on was not issued."""

    async def revoke(self, jti: str, until: float, parent: str = "") -> str:
        """
        Revoke the token *jti*, which expires at *until*. Return the token that ended.

        That is *jti*, or its *parent* if `ONE_BY_ONE` other tokens of that parent were revoked
        before. A parent expires when its tokens do.
        """

    async def revoked(self, jti: str) -> bool:
        """Return whether the token *jti* was revoked."""

    async def check(self) -> str:
        """
        Do what an exchange does. Return what is degraded, in a sentence, empty if nothing is.

        Raises: Refusal with `state_unavailable` if an exchange would be refused.
        """

    async def run(self) -> None:
        """Keep the local view of other processes' changes fresh, until cancelled."""

    async def aclose(self) -> None:
        """Close connections and files."""


class timed:  # noqa: N801  used like a function
    """Tells *observe* how long *operation* took and whether the store answered it."""

    __slots__ = ("_began", "_observe", "_operation")

    def __init__(self, observe: Observe | None, operation: str) -> None:
        self._observe, self._operation = observe, operation

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._observe and (kind is None or issubclass(kind, Refusal)):
            self._observe(self._operation, kind is None, time.perf_counter() - self._began)
