"""
An index of a token's policies, so that a decision reads only statements that may matter.

Statements are filed by the literal beginnings of the namespaces and names that they reach. An
index never changes: it is built with its `PolicySet`, and `PolicySets` keeps the ones in use.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from federation.documents.catalog import Catalog
from federation.documents.model import Policy, Resource, Statement

_SETS = 1000

File = TypeVar("File")


class PolicySet(tuple[Policy, ...]):
    """The policies of one token, in their order, with an index of their statements."""

    _index: _Index[_Index[list[_Entry]]]

    def __new__(cls, policies: Iterable[Policy] = ()) -> PolicySet:
        """Index *policies*; this takes about a microsecond a statement."""
        made = super().__new__(cls, policies)
        made._index = _index(made)
        return made

    def about(self, action: str, namespace: str, name: str) -> tuple[tuple[Policy, Statement], ...]:
        """
        The statements whose actions and resources include this access, in the policies' order.

        Their conditions are left to the caller.
        """
        found = {
            place: (policy, statement)
            for names in self._index.near(namespace)
            for entries in names.near(name)
            for place, policy, statement, resource in entries
            if action in statement.actions and resource.covers(namespace, name)
        }
        return tuple(found[place] for place in sorted(found))


class PolicySets:
    """
    The sets of policies that tokens have lately used together, each indexed once.

    It holds the sets of one catalog, at most 1,000, and starts anew with the next catalog.
    """

    def __init__(self) -> None:
        self._catalog = Catalog()
        self._sets: dict[tuple[str, ...], PolicySet] = {}

    def of(self, catalog: Catalog, names: tuple[str, ...]) -> PolicySet:
        """The policies with these *names* that *catalog* has, in the order of *names*."""
        if catalog is not self._catalog:
            self._catalog, self._sets = catalog, {}
        known = self._sets.get(names)
        if known is None:
            if len(self._sets) >= _SETS:
                self._sets.clear()
            existing = (catalog.policies[name] for name in names if name in catalog.policies)
            known = self._sets[names] = PolicySet(existing)
        return known


_Entry: TypeAlias = tuple[int, Policy, Statement, Resource]
"""A statement with its place among all statements, and one resource that it reaches."""


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
    return pattern[: pattern.index("*") + 1] if "*" in pattern else pattern


def _index(policies: Iterable[Policy]) -> _Index[_Index[list[_Entry]]]:
    """The statements of *policies* by the namespaces, and then by the names, that they reach."""
    filed: dict[str, dict[str, list[_Entry]]] = defaultdict(lambda: defaultdict(list))
    statements = [(policy, statement) for policy in policies for statement in policy.statements]
    for place, (policy, statement) in enumerate(statements):
        for resource in statement.resources:
            namespace, name = map(_label, resource.halves)
            filed[namespace][name].append((place, policy, statement, resource))
    return _Index.of({namespace: _Index.of(names) for namespace, names in filed.items()})
