"""
The entry to the trust rules: runs all of them over a set of documents.

An error (`T…`) refuses the set, a warning (`W…`) does not. Every problem names the value, an
example of what it admits, and the condition to write instead. Each code has a section in
`docs/lint.md`. The rules are pure and read each Role once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
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
from federation.documents.rules.role_facts import Fault, RoleFacts, RoleForm
from federation.errors import Problem, Severity
from federation.policy.conditions import Condition
from federation.providers.table import GENERIC

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


class RoleLint:
    """
    Finds the faults of Roles. They depend on a Role's conditions and the *issuers* alone.

    Roles are looked at in batches, rule by rule: the code of one rule then stays in the
    processor's cache, which takes a third of the time away.
    """

    def __init__(self, issuers: Mapping[str, JwtIssuer]) -> None:
        self.issuers = issuers
        self._forms: dict[object, tuple[RoleForm, Sequence[tuple[str, Rule]]]] = {}
        """Forms with the rules that have anything to look at. Those of 1,000 are kept."""

    def of(self, roles: Sequence[Role], pause: Pause = go_on) -> Sequence[RoleFaults]:
        """The faults of each of *roles*."""
        by_form: dict[int, tuple[Sequence[tuple[str, Rule]], list[tuple[int, RoleFacts]]]] = {}
        for number, role in enumerate(paced(roles, pause)):
            form, rules = self._form(role)
            alike = by_form.setdefault(id(form), (rules, []))[1]
            alike.append((number, RoleFacts.of(role, self.issuers, form)))
        found = defaultdict[int, list[tuple[str, Fault]]](list)
        for rules, alike in by_form.values():
            for code, rule in rules:
                for number, facts in paced(alike, pause):
                    for fault in rule(facts):
                        found[number].append((code, fault))
        return [tuple(found.get(number, ())) for number in range(len(roles))]

    def _form(self, role: Role) -> tuple[RoleForm, Sequence[tuple[str, Rule]]]:
        conditions = role.conditions
        # The issuers decide the provider, and the audiences whether a Role is for people.
        values = [made.values for made in conditions if made.key in _DECIDING]
        key = (role.places, *map(_SPELLING, conditions), *values)
        known = self._forms.get(key)
        if known is None:
            form = RoleForm.of(role, self.issuers)
            known = form, [(code, rule) for code, rule, asks in ROLE_RULES if asks(form)]
            if len(self._forms) < _FORMS:
                self._forms[key] = known
        return known


_BATCH = 128
_FORMS = 1000
_DECIDING = frozenset({"jwt:iss", "jwt:aud"})
_SPELLING = attrgetter("operator._value_", "key")


class LintedRoles:
    """The faults of the Roles of a set, so that the next set's lint asks about few of them."""

    def __init__(self, issuers: Mapping[str, JwtIssuer] = MappingProxyType({})) -> None:
        self._lint = RoleLint(issuers)
        self._faults: dict[int, tuple[Sequence[Condition], RoleFaults]] = {}
        """By the identity of the Role's conditions, which are kept alive here."""

    def of(self, roles: Sequence[Role], pause: Pause = go_on) -> Sequence[RoleFaults]:
        """The faults of each of *roles*, which may have moved within their files."""
        faults = self._faults
        unknown = [role for role in roles if id(role.conditions) not in faults]
        for role, found in zip(unknown, self._lint.of(unknown, pause), strict=True):
            faults[id(role.conditions)] = role.conditions, found
        return [faults[id(role.conditions)][1] for role in roles]

    def next(self, roles: Iterable[Role], issuers: Mapping[str, JwtIssuer]) -> LintedRoles:
        """The faults of *roles* among *issuers*, as far as they are known."""
        following = LintedRoles(issuers)
        if issuers == self._lint.issuers:
            for role in roles:
                known = self._faults.get(id(role.conditions))
                if known is not None:
                    following._faults[id(role.conditions)] = known
        return following

    def parts(self) -> Iterable[object]:
        """Return everything in it of which there is one for each Role."""
        return self._faults.values()


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
    faults = linted or RoleLint(issuers)
    for start in range(0, len(roles), _BATCH):
        batch = roles[start : start + _BATCH]
        for role, its_faults in zip(batch, faults.of(batch, pause), strict=True):
            found += _of_role(role, its_faults, issuers, policies)
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
    return sorted([*_of_role(role, role_faults(role, issuers), issuers, policies), *d025])


def refuses_unread_policies(role: Role, issuers: Mapping[str, JwtIssuer]) -> bool:
    """Return whether a rule could refuse *role* for a resource of a Policy that cannot be read."""
    return variables.may_be_chosen_by_callers(RoleFacts.of(role, issuers))


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
Asks: TypeAlias = Callable[[RoleForm], object]


def _with_patterns(form: RoleForm) -> bool:
    return form.patterns


def _always(_form: RoleForm) -> bool:
    return True


ROLE_RULES: Sequence[tuple[str, Rule, Asks]] = (
    ("T001", trust.without_issuer, lambda form: not form.issuers),
    ("T002", trust.unpinned, lambda form: form.shared),
    ("T003", trust.misplaced_wildcards, _with_patterns),
    ("T004", trust.rests_on_free_values, trust.may_be_free),
    ("T005", trust.mixed_issuers, lambda form: len(form.issuers) > 1),
    ("W101", warnings.names_without_ids, warnings.may_name),
    ("W102", warnings.unrestricted_refs, lambda form: form.profile.ref_claims),
    ("W103", warnings.environment_without_ref, warnings.may_restrict_environment),
    ("W104", warnings.open_endings, _with_patterns),
    ("W105", warnings.short_refs, lambda form: form.profile.short_ref),
    ("W107", warnings.one_form_of_sub, lambda form: "jwt:sub" in form.keys),
    ("W108", unreachable.unknown_issuers, lambda form: form.named - form.configured.keys()),
    ("W108", unreachable.contradictions, lambda form: len(form.keys) < len(form.conditions)),
    ("W108", unreachable.only_empty, _always),
    ("W108", unreachable.wrong_values, _always),
    ("W108", unreachable.unknown_claims, unreachable.may_be_unknown),
    ("W108", unreachable.never_together, unreachable.may_be_never_together),
    ("W108", unreachable.wrong_kind, unreachable.may_be_of_wrong_kind),
    ("W108", unreachable.wrong_audience, lambda form: "jwt:aud" in form.keys),
    ("W108", unreachable.other_owner, unreachable.may_have_other_owner),
    ("W108", unreachable.environment_beside_ref_in_sub, lambda form: "jwt:sub" in form.keys),
    ("W113", warnings.events_named_in_vain, _with_patterns),
    ("W114", warnings.nobody_in_particular, lambda form: form.issuers and not form.shared),
    ("W115", warnings.unknown_public_issuer, lambda form: form.profile.name == GENERIC),
    ("W116", warnings.unchecked_people, lambda form: form.names(form.rule_keys.people)),
    ("W117", warnings.unseen_characters, _always),
    ("W121", warnings.untold_forks, lambda form: form.profile.fork_told_by),
    ("W112", warnings.inner_wildcards, _with_patterns),
)
"""
Each rule with its code, and whether it has anything to look at in Roles of a form.

That only saves time: a rule finds nothing in the other Roles anyway.
"""

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


def role_faults(role: Role, issuers: Mapping[str, JwtIssuer]) -> RoleFaults:
    """The faults of one Role by every rule there is."""
    return _faults(RoleFacts.of(role, issuers), [(code, rule) for code, rule, _ in ROLE_RULES])


def _faults(facts: RoleFacts, rules: Iterable[tuple[str, Rule]]) -> RoleFaults:
    return tuple([(code, fault) for code, rule in rules for fault in rule(facts)])


def _of_role(
    role: Role,
    faults: RoleFaults,
    issuers: Mapping[str, JwtIssuer],
    policies: Mapping[str, Policy],
) -> Sequence[Problem]:
    if any(name in policies and policies[name].variables for name in role.policies):
        faults = *faults, *_resource_faults(role, issuers, policies)
    return [_problem(role, fault, code) for code, fault in faults] if faults else ()


def _resource_faults(
    role: Role, issuers: Mapping[str, JwtIssuer], policies: Mapping[str, Policy]
) -> Iterator[tuple[str, Fault]]:
    """Each fault that *role* has beside the Policies that it gives, with its code."""
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
