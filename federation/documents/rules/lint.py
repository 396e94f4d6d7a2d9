"""
The entry to the trust rules: runs all of them over a set of documents.

An error (`T…`) refuses the set, a warning (`W…`) does not. Every problem names the value, an
example of what it admits, and the condition to write instead. Each code has a section in
`docs/lint.md`. The rules are pure and read each Role once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from federation.documents.model import JwtIssuer, Policy, Role, field_text
from federation.documents.rules import trust, unreachable, warnings
from federation.documents.rules.role_facts import Fault, RoleFacts
from federation.errors import Problem, Severity

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
    found = [problem for role in roles for problem in _of_role(role, issuers)]
    for issuer in issuers.values():
        found += [_problem(issuer, fault, "W106") for fault in warnings.shared_audiences(issuer)]
    for policy, fault in unreachable.unused_policies(roles, policies):
        found.append(_problem(policy, fault, "W109"))
    for policy, fault in unreachable.void_statements(roles, policies):
        found.append(_problem(policy, fault, "W110"))
    return sorted(found)


Rule: TypeAlias = Callable[[RoleFacts], Iterator[Fault]]

_RULES: Sequence[tuple[str, Rule]] = (
    ("T001", trust.without_issuer),
    ("T002", trust.unpinned),
    ("T003", trust.misplaced_wildcards),
    ("T004", trust.rests_on_free_values),
    ("W101", warnings.names_without_ids),
    ("W104", warnings.open_endings),
    ("W105", warnings.short_refs),
    ("W107", warnings.one_form_of_sub),
    ("W108", unreachable.contradictions),
)
_CI_RULES: Sequence[tuple[str, Rule]] = (
    ("W102", warnings.unrestricted_refs),
    ("W103", warnings.environment_without_ref),
    ("W108", unreachable.values_that_ci_never_sends),
    ("W112", warnings.inner_wildcards),
    ("W113", warnings.events_named_in_vain),
)
"""Rules for Roles that can admit tokens of a known CI system."""


def _of_role(role: Role, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    facts = RoleFacts.of(role, issuers)
    for code, rule in (*_RULES, *_CI_RULES) if facts.of_ci else _RULES:
        for fault in rule(facts):
            yield _problem(role, fault, code)


def _problem(document: JwtIssuer | Role | Policy, fault: Fault, code: str) -> Problem:
    return Problem(
        path=document.origin.path,
        line=document.origin.line_of(*fault.place),
        code=code,
        severity=Severity.WARNING if code.startswith("W") else Severity.ERROR,
        message=fault.message,
        kind=type(document).__name__,
        name=document.name,
        field=field_text(fault.place),
        hint=fault.hint,
    )
