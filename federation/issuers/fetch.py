"""
Where an issuer's keys are, and fetching them.

An issuer's discovery document may send us only to places that the operator trusts already: the
issuer's own origin, or the one that the document of the issuer names. Nothing is followed
elsewhere, nothing is read beyond a bound, and an answer that is odd is no answer.
"""

from __future__ import annotations

import ssl

import httpx2

from federation import __version__
from federation.claims import shown
from federation.documents.model import JwtIssuer
from federation.jose.jwk import KeySet, parse_key_set
from federation.jose.strict_json import loads_object

__all__ = ["MAX_RESPONSE_BYTES", "FetchFailed", "fetch_keys", "open_client"]

MAX_RESPONSE_BYTES = 256 * 1024

_DISCOVERY = "/.well-known/openid-configuration"
_MAX_URL_CHARS = 2048
_HEADERS = {
    "Accept": "application/json",
    # What is not compressed cannot be a bomb, and key sets are small.
    "Accept-Encoding": "identity",
    "User-Agent": f"federation/{__version__}",
}


class FetchFailed(Exception):
    """Why an issuer's keys could not be had, for the operator."""


def open_client(ca_bundle: str | None) -> httpx2.AsyncClient:
    """
    A client that trusts *ca_bundle* alone, or without one what the machine trusts.

    Proxies and `SSL_CERT_FILE` from the environment are honoured.
    Raises: ssl.SSLError where *ca_bundle* holds no certificate.
    """
    trusted = ssl.create_default_context(cadata=ca_bundle) if ca_bundle else True
    return httpx2.AsyncClient(verify=trusted, follow_redirects=False)


async def fetch_keys(client: httpx2.AsyncClient, issuer: JwtIssuer) -> KeySet:
    """
    The keys that *issuer* publishes now, at least one of them usable or skipped with a reason.

    Raises: FetchFailed, httpx2.HTTPError, httpx2.InvalidURL.
    """
    url = issuer.jwks_uri or await _discover(client, issuer)
    try:
        return parse_key_set(await _get(client, url))
    except ValueError as error:
        raise FetchFailed(f"{url}: not a key set: {error}") from None


async def _discover(client: httpx2.AsyncClient, issuer: JwtIssuer) -> str:
    """Where the issuer's discovery document (OpenID Connect Discovery 1.0) says its keys are."""
    base = _base(issuer)
    url = base + _DISCOVERY
    try:
        document = await _get(client, url)
    except ValueError as error:
        raise FetchFailed(f"{url}: not a discovery document: {error}") from None
    if document.get("issuer") != issuer.iss:
        # Keys of another issuer must not vouch for this one (section 4.3 there).
        named = shown(document.get("issuer"))
        raise FetchFailed(f"{url}: names the issuer {named}, not {issuer.iss}")
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str) or len(jwks_uri) > _MAX_URL_CHARS:
        raise FetchFailed(f"{url}: names no jwks_uri")
    return _trusted_place(jwks_uri, issuer, base)


def _base(issuer: JwtIssuer) -> str:
    """The URL that `/.well-known/` follows. Upstream's examples write the whole path."""
    return (issuer.internal_url or issuer.iss).rstrip("/").removesuffix(_DISCOVERY)


def _trusted_place(jwks_uri: str, issuer: JwtIssuer, base: str) -> str:
    """
    *jwks_uri*, if it is on the origin that discovery came from, or moved there from `iss`'s.

    Both origins are the operator's words, so https or loopback follows from them.
    """
    place, inside, outside = httpx2.URL(jwks_uri), httpx2.URL(base), httpx2.URL(issuer.iss)
    if place.userinfo or place.fragment:
        raise FetchFailed(f"jwks_uri {shown(jwks_uri)} has a user or a fragment")
    if _origin(place) == _origin(inside):
        return jwks_uri
    if _origin(place) != _origin(outside):
        raise FetchFailed(
            f"jwks_uri {shown(jwks_uri)} is on another origin than {base};"
            " if that is right, set jwksUri in the JwtIssuer"
        )
    prefix = issuer.iss.rstrip("/") + "/"
    if jwks_uri.startswith(prefix):
        return f"{base}/{jwks_uri.removeprefix(prefix)}"
    return str(inside.copy_with(raw_path=place.raw_path))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _get(client: httpx2.AsyncClient, url: str) -> dict[str, object]:
    """
    The JSON object at *url*.

    Raises: ValueError where the body is none; FetchFailed for an answer that is not read.
    """
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
