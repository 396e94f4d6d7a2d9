"""
The facts about one Role that the trust rules share: its conditions, their places, its issuers.

A condition *narrows* if it is positive and keeps some tokens of the provider out: none of its
values is only wildcards or covers every value that the claim can have. Only conditions that narrow
make a Role safer, so the rules count no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from federation.documents.catalog import role_issuers
from federation.documents.model import JwtIssuer, Role
from federation.documents.rules.owners import OWNER_KEYS, OwnerKeys, only_wildcards, owner_pins
from federation.documents.rules.rule_keys import RULE_KEYS, RuleKeys
from federation.policy.conditions import KEY_PREFIX, Condition, Operator
from federation.providers.profile import Shape
from federation.providers.table import GENERIC, PROFILES, Profile, known_provider
from federation.text import quoted

Place: TypeAlias = tuple[str | int, ...]


class Fault(NamedTuple):
    """A problem that a rule finds in a document, at *place*."""

    place: Place
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class PlacedCondition:
    """A condition, the place in its document where it was written, and its kind."""

    condition: Condition
    key: str
    """The condition's key, with its `jwt:` prefix."""
    claim: str
    """The key without its prefix."""
    place: Place
    positive: bool
    """True if the claim must be among the values."""
    pattern: bool
    """True if it is positive and its values may hold wildcards."""
    narrows: bool
    """True if it is positive and keeps some values of the claim out."""

    @classmethod
    def of(cls, condition: Condition, place: Place, profile: Profile) -> PlacedCondition:
        positive = not condition.operator.negative
        pattern = positive and condition.operator.pattern
        open_to_all = pattern and any(only_wildcards(condition, v) for v in condition.values)
        claim = condition.key.removeprefix(KEY_PREFIX)
        shape = profile.shapes.get(claim)
        narrows = positive and not open_to_all and not (shape and _covers(condition, shape))
        return cls(condition, condition.key, claim, place, positive, pattern, narrows)

    @property
    def operator(self) -> Operator:
        return self.condition.operator

    @property
    def values(self) -> tuple[str, ...]:
        return self.condition.values

    @property
    def placed_values(self) -> Iterator[tuple[Place, str]]:
        """Each value with its place."""
        return (((*self.place, number), value) for number, value in enumerate(self.values))


def _covers(condition: Condition, shape: Shape) -> bool:
    """Return whether *condition* holds for every value of *shape*, such as `refs/*` for a ref."""
    if shape.values:
        return all(map(condition.accepts, shape.values))
    # A pattern that accepts two endings nobody would think of, after each beginning, accepts all.
    return bool(shape.begins) and all(
        condition.accepts(begins + ending) for begins in shape.begins for ending in _UNLIKELY
    )


_UNLIKELY = ("q", "7z/w-q.x")


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """One Role, worked out once for all rules."""

    role: Role
    configured: Mapping[str, JwtIssuer]
    """All configured issuers, by `iss`."""
    issuers: tuple[JwtIssuer, ...]
    """The configured issuers whose tokens the Role can admit."""
    profile: Profile
    """
    The profile of their provider. T005 refuses a Role whose issuers have several.

    Where the Role is for people, it is the generic one: the claims of jobs say nothing of them.
    """
    owner_keys: OwnerKeys
    """The keys of that provider that fix an owner."""
    rule_keys: RuleKeys
    """The keys of that provider, by what the rules ask of them."""
    pins: tuple[Condition, ...]
    """The conditions that fix an owner."""
    conditions: tuple[PlacedCondition, ...]
    narrowed: frozenset[str]
    """The keys of the conditions that narrow."""
    patterns: tuple[PlacedCondition, ...]
    """The conditions that are positive patterns."""
    exact: Mapping[str, PlacedCondition]
    """For each key, the first condition that lists its values byte for byte."""

    @classmethod
    def of(cls, role: Role, issuers: Mapping[str, JwtIssuer]) -> RoleFacts:
        """The facts about *role* among the configured *issuers*, which are by `iss`."""
        named = sorted(role_issuers(role))
        known = tuple(issuers[iss] for iss in named if iss in issuers)
        # T001 refuses an issuer that is not configured. The other rules still report what they
        # can, so that one run shows every problem.
        profile = PROFILES[GENERIC] if _is_for_people(role, known) else _profile(known, named)
        where = zip(role.conditions, role.places, strict=True)
        placed = tuple([PlacedCondition.of(made, place, profile) for made, place in where])
        return cls(
            role,
            issuers,
            known,
            profile,
            OWNER_KEYS[profile.name],
            RULE_KEYS[profile.name],
            owner_pins(role, profile),
            placed,
            frozenset([condition.key for condition in placed if condition.narrows]),
            tuple([condition for condition in placed if condition.pattern]),
            {p.key: p for p in reversed(placed) if p.operator.exact},
        )

    @property
    def shared(self) -> JwtIssuer | None:
        """The first of the Role's issuers from which strangers get tokens too."""
        return next((issuer for issuer in self.issuers if issuer.shared), None)

    @property
    def block(self) -> Place:
        """The place of the condition block, or of the principal if there is no block."""
        principal = ("spec", "principal")
        blocks = {placed.place[:2] for placed in self.conditions}
        return principal if blocks == {principal} else ("spec", "condition")

    def on(self, keys: Set[str]) -> Iterator[PlacedCondition]:
        """The conditions on one of *keys* that narrow, in the document's order."""
        return (placed for placed in self.conditions if placed.narrows and placed.key in keys)

    def only(self, claim: str, form: re.Pattern[str]) -> bool:
        """Return whether a condition on *claim* admits only values that hold *form*."""
        about = self.on({KEY_PREFIX + claim})
        return any(all(map(form.search, placed.values)) for placed in about)


def _is_for_people(role: Role, issuers: Sequence[JwtIssuer]) -> bool:
    """
    Return whether a Role on issuers of jobs admits people alone: it names clients as `jwt:aud`.

    A job's token for a client is refused before any Role is read.
    """
    clients = {client for issuer in issuers for client in issuer.clients}
    return any(PROFILES[issuer.provider].ci for issuer in issuers) and any(
        made.key == f"{KEY_PREFIX}aud" and made.operator.exact and clients.issuperset(made.values)
        for made in role.conditions
    )


def _profile(known: Sequence[JwtIssuer], named: Iterable[str]) -> Profile:
    """The profile of the first issuer that has one, of those configured before the others."""
    for issuer in known:
        if issuer.provider != GENERIC:
            return issuer.profile
    return PROFILES[next(filter(None, map(known_provider, named)), GENERIC)]


def yaml(operator: str, **claims: str) -> str:
    """A condition to paste under `condition:`."""
    members = ", ".join(
        f'"{KEY_PREFIX}{claim}": [{quoted(value)}]' for claim, value in claims.items()
    )
    return f"{operator}: {{{members}}}"
