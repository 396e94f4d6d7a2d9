"""
Audit events, built from the facts that were proven about a request.

A `Trail` begins empty and gains facts as they are proven. A fact that was not proven is not
written. Its `event` is OpenFaaS's audit event with the broker's own fields. Text from a caller
that looks like a token is replaced, wherever it stands, and no field is longer than 1 KiB, apart
from `claims` with 8 KiB: a caller decides what a request costs the journal no more than that.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from federation.audit.bounds import FIELD_BYTES, bounded, cut, cut_list, without_tokens
from federation.audit.kept_claims import kept
from federation.errors import HttpError, Reason
from federation.jose.strict_json import dumps_ascii

_SENTENCE_BYTES = 256
"""The most that the sentence in `custom_message` takes if the evidence does not fit beside it."""


_MAY_LACK = (
    *("resource", "claims_cut", "shadow_roles", "shadow_policies"),
    *("roles_asked", "scope", "audience", "issued_token_sha256"),
)
"""Members that an event has only if there is something to say."""


class Standing(Enum):
    """The caller's standing: how far it is verified and admitted. It decides how the event is kept."""

    UNKNOWN = "unknown"
    """There is no valid token. The request makes no event, but is counted and logged."""
    OUTSIDER = "outsider"
    """
    A token of a trusted issuer for this broker that no Role admitted, or an anonymous call of an
    open function. Anybody can cause as many as they like, so these events have a small part of the
    journal, where they displace only each other.
    """
    ADMITTED = "admitted"
    """A Role admitted the caller, or it holds a token of the broker. Its event is owed."""


class Actor(NamedTuple):
    """The caller: the subject as in access tokens, the broker, the federated issuer."""

    sub: str
    issuer: str
    fed_issuer: str


class Event(NamedTuple):
    """A finished event, as it is written and delivered."""

    event_id: str
    request_id: str
    time: str
    path: str
    method: str
    response_code: int
    actor: Actor | None
    actions: tuple[str, ...]
    namespace: str
    resource: str
    """The namespace and function that a gateway request is about; empty for everything else."""
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    reason: Reason | None
    custom_message: str
    """The sentence that the caller got and, after a refusal, the evidence for it."""
    token_sha256: str | None
    evidence: Mapping[str, object] = MappingProxyType({})
    """The evidence as an object, for the log."""
    claims: Mapping[str, object] | None = None
    """The claims of the subject token, as far as the setting `audit-claims` keeps them."""
    claims_cut: tuple[str, ...] = ()
    """The names of claims whose value `claims` lacks or has changed. They must not be believed."""
    roles_asked: tuple[str, ...] = ()
    """The Roles that the job asked for with `role`. Other Roles that admit it gave nothing."""
    scope: str = ""
    """`function` if the exchange asked for a function token."""
    audience: tuple[str, ...] = ()
    """The functions that the function token was asked for; empty for all that it may call."""
    issued_token_sha256: str | None = None
    """The digest of the token that was granted, by which events of its requests are found."""
    shadow_roles: tuple[str, ...] = ()
    """The shadow Roles that would have admitted the subject token. They gave nothing."""
    shadow_policies: tuple[str, ...] = ()
    """The policies that they would have given."""
    owed: bool = True
    """False for an event that may be displaced before the webhook has it."""

    def as_json(self) -> dict[str, object]:
        """Return the event's members, without those that it lacks, such as `actor`."""
        # `custom_message` holds the evidence, and where an event is kept is no fact about it.
        members: dict[str, object] = {
            "event_id": self.event_id,
            "request_id": self.request_id,
            "time": self.time,
            "path": self.path,
            "method": self.method,
            "response_code": self.response_code,
            "actions": self.actions,
            "namespace": self.namespace,
            "roles": self.roles,
            "policies": self.policies,
            "reason": self.reason,
            "custom_message": self.custom_message,
            "token_sha256": self.token_sha256,
        }
        for name in _MAY_LACK:
            if value := getattr(self, name):
                members[name] = value
        if self.claims is not None:
            members["claims"] = self.claims
        if self.actor is not None:
            members["actor"] = self.actor._asdict()
        return members


@dataclass(slots=True)
class Trail:
    """The facts of one request that are proven so far."""

    request_id: str
    method: str
    path: str
    started: float
    standing: Standing = Standing.UNKNOWN
    actor: Actor | None = None
    actions: tuple[str, ...] = ()
    namespace: str = ""
    resource: str = ""
    roles: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    shadow_roles: tuple[str, ...] = ()
    shadow_policies: tuple[str, ...] = ()
    reason: Reason | None = None
    message: str = ""
    token_sha256: str | None = None
    evidence: dict[str, object] = field(default_factory=dict)
    claims: Mapping[str, object] | None = None
    """All claims of the subject token, if its event keeps claims."""
    claims_left_out: frozenset[str] = frozenset()
    """The names of those that it does not keep."""
    roles_asked: tuple[str, ...] = ()
    scope: str = ""
    audience: tuple[str, ...] = ()
    issued_token_sha256: str | None = None

    def refused(self, error: HttpError) -> None:
        """Record that the request ended with *error*."""
        self.reason = error.reason
        self.message = error.public
        if error.evidence:
            self.evidence = dict(error.evidence)

    def event(self, response_code: int) -> Event:
        """Return the event of the request, which was answered with *response_code*."""
        evidence = bounded(self.evidence) if self.evidence else {}
        claims: Mapping[str, object] | None = None
        claims_cut: tuple[str, ...] = ()
        if self.claims is not None:
            claims, claims_cut = kept(self.claims, self.claims_left_out)
        return Event(
            event_id=fresh_id(),
            request_id=self.request_id,
            time=_written(self.started),
            path=shown_path(self.path),
            method=cut(self.method),
            response_code=response_code,
            actor=self.actor and shown_actor(self.actor),
            actions=self.actions and cut_list(self.actions),
            namespace=self.namespace and cut(self.namespace),
            resource=self.resource and cut(self.resource),
            roles=cut_list(self.roles),
            policies=cut_list(self.policies),
            reason=self.reason,
            custom_message=_message(self.message, evidence),
            token_sha256=self.token_sha256,
            evidence=evidence,
            owed=self.standing is Standing.ADMITTED,
            claims=claims,
            claims_cut=claims_cut,
            roles_asked=self.roles_asked and _shown_list(self.roles_asked),
            scope=self.scope,
            audience=self.audience and _shown_list(self.audience),
            # A token whose event could not be recorded was not given.
            issued_token_sha256=None if self.reason else self.issued_token_sha256,
            shadow_roles=self.shadow_roles and cut_list(self.shadow_roles),
            shadow_policies=self.shadow_policies and cut_list(self.shadow_policies),
        )


def fresh_id() -> str:
    """Return a unique id for an event or a request. It is no secret and can be guessed."""
    return f"{random.getrandbits(128):032x}"


def token_sha256(token: str) -> str:
    """Return the lower-case hex SHA-256 that stands for *token* in events."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def shown_path(path: str) -> str:
    """Return *path* without tokens and cut to the length of a field, for the trail and the log."""
    return cut(without_tokens(path))


def shown_actor(actor: Actor) -> Actor:
    """Return *actor* as the trail and the log name it: without tokens, each part cut."""
    return Actor(
        cut(without_tokens(actor.sub)),
        cut(actor.issuer),
        cut(without_tokens(actor.fed_issuer)),
    )


def _shown_list(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a caller asked for without tokens, as much as fits into a field."""
    return cut_list(tuple(map(without_tokens, asked)))


def _written(seconds: float) -> str:
    """Return RFC 3339 with all six digits, so that times sort as text."""
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


def _message(sentence: str, evidence: Mapping[str, object]) -> str:
    """Return *sentence* and *evidence*, for which OpenFaaS's schema has no member, as one field."""
    if not sentence and not evidence:
        return ""
    sentence = without_tokens(sentence)
    if not evidence:
        return cut(sentence)
    told = f" Evidence: {json.dumps(evidence, ensure_ascii=False, separators=(',', ':'))}"
    if len(dumps_ascii(sentence + told)) > FIELD_BYTES:
        # The caller has the sentence, and the evidence mostly says the same with expected values.
        sentence = cut(sentence, _SENTENCE_BYTES)
    return cut(sentence + told)
