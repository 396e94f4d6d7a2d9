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


class ConditionForm(NamedTuple):
    """The parts of a condition without its values."""

    operator: Operator
    key: str
    """The condition's key, with its `jwt:` prefix."""
    claim: str
    """The key without its prefix."""
    root: str
    """The top-level claim that the key names, or that it leads into."""
    place: Place
    positive: bool
    """True if the claim must be among the values."""
    pattern: bool
    """True if it is positive and its values may hold wildcards."""
    shape: Shape | None
    """The shape of the claim's values, if they have one."""

    @classmethod
    def of(cls, condition: Condition, place: Place, profile: Profile) -> ConditionForm:
        """The form of *condition*, which was written at *place*."""
        operator, key, claim = condition.operator, condition.key, _claim(condition.key)
        positive = not operator.negative
        pattern, shape = positive and operator.pattern, profile.shapes.get(claim)
        return cls(operator, key, claim, condition.path[0], place, positive, pattern, shape)


class PlacedCondition(NamedTuple):
    """A condition, the place in its document where it was written, and its kind."""

    condition: Condition
    operator: Operator
    key: str
    claim: str
    place: Place
    values: tuple[str, ...]
    positive: bool
    pattern: bool
    shape: Shape | None
    narrows: bool
    """True if it is positive and keeps some values of the claim out."""

    @classmethod
    def of(cls, condition: Condition, place: Place, profile: Profile) -> PlacedCondition:
        """The *condition*, which was written at *place*."""
        return _placed(condition, ConditionForm.of(condition, place, profile))

    @property
    def placed_values(self) -> Iterator[tuple[Place, str]]:
        """Each value with its place."""
        return (((*self.place, number), value) for number, value in enumerate(self.values))


def _placed(condition: Condition, form: ConditionForm) -> PlacedCondition:
    operator, key, claim, _, place, positive, pattern, shape = form
    values = condition.values
    open_to_all = pattern and any(only_wildcards(condition, value) for value in values)
    narrows = positive and not open_to_all and not (shape and _covers(condition, shape))
    return PlacedCondition(
        condition, operator, key, claim, place, values, positive, pattern, shape, narrows
    )


def _claim(key: str) -> str:
    return key.removeprefix(KEY_PREFIX)


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
class RoleForm:
    """
    What Roles with the same issuers, operators and keys have in common, worked out once for all.

    It tells which rules have anything to look at.
    """

    configured: Mapping[str, JwtIssuer]
    """All configured issuers, by `iss`."""
    issuers: tuple[JwtIssuer, ...]
    """The configured issuers whose tokens the Role can admit."""
    named: frozenset[str]
    """Every issuer that an exact condition names."""
    profile: Profile
    """
    The profile of their provider. T005 refuses a Role whose issuers have several.

    Where the Role is for people, it is the generic one: the claims of jobs say nothing of them.
    """
    owner_keys: OwnerKeys
    """The keys of that provider that fix an owner."""
    rule_keys: RuleKeys
    """The keys of that provider, by what the rules ask of them."""
    conditions: tuple[ConditionForm, ...]
    keys: frozenset[str]
    """The keys of all conditions."""
    patterns: bool
    """True if one of the conditions is a positive pattern."""
    shared: JwtIssuer | None
    """The first of the Role's issuers from which strangers get tokens too."""
    clients: frozenset[str]
    """The programs that people sign in to at the Role's issuers."""

    @classmethod
    def of(cls, role: Role, issuers: Mapping[str, JwtIssuer]) -> RoleForm:
        """The form of *role* among the configured *issuers*, which are by `iss`."""
        named = sorted(role_issuers(role))
        known = tuple(issuers[iss] for iss in named if iss in issuers)
        # T001 refuses an issuer that is not configured. The other rules still report what they
        # can, so that one run shows every problem.
        clients = frozenset(client for issuer in known for client in issuer.clients)
        for_people = _is_for_people(role, known, clients)
        profile = PROFILES[GENERIC] if for_people else _profile(known, named)
        where = zip(role.conditions, role.places, strict=True)
        conditions = tuple([ConditionForm.of(made, place, profile) for made, place in where])
        return cls(
            issuers,
            known,
            frozenset(value for made in role.conditions if _names(made) for value in made.values),
            profile,
            OWNER_KEYS[profile.name],
            RULE_KEYS[profile.name],
            conditions,
            frozenset([condition.key for condition in conditions]),
            any(condition.pattern for condition in conditions),
            next((issuer for issuer in known if issuer.shared), None),
            clients,
        )

    def names(self, keys: Set[str]) -> bool:
        """Return whether a condition is on one of *keys*."""
        return not self.keys.isdisjoint(keys)

    def is_of_everybody(self, condition: Condition) -> bool:
        """
        Return whether *condition* names a program that everybody's tokens name.

        All who sign in to a program have tokens that name it. At a shared issuer strangers can sign
        in to any.
        """
        return condition.key in self.rule_keys.programs and (
            self.shared is not None or not self.clients.isdisjoint(condition.values)
        )


def _names(condition: Condition) -> bool:
    return condition.key == "jwt:iss" and condition.operator.exact


class RoleFacts(NamedTuple):
    """One Role, worked out once for all rules."""

    role: Role
    form: RoleForm
    pins: tuple[Condition, ...]
    """The conditions that fix an owner."""
    conditions: tuple[PlacedCondition, ...]
    patterns: Sequence[PlacedCondition]
    """The conditions that are positive patterns."""

    @classmethod
    def of(
        cls, role: Role, issuers: Mapping[str, JwtIssuer], form: RoleForm | None = None
    ) -> RoleFacts:
        """The facts about *role* among the configured *issuers*, which are by `iss`."""
        form = form or RoleForm.of(role, issuers)
        placed = tuple(map(_placed, role.conditions, form.conditions))
        patterns = [condition for condition in placed if condition.pattern] if form.patterns else ()
        pins = owner_pins(role, form.profile)
        if form.rule_keys.programs:
            pins = tuple([pin for pin in pins if not form.is_of_everybody(pin)])
        return cls(role, form, pins, placed, patterns)

    @property
    def configured(self) -> Mapping[str, JwtIssuer]:
        return self.form.configured

    @property
    def issuers(self) -> tuple[JwtIssuer, ...]:
        return self.form.issuers

    @property
    def profile(self) -> Profile:
        return self.form.profile

    @property
    def owner_keys(self) -> OwnerKeys:
        return self.form.owner_keys

    @property
    def rule_keys(self) -> RuleKeys:
        return self.form.rule_keys

    @property
    def shared(self) -> JwtIssuer | None:
        return self.form.shared

    @property
    def narrowed(self) -> frozenset[str]:
        """The keys of the conditions that narrow."""
        return frozenset([condition.key for condition in self.conditions if condition.narrows])

    @property
    def exact(self) -> Mapping[str, PlacedCondition]:
        """For each key, the first condition that lists its values byte for byte."""
        return {p.key: p for p in reversed(self.conditions) if p.operator.exact}

    @property
    def block(self) -> Place:
        """The place of the condition block, or of the principal if there is no block."""
        principal = ("spec", "principal")
        blocks = {placed.place[:2] for placed in self.conditions}
        return principal if blocks == {principal} else ("spec", "condition")

    def on(self, keys: Set[str]) -> Sequence[PlacedCondition]:
        """The conditions on one of *keys* that narrow, in the document's order."""
        return [placed for placed in self.conditions if placed.narrows and placed.key in keys]

    def only(self, claim: str, form: re.Pattern[str]) -> bool:
        """Return whether a condition on *claim* admits only values that hold *form*."""
        about = self.on({KEY_PREFIX + claim})
        return any(all(map(form.search, placed.values)) for placed in about)


def _is_for_people(role: Role, issuers: Sequence[JwtIssuer], clients: Set[str]) -> bool:
    """
    Return whether a Role on issuers of jobs admits people alone.

    It names clients as `jwt:aud`, or its issuers take no audience but those. A job's token for a
    client is refused before any Role is read.
    """
    if not any(PROFILES[issuer.provider].ci for issuer in issuers):
        return False
    return all(issuer.clients and not issuer.audiences for issuer in issuers) or any(
        made.key == f"{KEY_PREFIX}aud" and made.operator.exact and clients >= set(made.values)
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
