"""
The entry to the trust rules: runs all of them over a set of documents.

An error (`T…`) refuses the set, a warning (`W…`) does not. Every problem names the value, an
example of what it admits, and the condition to write instead. Each code has a section in
`docs/lint.md`. The rules are pure and read each Role once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType

from federation.documents.model import JwtIssuer, Policy, Role
from federation.documents.rules import trust, unreachable, warnings
from federation.documents.rules.role_facts import RoleFacts
from federation.errors import Problem

__all__ = ["CODES", "lint"]

CODES: Mapping[str, str] = MappingProxyType(
    {
        "T001": "no configured issuer is named exactly",
        "T002": "nothing pins who owns the code",
        "T003": "a wildcard reaches into the owner",
        "T004": "identity rests on values that anybody can set",
        "W101": "names without immutable ids",
        "W102": "no restriction on ref or environment",
        "W103": "an environment without a ref",
        "W104": "a trailing wildcard after no separator",
        "W105": "a short ref without its type",
        "W106": "a shared audience",
        "W107": "only one of the two forms of sub",
        "W108": "a Role or value that can never match",
        "W109": "a Policy that no Role uses",
        "W110": "a statement that a Deny makes void",
        "W112": "a wildcard that runs over separators",
        "W113": "an event named in vain",
    }
)
"""The code of every problem that `lint` reports, with its title."""


def lint(
    issuers: Mapping[str, JwtIssuer], roles: Sequence[Role], policies: Mapping[str, Policy]
) -> list[Problem]:
    """Every problem that the trust rules find, sorted; *issuers* are by `iss`."""
    found = chain(
        chain.from_iterable(_of_role(role, issuers) for role in roles),
        chain.from_iterable(map(warnings.shared_audiences, issuers.values())),
        unreachable.unused_policies(roles, policies),
        unreachable.void_statements(roles, policies),
    )
    return sorted(found)


def _of_role(role: Role, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    facts = RoleFacts.of(role, issuers)
    yield from trust.without_issuer(facts, issuers)
    yield from unreachable.never_matches(facts, issuers)
    for rule in _RULES:
        yield from rule(facts)


_RULES = (
    trust.unpinned,
    trust.misplaced_wildcards,
    trust.rests_on_free_values,
    warnings.names_without_ids,
    warnings.unrestricted_refs,
    warnings.environment_without_ref,
    warnings.open_endings,
    warnings.short_refs,
    warnings.one_form_of_sub,
    warnings.inner_wildcards,
    warnings.events_named_in_vain,
)
