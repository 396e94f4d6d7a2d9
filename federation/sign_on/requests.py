"""
Requests to a provider's token, revocation and device endpoints.

Authlib's client makes them: the parameters of each grant, PKCE, and how the client authenticates.
It sends by a bounded transport, and its reader of answers is replaced by a strict one.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from federation.client import ClientError
from federation.client.http import server_of
from federation.jose.jws import MAX_TOKEN_BYTES
from federation.jose.strict_json import loads_object
from federation.sign_on.bounded import Bounded, client_arguments, unreachable
from federation.sign_on.metadata import Metadata
from federation.sign_on.oauth_errors import refused_answer
from federation.sign_on.tokens import Answered

_OPENID = "openid"
_TOKEN = re.compile(rf"[ -~]{{1,{MAX_TOKEN_BYTES}}}")  # RFC 6749, appendix A.12


@dataclass(frozen=True, slots=True)
class Client:
    """An OAuth client that was registered at a provider."""

    client_id: str
    scopes: str
    """Separated by blanks; `openid` is always asked for."""
    secret: str = field(default="", repr=False)
    """Empty for a public client."""

    @property
    def scope(self) -> str:
        """The scopes to ask for when a person signs in."""
        words = self.scopes.split()
        return " ".join(words if _OPENID in words else [_OPENID, *words])

    @property
    def own_scope(self) -> str:
        """The scopes to ask for when the client signs in itself: those that speak of no person."""
        return " ".join(word for word in self.scopes.split() if word not in _OF_PEOPLE)


_OF_PEOPLE = frozenset({_OPENID, "profile", "email", "address", "phone", "offline_access"})
"""OpenID Connect Core, sections 5.4 and 11. Several providers refuse them to a client itself."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The endpoints of a provider, asked as *client*."""

    metadata: Metadata
    client: Client = field(repr=False)
    transport: Bounded = field(repr=False)

    def challenge(self, verifier: str) -> str:
        """Return the PKCE challenge for *verifier* (RFC 7636, section 4.2)."""
        return str(create_s256_code_challenge(verifier))  # type: ignore[no-untyped-call]

    def authorization_url(self, **parameters: str) -> str:
        """Return the address of the authorization endpoint with *parameters*."""
        made = self._open().create_authorization_url(
            self.metadata.authorization_endpoint, scope=self.client.scope, **parameters
        )
        return str(made[0])

    async def tokens(self, grant_type: str, **parameters: str) -> Answered:
        """
        Return what the token endpoint gives for *grant_type* with *parameters*.

        Raises: ClientError; ProviderRefused with the OAuth error.
        """
        url = self.metadata.token_endpoint
        try:
            async with self._open() as client:
                answer = await client.fetch_token(url, grant_type=grant_type, **parameters)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(error, url) from error
        return Answered(
            access_token=_token(answer, "access_token", url, needed=True),
            id_token=_token(answer, "id_token", url),
            refresh_token=_token(answer, "refresh_token", url),
        )

    async def begin_device(self, url: str, **parameters: str) -> Mapping[str, object]:
        """Return what the device authorization endpoint says (RFC 8628, section 3.2)."""
        return _checked(await self._post(url, {"scope": self.client.scope, **parameters}))

    async def revoke(self, url: str, refresh_token: str) -> None:
        """Revoke *refresh_token* (RFC 7009). An answer of 200 is all that it says."""
        try:
            async with self._open() as client:
                untyped: Any = client
                response = await untyped.revoke_token(url, refresh_token, "refresh_token")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(error, url) from error
        if response.status_code != httpx2.codes.OK:
            _checked(response)
            raise _not_oauth(response)

    async def _post(self, url: str, form: Mapping[str, str]) -> httpx2.Response:
        try:
            async with self._open() as client:
                auth: Any = client.client_auth(client.token_endpoint_auth_method)
                answer: httpx2.Response = await client.post(url, data=dict(form), auth=auth)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise unreachable(error, url) from error
        return answer

    def _open(self) -> _StrictClient:
        """
        Return a client for one request.

        One for all would keep the tokens of the last person who signed in.
        """
        method = self._auth_method()
        client = _StrictClient(
            client_id=self.client.client_id,
            client_secret=self.client.secret or None,
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            code_challenge_method="S256",  # never plain, whatever the provider offers (RFC 9700)
            **client_arguments(self.transport),
        )
        client.register_client_auth_method(("client_secret_basic", _basic))
        return client

    def _auth_method(self) -> str:
        """Return how the client authenticates, by what the provider takes."""
        if not self.client.secret:
            return "none"
        taken = self.metadata.token_auth_methods
        for method in ("client_secret_basic", "client_secret_post"):
            if method in taken:
                return method
        raise ClientError(
            f"{self.metadata.issuer} takes no client secret: it takes {', '.join(taken)}.",
            "Register a client with a secret (client_secret_basic), or a public one without.",
        )


class _StrictClient(AsyncOAuth2Client):
    """Authlib's client with a strict reader of the token endpoint's answers."""

    def parse_response_token(self, resp: httpx2.Response) -> Mapping[str, object]:
        """Return the JSON object of a good answer. Raises: ClientError."""
        return _checked(resp)


def _basic(client: Any, method: str, uri: str, headers: Any, body: Any) -> tuple[str, Any, Any]:
    """
    Authenticate by HTTP Basic, with id and secret form-encoded first.

    RFC 6749, section 2.3.1. Authlib leaves the encoding out: a secret with `:` or `%` or beyond
    ASCII would then be another one.
    """
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {b64encode(pair.encode('ascii')).decode('ascii')}"
    return uri, headers, body


def _checked(response: httpx2.Response) -> Mapping[str, object]:
    """
    Return the JSON object in *response*, if it is a good answer (RFC 6749, sections 5.1 and 5.2).

    Raises: ProviderRefused, ClientError. Neither quotes the answer but its error.
    """
    try:
        answer = loads_object(response.content)
    except ValueError:
        raise _not_oauth(response) from None
    error, description = answer.get("error"), answer.get("error_description")
    if isinstance(error, str) and error:
        said = description if isinstance(description, str) else ""
        raise refused_answer(error, said, server_of(response.request.url))
    if response.status_code != httpx2.codes.OK or error:
        raise _not_oauth(response)
    return answer


def _not_oauth(response: httpx2.Response) -> ClientError:
    server, status = server_of(response.request.url), response.status_code
    if response.is_redirect:
        return ClientError(
            f"{server} answered HTTP {status}, a redirect, which is not followed with a secret.",
            "The operator of the provider mends its metadata: it names the endpoint's old address.",
        )
    return ClientError(
        f"{server} answered HTTP {status}, not as an OAuth server does.",
        "Try again in a minute." if status >= 500 or status == 429 else "Check the authority.",
    )


def _token(answer: Mapping[str, object], name: str, url: str, *, needed: bool = False) -> str:
    """Return a token of *answer*; empty if it is absent and not *needed*."""
    token = answer.get(name)
    if token is None and not needed:
        return ""
    if isinstance(token, str) and _TOKEN.fullmatch(token):
        return token
    raise ClientError(
        f"{server_of(httpx2.URL(url))} gave no usable {name}.",
        f"It is missing, or has more than {MAX_TOKEN_BYTES // 1024} KiB: have the provider put"
        " fewer claims, such as groups, into it.",
    )
