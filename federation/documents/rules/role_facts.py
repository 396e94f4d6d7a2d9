"""
A Role as the trust rules read it: its conditions, where each was written, whose tokens it takes.

A condition *narrows* if it is positive and each of its values says more than wildcards do.
Only conditions that narrow can make a Role safer; the rules ask for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import TypeAlias

from federation.documents.catalog import role_issuers
from federation.documents.model import JwtIssuer, Role, field_text
from federation.documents.rules.owners import only_wildcards
from federation.errors import Problem, Severity
from federation.policy.conditions import KEY_PREFIX, Condition, Operator
from federation.providers.table import Provider, known_provider
from federation.text import quoted

__all__ = ["Place", "Reading", "Written", "keys", "severity", "yaml"]

Place: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """A condition, the place in its document where it was written, and what sort it is."""

    condition: Condition
    place: Place
    positive: bool
    """Whether it holds for what is among its values."""
    pattern: bool
    """Whether it is positive and its values may hold wildcards."""
    narrows: bool
    """Whether it is positive and each value says more than wildcards do."""

    @classmethod
    def of(cls, condition: Condition, place: Place) -> Written:
        """*condition*, as written at *place*."""
        positive = not condition.operator.negative
        pattern = positive and condition.operator.pattern
        says = not pattern or not any(only_wildcards(condition, v) for v in condition.values)
        return cls(condition, place, positive, pattern, positive and says)

    @property
    def key(self) -> str:
        """The condition's key, with its `jwt:` prefix."""
        return self.condition.key

    @property
    def values(self) -> tuple[str, ...]:
        """The condition's values."""
        return self.condition.values


@dataclass(frozen=True, slots=True)
class Reading:
    """One Role, read for the rules."""

    role: Role
    """With each key in its plain form: `jwt:/repository` reads as `jwt:repository`."""
    issuers: tuple[JwtIssuer, ...]
    """The configured issuers whose tokens it can admit."""
    providers: frozenset[Provider]
    conditions: tuple[Written, ...]
    narrowed: frozenset[str]
    """The keys on which some condition narrows."""
    patterns: tuple[Written, ...]
    """The conditions that are positive patterns."""

    @classmethod
    def of(cls, role: Role, issuers: Mapping[str, JwtIssuer]) -> Reading:
        """*role*, read where *issuers* are configured."""
        named = sorted(role_issuers(role))
        known = tuple(issuers[iss] for iss in named if iss in issuers)
        # An issuer that is not configured is refused by T001; the other rules still say what
        # they can, so that one pass shows every problem.
        providers = {issuer.provider for issuer in known} or {
            known_provider(iss) or Provider.GENERIC for iss in named
        }
        role = _plain(role)
        written = tuple(map(Written.of, role.conditions, role.places))
        return cls(
            role,
            known,
            frozenset(providers),
            written,
            frozenset(w.condition.key for w in written if w.narrows),
            tuple(w for w in written if w.pattern),
        )

    @property
    def of_ci(self) -> bool:
        """Whether tokens of a known CI system can be admitted."""
        return Provider.GITHUB in self.providers or Provider.GITLAB in self.providers

    @property
    def block(self) -> Place:
        """Where conditions are written: the condition block, or the principal where alone."""
        blocks = {written.place[:2] for written in self.conditions}
        alone = blocks == {("spec", "principal")}
        return ("spec", "principal") if alone else ("spec", "condition")

    def on(self, wanted: Set[str]) -> Iterator[Written]:
        """The conditions on one of the keys *wanted* that narrow, in the document's order."""
        return (w for w in self.conditions if w.narrows and w.condition.key in wanted)

    def subjects(self, form: re.Pattern[str]) -> bool:
        """Whether some condition on `sub` lets only values in that hold *form*."""
        return "jwt:sub" in self.narrowed and any(
            all(map(form.search, written.values)) for written in self.on({"jwt:sub"})
        )

    def problem(
        self, code: str, place: Place, message: str, hint: str = "", *, value: int | None = None
    ) -> Problem:
        """A problem of this Role, at *place*, or at the *value*th value written there."""
        exact = place if value is None else (*place, value)
        origin = self.role.origin
        return Problem(
            path=origin.path,
            line=origin.line_of(*exact),
            code=code,
            severity=severity(code),
            message=message,
            kind="Role",
            name=self.role.name,
            field=field_text(exact),
            hint=hint,
        )


def severity(code: str) -> Severity:
    """Whether *code* keeps documents from being adopted: all do but those that begin with W."""
    return Severity.WARNING if code.startswith("W") else Severity.ERROR


def keys(*claims: str) -> frozenset[str]:
    """The condition keys of *claims*."""
    return frozenset(KEY_PREFIX + claim for claim in claims)


def yaml(operator: str, **claims: str | Iterable[str]) -> str:
    """A condition as it can be pasted under `condition:`."""
    written = ", ".join(
        f'"{KEY_PREFIX}{claim}": [{", ".join(map(quoted, _listed(values)))}]'
        for claim, values in claims.items()
    )
    return f"{operator}: {{{written}}}"


def _listed(values: str | Iterable[str]) -> Iterable[str]:
    return (values,) if isinstance(values, str) else values


def _plain(role: Role) -> Role:
    """*role* with plain keys, and with a place for each condition."""
    if any(condition.key.startswith(_POINTER) for condition in role.conditions):
        role = replace(role, conditions=tuple(map(_plainly_keyed, role.conditions)))
    if len(role.places) != len(role.conditions):
        role = replace(role, places=tuple(map(_usual_place, role.conditions)))
    return role


_POINTER = KEY_PREFIX + "/"


def _plainly_keyed(condition: Condition) -> Condition:
    """*condition* under a plain key, where it points to a top-level claim that has one."""
    key = KEY_PREFIX + condition.path[0]
    whole = len(condition.path) > 1 or key.startswith(_POINTER)
    return condition if whole or not condition.path[0] else replace(condition, key=key)


def _usual_place(condition: Condition) -> Place:
    if condition.operator is Operator.PRINCIPAL:
        return ("spec", "principal", condition.key)
    return ("spec", "condition", condition.operator.value, condition.key)
