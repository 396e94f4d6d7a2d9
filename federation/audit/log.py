"""One line of the structured log for each audit event, with the evidence beside it."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from federation.audit import Journal
from federation.audit.event import Event
from federation.errors import Refusal

__all__ = ["LOGGER", "LoggedJournal", "facts"]


LOGGER = "federation.audit"


class LoggedJournal:
    """
    Records in *journal*, then tells the log: what the log calls granted is on disk.

    *info* writes the line of each event.
    """

    def __init__(self, journal: Journal, info: Callable[..., None] | None = None) -> None:
        self._journal = journal
        self._log = structlog.get_logger(LOGGER)
        self._info = info

    def check(self) -> None:
        """
        As far as is known, events can be recorded.

        Raises: Refusal with `audit_unavailable` where they cannot.
        """
        self._journal.check()

    async def record(self, event: Event) -> None:
        """
        *event* is recorded and a line of the log.

        Raises: Refusal with `audit_unavailable`.
        """
        try:
            await self._journal.record(event)
        except Refusal as refusal:
            self._log.error(
                "audit event not recorded",
                event_id=event.event_id,
                **facts(event),
                **refusal.evidence,
            )
            raise
        why = {"reason": event.reason, "evidence": event.evidence}
        info = self._info or self._log.info
        info(
            "audit",
            event_id=event.event_id,
            **facts(event),
            **{name: fact for name, fact in why.items() if fact},
        )


def facts(event: Event) -> dict[str, object]:
    """What a line of the log says of the request that *event* tells of."""
    return {
        "request_id": event.request_id,
        "method": event.method,
        "path": event.path,
        "response_code": event.response_code,
        "sub": event.actor and event.actor.sub,
        "fed_issuer": event.actor and event.actor.fed_issuer,
        "roles": event.roles,
        "policies": event.policies,
        "token_sha256": event.token_sha256,
    }
