"""
Discovery endpoints: server metadata (RFC 8414, OpenID Connect), the public keys (JWKS), and where
people sign in (RFC 9728).
"""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.documents.catalog import Catalog
from federation.exchange import Broker
from federation.web.token import GRANT_TYPE

PROTECTED_RESOURCE = "/.well-known/oauth-protected-resource"

_CACHE = {"Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"}


@dataclass(frozen=True, slots=True)
class SignIn:
    """The provider where people sign in: its issuer URL, the client of `federation login`, scopes."""

    issuer: str
    client_id: str
    scopes: str

    def problem(self, catalog: Catalog) -> str:
        """Return why nobody who signs in there gets a token by *catalog*, empty if they may."""
        issuer = catalog.issuers.get(self.issuer)
        if issuer is None:
            return f"no JwtIssuer in force has the iss {self.issuer} of sign-in-issuer"
        if self.client_id not in issuer.clients:
            return (
                f"JwtIssuer {issuer.name} does not name {self.client_id} of sign-in-client-id"
                " in its clients"
            )
        return ""


def challenge(issuer_url: str, sign_in: SignIn | None) -> str:
    """Return the challenge of a 401, with the place of the metadata if published (RFC 9728, 5.1)."""
    return f'Bearer resource_metadata="{issuer_url}{PROTECTED_RESOURCE}"' if sign_in else "Bearer"


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


async def protected_resource(request: Request) -> Response:
    """
    Metadata of the protected resource (RFC 9728, section 3), if people sign in for it.

    The client id and the scopes are members of our own: RFC 9728 has none for them. A client must
    check that `resource` is the URL that it asked (section 3.3), and may not send the ID token of
    one gateway to another that names the same provider and client.
    """
    sign_in: SignIn | None = request.app.state.sign_in
    if sign_in is None:
        raise HTTPException(404)
    broker: Broker = request.app.state.broker
    return JSONResponse(
        {
            "resource": broker.issuer_url,
            "authorization_servers": [sign_in.issuer],
            "scopes_supported": sign_in.scopes.split(" "),
            "bearer_methods_supported": ["header"],
            "federation_client_id": sign_in.client_id,
            "federation_scopes": sign_in.scopes,
        },
        headers=_CACHE,
    )
