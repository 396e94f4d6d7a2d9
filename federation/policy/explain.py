"""
The evaluation behind `federation explain`: what a token would be allowed, and why.

It evaluates Roles and decides accesses with the functions that an exchange and the gateway use.
Verifying a token and composing an access token's claims are left to the caller. The result is for
operators: it shows the values that a Role expects beside those of the token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from federation.claims import Claims, shown
from federation.documents.catalog import Catalog
from federation.documents.model import Effect, Policy, Statement
from federation.documents.resources import Resource
from federation.errors import Refusal
from federation.jose.strict_json import dumps_ascii
from federation.policy.index import PolicySet, PolicySets
from federation.policy.permissions import Access, Decision, about, decide
from federation.policy.reaching import could_settle
from federation.policy.roles import Admission, Evaluation, evaluate, refused
from federation.providers.table import GENERIC

_REPEATED_BYTES = 4 * 1024 * 1024
_BEGINNING_CHARS = 100
_FILLED = 20


@dataclass(frozen=True, slots=True)
class Filled:
    """A resource, and its text once a token's values are put in for its variables."""

    policy: str
    statement: Statement
    resource: Resource
    became: str | None
    """None if it matches nothing."""
    claims: Mapping[str, str]
    """The claim of each variable, as a person reads it."""

    @classmethod
    def of(cls, policy: Policy, statement: Statement, resource: Resource, claims: Claims) -> Filled:
        """Fill *resource*, of *statement*, with *claims*."""
        filled = resource.filled(claims, taking=statement.effect is Effect.DENY)
        told = {each.written: shown(each.claim(claims)) for each in resource.variables}
        return cls(policy.name, statement, resource, filled.text if filled else None, told)

    def as_json(self) -> dict[str, object]:
        """The answer for programs."""
        return {
            "policy": self.policy,
            "sid": self.statement.sid,
            "resource": self.resource.text,
            "became": self.became,
            "claims": dict(self.claims),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """The whole answer, for a person or a program."""

    token: Mapping[str, object] | None
    """The result of the token's checks, None if there is nothing to report."""
    refusal: Refusal | None
    evaluations: tuple[Evaluation, ...]
    policies: tuple[str, ...]
    decisions: tuple[Decision, ...]
    filled: tuple[tuple[Filled, ...], ...]
    """For each decision the resources with variables that could be about it, if there are any."""
    shadows: tuple[Evaluation, ...] = ()
    """The shadow Roles. They give nothing."""

    @property
    def admitted(self) -> bool:
        """True if the token would be exchanged."""
        return self.refusal is None and any(e.admits for e in self.evaluations)

    @property
    def yes(self) -> bool:
        """True if the token is admitted and every access is allowed."""
        return self.admitted and all(decision.allowed for decision in self.decisions)

    def as_json(self) -> dict[str, object]:
        """The explanation for programs. Claims that many Roles read are not repeated without end."""
        repeated = _ShownClaims()
        return {
            "token": self.token,
            "admitted": self.admitted,
            "roles": [self._role(evaluation, repeated) for evaluation in self.evaluations],
            "policies": list(self.policies),
            "access": [
                {
                    **decision.as_json(),
                    **({"variables": [each.as_json() for each in filled]} if filled else {}),
                }
                for decision, filled in self.settled
            ],
            **(
                {"shadow_roles": [self._shadow(e, repeated) for e in self.shadows]}
                if self.shadows
                else {}
            ),
        }

    def would_admit(self, shadow: Evaluation) -> bool:
        """Return whether the token would be exchanged if the shadow Role *shadow* admitted."""
        return self.refusal is None and shadow.admits

    def _shadow(self, evaluation: Evaluation, repeated: _ShownClaims) -> dict[str, object]:
        return {
            **self._role(evaluation, repeated),
            "admitted": False,
            "would_admit": self.would_admit(evaluation),
            "policies": list(evaluation.role.policies),
        }

    @property
    def settled(self) -> Iterable[tuple[Decision, tuple[Filled, ...]]]:
        """Each decision, and what the resources with variables about it became."""
        return zip(self.decisions, self.filled, strict=True)

    def _role(self, evaluation: Evaluation, repeated: _ShownClaims) -> dict[str, object]:
        refusal = self.refusal.reason if self.refusal else evaluation.refusal
        return {
            "name": evaluation.role.name,
            "admitted": refusal is None,
            "conditions": [
                {
                    "operator": finding.condition.operator,
                    "key": finding.condition.key,
                    "values": list(finding.condition.values),
                    "claim": repeated.of(finding.claim),
                    "holds": finding.holds,
                }
                for finding in evaluation.findings
            ],
            "refusal": refusal,
        }


class _ShownClaims:
    """
    The claims beside the conditions that read them, of which each is repeated for every Role.

    10,000 Roles that read one claim of 60 KB would make an answer of 600 MB. Past a few MiB, only
    the beginning of a large claim is repeated.
    """

    def __init__(self) -> None:
        self._left = _REPEATED_BYTES
        self._of: dict[int, tuple[object, int, object]] = {}
        """By identity: the claim, its size and its beginning. Roles read the same objects."""

    def of(self, claim: object) -> object:
        """Return *claim*, or its beginning as text."""
        if id(claim) not in self._of:
            written = dumps_ascii(claim)
            beginning: object = claim
            if len(written) > _BEGINNING_CHARS:
                text = claim if isinstance(claim, str) else written.decode("ascii")
                beginning = text[:_BEGINNING_CHARS] + "..."
            self._of[id(claim)] = claim, len(written), beginning
        _, size, beginning = self._of[id(claim)]
        if size > self._left:
            return beginning
        self._left -= size
        return claim


def explain(
    catalog: Catalog,
    claims: Claims,
    accesses: Sequence[Access],
    *,
    refusal: Refusal | None,
    verified: bool,
    access_claims: Callable[[Admission], Claims],
) -> Explanation:
    """
    Explain what a token with *claims* would be allowed.

    *refusal* is the result of checking the token, and *verified* says whether that included its
    signature and times. *access_claims* returns the claims of the access token for an admission.
    """
    issuer = catalog.issuers.get(str(claims.get("iss")))
    checked = verified or refusal is not None
    barred = refusal or refused(catalog, claims)
    provider = issuer.provider if issuer else GENERIC
    evaluations = evaluate(catalog.roles, provider, claims)
    admitting = [evaluation.role for evaluation in evaluations if evaluation.admits]
    policies: tuple[str, ...] = ()
    decisions = tuple(Decision(access, allowed=False) for access in accesses)
    filled: tuple[tuple[Filled, ...], ...] = ((),) * len(accesses)
    if issuer and admitting and not barred:
        admission = Admission.of(issuer, admitting, incomplete=catalog.incomplete)
        policies, minted = admission.policies, access_claims(admission)
        granted = PolicySets().of(catalog, admission.held)
        decisions = tuple(decide(granted, access, minted) for access in accesses)
        filled = tuple(_filled(granted, access, minted) for access in accesses)
    return Explanation(
        token={"valid": not refusal, "reason": refusal and refusal.reason} if checked else None,
        refusal=barred,
        evaluations=evaluations,
        policies=policies,
        decisions=decisions,
        shadows=evaluate(catalog.shadow_roles, provider, claims),
        filled=filled,
    )


def _filled(granted: PolicySet, access: Access, claims: Claims) -> tuple[Filled, ...]:
    """Return what the first resources with variables became that could be about *access*."""
    every = (
        Filled.of(policy, statement, resource, claims)
        for policy, statement in about(granted, access)
        for resource in statement.resources
        if resource.variables and could_settle(statement, resource, access)
    )
    return tuple(islice(every, _FILLED))
