"""
Audit events, built from the facts that were proven about a request.

A `Trail` begins empty and gains facts as they are proven. A fact that was not proven is not
written. Its `event` is OpenFaaS's audit event with the broker's own fields. Text from a caller
that looks like a token is replaced, wherever it stands, and no field is longer than 1 KiB: a caller
decides what a request costs the journal no more than that.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from federation.errors import HttpError, Reason
from federation.jose.strict_json import dumps_ascii

# The first characters of a JSON object in base64url: `{"`, or `{` and white space. The pattern
# cannot fail after its 17th character, so it reads each text once: no quadratic search.
_TOKEN = re.compile(r"(?:eyJ|eyA|eyI|ewo|ew0|ewk)[A-Za-z0-9_-]{17,}(?:\.[A-Za-z0-9_-]*){0,4}")
_FIELD_BYTES = 1024
"""The most that a member of an event takes in the journal, as JSON in ASCII."""
_SENTENCE_BYTES = 256
"""The most that the sentence in `custom_message` takes if the evidence does not fit beside it."""
_SURELY_FITS = 80
"""So many characters fit whatever they are: JSON escapes one with at most 12 bytes."""
_EVIDENCE_BYTES = 16 * 1024
"""The most that the evidence takes in the log, where it is an object."""
_VALUE_CHARS = 300
_LIST_ITEMS = 50
_CUT = "..."


class Standing(Enum):
    """How well the broker knows the caller of a request. It decides what becomes of the event."""

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
    roles: tuple[str, ...]
    policies: tuple[str, ...]
    reason: Reason | None
    custom_message: str
    """The sentence that the caller got and, after a refusal, the evidence for it."""
    token_sha256: str | None
    evidence: Mapping[str, object] = MappingProxyType({})
    """The evidence as an object, for the log."""
    owed: bool = True
    """False for an event that may be displaced before the webhook has it."""

    def as_json(self) -> dict[str, object]:
        """Return the event's members, without `actor` if nobody was identified."""
        members = self._asdict()
        # `custom_message` holds the evidence, and where an event is kept is no fact about it.
        del members["evidence"], members["actor"], members["owed"]
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
        evidence = _bounded(self.evidence) if self.evidence else {}
        return Event(
            event_id=fresh_id(),
            request_id=self.request_id,
            time=_written(self.started),
            path=shown_path(self.path),
            method=_cut(self.method),
            response_code=response_code,
            actor=self.actor and shown_actor(self.actor),
            actions=_cut_list(self.actions),
            namespace=_cut(self.namespace),
            roles=_cut_list(self.roles),
            policies=_cut_list(self.policies),
            reason=self.reason,
            custom_message=_message(self.message, evidence),
            token_sha256=self.token_sha256,
            evidence=evidence,
            owed=self.standing is Standing.ADMITTED,
        )


def fresh_id() -> str:
    """Return a unique id for an event or a request. It is no secret and can be guessed."""
    return f"{random.getrandbits(128):032x}"


def token_sha256(token: str) -> str:
    """Return the lower-case hex SHA-256 that stands for *token* in events."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def shown_path(path: str) -> str:
    """Return *path* without tokens and cut to the length of a field, for the trail and the log."""
    return _cut(_without_tokens(path))


def shown_actor(actor: Actor) -> Actor:
    """Return *actor* as the trail and the log name it: without tokens, each part cut."""
    return Actor(
        _cut(_without_tokens(actor.sub)),
        _cut(actor.issuer),
        _cut(_without_tokens(actor.fed_issuer)),
    )


def _written(seconds: float) -> str:
    """Return RFC 3339 with all six digits, so that times sort as text."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _message(sentence: str, evidence: Mapping[str, object]) -> str:
    """Return *sentence* and *evidence*, for which OpenFaaS's schema has no member, as one field."""
    sentence = _without_tokens(sentence)
    if not evidence:
        return _cut(sentence)
    told = f" Evidence: {json.dumps(evidence, ensure_ascii=False, separators=(',', ':'))}"
    if len(dumps_ascii(sentence + told)) > _FIELD_BYTES:
        # The caller has the sentence, and the evidence mostly says the same with expected values.
        sentence = _cut(sentence, _SENTENCE_BYTES)
    return _cut(sentence + told)


def _cut(text: str, most: int = _FIELD_BYTES) -> str:
    """Return *text*, or as much of its beginning as takes *most* bytes in the journal."""
    if len(text) <= _SURELY_FITS or len(dumps_ascii(text)) <= most:
        return text
    text = text[: most - len(_CUT)]
    while (size := len(dumps_ascii(text + _CUT))) > most:
        text = text[: -max(1, (size - most) // 12)]  # an escape has at most 12 bytes
    return text + _CUT


def _cut_list(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return *items*, or those that fit into a field and then how many there are besides."""
    if not items or len(dumps_ascii(items)) <= _FIELD_BYTES:
        return items
    kept: list[str] = []
    left = _FIELD_BYTES - len('["(and 1000000 more)"]')
    for item in items:
        left -= len(dumps_ascii(item)) + 1
        if left < 0:
            break
        kept.append(item)
    return (*kept, f"(and {len(items) - len(kept)} more)")


def _bounded(evidence: Mapping[str, object]) -> dict[str, object]:
    """Return *evidence* as JSON without tokens; if it is large, the beginning of its text."""
    plain = {name: _plain(value) for name, value in evidence.items()}
    if len(dumps_ascii(plain)) <= _EVIDENCE_BYTES:
        return plain
    return {"beginning": _cut(json.dumps(plain, ensure_ascii=False), _EVIDENCE_BYTES)}


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
