"""
Rules about variables in resources: whose value stands there, and whether it can ever stand there.

What a claim means depends on who signs it, so a variable is judged for each Role that gives its
Policy, by the provider of that Role's issuers. Where a Role lists the values of the claim, nobody
can choose another, and nothing more is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from federation.documents.model import Effect, Policy, Statement
from federation.documents.resources import Pieces, Resource, Variable, usable
from federation.documents.rules.role_facts import Fault, Place, RoleFacts
from federation.policy.conditions import KEY_PREFIX, key_path, keys
from federation.text import quoted

Policies = Mapping[str, Policy]


def chosen_by_callers(facts: RoleFacts, policies: Policies) -> Iterator[Fault]:
    """T006: a resource is what its caller says it is."""
    for place, policy, variable in _variables(facts, policies):
        if variable.key not in facts.exact and (reason := _free(facts, variable)):
            yield Fault(
                place,
                f"callers choose {_where(policy, variable)}: {reason}",
                f"{_an_id(facts)}, or list the values of {variable.key} in this Role under"
                " StringEqual",
            )


def may_be_chosen_by_callers(facts: RoleFacts) -> bool:
    """Return whether T006 could refuse the Role beside a Policy that cannot be read."""
    return any(KEY_PREFIX + free not in facts.exact for free in facts.profile.free)


def names_in_resources(facts: RoleFacts, policies: Policies) -> Iterator[Fault]:
    """W122: a resource follows a name, and whoever takes over the name takes over the resource."""
    for place, policy, variable in _variables(facts, policies):
        claim = variable.key.removeprefix(KEY_PREFIX)
        known = [names.ids for names in facts.profile.names if claim in names.names]
        if claim in facts.profile.verified_by:
            known.append(())
        if (
            not known
            or variable.key in facts.exact
            or _never_fits(facts, variable)
            or _free(facts, variable)
        ):
            continue
        ids = [one for one in known[0] if Variable(f"${{{KEY_PREFIX}{one}}}").possible]
        yield Fault(
            place,
            f"{_where(policy, variable)} is a name: whoever takes it over after a rename or a"
            " deletion gets what it names",
            f"write {quoted(f'${{{KEY_PREFIX}{ids[0]}}}')}" if ids else _an_id(facts),
        )


def never_names(facts: RoleFacts, policies: Policies) -> Iterator[Fault]:
    """W123: no value of the claim can stand in a resource."""
    for place, policy, variable in _variables(facts, policies):
        listed = facts.exact.get(variable.key)
        if not listed and _free(facts, variable):
            continue  # T006 refuses it
        why = _never_fits(facts, variable)
        if not why and listed and not any(map(usable, listed.values)):
            why = f"this Role lists only values such as {quoted(listed.values[0])}"
        if why:
            yield Fault(
                place,
                f"{_where(policy, variable)} fits in no name: {why}. An Allow matches nothing by it,"
                " and a Deny everything",
                _an_id(facts),
            )


def beside_wildcards(policies: Policies) -> Iterator[tuple[Policy, Fault]]:
    """W124: nothing marks where the value ends, so that other values reach the same."""
    for policy in policies.values():
        for number, statement in enumerate(policy.statements if policy.variables else ()):
            if statement.effect is not Effect.ALLOW:
                continue
            for index, resource in enumerate(statement.resources):
                if any(map(_open_ended, resource.pieces)):
                    place = ("spec", "statement", number, "resource", index)
                    yield policy, _open_fault(resource, place)


def _open_ended(half: Pieces) -> bool:
    return any(
        (isinstance(one, Variable) and (isinstance(other, Variable) or other.startswith("*")))
        or (isinstance(other, Variable) and isinstance(one, str) and one.endswith("*"))
        for one, other in pairwise(half)
    )


def _open_fault(resource: Resource, place: Place) -> Fault:
    return Fault(
        place,
        f"in {quoted(resource.text)} nothing marks where a value ends: what is given for 1 is also"
        " within what is given for 12 or 21",
        "put a - between a variable and a wildcard or another variable",
    )


def _variables(
    facts: RoleFacts, policies: Policies
) -> Iterator[tuple[Place, tuple[Policy, Statement], Variable]]:
    """Yield each claim that stands in a resource, once for each Policy of the Role."""
    for index, name in enumerate(facts.role.policies):
        policy = policies.get(name)
        if policy is None or not policy.variables:
            continue
        told: set[str] = set()
        for statement in policy.statements:
            for resource in statement.resources:
                for variable in resource.variables:
                    if variable.key not in told:
                        told.add(variable.key)
                        yield ("spec", "policy", index), (policy, statement), variable


def _where(at: tuple[Policy, Statement], variable: Variable) -> str:
    policy, statement = at
    return f"{quoted(variable.written)} in {policy.name}/{statement.sid}"


def _free(facts: RoleFacts, variable: Variable) -> str:
    """Return why anybody can set the claim of *variable*, empty if nothing is known of that."""
    return next(
        (
            reason
            for free, reason in facts.profile.free.items()
            if variable.path[: len(path := key_path(KEY_PREFIX + free))] == path
        ),
        "",
    )


def _never_fits(facts: RoleFacts, variable: Variable) -> str:
    """Return why no value of *variable* can stand in a resource, empty if one may."""
    profile, claim = facts.profile, variable.key.removeprefix(KEY_PREFIX)
    if not variable.possible:
        return "access tokens have no such claim, or one that is no single name"
    if profile.ci and variable.copied and not profile.lists_claim(variable.path[0]):
        return f"{profile.display_name}'s tokens have no {claim}"
    if variable.key in keys(*profile.lists):
        return f"{claim} is a list"
    shape = profile.shapes.get(claim)
    if shape is None or any(map(shape.whole.fullmatch, filter(usable, shape.values or _USUAL))):
        return ""
    return f"{claim} is {shape.words}"


_USUAL = (
    *("acme", "true", "41d0b7e2-0c55-4f0a-9d3e-7b1f2a6c8e90"),
    *("1" * length for length in range(1, 64)),
)
"""
Texts of which one has the form of a claim, if its values can stand in a resource.

There is a number of each length, since many ids have as many digits as each other.
"""


def _an_id(facts: RoleFacts) -> str:
    """Say which claim to name instead."""
    owner = facts.profile.owner
    for claim in (*owner.ids, *owner.code_ids):
        variable = Variable(f"${{{KEY_PREFIX}{claim}}}")
        if (
            claim not in owner.whole_issuer
            and variable.possible
            and not _never_fits(facts, variable)
        ):
            return f"name an id, such as {quoted(variable.written)}"
    return "name a claim that holds an id, which the issuer can add to its tokens"
