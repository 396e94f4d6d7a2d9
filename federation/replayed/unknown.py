"""
What the documents read of a token, and policies for which some of its claims are not known.

Each condition and each variable on such a claim may match or not. `assuming` makes the two policies
between which every truth lies: one gives as little as it may, the other as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

from federation.claims import Claims, text
from federation.documents.catalog import role_issuers
from federation.documents.model import Effect, JwtIssuer, Policy, Role, Statement
from federation.documents.resources import Resource
from federation.policy.conditions import holds
from federation.policy.index import PolicySet


def assuming(policies: PolicySet, unknown: frozenset[str], effect: Effect) -> PolicySet:
    """
    The *policies*, if each condition on a claim in *unknown* holds for *effect* and for no other.

    Then the Deny statements take as much as they may, or the Allow statements give as much.
    """
    return PolicySet(
        (replace(p, statements=tuple(_assumed(p.statements, unknown, effect))) for p in policies),
        policies.missing,
    )


def _assumed(
    statements: Iterable[Statement], unknown: frozenset[str], effect: Effect
) -> Iterator[Statement]:
    for statement in statements:
        told = tuple(c for c in statement.conditions if c.path[0] not in unknown)
        assumed = statement.effect is effect
        found = (_assumed_resource(each, unknown, effect, assumed) for each in statement.resources)
        resources = tuple(resource for resource in found if resource is not None)
        if resources and (assumed or told == statement.conditions):
            yield replace(statement, conditions=told, resources=resources)


def _assumed_resource(
    resource: Resource, unknown: frozenset[str], effect: Effect, assumed: bool
) -> Resource | None:
    """Return *resource*, widened if it is *assumed* to match, else narrowed; None for nothing."""
    if unknown.isdisjoint(variable.path[0] for variable in resource.variables):
        return resource
    if not assumed:
        return None
    if effect is Effect.DENY:
        return resource.without(unknown, taking=True)
    halves = (
        "".join(
            piece if isinstance(piece, str) else "*" if piece.path[0] in unknown else piece.written
            for piece in half
        )
        for half in resource.pieces
    )
    return Resource(":".join(halves))


def gives_by(policies: Iterable[Policy], action: str, unknown: frozenset[str]) -> bool:
    """Return True if some statement allows *action* on a resource that one of *unknown* names."""
    return any(
        variable.path[0] in unknown
        for policy in policies
        for statement in policy.statements
        if statement.effect is Effect.ALLOW and action in statement.actions
        for resource in statement.resources
        for variable in resource.variables
    )


def read_by_policies(policies: Iterable[Policy]) -> frozenset[str]:
    statements = [statement for policy in policies for statement in policy.statements]
    of_conditions = (condition.path[0] for s in statements for condition in s.conditions)
    of_resources = (v.path[0] for s in statements for r in s.resources for v in r.variables)
    return frozenset((*of_conditions, *of_resources))


Readers: TypeAlias = Mapping[str, list[tuple[Role, frozenset[str]]]]
"""Roles by the claims that they read, each with the issuers whose tokens it can admit."""


def readers(roles: Iterable[Role]) -> Readers:
    """The *roles* by the claims that they read."""
    found: dict[str, list[tuple[Role, frozenset[str]]]] = {}
    for role in roles:
        issuers = role_issuers(role)
        for name in {condition.path[0] for condition in role.conditions}:
            found.setdefault(name, []).append((role, issuers))
    return found


def not_decided(
    readers: Readers, claims: Claims, unknown: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """Yield each of the *unknown* claims with each Role that depends on it."""
    iss = text(claims.get("iss"))
    for name in sorted(unknown & readers.keys()):
        for role, issuers in readers[name]:
            told = [c for c in role.conditions if c.path[0] not in unknown]
            if iss in issuers and holds(told, claims):
                yield name, role.name


def facts(issuer: JwtIssuer) -> frozenset[str]:
    """The claims that the rules of the issuer's provider read."""
    profile = issuer.profile
    named = (*profile.required, *(claim for demand in profile.demands for claim in demand.claims))
    return frozenset(name.split("/")[1] if name.startswith("/") else name for name in named)
