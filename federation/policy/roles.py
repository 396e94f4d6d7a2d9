"""
Admission: evaluates Roles against a token's claims, and explains a refusal.

All Roles that admit a token take part, and their policies are united. A shadow Role is evaluated
in the same way, to be recorded, and is never among them. If a job asks for some of
its Roles, only those give anything, and every policy that denies stays. One evaluation serves the
response, the audit event and `explain`, so they cannot disagree about the reason.

A Role of the catalog's `refusing` comes before all others: it may take something away that is not
known, so a token that it would admit gets nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from federation.claims import Claims, shown
from federation.documents.catalog import Catalog, role_issuers
from federation.documents.model import JwtIssuer, Role
from federation.documents.rules.owners import owner_pins, same_owner
from federation.errors import Reason, Refusal
from federation.policy.conditions import KEY_PREFIX, Finding, findings, holds
from federation.policy.index import PolicyNames
from federation.providers.table import Demand, Profile, demands

_ROLES_SHOWN = 3
_KEYS_SHOWN = 8
_VALUES_SHOWN = 10
_REFUSING_SHOWN = 10
_NEIGHBOURS = 200
"""Maximum number of Roles of the caller's owner that a refusal evaluates, to stay cheap."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one Role for one token."""

    role: Role
    claims: Claims = field(repr=False)
    unmet: tuple[Demand, ...]
    """The demands of the token's situation that the Role does not meet."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Each condition with the claim it read and whether it holds."""
        return findings(self.role.conditions, self.claims)

    @property
    def holds(self) -> bool:
        """True if every condition holds, apart from what the token's situation demands."""
        # A Role without conditions admits nobody: an empty set of rules must not match all.
        return bool(self.role.conditions) and holds(self.role.conditions, self.claims)

    @property
    def admits(self) -> bool:
        return self.holds and not self.unmet

    @property
    def refusal(self) -> Reason | None:
        """The reason why this Role does not admit the token, or None if it does."""
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
    """The Roles that give their policies."""
    denying: tuple[Role, ...]
    """Other Roles that admit the token and have a policy with a Deny, which stays in `held`."""
    held: PolicyNames

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of all policies that the access token holds."""
        return self.held.names

    @property
    def lifetime(self) -> timedelta:
        """The longest time that the access token may live."""
        caps = [role.token_expiry for role in (*self.roles, *self.denying)]
        return min([self.issuer.token_expiry, *[cap for cap in caps if cap is not None]])

    @classmethod
    def of(cls, issuer: JwtIssuer, roles: Sequence[Role], *, incomplete: bool = False) -> Admission:
        """
        The admission by *roles*, their policies united.

        With *incomplete*, other Roles or policies might belong to it. The token is then narrowed,
        so that no condition reads its `role` and `policy`: a Deny on a name would end otherwise.
        """
        held = PolicyNames(tuple(_united(roles)), narrowed=incomplete)
        return cls(issuer, tuple(roles), (), held)

    def narrowed_to(self, asked: Collection[str], catalog: Catalog) -> Admission:
        """This admission, if only the Roles named *asked* may give. No Deny is lost."""
        giving = tuple(role for role in self.roles if role.name in asked)
        if giving == self.roles:
            return self
        held = self.held.narrowed_to(_united(giving), catalog)
        denying = tuple(
            role
            for role in self.roles
            if role.name not in asked and any(map(catalog.may_deny, role.policies))
        )
        return Admission(self.issuer, giving, denying, held)


def _united(roles: Iterable[Role]) -> dict[str, None]:
    """The names of the policies of *roles*, each once, in order."""
    return dict.fromkeys([policy for role in roles for policy in role.policies])


def evaluate(roles: Iterable[Role], provider: str, claims: Claims) -> tuple[Evaluation, ...]:
    """The evaluation of each of *roles* for *claims*, in the order of their names."""
    demanded = [(demand, demand.keys) for demand in demands(provider, claims)]
    evaluations = []
    for role in sorted(roles, key=attrgetter("name")):
        unmet = tuple([demand for demand, keys in demanded if not role.names(keys)])
        evaluations.append(Evaluation(role, claims, unmet))
    return tuple(evaluations)


def admit(
    catalog: Catalog, issuer: JwtIssuer, claims: Claims, only: Sequence[str] = ()
) -> Admission:
    """
    The admission of *claims* by the Roles of *catalog*. With *only*, those named in it give.

    Raises: Refusal with `no_role_admits`, `event_not_allowed`, `policy_missing`, or, if a Role named
    in *only* does not admit, `role_not_admitted`.
    """
    if refusal := refused(catalog, claims):
        raise refusal
    evaluations = evaluate(catalog.candidates(claims), issuer.provider, claims)
    admitting = [evaluation.role for evaluation in evaluations if evaluation.admits]
    if only:
        missing = set(only) - {role.name for role in admitting}
        if missing:
            asked = [role for role in catalog.roles if role.name in missing]
            evaluations = evaluate(asked, issuer.provider, claims)
            raise _refusal(Reason.ROLE_NOT_ADMITTED, issuer, claims, evaluations, sorted(missing))
    if not admitting:
        raise _nobody_admits(catalog, issuer, claims)
    admission = Admission.of(issuer, admitting, incomplete=catalog.incomplete)
    return admission.narrowed_to(only, catalog) if only else admission


class ShadowAdmission(NamedTuple):
    """The shadow Roles that would have admitted a token, and the policies of them all, by name."""

    roles: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()


def shadow_admission(catalog: Catalog, issuer: JwtIssuer, claims: Claims) -> ShadowAdmission:
    """Return what the shadow Roles of *catalog* would have given *claims*, for the record only."""
    if not catalog.shadow_roles:
        return ShadowAdmission()
    evaluations = evaluate(catalog.shadow_candidates(claims), issuer.provider, claims)
    roles = [evaluation.role for evaluation in evaluations if evaluation.admits]
    return ShadowAdmission(tuple(role.name for role in roles), tuple(_united(roles)))


def refused(catalog: Catalog, claims: Claims) -> Refusal | None:
    """The refusal of *claims* by the Roles of the catalog that refuse, None if none of them does."""
    if not catalog.refusing:
        return None
    # What the token's situation demands does not matter: to ask for it would refuse fewer.
    refusing = (r.name for r in catalog.may_refuse(claims) if holds(r.conditions, claims))
    named = tuple(islice(refusing, _REFUSING_SHOWN))  # a refusal stays cheap if there are thousands
    if not named:
        return None
    return Refusal(
        Reason.POLICY_MISSING,
        "A Role that may admit the subject token, or a Policy that such a Role names, cannot be"
        " read. It may deny something, so nothing is granted until the operator has mended it.",
        evidence={"refusing": named},
    )


def _nobody_admits(catalog: Catalog, issuer: JwtIssuer, claims: Claims) -> Refusal:
    # Roles that the index left out are evaluated too if they are of the caller's owner: one of
    # them is probably the Role that the caller expected.
    nearby = islice(catalog.neighbours(claims), _NEIGHBOURS)
    considered = {role.name: role for role in (*catalog.candidates(claims), *nearby)}
    evaluations = evaluate(considered.values(), issuer.provider, claims)
    barred = any(evaluation.holds for evaluation in evaluations)
    reason = Reason.EVENT_NOT_ALLOWED if barred else Reason.NO_ROLE_ADMITS
    return _refusal(reason, issuer, claims, evaluations)


def _refusal(
    reason: Reason,
    issuer: JwtIssuer,
    claims: Claims,
    evaluations: Sequence[Evaluation],
    missing: Sequence[str] = (),
) -> Refusal:
    """A refusal. Its public sentence holds what this caller may know; its evidence holds all."""
    nearest = sorted(evaluations, key=lambda e: (not e.holds, len(e.failed), e.role.name))
    public = [e for e in nearest if _may_know(e.role, issuer, claims)][:_ROLES_SHOWN]
    opening = (
        f"No policies found for subject: {shown(claims.get('sub'))}"
        if reason is Reason.NO_ROLE_ADMITS
        else reason.sentence.rstrip(".")
    )
    return Refusal(
        reason,
        ". ".join([opening, *(_public_sentence(e, issuer.profile) for e in public)]) + ".",
        evidence={
            "subject": shown(claims.get("sub")),
            "roles_asked": list(missing),
            "roles_considered": len(evaluations),
            "nearest": [_evidence(evaluation) for evaluation in nearest[:_ROLES_SHOWN]],
        },
    )


def _may_know(role: Role, issuer: JwtIssuer, claims: Claims) -> bool:
    """
    Return whether this caller may read about *role*: it comes from the owner that the Role pins.

    A stranger could otherwise learn the names of Roles, and of whom they admit, from refusals.
    """
    if issuer.iss not in role_issuers(role):
        return False  # at another issuer, somebody else may have the owner's name
    if owner_pins(role, issuer.profile):
        return same_owner(role, issuer.profile, claims)
    return not issuer.shared


def _public_sentence(evaluation: Evaluation, profile: Profile) -> str:
    """The keys that failed, with the token's values and without the values that are expected."""
    if evaluation.holds:
        return f"Role {evaluation.role.name} would admit it, but: " + ". ".join(
            demand.sentence.rstrip(".") for demand in evaluation.unmet
        )
    failed = [
        f"{shown(finding.condition.key)} (the token has {_shown_claim(finding, profile)})"
        for finding in evaluation.failed[:_KEYS_SHOWN]
    ]
    return f"Role {evaluation.role.name} came close, but these do not match: " + ", ".join(failed)


def _shown_claim(finding: Finding, profile: Profile) -> str:
    """The claim as the token has it. If it is absent, also when the provider's tokens have it."""
    condition = profile.only_if.get(finding.condition.key.removeprefix(KEY_PREFIX))
    if finding.claim is None and condition:
        return f"(absent): it is there only if {condition}"
    return shown(finding.claim)


def _evidence(evaluation: Evaluation) -> dict[str, object]:
    return {
        "role": evaluation.role.name,
        "refusal": evaluation.refusal,
        "unmet": [demand.sentence for demand in evaluation.unmet],
        "failed": [
            {
                "operator": finding.condition.operator,
                "key": finding.condition.key,
                "expected": [shown(value) for value in finding.condition.values[:_VALUES_SHOWN]],
                "got": shown(finding.claim),
            }
            for finding in evaluation.failed
        ],
    }
