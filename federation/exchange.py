"""
The token road, top to bottom: a subject token becomes an access token, or a refusal.

Each step needs what the step before proved: verified claims, then an admission, then the one
spending of the subject token, then the minting, and last the event in the journal. A grant
whose event cannot be recorded is not given, and the subject token is given back. Exchanges that
are at work at the same time take the steps together (`in_step`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from federation.audit import Journal
from federation.audit.event import Actor, Trail, token_sha256
from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import Policy
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import Verified
from federation.issuers.verify import verify as verify_subject
from federation.jose import jws
from federation.policy.index import PolicySets
from federation.policy.permissions import Access, decide, granted_resources
from federation.policy.roles import admit
from federation.providers.table import LEEWAY
from federation.sources import Source
from federation.state import Store
from federation.steps import in_step
from federation.tokens import mint
from federation.tokens.signing_keys import SigningKeys
from federation.tokens.verify import Bearer, is_own
from federation.tokens.verify import verify as verify_own

__all__ = ["Broker", "ExchangeRequest", "Grant", "TokenType", "exchange"]

_KEPT_BEYOND_EXPIRY_SECONDS = LEEWAY.total_seconds() + 5
_INVOKE = "Function:Invoke"


class TokenType:
    """Token type identifiers of RFC 8693, section 3."""

    ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
    ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
    JWT = "urn:ietf:params:oauth:token-type:jwt"


@dataclass(frozen=True, slots=True)
class ExchangeRequest:
    """What a caller asks for, understood and complete."""

    subject_token: str = field(repr=False)
    subject_token_type: str = TokenType.ID_TOKEN
    audience: tuple[str, ...] = ()
    for_functions: bool = False
    roles: tuple[str, ...] = ()
    issued_token_type: str = TokenType.ACCESS_TOKEN


@dataclass(frozen=True, slots=True)
class Grant:
    """A minted token and what the caller is told of it."""

    token: str = field(repr=False)
    issued_token_type: str
    expires_in_seconds: int
    scope: str | None


@dataclass(slots=True)
class Broker:
    """What the road needs on its way, put together by the app."""

    issuer_url: str
    source: Source
    keys: KeyRing
    signing: SigningKeys
    state: Store
    journal: Journal
    clock: Callable[[], float]
    """Seconds since the epoch."""
    policies: PolicySets


async def exchange(request: ExchangeRequest, broker: Broker, trail: Trail) -> Grant:
    """
    Trade a subject token for an access token, or refuse.

    Raises: Refusal.
    """
    catalog = broker.source.current()
    await in_step()
    trail.token_sha256 = token_sha256(request.subject_token)
    token = jws.parse(request.subject_token)
    if is_own(token, broker.issuer_url):
        return await _derive(token, request, catalog, broker, trail)
    return await _federate(token, request, catalog, broker, trail)


async def _federate(
    token: jws.Unverified,
    request: ExchangeRequest,
    catalog: Catalog,
    broker: Broker,
    trail: Trail,
) -> Grant:
    """From an issuer's token to one of ours."""
    now = broker.clock()
    if request.subject_token_type == TokenType.ACCESS_TOKEN:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "subject_token_type access_token is for this broker's own access tokens;"
            " send id_token or jwt.",
        )
    verified = await verify_subject(token, catalog.issuers, broker.keys, now)
    trail.actor = Actor(f"fed:{verified.claims['sub']}", broker.issuer_url, verified.issuer.iss)
    admission = admit(catalog, verified.issuer, verified.claims, only=request.roles)
    trail.roles = tuple(role.name for role in admission.roles)
    trail.policies = admission.policies
    await in_step()
    access = mint.access_claims(
        verified.claims, admission, issuer_url=broker.issuer_url, now=now, jti=_fresh_jti()
    )
    # Only a function token needs the policies themselves, and indexing them takes time.
    policies = broker.policies.of(catalog, admission.policies) if request.for_functions else ()
    claims = _asked_for(request, access, policies, broker, now)
    await _spend(verified, broker.state)
    try:
        return await _given(claims, request, broker, trail, now)
    except BaseException:
        if verified.issuer.single_use:
            await broker.state.restore(verified.spend_key)
        raise


async def _derive(
    token: jws.Unverified,
    request: ExchangeRequest,
    catalog: Catalog,
    broker: Broker,
    trail: Trail,
) -> Grant:
    """From one of our access tokens to a function token."""
    now = broker.clock()
    if not request.for_functions:
        raise Refusal(
            Reason.INVALID_SCOPE, "An access token of this broker is taken only for scope=function."
        )
    bearer = await verify_own(
        token, broker.signing, broker.state, issuer_url=broker.issuer_url, now=now
    )
    trail.actor = Actor(
        str(bearer.claims.get("sub")), broker.issuer_url, str(bearer.claims.get("fed:iss"))
    )
    trail.roles, trail.policies = _narrowed(bearer, catalog, request.roles)
    policies = broker.policies.of(catalog, trail.policies)
    claims = _asked_for(request, bearer.claims, policies, broker, now)
    return await _given(claims, request, broker, trail, now)


def _narrowed(
    bearer: Bearer, catalog: Catalog, only: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The Roles and policies of *bearer*, no more than the Roles named *only* give."""
    if not only:
        return bearer.roles, bearer.policies
    if set(only) - set(bearer.roles):
        raise Refusal(Reason.ROLE_NOT_ADMITTED)
    given = {p for role in catalog.roles if role.name in only for p in role.policies}
    return tuple(only), tuple(name for name in bearer.policies if name in given)


def _asked_for(
    request: ExchangeRequest,
    access: Claims,
    policies: Sequence[Policy],
    broker: Broker,
    now: float,
) -> Claims:
    """The claims to sign: the access token's own, or those of a function token made from it."""
    if not request.for_functions:
        if set(request.audience) - {broker.issuer_url}:
            raise Refusal(
                Reason.INVALID_TARGET,
                "Without scope=function the only audience is the broker itself.",
            )
        return access
    for audience in request.audience:
        if not _may_invoke(audience, policies, access):
            raise Refusal(
                Reason.INVALID_TARGET,
                "The policies do not grant Function:Invoke on an audience that was asked for.",
                evidence={"audience": audience},
            )
    permissions = request.audience or tuple(
        resource.text for resource in granted_resources(policies, _INVOKE, access)
    )
    if not permissions:
        raise Refusal(Reason.INVALID_SCOPE, "The policies do not grant Function:Invoke anywhere.")
    return mint.function_claims(
        access, permissions=permissions, audience=request.audience, now=now, jti=_fresh_jti()
    )


def _may_invoke(audience: str, policies: Sequence[Policy], access: Claims) -> bool:
    try:
        asked = Access.parse(_INVOKE, audience)
    except ValueError:
        return False
    return "*" not in audience and decide(policies, asked, access).allowed


async def _spend(verified: Verified, state: Store) -> None:
    """The subject token is spent, and this caller is the one that spent it."""
    if not verified.issuer.single_use:
        return
    until = verified.expires + _KEPT_BEYOND_EXPIRY_SECONDS
    if not await state.spend(verified.spend_key, until, verified.issued):
        raise Refusal(Reason.ALREADY_USED)


async def _given(
    claims: Claims, request: ExchangeRequest, broker: Broker, trail: Trail, now: float
) -> Grant:
    """The grant for *claims*, signed, and its event recorded."""
    typ = mint.FUNCTION_TOKEN_TYPE if request.for_functions else mint.ACCESS_TOKEN_TYPE
    await in_step()
    minted = mint.sign(claims, broker.signing.signs, typ)
    await in_step()
    await broker.journal.record(trail.event(200))
    return Grant(
        minted.token,
        request.issued_token_type,
        max(1, minted.expires - int(now)),
        "function" if request.for_functions else None,
    )


def _fresh_jti() -> str:
    return os.urandom(16).hex()
