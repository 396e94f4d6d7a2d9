"""
The token road: an issuer's token becomes an access token or a function token.

A token that may be used once is spent before the grant, and given back if the grant fails. A
grant whose event cannot be recorded is not given.
"""

from __future__ import annotations

from secrets import token_hex

from federation.audit.event import Actor, Standing, Trail
from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.errors import Reason, Refusal
from federation.exchange.function_token import claims_for_functions
from federation.exchange.request import (
    Broker,
    ExchangeRequest,
    Grant,
    TokenType,
    draft,
    grant,
    next_stage,
)
from federation.issuers.verify import (
    Addressed,
    Verified,
    addressed,
    check_signature,
    find_signer,
    verify_addressed,
)
from federation.jose import jws
from federation.policy.roles import Admission, admit, shadow_admission
from federation.providers.table import LEEWAY
from federation.tokens import mint

# Longer than `verify` takes the token, so that it stays spent until then.
_KEPT_BEYOND_EXPIRY_SECONDS = LEEWAY.total_seconds() + 5


async def exchange_ci_token(
    token: jws.Unverified, request: ExchangeRequest, catalog: Catalog, broker: Broker, trail: Trail
) -> Grant:
    """Trade *token*, which some issuer signed, for one of the broker's tokens. Raises: Refusal."""
    if request.subject_token_type == TokenType.ACCESS_TOKEN:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "subject_token_type access_token is for this broker's own access tokens;"
            " send id_token or jwt.",
        )
    await next_stage()
    signer = await find_signer(token, catalog.issuers, broker.keys)
    await next_stage()
    signed = check_signature(token, signer)
    await next_stage()
    now = broker.clock()  # not before: a key that must be fetched takes seconds
    ours = addressed(signed)
    _record_caller(token, ours, broker, trail)
    verified = verify_addressed(ours, now)
    if not verified.once:
        broker.limit_repeats(verified.spend_key)
    await next_stage()
    admission = _admitted(verified, request, catalog, trail)
    claims = _claims(verified, admission, request, catalog, broker, now=now)
    drafted = draft(claims, request, broker)  # may refuse, so it comes before the token is spent
    await next_stage()
    if verified.once:
        until = verified.expires + _KEPT_BEYOND_EXPIRY_SECONDS
        if not await broker.state.spend(verified.spend_key, until, verified.issued):
            raise Refusal(Reason.ALREADY_USED)
    try:
        return await grant(drafted, request, broker, trail, now)
    except BaseException:  # also when the caller disconnects and the task is cancelled
        if verified.once:
            await broker.state.restore(verified.spend_key)
        raise


def _record_caller(token: jws.Unverified, ours: Addressed, broker: Broker, trail: Trail) -> None:
    """Note whose token it is, and its claims as far as events keep them."""
    trail.actor = Actor(f"fed:{ours.subject}", broker.issuer_url, ours.issuer.iss)
    trail.standing = Standing.OUTSIDER
    left_out = broker.audit_claims.left_out(ours.issuer, token.claims)
    if left_out is not None:
        trail.claims, trail.claims_left_out = token.claims, left_out


def _admitted(
    verified: Verified, request: ExchangeRequest, catalog: Catalog, trail: Trail
) -> Admission:
    """Return which Roles admit the token, and note them. Raises: Refusal if none does."""
    shadow = shadow_admission(catalog, verified.issuer, verified.claims)
    trail.shadow_roles, trail.shadow_policies = shadow  # also of a token that no Role admits
    admission = admit(catalog, verified.issuer, verified.claims, only=request.roles)
    trail.standing = Standing.ADMITTED
    trail.roles = tuple([role.name for role in admission.roles])
    trail.policies = admission.policies
    return admission


def _claims(
    verified: Verified,
    admission: Admission,
    request: ExchangeRequest,
    catalog: Catalog,
    broker: Broker,
    *,
    now: float,
) -> Claims:
    """Return the claims of the token that was asked for. Raises: Refusal."""
    claims = mint.access_claims(
        verified.claims, admission, issuer_url=broker.issuer_url, now=now, jti=token_hex(16)
    )
    if request.for_functions:
        policies = broker.policies.of(catalog, admission.held)
        return claims_for_functions(claims, policies, request.audience, now)
    if request.audience and set(request.audience) != {broker.issuer_url}:
        raise Refusal(
            Reason.INVALID_TARGET, "Without scope=function the only audience is the broker itself."
        )
    return claims
