"""One event per exchange attempt, whatever its outcome. Tokens never appear in one."""

from __future__ import annotations

from typing import Protocol

from federation.audit.event import Event

__all__ = ["Journal"]


class Journal(Protocol):
    """Where events go before their response leaves."""

    def check(self) -> None:
        """
        As far as is known, events can be recorded.

        Raises: Refusal with `audit_unavailable` where they cannot.
        """

    async def record(self, event: Event) -> None:
        """
        *event* is recorded.

        Raises: Refusal with `audit_unavailable` where it cannot be.
        """
