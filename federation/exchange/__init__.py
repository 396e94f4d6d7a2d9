"""
Token exchange (RFC 8693): a subject token becomes an access token, or a refusal.

There are two roads: `ci_token` for the token of an issuer, `function_token` for the broker's own
access token. Each step of a road needs the value that the step before it proved.
"""

from __future__ import annotations

from collections.abc import Awaitable

from federation.audit.event import Trail, token_sha256
from federation.exchange.ci_token import exchange_ci_token
from federation.exchange.function_token import exchange_access_token
from federation.exchange.request import Broker, ExchangeRequest, Grant, TokenType, next_stage
from federation.jose import jws
from federation.tokens.verify import is_own

__all__ = ["Broker", "ExchangeRequest", "Grant", "TokenType", "exchange", "next_stage"]


def exchange(request: ExchangeRequest, broker: Broker, trail: Trail) -> Awaitable[Grant]:
    """Trade a subject token for an access token or a function token. Raises: Refusal."""
    catalog = broker.source.current()  # one snapshot for the whole exchange
    catalog.check_read()
    trail.token_sha256 = token_sha256(request.subject_token)
    trail.roles_asked = request.roles
    if request.for_functions:
        trail.scope, trail.audience = "function", request.audience
    token = jws.parse(request.subject_token)
    road = exchange_access_token if is_own(token, broker.issuer_url) else exchange_ci_token
    return road(token, request, catalog, broker, trail)
