"""
Fetch an issuer's public keys, through its discovery document or from its `jwksUri`.

A discovery document may refer only to an origin that the operator named in the JwtIssuer: that of
`iss` or of `issInternal`. Redirects are not followed, answers are bounded in size, and a
malformed answer counts as a failed fetch.

No answer delays the exchanges of other issuers: it is read in small pieces and parsed in a thread.
Nothing that an issuer sends is sent back, to it or to another: there are no cookies.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import httpx2

from federation import __version__
from federation.documents.model import JwtIssuer
from federation.issuers.answers import Answer, named, not_a_document, status_problem
from federation.issuers.small_reads import read_in_small_pieces
from federation.jose.jwk import KeySet, parse_key_set
from federation.jose.strict_json import loads_object
from federation.outbound import Outbound
from federation.outbound.failures import failure

T = TypeVar("T")

MAX_RESPONSE_BYTES = 256 * 1024
_TIMEOUT = httpx2.Timeout(5.0)

_MAX_CHUNKS = 4096
"""A body may come in so many chunks. Of the largest body each then has 64 bytes on average."""
_QUICK_BYTES = 16 * 1024
"""A body up to this length is parsed in some milliseconds; a longer one in a thread."""
_MAX_TOKEN_BYTES = 16 * 1024
_BEARER_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1

_DISCOVERY = "/.well-known/openid-configuration"
_MAX_URL_CHARS = 2048
_HEADERS = {
    # Some servers have their key sets under a name of its own (RFC 7517, section 8.5).
    "Accept": "application/json, application/jwk-set+json",
    # Ask for no compression, so that a small answer cannot unpack to a large one.
    "Accept-Encoding": "identity",
    "User-Agent": f"federation/{__version__}",
}


class FetchFailed(Exception):
    """A failed fetch. The text tells the operator why."""


def open_client(ca_bundle: str | None, outbound: Outbound | None = None) -> httpx2.AsyncClient:
    """
    Open a client that trusts only *ca_bundle*, or the trust store of *outbound* if it is None.

    It goes through the proxies of *outbound*. Without *outbound* it asks issuers directly, and
    trusts the machine's CAs. Raises: OutboundError if there is no certificate to trust.
    """
    outbound = outbound or Outbound()
    return read_in_small_pieces(outbound.async_client(ca=ca_bundle, timeout=_TIMEOUT))


async def fetch_keys(
    client: httpx2.AsyncClient, issuer: JwtIssuer, token_folder: Path | None = None
) -> KeySet:
    """
    Fetch the keys that *issuer* publishes. Keys that cannot be used are listed with a reason.

    If *issuer* is an object of Kubernetes, its `bearerTokenFile` must be in *token_folder*.

    Raises: FetchFailed, httpx2.HTTPError, httpx2.InvalidURL.
    """
    headers = _HEADERS
    if issuer.bearer_token_file is not None:
        path, within = issuer.bearer_token_file, issuer.from_kubernetes
        token = await asyncio.to_thread(_bearer_token, path, within, token_folder)
        headers = {**_HEADERS, "Authorization": f"Bearer {token}"}
    # Each of these addresses is on an origin that the document names, so the bearer token leaves
    # for no other.
    url = issuer.jwks_uri or await _discover(client, issuer, headers)
    answer = await _get(client, url, headers)
    try:
        return await _parsed(_key_set, answer.body)
    except ValueError as error:
        why = not_a_document(answer.media_type, error)
        raise FetchFailed(f"{url}: not a key set: {why}") from None


def _key_set(body: bytes) -> KeySet:
    return parse_key_set(loads_object(body))


async def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    return parse(body) if len(body) <= _QUICK_BYTES else await asyncio.to_thread(parse, body)


def _bearer_token(path: str, within: bool, folder: Path | None) -> str:
    """
    Return the token in the file *path*, which must be in *folder* if *within* is True.

    It is read anew for each fetch, since tokens are renewed.
    Raises: FetchFailed, which holds nothing of the file's content.
    """
    try:
        # A pipe without a writer would block, and a device would never end.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        if within:
            file = os.open(_real_path(path, folder), flags | os.O_NOFOLLOW)
        else:
            file = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise FetchFailed(f"bearerTokenFile {path}: not a file")
            content = os.read(file, _MAX_TOKEN_BYTES + 1)
        finally:
            os.close(file)
    except OSError as error:
        raise FetchFailed(f"bearerTokenFile {path}: {error.strerror}") from None
    if len(content) > _MAX_TOKEN_BYTES:
        raise FetchFailed(f"bearerTokenFile {path}: has more than {_MAX_TOKEN_BYTES} bytes")
    token = content.strip()
    if not _BEARER_TOKEN.fullmatch(token):
        raise FetchFailed(f"bearerTokenFile {path}: does not hold one bearer token")
    return token.decode("ascii")


def _real_path(path: str, folder: Path | None) -> str:
    """
    Return where *path* leads, which must be in *folder*.

    A projected token is a link, and moves with each renewal, so this is asked for each fetch. A
    link that leads out of the folder is somebody's try to send another file of the broker's.
    Raises: FetchFailed, OSError.
    """
    if folder is None:
        raise FetchFailed(f"bearerTokenFile {path}: the setting bearer-token-files is not set")
    real = os.path.realpath(path, strict=True)
    if not Path(real).is_relative_to(os.path.realpath(folder, strict=True)):
        raise FetchFailed(f"bearerTokenFile {path}: leads out of {folder} (bearer-token-files)")
    return real


async def _discover(
    client: httpx2.AsyncClient, issuer: JwtIssuer, headers: Mapping[str, str]
) -> str:
    """Return the `jwks_uri` of the discovery document (OpenID Connect Discovery 1.0)."""
    # OpenFaaS's own examples give the whole URL of the document.
    base = (issuer.internal_url or issuer.iss).rstrip("/").removesuffix(_DISCOVERY)
    url = base + _DISCOVERY
    answer = await _get(client, url, headers)
    try:
        document = await _parsed(loads_object, answer.body)
    except ValueError as error:
        why = not_a_document(answer.media_type, error)
        raise FetchFailed(f"{url}: not a discovery document: {why}") from None
    if document.get("issuer") != issuer.iss:
        # Section 4.3: otherwise the keys of another issuer would verify tokens of this one.
        found = named(document.get("issuer"))
        raise FetchFailed(
            f"{url}: names the issuer {found}, not {issuer.iss}; iss of the JwtIssuer must be as the"
            " issuer writes it, and a slash at the end counts"
        )
    jwks_uri = document.get("jwks_uri")
    if not isinstance(jwks_uri, str) or len(jwks_uri) > _MAX_URL_CHARS:
        raise FetchFailed(f"{url}: names no jwks_uri; write it as jwksUri into the JwtIssuer")
    return _checked_jwks_uri(jwks_uri, issuer, base)


def _checked_jwks_uri(jwks_uri: str, issuer: JwtIssuer, base: str) -> str:
    """
    Return *jwks_uri* on the origin of *base*, where discovery was fetched.

    A URL on the origin of `iss` is rewritten to *base*. The operator wrote both origins, and
    they were checked to be https or loopback, so the result is, too. A URL that the provider table
    knows, as Google's, is taken as it is.
    """
    if jwks_uri == issuer.profile.keys_elsewhere.get(issuer.iss):
        return jwks_uri
    try:
        given = httpx2.URL(jwks_uri)
    except httpx2.InvalidURL:
        raise FetchFailed(f"jwks_uri {named(jwks_uri)} is no address") from None
    inside, outside = httpx2.URL(base), httpx2.URL(issuer.iss)
    if given.userinfo or given.fragment:
        raise FetchFailed(f"jwks_uri {named(jwks_uri)} has a user or a fragment")
    if _origin(given) == _origin(inside):
        return jwks_uri
    if _origin(given) != _origin(outside):
        raise FetchFailed(
            f"jwks_uri {named(jwks_uri)} is on another origin than {base};"
            " if that is right, set jwksUri in the JwtIssuer"
        )
    prefix = issuer.iss.rstrip("/") + "/"
    if jwks_uri.startswith(prefix):
        return f"{base}/{jwks_uri.removeprefix(prefix)}"
    return str(inside.copy_with(raw_path=given.raw_path))


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


async def _get(client: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> Answer:
    """Fetch what is at *url*. Raises: FetchFailed if the answer is not a small and plain one."""
    try:
        async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            return await _read(response, url, with_token="Authorization" in headers)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        why = failure(error, ca="caBundle of the JwtIssuer, or SSL_CERT_FILE")
        raise FetchFailed(f"{url}: {why}") from None


async def _read(response: httpx2.Response, url: str, *, with_token: bool) -> Answer:
    """Read the body of *response*, an answer to a request with a bearer token or without."""
    if response.status_code != httpx2.codes.OK:
        location = response.headers.get("Location", "")
        problem = status_problem(response.status_code, location, with_token=with_token)
        raise FetchFailed(f"{url}: {problem}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchFailed(f"{url}: answered compressed, though asked not to")
    body, chunks = bytearray(), 0
    async for chunk in response.aiter_bytes():
        body += chunk
        chunks += 1
        if len(body) > MAX_RESPONSE_BYTES:
            raise FetchFailed(f"{url}: answered more than {MAX_RESPONSE_BYTES} bytes")
        if chunks > _MAX_CHUNKS:
            raise FetchFailed(f"{url}: answered in more than {_MAX_CHUNKS} pieces")
    return Answer(bytes(body), response.headers.get("Content-Type", ""))
