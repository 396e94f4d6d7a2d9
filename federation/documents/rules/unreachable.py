"""
W108 to W110: what can never have an effect: a Role nobody can satisfy, a Policy no Role uses,
a statement that a Deny makes void.

Such a document is safe, and not what its author meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from federation.documents.model import Effect, JwtIssuer, Policy, Role, Statement, field_text
from federation.documents.rules.ci_claims import FOREIGN, LISTS, SCALARS, STARLESS
from federation.documents.rules.role_facts import Place, Reading, Written, severity
from federation.documents.rules.trust import nearest_issuer
from federation.errors import Problem
from federation.policy.conditions import Operator, ascii_lower
from federation.providers.table import Provider
from federation.text import quoted

__all__ = ["never_matches", "unused_policies", "void_statements"]


def never_matches(reading: Reading, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    """W108: a value, or the whole Role, that no token can satisfy."""
    yield from _unknown_issuers(reading, issuers)
    yield from _contradictions(reading)
    yield from _only_empty(reading)
    if reading.of_ci:
        yield from _literal_stars(reading)
        yield from _foreign_keys(reading)
        yield from _wrong_shape(reading)
        yield from _wrong_audience(reading)
        yield from _other_owner(reading)
        yield from _environment_beside_ref_in_sub(reading)


def _unknown_issuers(reading: Reading, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    if not reading.issuers:
        return  # T001 says so
    for written in reading.conditions:
        if written.condition.key != "jwt:iss" or not written.condition.operator.exact:
            continue
        for number, iss in enumerate(written.values):
            if iss not in issuers:
                yield reading.problem(
                    "W108",
                    written.place,
                    f"no JwtIssuer is configured for {quoted(iss)}, so this value never matches",
                    nearest_issuer(iss, issuers)
                    or "add a JwtIssuer document with this iss, or drop it",
                    value=number,
                )


def _contradictions(reading: Reading) -> Iterator[Problem]:
    by_key: dict[str, list[Written]] = defaultdict(list)
    for written in reading.conditions:
        by_key[written.condition.key].append(written)
    for key, about in by_key.items():
        if len(about) < 2 or (key == "jwt:iss" and not reading.issuers):
            continue
        of_list = {written.condition.operator.of_list for written in about}
        if len(of_list) == 2:
            message = f"{key} is read as one value and as a list, and a claim is never both"
            yield reading.problem("W108", about[1].place, message, "use one kind of operator")
        elif excluded := _excluded(about):
            yield reading.problem(
                "W108",
                excluded.place,
                f"another condition on {key} excludes {_some(excluded.values)}, so this Role can "
                "never match",
                "put all conditions on one key together, or drop one",
            )


def _excluded(about: Sequence[Written]) -> Written | None:
    """The first exact condition none of whose values all the others accept."""
    for written in about:
        operator = written.condition.operator
        if not (operator.exact or operator is Operator.STRING_EQUAL_IGNORE_CASE):
            continue
        others = [other.condition for other in about if other is not written]
        if operator is Operator.STRING_EQUAL_IGNORE_CASE:
            # What it accepts beside its own spelling is known only to another of its kind.
            others = [o for o in others if o.operator is Operator.STRING_EQUAL_IGNORE_CASE]
        if others and not any(all(o.accepts(v) for o in others) for v in written.values):
            return written
    return None


def _only_empty(reading: Reading) -> Iterator[Problem]:
    for written in reading.conditions:
        if written.positive and not any(written.values):
            yield reading.problem(
                "W108",
                written.place,
                "an empty claim matches nothing, so this Role can never match",
                "drop the condition, or name a value",
            )


def _literal_stars(reading: Reading) -> Iterator[Problem]:
    for written in reading.conditions:
        condition = written.condition
        if condition.key not in STARLESS or condition.operator.pattern or not written.positive:
            continue
        for number, value in enumerate(condition.values):
            # The name of an environment, and it alone, may hold a star.
            if "*" in value.partition(":environment:")[0]:
                yield reading.problem(
                    "W108",
                    written.place,
                    f"{condition.operator} takes the * in {quoted(value)} literally, and no "
                    f"{condition.key.removeprefix('jwt:')} holds one",
                    "put it under StringLike, or write the value out",
                    value=number,
                )


_CALLED = MappingProxyType({Provider.GITHUB: "GitHub", Provider.GITLAB: "GitLab"})


def _foreign_keys(reading: Reading) -> Iterator[Problem]:
    """Where no issuer of the Role sends all the claims that it asks for."""
    strange = {
        provider: [w for w in reading.conditions if w.condition.key in FOREIGN[provider]]
        for provider in sorted(reading.providers)
    }
    if not all(strange.values()):
        return
    provider, (first, *_) = next(iter(strange.items()))
    yield reading.problem(
        "W108",
        first.place,
        f"{_CALLED[provider]}'s tokens have no {first.condition.key.removeprefix('jwt:')}, so this "
        "Role can never match",
        "use one Role for each issuer",
    )


def _wrong_shape(reading: Reading) -> Iterator[Problem]:
    if Provider.GENERIC in reading.providers:
        return
    for written in reading.conditions:
        key, of_list = written.condition.key, written.condition.operator.of_list
        if of_list and key in SCALARS:
            hint = f"write {written.condition.operator.removeprefix('ForAnyValue:')}"
            yield reading.problem("W108", written.place, f"{key} is never a list", hint)
        elif not of_list and key in LISTS:
            hint = "write ForAnyValue:StringEqual"
            yield reading.problem("W108", written.place, f"{key} is always a list", hint)


def _wrong_audience(reading: Reading) -> Iterator[Problem]:
    if Provider.GENERIC in reading.providers or not reading.issuers:
        return
    accepted = sorted({aud for issuer in reading.issuers for aud in issuer.audiences})
    for written in reading.conditions:
        condition = written.condition
        if condition.key != "jwt:aud" or condition.operator.of_list or not accepted:
            continue
        if not any(condition.accepts(audience) for audience in accepted):
            yield reading.problem(
                "W108",
                written.place,
                "the issuer's document accepts no audience that this condition lets pass",
                f"write {quoted(accepted[0])}, or drop the condition",
            )


_PARTS = (("jwt:repository", "jwt:repository_owner"), ("jwt:project_path", "jwt:namespace_path"))


def _other_owner(reading: Reading) -> Iterator[Problem]:
    """Where the repository belongs to somebody else than the owner that is asked for."""
    for path_key, owner_key in _PARTS:
        if not {path_key, owner_key} <= reading.narrowed:
            continue
        path, owner = _exact(reading, path_key), _exact(reading, owner_key)
        if path is None or owner is None:
            continue
        owners = {ascii_lower(value) for value in owner.values}
        if owners.isdisjoint(ascii_lower(value.rpartition("/")[0]) for value in path.values):
            yield reading.problem(
                "W108",
                path.place,
                f"{_some(path.values)} does not belong to {_some(owner.values)}, so this Role can "
                "never match",
                f"let {path_key} and {owner_key} agree",
            )


def _exact(reading: Reading, key: str) -> Written | None:
    return next(
        (w for w in reading.conditions if w.condition.key == key and w.condition.operator.exact),
        None,
    )


_SHOWS_REF = re.compile(r"repo:[^:]+:(?:ref:|pull_request$)")


def _environment_beside_ref_in_sub(reading: Reading) -> Iterator[Problem]:
    """A job that names an environment shows it in `sub`, in place of the ref."""
    if reading.providers != {Provider.GITHUB} or "jwt:environment" not in reading.narrowed:
        return
    for written in reading.on({"jwt:sub"}):
        if all(map(_SHOWS_REF.match, written.values)):
            yield reading.problem(
                "W108",
                written.place,
                "a job that names an environment has a sub that ends in :environment:…, so these "
                "two conditions never hold together",
                "compare jwt:ref and jwt:environment, and leave jwt:sub out",
            )


def _some(values: Sequence[str]) -> str:
    return quoted(values[0]) + (f" and {len(values) - 1} more" if len(values) > 1 else "")


def unused_policies(roles: Iterable[Role], policies: Mapping[str, Policy]) -> Iterator[Problem]:
    """W109: no Role uses the Policy."""
    used = {name for role in roles for name in role.policies}
    for name in policies.keys() - used:
        yield _of_policy(
            policies[name], "W109", (), "no Role uses this Policy", "name it in a Role, or drop it"
        )


def void_statements(roles: Iterable[Role], policies: Mapping[str, Policy]) -> Iterator[Problem]:
    """W110: wherever the statement takes part, a Deny without conditions takes all of it back."""
    denies = {name: found for name, policy in policies.items() if (found := tuple(_denies(policy)))}
    if not denies:
        return
    for name, companies in _companies(roles, policies, denies).items():
        policy = policies[name]
        for number, statement in enumerate(policy.statements):
            if statement.effect is not Effect.ALLOW:
                continue
            reasons = [_voiding(statement, company, denies) for company in companies]
            if reasons and all(reasons):
                yield _of_policy(
                    policy,
                    "W110",
                    ("spec", "statement", number),
                    f"statement {quoted(statement.sid)} grants nothing: {reasons[0]} denies all "
                    "of it",
                    "drop the statement, or narrow the Deny",
                )


def _denies(policy: Policy) -> Iterator[Statement]:
    return (s for s in policy.statements if s.effect is Effect.DENY and not s.conditions)


def _companies(
    roles: Iterable[Role],
    policies: Mapping[str, Policy],
    denies: Mapping[str, tuple[Statement, ...]],
) -> dict[str, set[frozenset[str]]]:
    """For each Policy, the sets of Policies with a Deny that it takes part with."""
    companies: dict[str, set[frozenset[str]]] = defaultdict(set)
    for role in roles:
        denying = frozenset(name for name in role.policies if name in denies)
        for name in role.policies:
            if name in policies:
                companies[name].add(denying)
    for name in denies.keys() - companies.keys():
        companies[name].add(frozenset({name}))
    return companies


def _voiding(
    statement: Statement, company: Iterable[str], denies: Mapping[str, tuple[Statement, ...]]
) -> str:
    """The first Deny of *company* that takes part in covering *statement*, empty if some is left."""
    voiding = ""
    against = [(name, deny) for name in sorted(company) for deny in denies[name]]
    for action in statement.actions:
        for resource in statement.resources:
            namespace, _, name = resource.text.partition(":")
            for policy, deny in against:
                # A `*` of the grant is met only by a `*` of the Deny, which covers all it can be.
                if action in deny.actions and any(
                    wall.covers(namespace, name or "*") for wall in deny.resources
                ):
                    voiding = voiding or f"{quoted(deny.sid)} of Policy {policy}"
                    break
            else:
                return ""
    return voiding


def _of_policy(policy: Policy, code: str, place: Place, message: str, hint: str) -> Problem:
    return Problem(
        path=policy.origin.path,
        line=policy.origin.line_of(*place),
        code=code,
        severity=severity(code),
        message=message,
        kind="Policy",
        name=policy.name,
        field=field_text(place),
        hint=hint,
    )
