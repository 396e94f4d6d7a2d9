"""
Which conditions of a Role pin who owns the code, and whether a token comes from that owner.

On a shared issuer anybody can get a signed token. A Role is closed to the world only if a
condition fixes an owner, a repository, a namespace, a project, one of their ids, or a `sub`
that holds one of them. `documents.lint` refuses a Role without such a pin; `roles` tells a
caller details only of Roles whose pinned owner the caller's own claims match.
"""

from __future__ import annotations

import re

from federation.claims import Claims, text
from federation.documents.model import Role
from federation.policy.conditions import KEY_PREFIX, Condition, Operator, ascii_lower

__all__ = [
    "OWNER_PATH_KEYS",
    "PIN_KEYS",
    "fixed_owner",
    "literal_prefix",
    "only_wildcards",
    "owner_pins",
    "owners_of",
    "same_owner",
]

_OWNER_KEYS = frozenset(
    {
        "jwt:repository_owner",
        "jwt:repository_owner_id",
        "jwt:namespace_id",
    }
)
_REPOSITORY_ID_KEYS = frozenset({"jwt:repository_id", "jwt:project_id"})
_PATH_KEYS = frozenset({"jwt:repository", "jwt:project_path", "jwt:namespace_path"})

PIN_KEYS = _OWNER_KEYS | _REPOSITORY_ID_KEYS | _PATH_KEYS
"""Keys that say who owns the code, `sub` aside."""

OWNER_PATH_KEYS = _PATH_KEYS | {
    "jwt:repository_owner",
    "jwt:sub",
    "jwt:job_workflow_ref",
    "jwt:workflow_ref",
}
"""Keys whose value begins with an owner, in which a wildcard must come after the owner."""

# A component of `sub` that holds an owner, and the whole of it up to where the owner ends.
_OWNER_IN_SUB = re.compile(
    r"(?:^|:)(?:repo|repository|project_path|namespace_path):[^/:]+/"
    r"|(?:^|:)(?:repository_owner|repository_owner_id|repository_id|project_id|namespace_id)"
    r":[^:]+:"
)


def literal_prefix(pattern: str) -> str:
    """The part of *pattern* before its first wildcard."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def only_wildcards(condition: Condition, value: str) -> bool:
    """Whether *value* is a pattern without a single literal character."""
    return condition.operator.pattern and not value.strip("*?")


def fixed_owner(condition: Condition, value: str) -> str | None:
    """
    The leading part of *value* that fixes the owner of the code, None where it fixes nobody.

    For an id or an owner's name that is the whole value, for a path all up to the first `/`,
    for a `sub` all up to the end of the component that holds an owner.
    """
    wild = condition.operator.pattern and literal_prefix(value) != value
    literal = literal_prefix(value) if condition.operator.pattern else value
    if condition.key in _OWNER_KEYS | _REPOSITORY_ID_KEYS:
        return None if wild else value
    if condition.key in _PATH_KEYS:
        owner, slash, _ = literal.partition("/")
        return owner + "/" if owner and (slash or not wild) else None
    if condition.key == "jwt:sub":
        # A closed value ends where its last component does: `acme` is not `acme-evil`.
        closed = literal if wild else literal + ":"
        found = _OWNER_IN_SUB.search(closed)
        return closed[: found.end()] if found else None
    return None


def owner_pins(role: Role) -> tuple[Condition, ...]:
    """The conditions of *role* that pin an owner: every one of their values fixes one."""
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
    Whether *claims* come from the owner that *role* pins, whatever else they fail.

    A repository's or project's id tells its owner only by being equal, so it is asked for only
    where the Role pins nothing else. A Role without a pin has no owner, and nobody is it.
    """
    pins = owner_pins(role)
    of_owners = tuple(pin for pin in pins if pin.key not in _REPOSITORY_ID_KEYS)
    return bool(pins) and all(_comes_from(pin, claims) for pin in of_owners or pins)


def owners_of(key: str, claims: Claims) -> frozenset[str]:
    """The owners that a pin on *key* fixes where *claims* satisfy it, with A to Z lowered."""
    claim = text(claims.get(key.removeprefix(KEY_PREFIX)))
    if claim is None:
        return frozenset()
    reading = Condition(Operator.STRING_EQUAL, key, ())
    # A rename turns `repo:acme/app` into `repo:acme@1/app@2`. No name holds an `@`, so both
    # forms tell the same owner.
    forms = {claim, _IDS_IN_SUB.sub(r"\1/", claim)} if key == "jwt:sub" else {claim}
    return frozenset(ascii_lower(fixed_owner(reading, form) or "") for form in forms) - {""}


_IDS_IN_SUB = re.compile(r"\A(repo:[^@/:]+)@[0-9]+/")


def _comes_from(pin: Condition, claims: Claims) -> bool:
    if pin.key not in _PATH_KEYS | {"jwt:sub"}:
        return pin.satisfied(claims)
    owners = {ascii_lower(fixed_owner(pin, value) or "") for value in pin.values}
    return not owners.isdisjoint(owners_of(pin.key, claims))
