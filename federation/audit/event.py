"""
Audit events, built from the facts that were proven about a request.

A `Trail` begins empty and gains facts as they are proven. A fact that was not proven is not
written. Its `event` is OpenFaaS's audit event with the broker's own fields. Text from a caller
that looks like a token is replaced, wherever it stands.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import NamedTuple

from federation.errors import HttpError, Reason

# The first characters of a JSON object in base64url: `{"`, or `{` and white space. The pattern
# cannot fail after its 17th character, so it reads each text once: no quadratic search.
_TOKEN = re.compile(r"(?:eyJ|eyA|eyI|ewo|ew0|ewk)[A-Za-z0-9_-]{17,}(?:\.[A-Za-z0-9_-]*){0,4}")
_MESSAGE_CHARS = 16 * 1024
_VALUE_CHARS = 300
_LIST_ITEMS = 50


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
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    reason: Reason | None
    custom_message: str
    """The sentence that the caller got and, after a refusal, the evidence for it."""
    token_sha256: str | None
    evidence: Mapping[str, object] = MappingProxyType({})
    """The evidence as an object, for the log."""

    def as_json(self) -> dict[str, object]:
        """Return the event's members, without `actor` if nobody was identified."""
        members = self._asdict()
        del members["evidence"], members["actor"]  # `custom_message` holds the evidence
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
    actor: Actor | None = None
    actions: tuple[str, ...] = ()
    namespace: str = ""
    roles: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    reason: Reason | None = None
    message: str = ""
    token_sha256: str | None = None
    evidence: dict[str, object] = field(default_factory=dict)

    def refused(self, error: HttpError) -> None:
        """Record that the request ended with *error*."""
        self.reason = error.reason
        self.message = error.public
        if error.evidence:
            self.evidence = dict(error.evidence)

    def event(self, response_code: int) -> Event:
        """Return the event of the request, which was answered with *response_code*."""
        evidence = {name: _plain(value) for name, value in self.evidence.items()}
        return Event(
            event_id=fresh_id(),
            request_id=self.request_id,
            time=_written(self.started),
            path=_without_tokens(self.path),
            method=self.method,
            response_code=response_code,
            actor=self.actor and _named(self.actor),
            actions=self.actions,
            namespace=self.namespace,
            roles=self.roles,
            policies=self.policies,
            reason=self.reason,
            custom_message=_message(self.message, evidence),
            token_sha256=self.token_sha256,
            evidence=evidence,
        )


def fresh_id() -> str:
    """Return a unique id for an event or a request. It is no secret and can be guessed."""
    return f"{random.getrandbits(128):032x}"


def token_sha256(token: str) -> str:
    """Return the lower-case hex SHA-256 that stands for *token* in events."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _written(seconds: float) -> str:
    """Return RFC 3339 with all six digits, so that times sort as text."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _named(actor: Actor) -> Actor:
    return Actor(_without_tokens(actor.sub), actor.issuer, _without_tokens(actor.fed_issuer))


def _message(sentence: str, evidence: Mapping[str, object]) -> str:
    """Return *sentence* and *evidence*, for which OpenFaaS's schema has no member."""
    if not evidence:
        return _without_tokens(sentence)
    both = f"{_without_tokens(sentence)} Evidence: {json.dumps(evidence, ensure_ascii=False)}"
    return both if len(both) <= _MESSAGE_CHARS else both[:_MESSAGE_CHARS] + "..."


def _plain(value: object) -> object:
    """Return *value* as bounded JSON without tokens."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(str(key))): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in list(value)[:_LIST_ITEMS]]
    text = _without_tokens(str(value))
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "..."


def _without_tokens(text: str) -> str:
    """Replace whatever in *text* looks like a JWT or the beginning of one."""
    if "ey" not in text and "ew" not in text:
        return text
    return _TOKEN.sub("(a token)", text)
