"""
The token road: an issuer's token becomes an access token or a function token.

A token that may be used once is spent before the grant, and given back if the grant fails. A
grant whose event cannot be recorded is not given.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex

from federation.audit.event import Actor, Standing, Trail
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
    Verified,
    check_signature,
    find_signer,
    subject_for_us,
    verify,
)
from federation.jose import jws
from federation.policy.roles import admit, shadow_admission
from federation.providers.table import LEEWAY
from federation.state import Store
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
    signer = await find_signer(token, catalog.issuers, broker.keys)
    await next_stage()
    signed = check_signature(token, signer)
    await next_stage()
    now = broker.clock()  # not before: a key that must be fetched takes seconds
    trail.actor = Actor(f"fed:{subject_for_us(signed)}", broker.issuer_url, signed.issuer.iss)
    trail.standing = Standing.OUTSIDER
    left_out = broker.audit_claims.left_out(signed.issuer, token.claims)
    if left_out is not None:
        trail.claims, trail.claims_left_out = token.claims, left_out
    verified = verify(signed, now)
    if not verified.issuer.taken_once(verified.claims):
        broker.limit_repeats(verified.spend_key)
    await next_stage()
    shadow = shadow_admission(catalog, verified.issuer, verified.claims)
    trail.shadow_roles, trail.shadow_policies = shadow  # also of a token that no Role admits
    admission = admit(catalog, verified.issuer, verified.claims, only=request.roles)
    trail.standing = Standing.ADMITTED
    trail.roles = tuple(role.name for role in admission.roles)
    trail.policies = admission.policies
    claims = mint.access_claims(
        verified.claims, admission, issuer_url=broker.issuer_url, now=now, jti=token_hex(16)
    )
    if request.for_functions:
        policies = broker.policies.of(catalog, admission.held)
        claims = claims_for_functions(claims, policies, request.audience, now)
    elif set(request.audience) - {broker.issuer_url}:
        raise Refusal(
            Reason.INVALID_TARGET, "Without scope=function the only audience is the broker itself."
        )
    drafted = draft(claims, request, broker)  # may refuse, so it comes before the token is spent
    await next_stage()
    async with _spent(verified, broker.state):
        return await grant(drafted, request, broker, trail, now)


@asynccontextmanager
async def _spent(verified: Verified, state: Store) -> AsyncIterator[None]:
    """Spend the token for the time of the block. If that fails, the token can be used again."""
    if not verified.issuer.taken_once(verified.claims):
        yield
        return
    until = verified.expires + _KEPT_BEYOND_EXPIRY_SECONDS
    if not await state.spend(verified.spend_key, until, verified.issued):
        raise Refusal(Reason.ALREADY_USED)
    try:
        yield
    except BaseException:  # also when the caller disconnects and the task is cancelled
        await state.restore(verified.spend_key)
        raise
