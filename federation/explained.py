"""
Explains what claims would be allowed, as an exchange and then the gateway would decide.

`federation explain`, the API and the dashboard all call this, so they cannot disagree. The claims
need not be signed: the result tells what a token with them would get. It is for operators, since it
shows the values that Roles expect.
"""

from __future__ import annotations

from collections.abc import Sequence

from federation.claims import Claims, UnverifiedClaims, audiences
from federation.documents.catalog import Catalog
from federation.errors import Refusal
from federation.issuers.verify import check_claims, trusted_issuer
from federation.policy.explain import Explanation, explain
from federation.policy.permissions import Access
from federation.policy.roles import Admission
from federation.tokens.mint import access_claims


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
        # The audience of the token that the issuer's document accepts is the broker's URL.
        accepted = admission.issuer.audiences or admission.issuer.clients
        url = next((one for one in audiences(claims) if one in accepted), accepted[0])
        return access_claims(claims, admission, issuer_url=str(url), now=now, jti="explained")

    return explain(
        catalog, claims, accesses, refusal=refusal, verified=verified, access_claims=minted
    )
