"""
Permissions: whether the policies of an access token allow an action on a resource.

A matching Deny in any of the token's policies refuses. Otherwise a matching Allow grants, and
without one the answer is no. A decision names the policy and the statement that settled it.
A claim that is absent or has the wrong shape switches off an Allow statement, never a Deny. That
holds for claims in conditions, and for those in resources.
`Namespace:List` on `*` is the request for the list of namespaces. OpenFaaS's own policies grant it
on a single namespace, and the gateway answers with a part of the list. So it is allowed where
`Namespace:List` is allowed on any resource that the policies name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from federation.claims import Claims
from federation.documents.model import (
    ACTIONS,
    BROKER_ACTIONS,
    LIST_NAMESPACES,
    Effect,
    Policy,
    Statement,
)
from federation.documents.resources import Resource
from federation.policy.conditions import (
    Match,
    ascii_lower,
    compile_pattern,
    holds,
    holds_unless_refuted,
)
from federation.policy.index import PolicySet

_NAME = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9_.]{0,251}[a-zA-Z0-9])?")


@dataclass(frozen=True, slots=True)
class Access:
    """
    An action on a resource, which a request asks for.

    The *namespace* `*` is the whole cluster, the *name* `*` the whole namespace.
    """

    action: str
    namespace: str
    name: str

    @classmethod
    def parse(cls, action: str, resource: str) -> Access:
        """
        The access of two texts; *resource* is `*`, `ns:*` or `ns:name`.

        What the broker itself knows is about the whole cluster, so `*` is its only resource. A
        statement on anything less can then neither give nor deny it.

        Raises: ValueError, with a sentence, if no request can ask for one of them.
        """
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is not an action")
        if resource == "*":
            return cls(action, "*", "*")
        if action in BROKER_ACTIONS:
            raise ValueError(f"{resource!r} is not *, the only resource of {action}")
        namespace, _, name = resource.partition(":")
        if not _NAME.fullmatch(namespace) or (name != "*" and not _NAME.fullmatch(name)):
            raise ValueError(f"{resource!r} is not *, <namespace>:* or <namespace>:<function>")
        return cls(action, namespace, name)

    @property
    def resource(self) -> str:
        """The resource as documents write it."""
        return "*" if self.namespace == "*" else f"{self.namespace}:{self.name}"

    @property
    def is_list_of_namespaces(self) -> bool:
        """True for the request that is answered with the namespaces which the caller may see."""
        return self.action == LIST_NAMESPACES and self.namespace == "*"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to an access, and the statement that settled it (none if nothing matched)."""

    access: Access
    allowed: bool
    policy: str | None = None
    sid: str | None = None
    effect: Effect | None = None

    def as_json(self) -> dict[str, object]:
        """The decision for programs."""
        return {
            "action": self.access.action,
            "resource": self.access.resource,
            "allowed": self.allowed,
            "policy": self.policy,
            "sid": self.sid,
            "effect": self.effect,
        }


def decide(policies: Iterable[Policy], access: Access, claims: Claims) -> Decision:
    """
    Decide whether a token with *policies* may do *access*; *claims* are the access token's.

    Callers with a `PolicySet` get an answer in microseconds; for other policies the index is
    built anew each time.
    """
    indexed = policies if isinstance(policies, PolicySet) else PolicySet(policies)
    decision = _settled(indexed, access, claims)
    if decision.allowed or not access.is_list_of_namespaces:
        return decision
    asked = (
        _settled(indexed, Access(access.action, *resource.halves), claims)
        for _, statement in _listing(indexed)
        for resource in statement.reached(claims)
    )
    part = next((one for one in asked if one.allowed), None)
    return replace(part, access=access) if part else decision


def about(
    policies: PolicySet, access: Access, claims: Claims | None = None
) -> tuple[tuple[Policy, Statement], ...]:
    """
    The statements that could settle *access*, their conditions unread.

    With *claims*, only those that reach it once the values are in place of their variables.
    """
    found = policies.about(access.action, access.namespace, access.name, claims)
    if not access.is_list_of_namespaces:
        return found
    denying = (each for each in found if each[1].effect is Effect.DENY)
    parts = (
        each
        for each in _listing(policies)
        if claims is None or any(True for _ in each[1].reached(claims))
    )
    return (*denying, *parts)


def _listing(policies: PolicySet) -> Iterator[tuple[Policy, Statement]]:
    for policy in policies:
        for statement in policy.statements:
            if statement.effect is Effect.ALLOW and LIST_NAMESPACES in statement.actions:
                yield policy, statement


def _settled(policies: PolicySet, access: Access, claims: Claims) -> Decision:
    granted: Decision | None = None
    for policy, statement in policies.about(access.action, access.namespace, access.name, claims):
        if not applies(statement, claims):
            continue
        if statement.effect is Effect.DENY:
            return Decision(access, False, policy.name, statement.sid, Effect.DENY)
        granted = granted or Decision(access, True, policy.name, statement.sid, Effect.ALLOW)
    return granted or Decision(access, False)


def applies(statement: Statement, claims: Claims) -> bool:
    """Return whether the conditions of *statement* let it take part for these *claims*."""
    if statement.effect is Effect.DENY:
        return holds_unless_refuted(statement.conditions, claims)
    return holds(statement.conditions, claims)


def may_overlap(resource: Resource, others: Iterable[Resource]) -> bool:
    """Return whether *resource* and any of *others* could cover something in common."""
    return _Halves.of(resource).may_overlap_any(map(_Halves.of, others))


def granted_resources(
    policies: Iterable[Policy], action: str, claims: Claims
) -> tuple[Resource, ...]:
    """
    The resources on which *action* is allowed without any exception.

    A function token lists resources and cannot say "but not", so a grant that a Deny might
    overlap is left out whole.
    """
    about = [
        statement
        for policy in policies
        for statement in policy.statements
        if action in statement.actions and applies(statement, claims)
    ]
    denied = [_Halves.of(r) for s in about if s.effect is Effect.DENY for r in s.reached(claims)]
    allowed = dict.fromkeys(r for s in about if s.effect is Effect.ALLOW for r in s.reached(claims))
    return tuple(r for r in allowed if not _Halves.of(r).may_overlap_any(denied))


@dataclass(frozen=True, slots=True)
class _Half:
    """A pattern of a namespace or a name, in lower case, compiled once for many comparisons."""

    pattern: str
    matches: Match
    begins: str
    """The text before the first wildcard."""
    plain: bool
    """True if there is no wildcard."""

    @classmethod
    def of(cls, written: str) -> _Half:
        pattern = ascii_lower(written)
        begins, star, _ = pattern.partition("*")
        return cls(pattern, compile_pattern(pattern), begins, not star)

    def may_overlap(self, other: _Half) -> bool:
        """Return whether both could match one text; in doubt, True."""
        if self.plain:
            return other.matches(self.pattern)
        if other.plain:
            return self.matches(other.pattern)
        return self.begins.startswith(other.begins) or other.begins.startswith(self.begins)


@dataclass(frozen=True, slots=True)
class _Halves:
    """A resource, to be compared with others without regard to case."""

    namespace: _Half
    name: _Half

    @classmethod
    def of(cls, resource: Resource) -> _Halves:
        namespace, name = resource.halves
        return cls(_Half.of(namespace), _Half.of(name))

    def may_overlap_any(self, others: Iterable[_Halves]) -> bool:
        """Return whether this and any of *others* could cover something in common."""
        return any(
            self.namespace.may_overlap(other.namespace) and self.name.may_overlap(other.name)
            for other in others
        )
