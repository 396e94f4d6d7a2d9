"""
Warnings W108 to W110: documents that can never have an effect.

A Role that no token can satisfy, a Policy that no Role uses, or a statement that a Deny takes
back completely. Such a document is safe, but it is not what its author meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from federation.documents.model import Effect, Policy, Role, Statement
from federation.documents.rules.role_facts import Fault, PlacedCondition, RoleFacts
from federation.documents.rules.trust import nearest_issuer
from federation.policy.conditions import Operator, ascii_lower, keys
from federation.providers.table import PROFILES, Provider, all_claims
from federation.text import quoted


def contradictions(facts: RoleFacts) -> Iterator[Fault]:
    """W108: conditions that no token can satisfy, whatever its issuer sends."""
    yield from _unknown_issuers(facts)
    yield from _contradictions(facts)
    yield from _only_empty(facts)


def values_that_ci_never_sends(facts: RoleFacts) -> Iterator[Fault]:
    """W108: values that no token of the Role's CI systems has."""
    yield from _literal_stars(facts)
    yield from _foreign_keys(facts)
    yield from _wrong_shape(facts)
    yield from _wrong_audience(facts)
    yield from _other_owner(facts)
    yield from _environment_beside_ref_in_sub(facts)


def _unknown_issuers(facts: RoleFacts) -> Iterator[Fault]:
    if not facts.issuers:
        return  # T001 says so
    for placed in facts.conditions:
        if placed.key != "jwt:iss" or not placed.operator.exact:
            continue
        for place, iss in placed.placed_values:
            if iss not in facts.configured:
                yield Fault(
                    place,
                    f"no JwtIssuer is configured for {quoted(iss)}, so this value never matches",
                    nearest_issuer(iss, facts.configured)
                    or "add a JwtIssuer document with this iss, or drop it",
                )


def _contradictions(facts: RoleFacts) -> Iterator[Fault]:
    by_key: dict[str, list[PlacedCondition]] = defaultdict(list)
    for placed in facts.conditions:
        by_key[placed.key].append(placed)
    for key, about in by_key.items():
        if len(about) < 2 or (key == "jwt:iss" and not facts.issuers):
            continue
        of_list = {placed.operator.of_list for placed in about}
        if len(of_list) == 2:
            message = f"{key} is read as one value and as a list, and a claim is never both"
            yield Fault(about[1].place, message, "use one kind of operator")
        elif excluded := _excluded(about):
            yield Fault(
                excluded.place,
                f"another condition on {key} excludes {_some(excluded.values)}, so this Role can "
                "never match",
                "put all conditions on one key together, or drop one",
            )


def _excluded(about: Sequence[PlacedCondition]) -> PlacedCondition | None:
    """The first exact condition of whose values the other conditions accept none."""
    for placed in about:
        operator = placed.operator
        if not (operator.exact or operator is Operator.STRING_EQUAL_IGNORE_CASE):
            continue
        others = [other.condition for other in about if other is not placed]
        if operator is Operator.STRING_EQUAL_IGNORE_CASE:
            # It accepts other spellings than its own, so only another of its kind can exclude it.
            others = [o for o in others if o.operator is Operator.STRING_EQUAL_IGNORE_CASE]
        if others and not any(all(o.accepts(v) for o in others) for v in placed.values):
            return placed
    return None


def _only_empty(facts: RoleFacts) -> Iterator[Fault]:
    for placed in facts.conditions:
        if placed.positive and not any(placed.values):
            yield Fault(
                placed.place,
                "an empty claim matches nothing, so this Role can never match",
                "drop the condition, or name a value",
            )


def _literal_stars(facts: RoleFacts) -> Iterator[Fault]:
    for placed in facts.conditions:
        if placed.key not in _STARLESS or placed.operator.pattern or not placed.positive:
            continue
        for place, value in placed.placed_values:
            # The name of an environment, and it alone, may hold a star.
            if "*" in value.partition(":environment:")[0]:
                yield Fault(
                    place,
                    f"{placed.operator} takes the * in {quoted(value)} literally, and no "
                    f"{placed.claim} holds one",
                    "put it under StringLike, or write the value out",
                )


_SCALARS = keys(*all_claims(lambda profile: profile.scalars))
_LISTS = keys(*all_claims(lambda profile: profile.lists))
_STARLESS = keys(*all_claims(lambda profile: profile.starless))
# A claim that no provider lists is never called wrong: administrators can add claims.
_FOREIGN = {
    provider: (_SCALARS | _LISTS) - keys(*profile.scalars, *profile.lists)
    if profile.ci
    else frozenset()
    for provider, profile in PROFILES.items()
}
"""The keys of claims that only other providers send."""


def _foreign_keys(facts: RoleFacts) -> Iterator[Fault]:
    """Report a Role if each of its providers lacks some claim that the Role demands."""
    strange = {
        provider: [placed for placed in facts.conditions if placed.key in _FOREIGN[provider]]
        for provider in sorted(facts.providers)
    }
    if not all(strange.values()):
        return
    provider, (first, *_) = next(iter(strange.items()))
    yield Fault(
        first.place,
        f"{PROFILES[provider].display_name}'s tokens have no {first.claim}, so this Role can never "
        "match",
        "use one Role for each issuer",
    )


def _wrong_shape(facts: RoleFacts) -> Iterator[Fault]:
    if not facts.only_ci:
        return
    for placed in facts.conditions:
        if placed.operator.of_list and placed.key in _SCALARS:
            hint = f"write {placed.operator.removeprefix('ForAnyValue:')}"
            yield Fault(placed.place, f"{placed.key} is never a list", hint)
        elif not placed.operator.of_list and placed.key in _LISTS:
            hint = "write ForAnyValue:StringEqual"
            yield Fault(placed.place, f"{placed.key} is always a list", hint)


def _wrong_audience(facts: RoleFacts) -> Iterator[Fault]:
    if not facts.only_ci or not facts.issuers:
        return
    accepted = sorted({aud for issuer in facts.issuers for aud in issuer.audiences})
    for placed in facts.conditions:
        condition = placed.condition
        if condition.key != "jwt:aud" or condition.operator.of_list or not accepted:
            continue
        if not any(condition.accepts(audience) for audience in accepted):
            yield Fault(
                placed.place,
                "the issuer's document accepts no audience that this condition lets pass",
                f"write {quoted(accepted[0])}, or drop the condition",
            )


def _other_owner(facts: RoleFacts) -> Iterator[Fault]:
    """Report a Role whose repository does not belong to the owner that it names."""
    for profile in PROFILES.values():
        if profile.owner.path_and_owner is None:
            continue
        path_key, owner_key = (f"jwt:{claim}" for claim in profile.owner.path_and_owner)
        if not {path_key, owner_key} <= facts.narrowed:
            continue
        path, owner = _exact(facts, path_key), _exact(facts, owner_key)
        if path is None or owner is None:
            continue
        owners = {ascii_lower(value) for value in owner.values}
        if owners.isdisjoint(ascii_lower(value.rpartition("/")[0]) for value in path.values):
            yield Fault(
                path.place,
                f"{_some(path.values)} does not belong to {_some(owner.values)}, so this Role can "
                "never match",
                f"let {path_key} and {owner_key} agree",
            )


def _exact(facts: RoleFacts, key: str) -> PlacedCondition | None:
    return next((p for p in facts.conditions if p.key == key and p.operator.exact), None)


_SHOWS_REF = re.compile(r"repo:[^:]+:(?:ref:|pull_request$)")


def _environment_beside_ref_in_sub(facts: RoleFacts) -> Iterator[Fault]:
    """Report a `sub` with a ref: a job that names an environment has that in `sub` instead."""
    if facts.providers != {Provider.GITHUB} or "jwt:environment" not in facts.narrowed:
        return
    for placed in facts.on({"jwt:sub"}):
        if all(map(_SHOWS_REF.match, placed.values)):
            yield Fault(
                placed.place,
                "a job that names an environment has a sub that ends in :environment:…, so these "
                "two conditions never hold together",
                "compare jwt:ref and jwt:environment, and leave jwt:sub out",
            )


def _some(values: Sequence[str]) -> str:
    return quoted(values[0]) + (f" and {len(values) - 1} more" if len(values) > 1 else "")


def unused_policies(
    roles: Iterable[Role], policies: Mapping[str, Policy]
) -> Iterator[tuple[Policy, Fault]]:
    """W109: no Role uses the Policy."""
    used = {name for role in roles for name in role.policies}
    for name in policies.keys() - used:
        yield policies[name], Fault((), "no Role uses this Policy", "name it in a Role, or drop it")


def void_statements(
    roles: Iterable[Role], policies: Mapping[str, Policy]
) -> Iterator[tuple[Policy, Fault]]:
    """W110: a Deny without conditions takes back all that the statement allows, in every Role."""
    denies: dict[str, list[Statement]] = defaultdict(list)
    for name, policy in policies.items():
        for statement in policy.statements:
            if statement.effect is Effect.DENY and not statement.conditions:
                denies[name].append(statement)
    if not denies:
        return
    for name, listed in _denying_policies(roles, policies, denies).items():
        policy = policies[name]
        for number, statement in enumerate(policy.statements):
            if statement.effect is not Effect.ALLOW:
                continue
            reasons = [_voiding(statement, denying, denies) for denying in listed]
            if reasons and all(reasons):
                message = (
                    f"statement {quoted(statement.sid)} grants nothing: {reasons[0]} denies all "
                    "of it"
                )
                place = ("spec", "statement", number)
                yield policy, Fault(place, message, "drop the statement, or narrow the Deny")


def _denying_policies(
    roles: Iterable[Role], policies: Mapping[str, Policy], denies: Mapping[str, Sequence[Statement]]
) -> dict[str, set[frozenset[str]]]:
    """For each Policy, the sets of denying Policies that some Role lists together with it."""
    listed: dict[str, set[frozenset[str]]] = defaultdict(set)
    for role in roles:
        denying = frozenset(name for name in role.policies if name in denies)
        for name in role.policies:
            if name in policies:
                listed[name].add(denying)
    for name in denies.keys() - listed.keys():
        listed[name].add(frozenset({name}))
    return listed


def _voiding(
    statement: Statement, denying: Iterable[str], denies: Mapping[str, Sequence[Statement]]
) -> str:
    """The first Deny of *denying* that helps to cover *statement*, empty if some of it is left."""
    voiding = ""
    against = [(name, deny) for name in sorted(denying) for deny in denies[name]]
    for action in statement.actions:
        for resource in statement.resources:
            namespace, _, name = resource.text.partition(":")
            for policy, deny in against:
                # The `*` of a grant is taken as a text here. Only a `*` of the Deny matches it,
                # and that covers everything the grant's `*` can stand for.
                if action in deny.actions and any(
                    wall.covers(namespace, name or "*") for wall in deny.resources
                ):
                    voiding = voiding or f"{quoted(deny.sid)} of Policy {policy}"
                    break
            else:
                return ""
    return voiding
