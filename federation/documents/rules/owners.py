"""
Owner pins: which conditions of a Role fix the owner of the code, and which tokens are that owner's.

On a shared issuer anybody can get a signed token. A Role is closed to strangers only if a
condition fixes an owner, a repository, a namespace, a project, one of their ids, or a `sub`
that holds one of them. The trust rules refuse a Role without such a pin, and a refusal shows
details of a Role only to callers of the owner that it pins.
"""

from __future__ import annotations

import re

from federation.claims import Claims, text
from federation.documents.model import Role
from federation.policy.conditions import KEY_PREFIX, Condition, Operator, ascii_lower, keys
from federation.providers.table import all_claims

_IDS = all_claims(lambda profile: (*profile.owner.ids, *profile.owner.code_ids))
_NAMES = all_claims(lambda profile: profile.owner.names)
_PATHS = all_claims(lambda profile: profile.owner.paths)
_OTHER_PATHS = all_claims(lambda profile: profile.owner.other_paths)
_SUB_PATHS = all_claims(lambda profile: (*profile.owner.sub_paths, *profile.owner.paths))

NAME_KEYS = keys(*_NAMES)
"""The keys whose whole value is an owner's name."""

_WHOLE_KEYS = NAME_KEYS | keys(*_IDS)
_CODE_ID_KEYS = keys(*all_claims(lambda profile: profile.owner.code_ids))
_PATH_KEYS = keys(*_PATHS)

PIN_KEYS = _WHOLE_KEYS | _PATH_KEYS
"""The keys that fix the owner of the code, apart from `sub`."""

OWNER_PATH_KEYS = keys("sub", *_NAMES, *_PATHS, *_OTHER_PATHS)
"""The keys whose value begins with an owner's name. A wildcard must come after that name."""

OWNER_FORM = re.compile(rf"(?:{'|'.join(_SUB_PATHS)}):")
"""The component of `sub` after which an owner's name comes."""

# A component of `sub` that holds an owner, and `sub` up to the end of the owner in it.
_OWNER_IN_SUB = re.compile(
    rf"(?:^|:){OWNER_FORM.pattern}[^/:]+/|(?:^|:)(?:{'|'.join((*_IDS, *_NAMES))}):[^:]+:"
)


def literal_prefix(pattern: str) -> str:
    """The part of *pattern* before its first wildcard."""
    return pattern.partition("*")[0].partition("?")[0]


def only_wildcards(condition: Condition, value: str) -> bool:
    """Return whether *value* is a pattern without a single literal character."""
    return condition.operator.pattern and not value.strip("*?")


def fixed_owner(condition: Condition, value: str) -> str | None:
    """
    The leading part of *value* that fixes the owner of the code, or None if no part does.

    For an id or an owner's name that is the whole value, for a path the part up to the first
    `/`, for a `sub` the part up to the end of the component that holds an owner.
    """
    wild = condition.operator.pattern and literal_prefix(value) != value
    literal = literal_prefix(value) if condition.operator.pattern else value
    if condition.key in _WHOLE_KEYS:
        return None if wild else value
    if condition.key in _PATH_KEYS:
        owner, slash, _ = literal.partition("/")
        return owner + "/" if owner and (slash or not wild) else None
    if condition.key == "jwt:sub":
        # The end of a value without wildcards closes its last component, so that
        # `repository_owner:acme` fixes `acme` and not `acme-evil`.
        closed = literal if wild else literal + ":"
        found = _OWNER_IN_SUB.search(closed)
        return closed[: found.end()] if found else None
    return None


def owner_pins(role: Role) -> tuple[Condition, ...]:
    """The conditions of *role* of which every value fixes an owner."""
    return tuple(
        condition
        for condition in role.conditions
        if not condition.operator.negative
        and not condition.operator.of_list
        and condition.values
        and all(fixed_owner(condition, value) for value in condition.values)
    )


def same_owner(role: Role, claims: Claims) -> bool:
    """
    Return whether *claims* come from the owner that *role* pins, whatever else they fail.

    The id of a repository or project fixes the owner only for that one repository, so it counts
    only if the Role has no other pin. A Role without a pin has no owner.
    """
    pins = owner_pins(role)
    of_owners = tuple(pin for pin in pins if pin.key not in _CODE_ID_KEYS)
    return bool(pins) and all(_comes_from(pin, claims) for pin in of_owners or pins)


def owners_of(key: str, claims: Claims) -> frozenset[str]:
    """The owners, with A to Z lowered, that a pin on *key* must fix for *claims* to satisfy it."""
    claim = text(claims.get(key.removeprefix(KEY_PREFIX)))
    if claim is None:
        return frozenset()
    equal = Condition(Operator.STRING_EQUAL, key, ())
    # A rename turns `repo:acme/app` into `repo:acme@1/app@2`. No name holds an `@`, so both
    # forms mean the same owner.
    forms = {claim, _IDS_IN_SUB.sub(r"\1/", claim)} if key == "jwt:sub" else {claim}
    return frozenset(ascii_lower(fixed_owner(equal, form) or "") for form in forms) - {""}


_IDS_IN_SUB = re.compile(r"\A(repo:[^@/:]+)@[0-9]+/")


def _comes_from(pin: Condition, claims: Claims) -> bool:
    if pin.key not in _PATH_KEYS | {"jwt:sub"}:
        return pin.satisfied(claims)
    owners = {ascii_lower(fixed_owner(pin, value) or "") for value in pin.values}
    return not owners.isdisjoint(owners_of(pin.key, claims))
