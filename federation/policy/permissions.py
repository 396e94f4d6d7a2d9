"""
Permissions: whether the policies of an access token allow an action on a resource.

A matching Deny in any of the token's policies refuses. Otherwise a matching Allow grants, and
without one the answer is no. A decision names the policy and the statement that settled it.
A claim that is absent or has the wrong shape switches off an Allow statement, never a Deny.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from federation.claims import Claims
from federation.documents.model import ACTIONS, Effect, Policy, Resource, Statement
from federation.policy.conditions import (
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

        Raises: ValueError, with a sentence, if no request can ask for one of them.
        """
        if action not in ACTIONS:
            raise ValueError(f"{action!r} is not an action")
        if resource == "*":
            return cls(action, "*", "*")
        namespace, _, name = resource.partition(":")
        if not _NAME.fullmatch(namespace) or (name != "*" and not _NAME.fullmatch(name)):
            raise ValueError(f"{resource!r} is not *, <namespace>:* or <namespace>:<function>")
        return cls(action, namespace, name)

    @property
    def resource(self) -> str:
        """The resource as documents write it."""
        return "*" if self.namespace == "*" else f"{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to an access, and the statement that settled it (none if nothing matched)."""

    access: Access
    allowed: bool
    policy: str | None = None
    sid: str | None = None
    effect: Effect | None = None


def decide(policies: Iterable[Policy], access: Access, claims: Claims) -> Decision:
    """
    Decide whether a token with *policies* may do *access*; *claims* are the access token's.

    Callers with a `PolicySet` get an answer in microseconds; for other policies the index is
    built anew each time.
    """
    granted: Decision | None = None
    indexed = policies if isinstance(policies, PolicySet) else PolicySet(policies)
    for policy, statement in indexed.about(access.action, access.namespace, access.name):
        if not _applies(statement, claims):
            continue
        if statement.effect is Effect.DENY:
            return Decision(access, False, policy.name, statement.sid, Effect.DENY)
        granted = granted or Decision(access, True, policy.name, statement.sid, Effect.ALLOW)
    return granted or Decision(access, False)


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
        if action in statement.actions and _applies(statement, claims)
    ]
    denied = [_lowered(r) for s in about if s.effect is Effect.DENY for r in s.resources]
    allowed = dict.fromkeys(r for s in about if s.effect is Effect.ALLOW for r in s.resources)
    return tuple(r for r in allowed if not _any_may_overlap(_lowered(r), denied))


def _applies(statement: Statement, claims: Claims) -> bool:
    """Return whether the conditions of *statement* let it take part for these *claims*."""
    if statement.effect is Effect.DENY:
        return holds_unless_refuted(statement.conditions, claims)
    return holds(statement.conditions, claims)


def _lowered(resource: Resource) -> tuple[str, str]:
    namespace, name = resource.halves
    return ascii_lower(namespace), ascii_lower(name)


def _any_may_overlap(one: tuple[str, str], others: Iterable[tuple[str, str]]) -> bool:
    """Return whether *one* and any of *others* could cover something in common; in doubt, True."""
    namespace, name = one
    return any(
        _halves_may_overlap(namespace, other_namespace) and _halves_may_overlap(name, other_name)
        for other_namespace, other_name in others
    )


def _halves_may_overlap(one: str, other: str) -> bool:
    if "*" not in one:
        return _compiled(other)(one)
    if "*" not in other:
        return _compiled(one)(other)
    prefixes = one.partition("*")[0], other.partition("*")[0]
    return prefixes[0].startswith(prefixes[1]) or prefixes[1].startswith(prefixes[0])


_compiled = lru_cache(4096)(compile_pattern)
"""Each pattern is compared with many others, and to compile it takes longer than to match."""
