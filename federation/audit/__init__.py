"""The audit trail: one event per exchange attempt, whatever its outcome, never with a token."""

from __future__ import annotations

from typing import Protocol

from federation.audit.event import Event

__all__ = ["Journal"]


class Journal(Protocol):
    """Records events before their response leaves."""

    def check(self) -> None:
        """Raise a Refusal with `audit_unavailable` if no event can be recorded, as far as known."""

    async def record(self, event: Event) -> None:
        """Record *event* durably. Raises: Refusal with `audit_unavailable`."""
