"""Discovery endpoints: server metadata (RFC 8414, OpenID Connect) and the public keys (JWKS)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.exchange import Broker
from federation.web.token import GRANT_TYPE

_CACHE = {"Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"}


async def metadata(request: Request) -> Response:
    """Authorization server metadata (RFC 8414), which also serves OpenID Connect Discovery."""
    broker: Broker = request.app.state.broker
    url = broker.issuer_url
    return JSONResponse(
        {
            "issuer": url,
            "token_endpoint": f"{url}/oauth/token",
            "revocation_endpoint": f"{url}/oauth/revoke",
            "jwks_uri": f"{url}/.well-known/jwks.json",
            "grant_types_supported": [GRANT_TYPE],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "scopes_supported": ["function"],
            # Required and never empty (RFC 8414, sections 2 and 3.2), though the broker has no
            # authorization endpoint.
            "response_types_supported": ["none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        },
        headers=_CACHE,
    )


async def jwks(request: Request) -> Response:
    """The public halves of all signing keys (RFC 7517)."""
    broker: Broker = request.app.state.broker
    keys = broker.signing.jwks()
    return JSONResponse(keys, media_type="application/jwk-set+json", headers=_CACHE)
