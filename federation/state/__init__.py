"""What the broker must remember: spent subject tokens and revoked tokens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Store"]


class Store(Protocol):
    """
    Remembers what was spent and revoked until it no longer matters.

    Times are seconds since the epoch. Every method raises Refusal with `state_unavailable`
    where the store cannot answer: nobody is waved through.
    """

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """
        Claim *key*, atomically; True for the one caller that was first.

        *issued* is when the token was made: a store that lost its memory answers for no token
        older than that.
        """

    async def restore(self, key: str) -> None:
        """Give *key* back, because what it was spent on was not given."""

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that the token *jti*, which expires at *until*, was ended."""

    async def revoked(self, jti: str) -> bool:
        """Whether the token *jti* was ended."""

    async def run(self) -> None:
        """What others spent and revoked stays known here, until cancelled."""

    async def aclose(self) -> None:
        """Release what the store holds open."""
