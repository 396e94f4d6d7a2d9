"""
What an audit event says, built from the facts that a road has proven.

A `Trail` begins empty and gains facts as they are proven; what was never proven is never
written. Its `event` is OpenFaaS's audit event with the broker's own fields beside it.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from federation.errors import Reason, Refusal

__all__ = ["Actor", "Event", "Trail", "token_sha256"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asked: the subject as access tokens name it, the broker, the federated issuer."""

    sub: str
    issuer: str
    fed_issuer: str


@dataclass(frozen=True, slots=True)
class Event:
    """One finished event, as it is written and delivered."""

    event_id: str
    request_id: str
    time: str
    path: str
    method: str
    response_code: int
    actor: Actor | None
    actions: tuple[str, ...]
    namespace: str
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    reason: Reason | None
    custom_message: str
    token_sha256: str | None

    def as_json(self) -> dict[str, object]:
        """The event's members; `actor` is left out where nobody was identified."""
        members = asdict(self)
        return members if self.actor else {k: v for k, v in members.items() if k != "actor"}


@dataclass(slots=True)
class Trail:
    """The facts of one request, as far as they are proven."""

    request_id: str
    method: str
    path: str
    started: float
    actor: Actor | None = None
    actions: tuple[str, ...] = ()
    namespace: str = ""
    roles: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    reason: Reason | None = None
    message: str = ""
    token_sha256: str | None = None
    evidence: dict[str, object] = field(default_factory=dict)

    def refused(self, refusal: Refusal) -> None:
        """The road ended with *refusal*."""
        self.reason = refusal.reason
        self.message = refusal.public
        self.evidence = dict(refusal.evidence)

    def event(self, response_code: int) -> Event:
        """The event of a request that was answered with *response_code*."""
        return Event(
            event_id=uuid.uuid4().hex,
            request_id=self.request_id,
            time=datetime.fromtimestamp(self.started, UTC).isoformat().replace("+00:00", "Z"),
            path=self.path,
            method=self.method,
            response_code=response_code,
            actor=self.actor,
            actions=self.actions,
            namespace=self.namespace,
            roles=self.roles,
            policies=self.policies,
            reason=self.reason,
            custom_message=self.message,
            token_sha256=self.token_sha256,
        )


def token_sha256(token: str) -> str:
    """The lower-case hex SHA-256 by which a trail names a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
