"""
Which rules some test decided: those whose absence or change a test would notice.

A Role is decided by a token that it admits, or would admit if it were no shadow Role, and a statement by an access that it settles. A
condition is decided by a token, or an access, that everything else would have let pass: it alone
said no. So a condition without such a test could be deleted, and no test would tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import Policy, Role
from federation.errors import Reason
from federation.policy.conditions import Condition
from federation.policy.permissions import Decision
from federation.policy.rule_tests import BY_ROLES, Outcome, Result, failing
from federation.providers.table import GENERIC, demands


@dataclass(frozen=True, slots=True)
class Rule:
    """A part of the documents that a test can decide."""

    kind: str
    """`Role`, `condition` or `statement`."""
    name: str
    path: str
    line: int


@dataclass(slots=True)
class Coverage:
    """The rules of a catalog that no test has decided yet."""

    catalog: Catalog
    _roles: dict[str, Role] = field(init=False)
    _conditions: dict[tuple[str, Condition], tuple[Role, int]] = field(init=False)
    _open: dict[str, Role] = field(init=False)
    """The Roles with conditions that no test has decided."""
    _statements: dict[tuple[str, str], tuple[Policy, int]] = field(init=False)
    _of_statements: dict[tuple[str, str, Condition], tuple[Policy, int]] = field(init=False)
    _total: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._roles = {role.name: role for role in self.catalog.all_roles}
        self._open = dict(self._roles)
        self._conditions = {
            (role.name, condition): (role, index)
            for role in self.catalog.all_roles
            for index, condition in enumerate(role.conditions)
        }
        statements = [
            (policy, index, statement)
            for policy in self.catalog.policies.values()
            for index, statement in enumerate(policy.statements)
        ]
        self._statements = {(p.name, s.sid): (p, index) for p, index, s in statements}
        self._of_statements = {
            (p.name, s.sid, condition): (p, index)
            for p, index, s in statements
            for condition in s.conditions
        }
        self._total = self._left()

    def note(self, result: Result) -> None:
        """Cross out what *result* decided."""
        outcome = result.outcome
        for name in outcome.roles | outcome.shadow_roles:
            self._roles.pop(name, None)
        self._note_conditions(outcome)
        for decision in result.decisions:
            self._note_access(outcome, decision)

    def _note_conditions(self, outcome: Outcome) -> None:
        reason = outcome.refusal and outcome.refusal.reason
        # The token of an issuer that nobody trusts is refused for what Roles say about `iss`.
        if reason not in {None, Reason.UNTRUSTED_ISSUER, *BY_ROLES}:
            return  # the token was refused before any Role was asked
        issuer = self.catalog.issuers.get(str(outcome.claims.get("iss")))
        demanded = [
            each.keys for each in demands(issuer.provider if issuer else GENERIC, outcome.claims)
        ]
        for role in list(self._open.values()):
            alone = _only(role, outcome.claims)
            if alone is None or not all(map(role.names, demanded)):
                continue
            self._conditions.pop((role.name, alone), None)
            if not any((role.name, each) in self._conditions for each in role.conditions):
                del self._open[role.name]

    def _note_access(self, outcome: Outcome, decision: Decision) -> None:
        if decision.policy is not None and decision.sid is not None:
            self._statements.pop((decision.policy, decision.sid), None)
        for policy, statement in outcome.about(decision.access):
            if len(alone := failing(statement, outcome.minted)) == 1:
                self._of_statements.pop((policy.name, statement.sid, alone[0]), None)

    @property
    def percent(self) -> int:
        """The percentage of rules that a test decides, rounded down."""
        total = sum(self._total.values())
        return 100 * (total - sum(self._left().values())) // total if total else 100

    def counts(self) -> dict[str, tuple[int, int]]:
        """For each kind of rule, how many are decided and how many there are."""
        left = self._left()
        return {kind: (total - left[kind], total) for kind, total in self._total.items()}

    def undecided(self) -> Sequence[Rule]:
        """The rules that no test decided, in the order of the files."""
        return sorted(self._undecided(), key=lambda rule: (rule.path, rule.line, rule.name))

    def _left(self) -> dict[str, int]:
        return {
            "Role": len(self._roles),
            "condition": len(self._conditions) + len(self._of_statements),
            "statement": len(self._statements),
        }

    def _undecided(self) -> Iterator[Rule]:
        for name, role in self._roles.items():
            yield Rule("Role", name, role.origin.path, role.origin.line)
        for (name, condition), (role, index) in self._conditions.items():
            line = role.origin.line_of(*(role.places[index] if index < len(role.places) else ()))
            yield Rule("condition", f"{name}: {_written(condition)}", role.origin.path, line)
        for (name, sid), (policy, index) in self._statements.items():
            line = policy.origin.line_of("spec", "statement", index)
            yield Rule("statement", f"{name}/{sid}", policy.origin.path, line)
        for (name, sid, condition), (policy, index) in self._of_statements.items():
            place = ("spec", "statement", index, "condition", condition.operator, condition.key)
            line = policy.origin.line_of(*place)
            yield Rule(
                "condition", f"{name}/{sid}: {_written(condition)}", policy.origin.path, line
            )


def _only(role: Role, claims: Claims) -> Condition | None:
    """Return the condition of *role* that alone does not hold, None if none or several do not."""
    alone = None
    for condition in role.conditions:
        if not condition.satisfied(claims):
            if alone is not None:
                return None
            alone = condition
    return alone


def _written(condition: Condition) -> str:
    return f"{condition.operator} {condition.key}"
