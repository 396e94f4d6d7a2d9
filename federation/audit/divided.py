"""
Keeps the events of outsiders apart from those that are owed.

Anybody can cause events of outsiders, as many as they like. They have a journal of their own, where
they displace only each other, and no request fails because one of them was lost.
"""

from __future__ import annotations

from collections.abc import Callable

from federation.audit import Journal
from federation.audit.event import Event
from federation.errors import Refusal


class DividedJournal:
    """
    Records the events that are *owed* in one journal, and those of *outsiders* in another.

    An event of an outsider that cannot be recorded is lost, and *on_lost* is called.
    """

    def __init__(self, owed: Journal, outsiders: Journal, on_lost: Callable[[], None]) -> None:
        self._owed = owed
        self._outsiders = outsiders
        self._on_lost = on_lost

    def check(self) -> None:
        """Raise a Refusal with `audit_unavailable` if no owed event can be recorded."""
        self._owed.check()

    async def record(self, event: Event) -> None:
        """Write *event* to disk. Raises: Refusal with `audit_unavailable`, if it is owed."""
        if event.owed:
            await self._owed.record(event)
            return
        try:
            await self._outsiders.record(event)
        except Refusal:
            self._on_lost()
