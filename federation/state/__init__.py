"""The store of spent subject tokens and revoked tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from federation.errors import Refusal

__all__ = ["Observe", "Store", "timed"]

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

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that the token *jti*, which expires at *until*, was revoked."""

    async def revoked(self, jti: str) -> bool:
        """Return whether the token *jti* was revoked."""

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
