"""
The policies of a token, with an index, so that a decision reads only statements that may matter.

Statements are filed by the literal beginnings of the namespaces and names that they reach, in lower
case, since calls have no regard to case. An index never changes: it is built with its `PolicySet`,
and `PolicySets` keeps the ones in use.
What a token may do never grows because a policy is missing or because `role` left out some Roles.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import INVOKE, Effect, Policy, Statement
from federation.documents.resources import Resource
from federation.policy.conditions import ascii_lower

DENY_ONLY = "fed:deny_only"
"""
The claim of an access token that was narrowed with `role`: the policies that may only deny.

Subject tokens cannot set it, since no claim that begins `fed:` is copied.
"""

_SETS = 1000
_ENTRIES = 100_000
"""The resources of statements in all sets that are kept; each takes about 650 bytes."""
CHOSEN_WITH_ROLE = frozenset({"role", "policy", DENY_ONLY})
"""The claims of an access token that depend on which Roles its job asked for."""

File = TypeVar("File")


class PolicyNames(NamedTuple):
    """The names of a token's policies, and how far these count."""

    names: tuple[str, ...]
    deny_only: tuple[str, ...] = ()
    """Those of *names* whose Allow statements do not count."""
    narrowed: bool = False
    """True if a job asked with `role` for less than all Roles that admit it."""

    def narrowed_to(self, giving: Iterable[str], catalog: Catalog) -> PolicyNames:
        """
        These names without the policies that are not among *giving*. Those that deny stay.

        A job that names some of its Roles must not get rid of a Deny of the others.
        """
        gives = set(giving).difference(self.deny_only)
        kept = tuple(name for name in self.names if name in gives or catalog.may_deny(name))
        deny_only = tuple(name for name in kept if name not in gives)
        return PolicyNames(kept, deny_only, narrowed=True)


class PolicySet(tuple[Policy, ...]):
    """
    The policies of one token, in their order, with an index of their statements.

    If any policy of the token is *missing*, the set is empty and so grants nothing.
    """

    missing: tuple[str, ...]
    """The names of the token's policies that are not in force."""
    entries: int
    """The number of the resources of all statements, by which the set's memory grows."""
    _index: _Index[_Index[list[_Entry]]]

    def __new__(cls, policies: Iterable[Policy] = (), missing: tuple[str, ...] = ()) -> PolicySet:
        """Index *policies*; this takes about a microsecond a statement."""
        made = super().__new__(cls, () if missing else policies)
        made.missing = missing
        made.entries = sum(len(s.resources) for policy in made for s in policy.statements)
        made._index = _index(made)
        return made

    def about(
        self, action: str, namespace: str, name: str, claims: Claims | None = None
    ) -> tuple[tuple[Policy, Statement], ...]:
        """
        The statements whose actions and resources include this access, in the policies' order.

        Without the *claims* of a token, each variable in a resource may have any value. Conditions
        are left to the caller.
        """
        covers = Resource.covers_call if action == INVOKE else Resource.covers
        found = {
            place: (policy, statement)
            for names in self._index.near(ascii_lower(namespace))
            for entries in names.near(ascii_lower(name))
            for place, policy, statement, at_most, resource in entries
            if action in statement.actions
            and covers(at_most, namespace, name)
            and (
                claims is None
                or not resource.variables
                or resource.reaches(
                    claims,
                    namespace,
                    name,
                    taking=statement.effect is Effect.DENY,
                    call=action == INVOKE,
                )
            )
        }
        return tuple(found[place] for place in sorted(found))


class PolicySets:
    """
    The sets of policies that tokens have lately used together, each indexed once.

    It holds the sets of one catalog, at most 1,000 with 100,000 resources in all, and starts anew
    with the next catalog. It is bounded because a job with many Roles can ask for any combination.
    """

    def __init__(self) -> None:
        self._start(Catalog())

    def _start(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._sets: dict[PolicyNames, PolicySet] = {}
        self._entries = 0

    def of(self, catalog: Catalog, names: PolicyNames) -> PolicySet:
        """The policies of *catalog* with these *names*, in their order, as far as they count."""
        if catalog is not self._catalog:
            self._start(catalog)
        known = self._sets.get(names)
        if known is None:
            known = _policy_set(catalog, names)
            if len(self._sets) >= _SETS or self._entries + known.entries > _ENTRIES:
                self._start(catalog)
            self._sets[names] = known
            self._entries += known.entries
        return known


def _policy_set(catalog: Catalog, names: PolicyNames) -> PolicySet:
    # To leave out a missing policy would drop its Deny statements: whoever can rename or break a
    # policy could open every live token that it limits.
    missing = tuple(name for name in names.names if name not in catalog.policies)
    if missing:
        return PolicySet(missing=missing)
    policies = (catalog.policies[name] for name in names.names)
    if names.narrowed:
        policies = (_narrowed(policy, policy.name not in names.deny_only) for policy in policies)
    return PolicySet(policies)


def _narrowed(policy: Policy, gives: bool) -> Policy:
    """
    The *policy* in a token that was narrowed with `role`; without *gives* it only denies.

    The claims `role` and `policy` of such a token do not tell all Roles that admit the job.
    Conditions and resources read them as absent: otherwise, leaving out a Role could end a Deny on
    its name.
    """
    statements = []
    for statement in policy.statements:
        takes = statement.effect is Effect.DENY
        told = tuple(c for c in statement.conditions if c.path[0] not in CHOSEN_WITH_ROLE)
        if takes or (gives and told == statement.conditions):
            left = [r.without(CHOSEN_WITH_ROLE, taking=takes) for r in statement.resources]
            resources = tuple(resource for resource in left if resource is not None)
            statements.append(replace(statement, conditions=told, resources=resources))
    return replace(policy, statements=tuple(statements))


_Entry: TypeAlias = tuple[int, Policy, Statement, Resource, Resource]
"""A statement with its place among all statements, one of its resources as it counts at most for any
token, and as it is written."""


@dataclass(frozen=True, slots=True)
class _Index(Generic[File]):
    """
    Files by the label of a pattern: its text up to the first `*`, with the `*` if it has one.

    A pattern can match a text only if its label is the text itself, or a beginning of the text
    followed by `*`.
    """

    files: Mapping[str, File]
    lengths: frozenset[int]
    """The lengths of the beginnings that are followed by `*`."""

    @classmethod
    def of(cls, files: Mapping[str, File]) -> _Index[File]:
        """The index of *files*, which are by label."""
        return cls(files, frozenset(len(label) - 1 for label in files if label.endswith("*")))

    def near(self, text: str) -> list[File]:
        """The files of all patterns that may match *text*."""
        labels = {text, *(text[:length] + "*" for length in self.lengths)}
        return [self.files[label] for label in labels if label in self.files]


def _label(pattern: str) -> str:
    return ascii_lower(pattern[: pattern.index("*") + 1] if "*" in pattern else pattern)


def _index(policies: Iterable[Policy]) -> _Index[_Index[list[_Entry]]]:
    """The statements of *policies* by the namespaces, and then by the names, that they reach."""
    filed: dict[str, dict[str, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
    statements = [(policy, statement) for policy in policies for statement in policy.statements]
    for place, (policy, statement) in enumerate(statements):
        for resource in statement.resources:
            at_most = resource.at_most(taking=statement.effect is Effect.DENY)
            namespace, name = map(_label, at_most.halves)
            filed[namespace][name].append((place, policy, statement, at_most, resource))
    return _Index.of({namespace: _Index.of(names) for namespace, names in filed.items()})
