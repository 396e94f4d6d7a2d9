"""
Which Roles admit a token, and why the others do not.

Every Role that admits takes part and their policies are united. The same evaluation serves
the response, the audit event and `explain`; nothing works out "why" a second time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter

from federation.claims import Claims, shown
from federation.documents.catalog import Catalog, role_issuers
from federation.documents.model import JwtIssuer, Role
from federation.documents.rules.owners import owner_pins, same_owner
from federation.errors import Reason, Refusal
from federation.policy.conditions import Finding, findings, holds
from federation.providers.table import Demand, Provider, demands

__all__ = ["Admission", "Evaluation", "admit", "evaluate"]

_ROLES_TOLD = 3
_KEYS_TOLD = 8
_NEIGHBOURS = 200
"""How many Roles of the caller's owner are held against it, so that a "no" stays cheap."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One Role held against one token."""

    role: Role
    claims: Claims = field(repr=False)
    unmet: tuple[Demand, ...]
    """What the token's situation demands to be named and the Role does not name."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Each condition with the claim it read and whether it holds."""
        return findings(self.role.conditions, self.claims)

    @property
    def holds(self) -> bool:
        """Whether every condition holds, whatever the token's situation demands."""
        return bool(self.role.conditions) and holds(self.role.conditions, self.claims)

    @property
    def admits(self) -> bool:
        """Whether this Role admits the token."""
        return self.holds and not self.unmet

    @property
    def refusal(self) -> Reason | None:
        """Why this Role does not admit the token; None where it does."""
        if not self.holds:
            return Reason.ROLE_NOT_ADMITTED
        return Reason.EVENT_NOT_ALLOWED if self.unmet else None

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The conditions that do not hold."""
        return tuple(finding for finding in self.findings if not finding.holds)


@dataclass(frozen=True, slots=True)
class Admission:
    """The Roles that admit a token, at least one, and the policies they give together."""

    issuer: JwtIssuer
    roles: tuple[Role, ...]
    policies: tuple[str, ...]

    @classmethod
    def of(cls, issuer: JwtIssuer, roles: Sequence[Role]) -> Admission:
        """The admission by *roles*, their policies united."""
        policies = dict.fromkeys(policy for role in roles for policy in role.policies)
        return cls(issuer, tuple(roles), tuple(policies))


def evaluate(roles: Iterable[Role], provider: Provider, claims: Claims) -> tuple[Evaluation, ...]:
    """Each of *roles* held against *claims*, in the order of their names."""
    demanded = demands(provider, claims)
    return tuple(
        Evaluation(
            role,
            claims,
            demanded and tuple(demand for demand in demanded if not role.names(demand.keys)),
        )
        for role in sorted(roles, key=_name)
    )


_name = attrgetter("name")


def admit(
    catalog: Catalog, issuer: JwtIssuer, claims: Claims, only: Sequence[str] = ()
) -> Admission:
    """
    The Roles of *catalog* that admit *claims*; with *only*, no others than those named.

    Raises: Refusal with `no_role_admits`, `event_not_allowed`, or, where one of *only* is not
    among the Roles that admit, `role_not_admitted`.
    """
    evaluations = evaluate(catalog.candidates(claims), issuer.provider, claims)
    admitting = [evaluation.role for evaluation in evaluations if evaluation.admits]
    if only:
        missing = set(only) - {role.name for role in admitting}
        if missing:
            asked = evaluate(
                (r for r in catalog.roles if r.name in missing), issuer.provider, claims
            )
            raise _refusal(Reason.ROLE_NOT_ADMITTED, issuer, claims, asked, sorted(missing))
        admitting = [role for role in admitting if role.name in only]
    if not admitting:
        nearby = islice(catalog.neighbours(claims), _NEIGHBOURS)
        considered = {role.name: role for role in (*catalog.candidates(claims), *nearby)}
        evaluations = evaluate(considered.values(), issuer.provider, claims)
        barred = any(evaluation.holds for evaluation in evaluations)
        reason = Reason.EVENT_NOT_ALLOWED if barred else Reason.NO_ROLE_ADMITS
        raise _refusal(reason, issuer, claims, evaluations)
    return Admission.of(issuer, admitting)


def _refusal(
    reason: Reason,
    issuer: JwtIssuer,
    claims: Claims,
    evaluations: Sequence[Evaluation],
    missing: Sequence[str] = (),
) -> Refusal:
    """The refusal with what this caller may know, and all of it for the operator."""
    nearest = sorted(evaluations, key=lambda e: (not e.holds, len(e.failed), e.role.name))
    told = [e for e in nearest if _may_know(e.role, issuer, claims)][:_ROLES_TOLD]
    opening = (
        f"No policies found for subject: {shown(claims.get('sub'))}"
        if reason is Reason.NO_ROLE_ADMITS
        else reason.sentence.rstrip(".")
    )
    return Refusal(
        reason,
        ". ".join([opening, *(_told(evaluation) for evaluation in told)]) + ".",
        evidence={
            "subject": shown(claims.get("sub")),
            "roles_asked": list(missing),
            "roles_considered": len(evaluations),
            "nearest": [_evidence(evaluation) for evaluation in nearest[:_ROLES_TOLD]],
        },
    )


def _may_know(role: Role, issuer: JwtIssuer, claims: Claims) -> bool:
    """Whether this caller may hear of *role*: it comes from the owner that the Role pins."""
    if issuer.iss not in role_issuers(role):
        return False  # an owner is one only at its issuer: elsewhere others have the same names
    if owner_pins(role):
        return same_owner(role, claims)
    return not issuer.shared


def _told(evaluation: Evaluation) -> str:
    """What a Role's own people hear: the keys that failed, with the token's values only."""
    if evaluation.holds:
        return f"Role {evaluation.role.name} would admit it, but: " + ". ".join(
            demand.sentence.rstrip(".") for demand in evaluation.unmet
        )
    failed = [
        f"{shown(finding.condition.key)} (the token has {shown(finding.claim)})"
        for finding in evaluation.failed[:_KEYS_TOLD]
    ]
    return f"Role {evaluation.role.name} came close, but these do not match: " + ", ".join(failed)


def _evidence(evaluation: Evaluation) -> dict[str, object]:
    return {
        "role": evaluation.role.name,
        "refusal": evaluation.refusal,
        "unmet": [demand.sentence for demand in evaluation.unmet],
        "failed": [
            {
                "operator": finding.condition.operator,
                "key": finding.condition.key,
                "expected": [shown(value) for value in finding.condition.values[:10]],
                "got": shown(finding.claim),
            }
            for finding in evaluation.failed
        ],
    }
