"""
Fetch an issuer's public keys, through its discovery document or from its `jwksUri`.

A discovery document may refer only to an origin that the operator named in the JwtIssuer: that of
`iss` or of `issInternal`. Redirects are not followed, answers are bounded in size, and a
malformed answer counts as a failed fetch.
"""

from __future__ import annotations

import ssl

import httpx2

from federation import __version__
from federation.claims import shown
from federation.documents.model import JwtIssuer
from federation.jose.jwk import KeySet, parse_key_set
from federation.jose.strict_json import loads_object

MAX_RESPONSE_BYTES = 256 * 1024

_DISCOVERY = "/.well-known/openid-configuration"
_MAX_URL_CHARS = 2048
_HEADERS = {
    "Accept": "application/json",
    # Ask for no compression, so that a small answer cannot unpack to a large one.
    "Accept-Encoding": "identity",
    "User-Agent": f"federation/{__version__}",
}


class FetchFailed(Exception):
    """A failed fetch. The text tells the operator why."""


def open_client(ca_bundle: str | None) -> httpx2.AsyncClient:
    """
    Open a client that trusts only *ca_bundle*, or the machine's trust store if it is None.

    It uses the proxies and `SSL_CERT_FILE` of the environment.
    Raises: ssl.SSLError if *ca_bundle* contains no certificate.
    """
    trusted = ssl.create_default_context(cadata=ca_bundle) if ca_bundle else True
    return httpx2.AsyncClient(verify=trusted, follow_redirects=False)


async def fetch_keys(client: httpx2.AsyncClient, issuer: JwtIssuer) -> KeySet:
    """
    Fetch the keys that *issuer* publishes. Keys that cannot be used are listed with a reason.

    Raises: FetchFailed, httpx2.HTTPError, httpx2.InvalidURL.
    """
    url = issuer.jwks_uri or await _discover(client, issuer)
    try:
        return parse_key_set(await _get(client, url))
    except ValueError as error:
        raise FetchFailed(f"{url}: not a key set: {error}") from None


async def _discover(client: httpx2.AsyncClient, issuer: JwtIssuer) -> str:
    """Return the `jwks_uri` of the discovery document (OpenID Connect Discovery 1.0)."""
    # OpenFaaS's own examples give the whole URL of the document.
    base = (issuer.internal_url or issuer.iss).rstrip("/").removesuffix(_DISCOVERY)
    url = base + _DISCOVERY
    try:
        document = await _get(client, url)
    except ValueError as error:
        raise FetchFailed(f"{url}: not a discovery document: {error}") from None
    if document.get("issuer") != issuer.iss:
        # Section 4.3: otherwise the keys of another issuer would verify tokens of this one.
        named = shown(document.get("issuer"))
        raise FetchFailed(f"{url}: names the issuer {named}, not {issuer.iss}")
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str) or len(jwks_uri) > _MAX_URL_CHARS:
        raise FetchFailed(f"{url}: names no jwks_uri")
    return _checked_jwks_uri(jwks_uri, issuer, base)


def _checked_jwks_uri(jwks_uri: str, issuer: JwtIssuer, base: str) -> str:
    """
    Return *jwks_uri* on the origin of *base*, where discovery was fetched.

    A URL on the origin of `iss` is rewritten to *base*. The operator wrote both origins, and
    they were checked to be https or loopback, so the result is, too.
    """
    given, inside, outside = httpx2.URL(jwks_uri), httpx2.URL(base), httpx2.URL(issuer.iss)
    if given.userinfo or given.fragment:
        raise FetchFailed(f"jwks_uri {shown(jwks_uri)} has a user or a fragment")
    if _origin(given) == _origin(inside):
        return jwks_uri
    if _origin(given) != _origin(outside):
        raise FetchFailed(
            f"jwks_uri {shown(jwks_uri)} is on another origin than {base};"
            " if that is right, set jwksUri in the JwtIssuer"
        )
    prefix = issuer.iss.rstrip("/") + "/"
    if jwks_uri.startswith(prefix):
        return f"{base}/{jwks_uri.removeprefix(prefix)}"
    return str(inside.copy_with(raw_path=given.raw_path))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _get(client: httpx2.AsyncClient, url: str) -> dict[str, object]:
    """Fetch the JSON object at *url*. ValueError means that the body is something else."""
    async with client.stream("GET", url, headers=_HEADERS, follow_redirects=False) as response:
        if response.status_code != httpx2.codes.OK:
            raise FetchFailed(f"{url}: answered {response.status_code}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FetchFailed(f"{url}: answered compressed, though asked not to")
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > MAX_RESPONSE_BYTES:
                raise FetchFailed(f"{url}: answered more than {MAX_RESPONSE_BYTES} bytes")
    return loads_object(bytes(body))
