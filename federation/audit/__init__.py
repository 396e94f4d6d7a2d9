"""
The audit trail: events of what callers got and were refused, never with a token.

Every grant, and every refusal of a job that a Role admits, has an event on disk before the answer.
Refusals of other signed tokens are recorded if there is room. Requests without a valid token are
only counted and logged.
"""

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
