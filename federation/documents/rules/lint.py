"""
The entry to the trust rules: runs all of them over a set of documents.

An error (`T…`) refuses the set, a warning (`W…`) does not. Every problem names the value, an
example of what it admits, and the condition to write instead. Each code has a section in
`docs/lint.md`. The rules are pure and read each Role once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from federation.documents.codes import Code
from federation.documents.model import JwtIssuer, Policy, Role, field_text
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.rules import (
    issuer_documents,
    trust,
    unreachable,
    variables,
    warnings,
)
from federation.documents.rules.role_facts import Fault, RoleFacts
from federation.errors import Problem, Severity
from federation.policy.conditions import Condition

CODES: Mapping[str, str] = MappingProxyType(
    {
        "T001": "no configured issuer is named exactly",
        "T002": "nothing pins who owns the code",
        "T003": "a wildcard reaches into the owner",
        "T004": "identity rests on values that anybody can set",
        "T005": "issuers that do not mean the same",
        "T006": "a resource that its caller chooses",
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
        "W114": "nothing says who",
        "W115": "an unknown issuer on the internet",
        "W116": "people by names that nobody checked",
        "W117": "characters that cannot be seen",
        "W118": "an issuer document that no token fits",
        "W119": "keys of a shared issuer from elsewhere",
        "W120": "a token taken many times",
        "W121": "forks that look like ours",
        "W122": "resources that follow a name",
        "W123": "a variable that fits in no name",
        "W124": "a variable without an end",
    }
)
"""The code of every problem that `lint` reports, with its title."""


RoleFaults: TypeAlias = tuple[tuple[str, Fault], ...]
"""The faults of one Role, each with its code."""


@dataclass(slots=True)
class LintedRoles:
    """The faults of the Roles of a set, so that the next set's lint asks about few of them."""

    issuers: Mapping[str, JwtIssuer] = field(default_factory=dict)
    faults: dict[int, tuple[Sequence[Condition], RoleFaults]] = field(default_factory=dict)
    """By the identity of the Role's conditions, which are kept alive here."""

    def of(self, role: Role) -> RoleFaults:
        """The faults of *role*, which may have moved within its file."""
        known = self.faults.get(id(role.conditions))
        if known is None:
            known = role.conditions, tuple(_role_faults(role, self.issuers))
            self.faults[id(role.conditions)] = known
        return known[1]

    def next(self, roles: Iterable[Role], issuers: Mapping[str, JwtIssuer]) -> LintedRoles:
        """The faults of *roles* among *issuers*, as far as they are known."""
        if issuers != self.issuers:
            return LintedRoles(issuers)
        kept = {key: self.faults.get(key) for key in (id(role.conditions) for role in roles)}
        return LintedRoles(
            issuers, {key: known for key, known in kept.items() if known is not None}
        )


def lint(
    issuers: Mapping[str, JwtIssuer],
    roles: Sequence[Role],
    policies: Mapping[str, Policy],
    linted: LintedRoles | None = None,
    pause: Pause = go_on,
) -> list[Problem]:
    """
    Every problem that the trust rules find, sorted; *issuers* are by `iss`.

    What is in *linted* already is not looked at again; the rest is added to it.
    """
    found: list[Problem] = []
    for role in paced(roles, pause):
        found += _of_role(role, issuers, policies, linted)
    for issuer in issuers.values():
        found += _of_issuer(issuer)
    for issuer, fault in issuer_documents.forgotten_providers(issuers, paced(roles, pause)):
        found.append(_problem(issuer, fault, Code.PROVIDER_FORGOTTEN))
    found += lint_policies(roles, policies, pause)
    return sorted(found)


def lint_role(
    role: Role, issuers: Mapping[str, JwtIssuer], policies: Mapping[str, Policy]
) -> list[Problem]:
    """
    The problems of one Role, sorted, where each document has an author of its own.

    They depend on the issuers and Policies that it names, and on other issuers only in hints. D025 is told of the Role
    here: an issuer must not become bad because somebody else's Role came.
    """
    forgotten = issuer_documents.claims_without_provider(role, issuers)
    d025 = [_problem(role, fault, Code.PROVIDER_FORGOTTEN) for fault in forgotten]
    return sorted([*_of_role(role, issuers, policies), *d025])


def lint_issuer(issuer: JwtIssuer) -> list[Problem]:
    """The problems of one JwtIssuer, sorted, as far as no Role shows them."""
    forgotten = issuer_documents.forgotten_providers({issuer.iss: issuer}, ())
    d025 = [_problem(issuer, fault, Code.PROVIDER_FORGOTTEN) for _, fault in forgotten]
    return sorted([*_of_issuer(issuer), *d025])


def lint_policies(
    roles: Sequence[Role], policies: Mapping[str, Policy], pause: Pause = go_on
) -> list[Problem]:
    """The problems of Policies beside the Roles that name them."""
    unused = unreachable.unused_policies(paced(roles, pause), policies)
    found = [_problem(policy, fault, "W109") for policy, fault in unused]
    for policy, fault in unreachable.void_statements(paced(roles, pause), policies):
        found.append(_problem(policy, fault, "W110"))
    for policy, fault in variables.beside_wildcards(policies):
        found.append(_problem(policy, fault, "W124"))
    return found


_ISSUER_RULES: Sequence[tuple[str, Callable[[JwtIssuer], Iterator[Fault]]]] = (
    ("W106", issuer_documents.shared_audiences),
    ("W118", issuer_documents.nobodys_issuers),
    ("W119", issuer_documents.foreign_keys),
    ("W120", issuer_documents.taken_many_times),
)
Rule: TypeAlias = Callable[[RoleFacts], Iterator[Fault]]

_RULES: Sequence[tuple[str, Rule]] = (
    ("T001", trust.without_issuer),
    ("T002", trust.unpinned),
    ("T003", trust.misplaced_wildcards),
    ("T004", trust.rests_on_free_values),
    ("T005", trust.mixed_issuers),
    ("W101", warnings.names_without_ids),
    ("W102", warnings.unrestricted_refs),
    ("W103", warnings.environment_without_ref),
    ("W104", warnings.open_endings),
    ("W105", warnings.short_refs),
    ("W107", warnings.one_form_of_sub),
    ("W108", unreachable.contradictions),
    ("W108", unreachable.values_never_sent),
    ("W113", warnings.events_named_in_vain),
    ("W114", warnings.nobody_in_particular),
    ("W115", warnings.unknown_public_issuer),
    ("W116", warnings.unchecked_people),
    ("W117", warnings.unseen_characters),
    ("W121", warnings.untold_forks),
)
_CI_RULES: Sequence[tuple[str, Rule]] = (("W112", warnings.inner_wildcards),)
"""Rules for Roles that admit tokens of a known CI system."""

_RESOURCE_RULES: Sequence[
    tuple[str, Callable[[RoleFacts, Mapping[str, Policy]], Iterator[Fault]]]
] = (
    ("T006", variables.chosen_by_callers),
    ("W122", variables.names_in_resources),
    ("W123", variables.never_names),
)
"""Rules for a Role beside the Policies that it gives."""


def _of_issuer(issuer: JwtIssuer) -> Iterator[Problem]:
    for code, rule in _ISSUER_RULES:
        for fault in rule(issuer):
            yield _problem(issuer, fault, code)


def _of_role(
    role: Role,
    issuers: Mapping[str, JwtIssuer],
    policies: Mapping[str, Policy],
    linted: LintedRoles | None = None,
) -> Iterator[Problem]:
    faults = _role_faults(role, issuers) if linted is None else linted.of(role)
    for code, fault in (*faults, *_resource_faults(role, issuers, policies)):
        yield _problem(role, fault, code)


def _role_faults(role: Role, issuers: Mapping[str, JwtIssuer]) -> Iterator[tuple[str, Fault]]:
    """Each fault of *role* with its code. They depend on its conditions and the issuers alone."""
    facts = RoleFacts.of(role, issuers)
    for code, rule in (*_RULES, *_CI_RULES) if facts.profile.ci else _RULES:
        for fault in rule(facts):
            yield code, fault


def _resource_faults(
    role: Role, issuers: Mapping[str, JwtIssuer], policies: Mapping[str, Policy]
) -> Iterator[tuple[str, Fault]]:
    """Each fault that *role* has beside the Policies that it gives, with its code."""
    if not any(name in policies and policies[name].variables for name in role.policies):
        return
    facts = RoleFacts.of(role, issuers)
    for code, rule in _RESOURCE_RULES:
        for fault in rule(facts, policies):
            yield code, fault


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
