"""
The facts about one Role that the trust rules share: its conditions, their places, its issuers.

A condition *narrows* if it is positive and none of its values is only wildcards. Only conditions
that narrow make a Role safer, so the rules count no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from federation.documents.catalog import role_issuers
from federation.documents.model import JwtIssuer, Role
from federation.documents.rules.owners import only_wildcards
from federation.policy.conditions import KEY_PREFIX, Condition, Operator
from federation.providers.table import PROFILES, Provider, known_provider
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
    place: Place
    positive: bool
    """True if the claim must be among the values."""
    pattern: bool
    """True if it is positive and its values may hold wildcards."""
    narrows: bool
    """True if it is positive and no value is only wildcards."""

    @classmethod
    def of(cls, condition: Condition, place: Place) -> PlacedCondition:
        positive = not condition.operator.negative
        pattern = positive and condition.operator.pattern
        open_to_all = pattern and any(only_wildcards(condition, v) for v in condition.values)
        narrows = positive and not open_to_all
        return cls(condition, condition.key, place, positive, pattern, narrows)

    @property
    def claim(self) -> str:
        """The condition's key without its prefix."""
        return self.key.removeprefix(KEY_PREFIX)

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


@dataclass(frozen=True, slots=True)
class RoleFacts:
    """One Role, worked out once for all rules."""

    role: Role
    """Each key is in its plain form: `jwt:/repository` has become `jwt:repository`."""
    configured: Mapping[str, JwtIssuer]
    """All configured issuers, by `iss`."""
    issuers: tuple[JwtIssuer, ...]
    """The configured issuers whose tokens the Role can admit."""
    providers: frozenset[Provider]
    conditions: tuple[PlacedCondition, ...]
    narrowed: frozenset[str]
    """The keys of the conditions that narrow."""
    patterns: tuple[PlacedCondition, ...]
    """The conditions that are positive patterns."""
    of_ci: bool
    """True if the Role can admit tokens of a known CI system."""
    only_ci: bool
    """True if the Role can admit no other tokens."""

    @classmethod
    def of(cls, role: Role, issuers: Mapping[str, JwtIssuer]) -> RoleFacts:
        """The facts about *role* among the configured *issuers*, which are by `iss`."""
        named = sorted(role_issuers(role))
        known = tuple(issuers[iss] for iss in named if iss in issuers)
        # T001 refuses an issuer that is not configured. The other rules still report what they
        # can, so that one run shows every problem.
        providers = {issuer.provider for issuer in known} or {
            known_provider(iss) or Provider.GENERIC for iss in named
        }
        if any(condition.key.startswith(_POINTER) for condition in role.conditions):
            role = replace(role, conditions=tuple(map(_plainly_keyed, role.conditions)))
        where = zip(role.conditions, role.places, strict=True)
        placed = tuple([PlacedCondition.of(condition, place) for condition, place in where])
        ci = [PROFILES[provider].ci for provider in providers]
        return cls(
            role,
            issuers,
            known,
            frozenset(providers),
            placed,
            frozenset(condition.key for condition in placed if condition.narrows),
            tuple(condition for condition in placed if condition.pattern),
            of_ci=any(ci),
            only_ci=all(ci),
        )

    @property
    def block(self) -> Place:
        """The place of the condition block, or of the principal if there is no block."""
        principal = ("spec", "principal")
        blocks = {placed.place[:2] for placed in self.conditions}
        return principal if blocks == {principal} else ("spec", "condition")

    def on(self, keys: Set[str]) -> Iterator[PlacedCondition]:
        """The conditions on one of *keys* that narrow, in the document's order."""
        return (placed for placed in self.conditions if placed.narrows and placed.key in keys)

    def subjects(self, form: re.Pattern[str]) -> bool:
        """Return whether a condition on `sub` admits only values that hold *form*."""
        return "jwt:sub" in self.narrowed and any(
            all(map(form.search, placed.values)) for placed in self.on({"jwt:sub"})
        )


def yaml(operator: str, **claims: str) -> str:
    """A condition to paste under `condition:`."""
    members = ", ".join(
        f'"{KEY_PREFIX}{claim}": [{quoted(value)}]' for claim, value in claims.items()
    )
    return f"{operator}: {{{members}}}"


_POINTER = KEY_PREFIX + "/"


def _plainly_keyed(condition: Condition) -> Condition:
    """*condition* under its plain key, if its pointer leads to a top-level claim that has one."""
    key = KEY_PREFIX + condition.path[0]
    whole = len(condition.path) > 1 or key.startswith(_POINTER)
    return condition if whole or not condition.path[0] else replace(condition, key=key)
