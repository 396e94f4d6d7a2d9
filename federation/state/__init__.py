"""The store of spent subject tokens and revoked tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def timed(observe: Observe | None, operation: str) -> Iterator[None]:
    """Tell *observe* how long *operation* took and whether the store answered it."""
    began = time.perf_counter()
    try:
        yield
    except Refusal:
        if observe:
            observe(operation, False, time.perf_counter() - began)
        raise
    if observe:
        observe(operation, True, time.perf_counter() - began)
