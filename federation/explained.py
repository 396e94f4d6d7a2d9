"""
Explains what claims would be allowed, as an exchange and then the gateway would decide.

`federation explain`, the API and the dashboard all call this, so they cannot disagree. The claims
need not be signed: the result tells what a token with them would get. It is for operators, since it
shows the values that Roles expect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from federation.audit.kept_claims import left_out_by_default
from federation.audit.read import StoredEvent
from federation.audit.recorded import EXCHANGE_PATH
from federation.claims import Claims, UnverifiedClaims, audiences
from federation.documents.catalog import Catalog
from federation.errors import Reason, Refusal
from federation.issuers.verify import check_claims, trusted_issuer
from federation.policy.explain import Explanation, explain
from federation.policy.index import PolicySets
from federation.policy.permissions import Access
from federation.policy.roles import Admission, ShadowAdmission, admit, shadow_admission
from federation.policy.rule_tests import Outcome
from federation.tokens.mint import access_claims

_BY_ROLES = frozenset(
    {
        *(Reason.NO_ROLE_ADMITS, Reason.EVENT_NOT_ALLOWED, Reason.ROLE_NOT_ADMITTED),
        *(Reason.POLICY_MISSING, Reason.MISSING_CLAIM, Reason.NOT_A_CI_TOKEN),
        *(Reason.WRONG_PARTY, Reason.WRONG_TOKEN_TYPE),
    }
)
"""Reasons that follow from a token's claims and the documents alone."""


def explain_claims(
    catalog: Catalog, unverified: UnverifiedClaims, accesses: Sequence[Access], *, now: float
) -> Explanation:
    """
    Explain what a token with the claims *unverified* would be allowed, if it were signed and in time.

    *now*, in seconds since the epoch, is when the access token would be minted.
    """
    refusal = None
    try:
        check_claims(trusted_issuer(unverified, catalog.issuers), unverified, now=None)
    except Refusal as no:
        refusal = no
    return explanation(catalog, Claims(unverified), accesses, refusal, verified=False, now=now)


def explanation(
    catalog: Catalog,
    claims: Claims,
    accesses: Sequence[Access],
    refusal: Refusal | None,
    *,
    verified: bool,
    now: float,
) -> Explanation:
    """
    Explain what a token with *claims* would be allowed, after its checks ended with *refusal*.

    *verified* says whether the checks included its signature and times.
    """

    def minted(admission: Admission) -> Claims:
        return _minted(claims, admission, now)

    return explain(
        catalog, claims, accesses, refusal=refusal, verified=verified, access_claims=minted
    )


def outcome(
    catalog: Catalog, unverified: UnverifiedClaims, policies: PolicySets, *, now: float
) -> Outcome:
    """
    Return what an exchange makes of a token with the claims *unverified*, if it were signed and in time.

    *now*, in seconds since the epoch, is when the access token would be minted. *policies* may be
    shared by many calls with one catalog.
    """
    claims = Claims(unverified)
    shadow = ShadowAdmission()
    try:
        issuer = trusted_issuer(unverified, catalog.issuers)
        check_claims(issuer, unverified, now=None)
        shadow = shadow_admission(catalog, issuer, claims)
        admission = admit(catalog, issuer, claims)
    except Refusal as refusal:
        return Outcome(claims, refusal, shadow=shadow)
    minted = _minted(claims, admission, now)
    return Outcome(claims, None, admission, policies.of(catalog, admission.held), minted, shadow)


def _minted(claims: Claims, admission: Admission, now: float) -> Claims:
    """Return the claims of the access token that *admission* gives."""
    # The audience of the token that the issuer's document accepts is the broker's URL.
    accepted = admission.issuer.audiences or admission.issuer.clients
    url = next((one for one in audiences(claims) if one in accepted), accepted[0])
    return access_claims(claims, admission, issuer_url=str(url), now=now, jti="explained")


def claims_kept(event: StoredEvent) -> dict[str, object]:
    """
    Return the claims that *event* of the trail keeps of its subject token.

    Raises: ValueError with a sentence that says why it keeps none.
    """
    claims = event.get("claims")
    if not isinstance(claims, dict):
        raise ValueError(_without_claims(event))  # noqa: TRY004  one kind of error for bad input
    return claims


def notes_on(event: StoredEvent, explanation: Explanation, catalog: Catalog) -> Iterator[str]:
    """Yield what to know about *explanation*, which *catalog* gives of the claims of *event* now."""
    yield from _compared(event, explanation)
    yield from _not_kept(catalog, event, claims_kept(event))


def _without_claims(event: StoredEvent) -> str:
    if event.get("path") != EXCHANGE_PATH:
        return (
            "The event is not one of an exchange, so it keeps no claims. The event of the exchange"
            " that made its token may keep them."
        )
    return (
        "The event keeps no claims: the setting audit-claims kept none of such a token when it was"
        " recorded, or the token was one of the broker's own."
    )


def _compared(event: StoredEvent, explanation: Explanation) -> Iterator[str]:
    """Yield what happened then, and what the documents of now say about it."""
    reason = event.get("reason")
    then = f"It was refused with {reason}" if reason else "It was granted"
    now = "admit it" if explanation.admitted else "do not admit it"
    yield f"{then}. The documents in force now {now}. They may have changed since."
    if reason and reason not in _BY_ROLES:
        yield (
            f"{reason} does not follow from claims and documents alone, so this explanation does"
            " not show it: neither times nor earlier uses of the token are checked here."
        )


def _not_kept(catalog: Catalog, event: StoredEvent, claims: Mapping[str, object]) -> Iterator[str]:
    """Yield which claims the event lacks, though Roles may read them."""
    cut = event.get("claims_cut")
    if isinstance(cut, list) and cut:
        names = ", ".join(map(str, cut))
        yield f"These claims were too large to keep, or held a token, so conditions on them do not count here: {names}."
    issuer = catalog.issuers.get(str(claims.get("iss")))
    if issuer is None:
        return
    left_out = left_out_by_default(issuer.provider) - claims.keys()
    read = {c.path[0] for role in catalog.all_roles for c in role.conditions} & left_out
    if read:
        yield (
            "The trail does not keep these claims, so conditions on them do not count here:"
            f" {', '.join(sorted(read))}."
        )
