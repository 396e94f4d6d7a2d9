"""
The immutable snapshot of all documents that a request uses from beginning to end.

Roles are indexed by issuer and by one value that they pin, so that a token is compared with
the few Roles it could satisfy and not with every Role there is. The index leaves out only
Roles whose pinned condition the token cannot satisfy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from federation.claims import Claims, text
from federation.documents.model import JwtIssuer, Policy, PolicySet, Role
from federation.documents.rules.owners import (
    OWNER_PATH_KEYS,
    PIN_KEYS,
    fixed_owner,
    literal_prefix,
    owner_pins,
    owners_of,
)
from federation.errors import Problem
from federation.policy.conditions import Condition, Operator, ascii_lower

__all__ = ["Catalog", "role_issuers"]

# The most telling first: a Role is filed under the first of these that it pins.
_TELLING = (
    "jwt:repository_id",
    "jwt:project_id",
    "jwt:repository",
    "jwt:project_path",
    "jwt:sub",
    "jwt:workflow_ref",
    "jwt:namespace_id",
    "jwt:namespace_path",
    "jwt:repository_owner_id",
    "jwt:repository_owner",
)


_SETS = 1000


class _Filing(NamedTuple):
    """How Roles are filed: by a claim's whole text, or by its part up to the `/`."""

    claim: str
    by_owner: bool

    def label(self, value: str) -> str:
        """What a Role that pins *value*, or a token that says it, is filed and found under."""
        return value.partition("/")[0] + "/" if self.by_owner else value


Labels = Mapping[str, tuple[Role, ...]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """All documents as they stood at one moment."""

    issuers: Mapping[str, JwtIssuer] = field(default_factory=dict)
    """By `iss`."""
    roles: tuple[Role, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """By name."""
    warnings: tuple[Problem, ...] = ()
    digest: str = ""
    """What the files held, as lower-case hex; two catalogs with one digest are the same."""
    _filed: Mapping[str, tuple[tuple[_Filing, Labels], ...]] = field(
        init=False, repr=False, compare=False
    )
    """By issuer."""
    _unfiled: Mapping[str, tuple[Role, ...]] = field(init=False, repr=False, compare=False)
    _by_owner: Mapping[tuple[str, str, str], tuple[Role, ...]] = field(
        init=False, repr=False, compare=False
    )
    _sets: dict[tuple[str, ...], PolicySet] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Policies that were asked for together, so that they are filed together once."""

    def __post_init__(self) -> None:
        filed: dict[str, dict[_Filing, dict[str, list[Role]]]] = defaultdict(
            lambda: defaultdict(lambda: defaultdict(list))
        )
        unfiled: dict[str, list[Role]] = defaultdict(list)
        by_owner: dict[tuple[str, str, str], list[Role]] = defaultdict(list)
        for role in self.roles:
            pin = _filing_condition(role)
            for iss in role_issuers(role) & self.issuers.keys():
                if pin is None:
                    unfiled[iss].append(role)
                else:
                    for label in _labels(pin):
                        filed[iss][_filing(pin)][label].append(role)
                for key, owner in _owners(role):
                    by_owner[iss, key, owner].append(role)
        shelves = {
            iss: tuple((filing, _frozen(labels)) for filing, labels in filings.items())
            for iss, filings in filed.items()
        }
        object.__setattr__(self, "_filed", shelves)
        object.__setattr__(self, "_unfiled", _frozen(unfiled))
        object.__setattr__(self, "_by_owner", _frozen(by_owner))

    def candidates(self, claims: Claims) -> Iterator[Role]:
        """The Roles that *claims* could satisfy, each once; all others they cannot."""
        iss = claims.get("iss")
        if not isinstance(iss, str):
            return
        for filing, labels in self._filed.get(iss, ()):
            claim = text(claims.get(filing.claim))
            if claim is not None:
                yield from labels.get(filing.label(claim), ())
        yield from self._unfiled.get(iss, ())

    def neighbours(self, claims: Claims) -> Iterator[Role]:
        """The Roles that pin the owner *claims* come from, or no owner at all; some twice."""
        iss = claims.get("iss")
        if not isinstance(iss, str):
            return
        for key in _OWNER_KEYS:
            for owner in sorted(owners_of(key, claims)):
                yield from self._by_owner.get((iss, key, owner), ())
        yield from self._by_owner.get((iss, "", ""), ())

    def policies_of(self, names: tuple[str, ...]) -> PolicySet:
        """The policies that still exist under *names*, in their order."""
        known = self._sets.get(names)
        if known is None:
            if len(self._sets) >= _SETS:
                self._sets.clear()
            existing = (self.policies[name] for name in names if name in self.policies)
            known = self._sets[names] = PolicySet(existing)
        return known


def role_issuers(role: Role) -> frozenset[str]:
    """The issuers whose tokens *role* can admit, by its exact conditions on `jwt:iss`."""
    exact = [
        frozenset(condition.values)
        for condition in role.conditions
        if condition.key == "jwt:iss" and condition.operator.exact
    ]
    return frozenset.intersection(*exact) if exact else frozenset()


_OWNER_KEYS = (*sorted(PIN_KEYS), "jwt:sub")
Filed = TypeVar("Filed")


def _frozen(filed: Mapping[Filed, list[Role]]) -> Mapping[Filed, tuple[Role, ...]]:
    return MappingProxyType({label: tuple(roles) for label, roles in filed.items()})


def _owners(role: Role) -> set[tuple[str, str]]:
    """The owners that *role* pins, as (key, owner); one empty pair where it pins none."""
    owners = {
        (pin.key, ascii_lower(fixed_owner(pin, value) or ""))
        for pin in owner_pins(role)
        for value in pin.values
    }
    return owners or {("", "")}


def _filing(pin: Condition) -> _Filing:
    return _Filing(pin.path[0], by_owner=not pin.operator.exact)


def _labels(pin: Condition) -> set[str]:
    filing = _filing(pin)
    return {filing.label(literal_prefix(v) if filing.by_owner else v) for v in pin.values}


def _filing_condition(role: Role) -> Condition | None:
    conditions = [c for c in role.conditions if c.key in _TELLING]
    conditions.sort(key=lambda c: (not c.operator.exact, _TELLING.index(c.key)))
    return next((c for c in conditions if _can_file(c)), None)


def _can_file(condition: Condition) -> bool:
    if condition.operator.exact:
        return True
    return (
        condition.operator is Operator.STRING_LIKE
        and condition.key in OWNER_PATH_KEYS
        and all("/" in literal_prefix(value) for value in condition.values)
    )
