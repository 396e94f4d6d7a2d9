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
from federation.documents.rules.owners import literal_prefix
from federation.documents.rules.role_facts import Fault, PlacedCondition, RoleFacts, RoleForm
from federation.documents.rules.trust import nearest_issuer
from federation.policy.conditions import Condition, Operator, ascii_lower, keys
from federation.providers.profile import Shape
from federation.providers.table import PROFILES, Profile
from federation.text import listed, nearest, quoted


def unknown_issuers(facts: RoleFacts) -> Iterator[Fault]:
    """W108: an exact value on `jwt:iss` names no configured issuer."""
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


def contradictions(facts: RoleFacts) -> Iterator[Fault]:
    """W108: two conditions on one key that no token can satisfy together."""
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


def only_empty(facts: RoleFacts) -> Iterator[Fault]:
    """W108: a condition with empty values only."""
    for placed in facts.conditions:
        if placed.positive and not any(placed.values):
            yield Fault(
                placed.place,
                "an empty claim matches nothing, so this Role can never match",
                "drop the condition, or name a value",
            )


def wrong_values(facts: RoleFacts) -> Iterator[Fault]:
    """W108: values that do not have the shape of their claim."""
    for placed in facts.conditions:
        shape = placed.shape
        if shape is None or placed.operator.of_list or _plainly_fit(placed, shape):
            continue
        for place, value in placed.placed_values:
            if several := _several_in_one(placed, shape, value):
                yield Fault(place, *several)
            elif value and not _possible(placed, shape, value):
                yield Fault(place, *_shape_words(placed, shape, value))


def _plainly_fit(placed: PlacedCondition, shape: Shape) -> bool:
    """Return whether all values have the shape as they stand. Most do."""
    values = placed.values
    return (
        placed.operator.exact
        and all(map(shape.whole.fullmatch, values))
        and "," not in "".join(values)
    )


def _several_in_one(placed: PlacedCondition, shape: Shape, value: str) -> tuple[str, str] | None:
    """Return the problem of a *value* that lists several possible ones with commas, and a hint."""
    hint = listed(value) if "," in value else ""
    if not hint:
        return None
    parts = [part.strip() for part in value.split(",")]
    if not all(_possible(placed, shape, part) for part in parts):
        return None
    never = "never matches" if placed.positive else "excludes nothing"
    return f"{quoted(value)} is one value with commas within, and so {never}", hint


def _possible(placed: PlacedCondition, shape: Shape, value: str) -> bool:
    """Return whether *value* fits the shape; of a pattern, whether its literal beginning does."""
    literal = literal_prefix(value) if placed.operator.pattern else value
    if literal == value:
        if placed.operator is not Operator.STRING_EQUAL_IGNORE_CASE:
            return bool(shape.whole.fullmatch(value))
        flags = shape.whole.flags | re.IGNORECASE
        return bool(re.compile(shape.whole.pattern, flags).fullmatch(value))
    if shape.values:
        return any(map(Condition(placed.operator, placed.key, (value,)).accepts, shape.values))
    if shape.begins:
        return any(b.startswith(literal) or literal.startswith(b) for b in shape.begins)
    return _mended(shape, value) in {None, value}


def _mended(shape: Shape, value: str) -> str | None:
    """Return the right form of *value* if it is a usual mistake, else None."""
    for slip, right in shape.slips:
        if found := slip.fullmatch(value):
            return found.expand(right) or None
    return None


def _shape_words(placed: PlacedCondition, shape: Shape, value: str) -> tuple[str, str]:
    if placed.positive and not placed.operator.pattern and "*" in value:
        literal = f"{placed.operator} takes the * in {quoted(value)} literally"
        message = f"{literal}, and no {placed.claim} holds one"
        return message, "put it under StringLike, or write the value out"
    never = "this value never matches" if placed.positive else "this condition always holds"
    message = f"{placed.claim} is {shape.words}, so {quoted(value)} is none and {never}"
    if right := _mended(shape, value):
        return message, f"write {quoted(right)}"
    return message, "write the value as the provider's tokens have it; docs/providers.md shows one"


def may_be_unknown(form: RoleForm) -> bool:
    """Return whether `unknown_claims` has anything to say."""
    lists_claim = form.profile.lists_claim
    return form.profile.ci and not all(lists_claim(made.root) for made in form.conditions)


def unknown_claims(facts: RoleFacts) -> Iterator[Fault]:
    """W108: claims that no token of the Role's CI system has."""
    if not facts.profile.ci:
        return
    lists_claim = facts.profile.lists_claim
    for placed in facts.conditions:
        if lists_claim(placed.condition.path[0]):
            continue
        never = "this Role can never match" if placed.positive else "this condition never holds"
        yield Fault(
            placed.place,
            f"{facts.profile.display_name}'s tokens have no {placed.claim}, so {never}",
            _instead_of(facts.profile, placed.claim),
        )


def _instead_of(profile: Profile, claim: str) -> str:
    near = profile.misnamed.get(claim) or nearest(claim, sorted(profile.scalars), cutoff=0.7)
    if near:
        return f"did you mean jwt:{near}?"
    if any(claim in other.scalars | other.lists for other in PROFILES.values()):
        return "another provider's tokens have it: use one Role for each issuer"
    return "drop the condition"


def may_be_never_together(form: RoleForm) -> bool:
    """Return whether the Role has conditions on both claims of a pair."""
    pairs = form.profile.never_together
    return any(keys(pair.claim, pair.other) <= form.keys for pair in pairs)


def never_together(facts: RoleFacts) -> Iterator[Fault]:
    """W108: two conditions of which each can hold, but not both in one token."""
    exact = facts.exact
    for pair in facts.profile.never_together:
        one, other = exact.get(f"jwt:{pair.claim}"), exact.get(f"jwt:{pair.other}")
        if one is None or other is None or not pair.values.issuperset(one.values):
            continue
        if not any(value.startswith(pair.begins) for value in other.values):
            yield Fault(
                other.place,
                f"if {pair.claim} is {_some(one.values)}, {pair.other} begins with {pair.begins}, "
                "so this Role can never match",
                f"drop one of the two, or write a {pair.other} that begins so",
            )


def may_be_of_wrong_kind(form: RoleForm) -> bool:
    """Return whether `wrong_kind` has anything to say."""
    return form.names(form.rule_keys.lists) or any(
        made.operator.of_list for made in form.conditions
    )


def wrong_kind(facts: RoleFacts) -> Iterator[Fault]:
    """W108: a list compared as one value, or one value as a list."""
    scalars, lists = facts.rule_keys.scalars, facts.rule_keys.lists
    for placed in facts.conditions:
        if placed.operator.of_list and placed.key in scalars:
            hint = f"write {placed.operator.removeprefix('ForAnyValue:')}"
            yield Fault(placed.place, f"{placed.key} is never a list", hint)
        elif not placed.operator.of_list and placed.key in lists:
            hint = "write ForAnyValue:StringEqual"
            yield Fault(placed.place, f"{placed.key} is always a list", hint)


def wrong_audience(facts: RoleFacts) -> Iterator[Fault]:
    """W108: a condition on `aud` that accepts no audience of the Role's issuers."""
    accepted = sorted(
        {aud for issuer in facts.issuers for aud in (*issuer.audiences, *issuer.clients)}
    )
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


def may_have_other_owner(form: RoleForm) -> bool:
    """Return whether the Role names both a repository and its owner."""
    claims = form.profile.owner.path_and_owner
    return claims is not None and keys(*claims) <= form.keys


def other_owner(facts: RoleFacts) -> Iterator[Fault]:
    """W108: a repository that does not belong to the owner that the Role names."""
    if facts.profile.owner.path_and_owner is None:
        return
    path_key, owner_key = (f"jwt:{claim}" for claim in facts.profile.owner.path_and_owner)
    path, owner = facts.exact.get(path_key), facts.exact.get(owner_key)
    if path is None or owner is None:
        return
    owners = {ascii_lower(value) for value in owner.values}
    if owners.isdisjoint(ascii_lower(value.rpartition("/")[0]) for value in path.values):
        yield Fault(
            path.place,
            f"{_some(path.values)} does not belong to {_some(owner.values)}, so this Role can "
            "never match",
            f"let {path_key} and {owner_key} agree",
        )


_SHOWS_REF = re.compile(r"repo:[^:]+:(?:ref:|pull_request$)")


def environment_beside_ref_in_sub(facts: RoleFacts) -> Iterator[Fault]:
    """W108: a `sub` with a ref: a job that names an environment has that in `sub` instead."""
    if not facts.profile.environment_replaces_ref or facts.narrowed.isdisjoint(
        facts.rule_keys.environments
    ):
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
    for name, denials in _denying_policies(roles, policies, denies).items():
        policy = policies[name]
        for number, statement in enumerate(policy.statements):
            if statement.effect is not Effect.ALLOW:
                continue
            reasons = [_voiding(statement, denying, denies) for denying in denials]
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
            for policy, deny in against:
                # The `*` of a grant is taken as a text here. Only a `*` of the Deny matches it,
                # and that covers everything the grant's `*`, or a variable, can stand for.
                if action in deny.actions and any(
                    wall.covers(*resource.halves) for wall in deny.resources if not wall.variables
                ):
                    voiding = voiding or f"{quoted(deny.sid)} of Policy {policy}"
                    break
            else:
                return ""
    return voiding
