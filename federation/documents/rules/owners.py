"""
Owner pins: which conditions of a Role fix the owner of the code, and which tokens are that owner's.

On a shared issuer anybody can get a signed token. A Role is closed to strangers only if a
condition fixes an owner, a repository, a project, one of their ids, or a `sub` that holds one of
them; the provider's profile says which claims those are. The trust rules refuse a Role without
such a pin, and a refusal shows details of a Role only to callers of the owner that it pins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from federation.claims import Claims, at, text
from federation.documents.model import Role
from federation.policy.conditions import KEY_PREFIX, Condition, Operator, ascii_lower, keys
from federation.providers.table import PROFILES, Profile


@dataclass(frozen=True, slots=True)
class OwnerKeys:
    """The condition keys of a provider that fix an owner, by the form of their values."""

    whole: frozenset[str]
    """Keys whose whole value fixes the owner."""
    names: frozenset[str]
    """Of *whole*, those whose value is an owner's name."""
    code_ids: frozenset[str]
    """Of *whole*, those that fix one repository or project of the owner."""
    paths: frozenset[str]
    composed: frozenset[str]
    begin_with_owner: frozenset[str]
    """Keys whose value begins with an owner's name. A wildcard must come after that name."""
    all: frozenset[str]
    """All keys that fix an owner."""

    @classmethod
    def of(cls, profile: Profile) -> OwnerKeys:
        """The keys of *profile*."""
        owner = profile.owner
        whole = (*owner.ids, *owner.code_ids, *owner.names)
        return cls(
            whole=keys(*whole),
            names=keys(*owner.names),
            code_ids=keys(*owner.code_ids),
            paths=keys(*owner.paths),
            composed=keys(*owner.composed),
            begin_with_owner=keys(
                "sub", *owner.names, *owner.paths, *owner.composed, *owner.other_paths
            ),
            all=keys(*whole, *owner.paths, *owner.composed),
        )


OWNER_KEYS: Mapping[str, OwnerKeys] = MappingProxyType(
    {name: OwnerKeys.of(profile) for name, profile in PROFILES.items()}
)
"""By the name of the provider."""


def literal_prefix(pattern: str) -> str:
    """The part of *pattern* before its first wildcard."""
    return pattern.partition("*")[0].partition("?")[0]


def only_wildcards(condition: Condition, value: str) -> bool:
    """Return whether *value* is a pattern without a single literal character."""
    return condition.operator.pattern and not value.strip("*?")


def fixed_owner(profile: Profile, condition: Condition, value: str) -> str | None:
    """
    The leading part of *value* that fixes the owner of the code, or None if no part does.

    For an id or an owner's name that is the whole value, for a path the part up to the first
    `/`, for a claim of several parts the part up to the end of the one that holds an owner.
    """
    owner_keys = OWNER_KEYS[profile.name]
    literal = literal_prefix(value) if condition.operator.pattern else value
    wild = literal != value
    if condition.key in owner_keys.whole:
        return None if wild else value
    if condition.key in owner_keys.paths:
        owner, slash, _ = literal.partition("/")
        return owner + "/" if owner and (slash or not wild) else None
    if condition.key in owner_keys.composed:
        # The end of a value without wildcards closes its last part, so that
        # `repository_owner:acme` fixes `acme` and not `acme-evil`.
        closed = literal if wild else literal + profile.owner.separator
        found = profile.owner.composed[condition.key.removeprefix(KEY_PREFIX)].search(closed)
        return closed[: found.end()] if found else None
    return None


def owner_pins(role: Role, profile: Profile) -> tuple[Condition, ...]:
    """The conditions of *role* of which every value fixes an owner at an issuer of *profile*."""
    fixing = OWNER_KEYS[profile.name].all
    return tuple([made for made in role.conditions if made.key in fixing and _fixes(profile, made)])


def _fixes(profile: Profile, condition: Condition) -> bool:
    operator, values = condition.operator, condition.values
    if operator.negative or operator.of_list or not values:
        return False
    return all(fixed_owner(profile, condition, value) for value in values)


def same_owner(role: Role, profile: Profile, claims: Claims) -> bool:
    """
    Return whether *claims* come from the owner that *role* pins, whatever else they fail.

    The id of a repository or project fixes the owner only for that one repository, so it counts
    only if the Role has no other pin. A Role without a pin has no owner.
    """
    pins = owner_pins(role, profile)
    code_ids = OWNER_KEYS[profile.name].code_ids
    of_owners = tuple(pin for pin in pins if pin.key not in code_ids)
    return bool(pins) and all(_comes_from(profile, pin, claims) for pin in of_owners or pins)


def owners_of(profile: Profile, key: str, claims: Claims) -> frozenset[str]:
    """The owners, with A to Z lowered, that a pin on *key* must fix for *claims* to satisfy it."""
    claim = text(at(claims, key.removeprefix(KEY_PREFIX)))
    if claim is None:
        return frozenset()
    equal = Condition(Operator.STRING_EQUAL, key, ())
    forms = {claim}
    if key == "jwt:sub" and profile.owner.renamed_sub:
        with_ids, without = profile.owner.renamed_sub
        forms.add(with_ids.sub(without, claim))
    return frozenset(lowered_owner(profile, equal, form) for form in forms) - {""}


def lowered_owner(profile: Profile, condition: Condition, value: str) -> str:
    """The owner that `fixed_owner` finds, with A to Z lowered, or `""` if it finds none."""
    return ascii_lower(fixed_owner(profile, condition, value) or "")


def _comes_from(profile: Profile, pin: Condition, claims: Claims) -> bool:
    if pin.key in OWNER_KEYS[profile.name].whole:
        return pin.satisfied(claims)
    owners = {lowered_owner(profile, pin, value) for value in pin.values}
    return not owners.isdisjoint(owners_of(profile, pin.key, claims))
