"""Audit events as lines of the structured log."""

from __future__ import annotations

import structlog

from federation.audit.event import Event

__all__ = ["LogJournal"]


class LogJournal:
    """Writes each event to the log, at once."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("federation.audit")

    async def record(self, event: Event) -> None:
        """*event* is a line of the log."""
        self._log.info("audit", **event.as_json())
