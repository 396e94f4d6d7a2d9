"""
Function tokens: tokens that let their bearer call certain functions and do nothing else.

The broker's own access token can be traded for one. It never lasts longer than that access
token, and never holds more than the policies grant now.
"""

from __future__ import annotations

from collections.abc import Sequence
from secrets import token_hex

from federation.audit.event import Actor, Standing, Trail
from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import INVOKE
from federation.errors import Reason, Refusal
from federation.exchange.request import Broker, ExchangeRequest, Grant, draft, grant
from federation.jose import jws
from federation.policy.index import PolicyNames, PolicySet
from federation.policy.permissions import Access, decide, granted_resources
from federation.tokens import mint
from federation.tokens.verify import Bearer, verify


async def exchange_access_token(
    token: jws.Unverified, request: ExchangeRequest, catalog: Catalog, broker: Broker, trail: Trail
) -> Grant:
    """Trade *token*, one of the broker's access tokens, for a function token. Raises: Refusal."""
    now = broker.clock()
    if not request.for_functions:
        # Otherwise a token could be renewed for ever.
        raise Refusal(
            Reason.INVALID_SCOPE, "An access token of this broker is taken only for scope=function."
        )
    bearer = await verify(
        token, broker.signing, broker.state, issuer_url=broker.issuer_url, now=now
    )
    broker.limit_repeats(bearer.jti)  # before there is an event, or it would limit nothing
    trail.actor = Actor(
        str(bearer.claims.get("sub")), broker.issuer_url, str(bearer.claims.get("fed:iss"))
    )
    trail.standing = Standing.ADMITTED
    trail.roles, names = _narrowed(bearer, catalog, request.roles)
    trail.policies = names.names
    policies = broker.policies.of(catalog, names)
    claims = claims_for_functions(bearer.claims, policies, request.audience, now, parent=bearer.jti)
    return await grant(draft(claims, request, broker), request, broker, trail, now)


def claims_for_functions(
    access: Claims,
    policies: PolicySet,
    audience: Sequence[str],
    now: float,
    *,
    parent: str | None = None,
) -> Claims:
    """
    The claims of a function token for *audience*, or for all that *policies* let *access* invoke.

    *parent* is the `jti` of the access token that is traded. A CI token that is traded directly has
    none: the access token between the two is never issued, so it cannot be revoked.

    Raises: Refusal with `policy_missing`, `invalid_target` or `invalid_scope`.
    """
    if policies.missing:
        raise Refusal(Reason.POLICY_MISSING, evidence={"missing": policies.missing})
    for function in audience:
        if not _may_invoke(function, policies, access):
            raise Refusal(
                Reason.INVALID_TARGET,
                "The policies do not grant Function:Invoke on an audience that was asked for.",
                evidence={"audience": function},
            )
    permissions = audience or tuple(
        resource.text for resource in granted_resources(policies, INVOKE, access)
    )
    if not permissions:
        raise Refusal(Reason.INVALID_SCOPE, "The policies do not grant Function:Invoke anywhere.")
    return mint.function_claims(
        access,
        permissions=permissions,
        audience=audience,
        now=now,
        jti=token_hex(16),
        parent=parent,
    )


def _may_invoke(function: str, policies: PolicySet, access: Claims) -> bool:
    try:
        asked = Access.parse(INVOKE, function)
    except ValueError:
        return False
    return "*" not in function and decide(policies, asked, access).allowed


def _narrowed(
    bearer: Bearer, catalog: Catalog, only: Sequence[str]
) -> tuple[tuple[str, ...], PolicyNames]:
    """The Roles and policies of *bearer* if only the Roles named *only* may give. No Deny is lost."""
    if not only:
        return bearer.roles, bearer.held
    if set(only) - set(bearer.roles):
        raise Refusal(Reason.ROLE_NOT_ADMITTED)
    giving = {p for role in catalog.roles if role.name in only for p in role.policies}
    return tuple(only), bearer.held.narrowed_to(giving, catalog)
