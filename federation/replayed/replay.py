"""
Decides the events of a trail again, and compares with what was recorded or what other documents say.

A request is decided by the exchange that granted its token, which its event names by a digest.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple, TypeVar

from federation.audit.read import StoredEvent
from federation.audit.recorded import (
    NotDecided,
    RecordedExchange,
    RecordedRequest,
    recorded,
    was_cut,
)
from federation.claims import text
from federation.documents.catalog import Catalog
from federation.policy.permissions import Access
from federation.policy.replay import (
    Given,
    Kind,
    Outcome,
    Report,
    Sample,
    of_exchange,
    of_request,
)
from federation.providers.table import PROFILES
from federation.replayed.decider import (
    NAMES_CUT,
    SHADOW_NOT_KEPT,
    Decider,
    Token,
    Undecided,
)

_TOKENS = 200_000
_EVENT_IDS = 100_000
_WHO_CHARS = 1024

NO_EXCHANGE = (
    "The exchange that granted the token is not in what was read, and its event names no Role."
)

Kept = TypeVar("Kept")


class Known(NamedTuple):
    """A token whose exchange was read, with its result by the new and by the old documents."""

    who: str
    roles: tuple[str, ...]
    """The Roles that the exchange recorded."""
    new: Token | Undecided
    old: Token | Undecided | None


class Replay:
    """Decides events again by *new*, and compares: with what was recorded, or with *old*."""

    def __init__(self, new: Catalog, old: Catalog | None = None) -> None:
        self.report = Report()
        self.events = 0
        self.unreadable = 0
        self.repeated = 0
        self.by_roles = 0
        """The requests that were decided by the Roles that they name, without their exchange."""
        self.first = self.last = ""
        self._new = Decider(new)
        self._old = Decider(old) if old is not None else None
        self._tokens: dict[bytes, Known] = {}
        """By the digest of the token."""
        self._ids: dict[bytes, None] = {}

    def add(self, event: StoredEvent | None) -> None:
        """Count one event of the trail; None is one that could not be read."""
        self.events += 1
        if event is None:
            self.unreadable += 1
            return
        try:
            found = recorded(event)
            sample = Sample(str(event["event_id"]), str(event["time"]))
            if self._seen(sample.event_id):
                self.repeated += 1
                return
            self._add(found, sample)
        except ValueError:
            self.unreadable += 1
            return
        self.first = min(self.first or sample.time, sample.time)
        self.last = max(self.last, sample.time)

    def _seen(self, event_id: str) -> bool:
        """Return whether the event came before. Events are delivered at least once."""
        digest = _digest(event_id)
        if digest in self._ids:
            return True
        _remember(self._ids, digest, None, _EVENT_IDS)
        return False

    def _add(self, found: RecordedExchange | RecordedRequest | NotDecided, sample: Sample) -> None:
        try:
            match found:
                case NotDecided():
                    self.report.leave_out(found.why, sample)
                case RecordedExchange():
                    self._exchange(found, sample)
                case RecordedRequest():
                    self._request(found, sample)
        except Undecided as undecided:
            self.report.not_decided(str(undecided), sample)

    def _exchange(self, event: RecordedExchange, sample: Sample) -> None:
        if event.claims is None and (known := self._known(event.token)):
            self._link(event.issued, known)
            self.report.leave_out("an access token became a function token", sample)
            return
        new = _tried(self._new, event)
        old = _tried(self._old, event) if self._old is not None else None
        known = Known(_who(event), event.roles, new, old)
        self._link(event.issued, known)
        before = Outcome(event.roles, event.policies, event.reason or "", event.shadow_roles)
        given = self._given
        if self._old is not None and old is not None:
            before = _certain(old).outcome
        elif was_cut(event.roles) or was_cut(event.policies):
            raise Undecided(NAMES_CUT)
        found = of_exchange(known.who, before, _certain(new).outcome, given, self._new.given)
        self.report.add(Kind.EXCHANGE, found, sample, given.only_denies)
        if lacking := _certain(new).shadows_read:
            self.report.not_decided(SHADOW_NOT_KEPT.format(", ".join(sorted(lacking))), sample)

    @property
    def _given(self) -> Given:
        """The facts of the older documents; without these, only which new Policies only deny."""
        return self._old.given if self._old else Given({}, self._new.given.only_denies)

    def _known(self, token: str | None) -> Known | None:
        return self._tokens.get(_digest(token)) if token else None

    def _link(self, token: str | None, known: Known) -> None:
        if token:
            _remember(self._tokens, _digest(token), known, _TOKENS)

    def _request(self, event: RecordedRequest, sample: Sample) -> None:
        known = self._known(event.token)
        if known is None or isinstance(known.new, Undecided):
            new = self._new.held_by_roles(event)
            if new is None:
                raise Undecided(NO_EXCHANGE)
            old = self._old.held_by_roles(event) if self._old is not None else None
            known = Known(event.actor.sub, event.roles, new, old)
            self.by_roles += 1
        after, why = _allowed(self._new, known.new, event.access)
        before, why_not = event.allowed, ""
        if self._old is not None and known.old is not None:
            before, why_not = _allowed(self._old, known.old, event.access)
        asked = ", ".join(f"{each.action}={each.resource}" for each in event.access)
        roles = event.roles or known.roles  # a function token names none
        found = of_request(known.who, roles, asked, (before, after), why_not if after else why)
        self.report.add(Kind.REQUEST, found, sample, self._given.only_denies)

    def as_json(self) -> dict[str, object]:
        """The report for programs."""
        return {
            "events": self.events,
            "unreadable": self.unreadable,
            "repeated": self.repeated,
            "by_roles": self.by_roles,
            "first": self.first or None,
            "last": self.last or None,
            **self.report.as_json(),
        }


def _tried(decider: Decider, event: RecordedExchange) -> Token | Undecided:
    try:
        return decider.exchange(event)
    except Undecided as undecided:
        return undecided


def _certain(token: Token | Undecided) -> Token:
    if isinstance(token, Undecided):
        raise token.with_traceback(None)
    return token


def _allowed(
    decider: Decider, token: Token | Undecided, access: Iterable[Access]
) -> tuple[bool, str]:
    """Return whether *token* may do all of *access*, and if not, why. Raises: Undecided."""
    certain = _certain(token)
    if not certain.outcome.granted:
        return False, certain.outcome.reason
    for each in access:
        decision = decider.request(certain, each)
        if not decision.allowed:
            by = f"denied by {decision.policy}/{decision.sid}" if decision.policy else "not allowed"
            return False, by
    return True, ""


def _who(event: RecordedExchange) -> str:
    """Return the repository or project of the caller, else its subject."""
    claims = event.claims or {}
    for path in _PATHS:
        found = text(claims.get(path))
        if found is not None and path not in event.claims_cut:
            return found[:_WHO_CHARS]
    return (text(claims.get("sub")) or event.actor.sub)[:_WHO_CHARS]


def _remember(kept: dict[bytes, Kept], key: bytes, value: Kept, most: int) -> None:
    """Keep *value*, and of all values the newest *most*."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
    kept[key] = value


_PATHS = tuple(
    dict.fromkeys(path for profile in PROFILES.values() for path in profile.owner.paths[:1])
)
"""The claims that name the code, by their provider's facts."""


def _digest(name: str) -> bytes:
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
