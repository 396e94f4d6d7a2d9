"""Writes one line of the structured log for each audit event and refusal, with its evidence."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from federation.audit import Journal
from federation.audit.event import Event, Trail
from federation.errors import Refusal

LOGGER = "federation.audit"


class LoggedJournal:
    """
    Records each event in *journal* and then logs it, so that a logged grant is on disk.

    *info* writes the line.
    """

    def __init__(self, journal: Journal, info: Callable[..., None] | None = None) -> None:
        self._journal = journal
        self._log = structlog.get_logger(LOGGER)
        self._info = info

    def check(self) -> None:
        """Raise a Refusal with `audit_unavailable` if no event can be recorded, as far as known."""
        self._journal.check()

    async def record(self, event: Event) -> None:
        """Record *event*, then log it. Raises: Refusal with `audit_unavailable`."""
        try:
            await self._journal.record(event)
        except Refusal as refusal:
            # Strangers can cause lost events of outsiders, which call for no operator.
            log = self._log.error if event.owed else self._log.warning
            log(
                "audit event not recorded",
                event_id=event.event_id,
                **facts(event),
                **refusal.evidence,
            )
            raise
        info = self._info or self._log.info
        info("audit", event_id=event.event_id, **_facts_and_reason(event))


def log_refusal(trail: Trail, refusal: Refusal) -> None:
    """Log an exchange that was refused before it was known whose it is. It makes no event."""
    event = trail.event(refusal.status)
    structlog.get_logger(LOGGER).info("exchange refused", **_facts_and_reason(event))


def _facts_and_reason(event: Event) -> dict[str, object]:
    line = facts(event)
    if event.reason:
        line["reason"] = event.reason
    if event.shadow_roles:
        line["shadow_roles"] = event.shadow_roles
    if event.evidence:
        line["evidence"] = event.evidence
    return line


def facts(event: Event) -> dict[str, object]:
    """Return the facts of *event* that a log line about its request has."""
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
