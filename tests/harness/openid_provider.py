"""
An OpenID provider for tests: honest and small, with a switch for each misbehaviour.

`FakeProvider` answers within the process, through the HTTP client's transport; `served()` has it
answer on a real port, where a browser's part is played by `sign_in`. It keeps the rules that the
client relies on: codes and rotated refresh tokens count once, PKCE and redirect URI must fit.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urlencode, urlsplit

import httpx2
from starlette.types import Receive, Scope, Send

from federation.demo.stage import serving
from tests.harness.clock import Clock
from tests.harness.issuer import FakeIssuer, FakeKey
from tests.harness.process import in_thread

AUTHORITY = "https://sso.example.com/realms/octo"
CLIENT_ID = "openfaas"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_DEVICE = "urn:ietf:params:oauth:grant-type:device_code"

Endpoint = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


@dataclass(slots=True)
class Grant:
    """One sign-in: whose tokens it gives, for which client."""

    client_id: str
    sub: str
    nonce: str | None = None
    challenge: str | None = None
    redirect_uri: str = ""


@dataclass(slots=True)
class FakeProvider:
    """A provider whose public client is `openfaas`. Tests change its fields to have it misbehave."""

    iss: str = AUTHORITY
    clock: Callable[[], float] = field(default_factory=lambda: Clock(1_700_000_000.0))
    keys: tuple[FakeKey, ...] = (FakeKey("k1", "ES256"),)
    secrets: dict[str, str] = field(default_factory=lambda: {CLIENT_ID: ""})
    """The client secret of each client; empty for a public one."""
    auth_methods: list[str] = field(default_factory=lambda: ["client_secret_basic", "none"])
    person: str = "alice"
    metadata_changes: dict[str, object] = field(default_factory=dict)
    """None takes a field out of the metadata."""
    claims_changes: dict[str, object] = field(default_factory=dict)
    """Of ID tokens. None takes a claim out."""
    header_changes: dict[str, object] = field(default_factory=dict)
    id_token: str | None = None
    """An ID token to give in place of the right one; empty for none."""
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By the last part of the path: an endpoint to take the place of the honest one."""
    names_itself: bool = True
    checks_pkce: bool = True
    rotates: bool = True
    pending_answers: list[str] = field(default_factory=list)
    """Errors that the token endpoint gives to the device flow before it gives tokens."""
    asked: list[httpx2.Request] = field(default_factory=list)
    codes: dict[str, Grant] = field(default_factory=dict)
    used_codes: set[str] = field(default_factory=set)
    sessions: dict[str, Grant] = field(default_factory=dict)
    """By refresh token."""
    devices: dict[str, Grant] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> FakeIssuer:
        return FakeIssuer(self.iss, *self.keys)

    def metadata(self) -> dict[str, object]:
        """The metadata that it publishes, with the changes."""
        own = {
            "issuer": self.iss,
            "authorization_endpoint": f"{self.iss}/authorize",
            "token_endpoint": f"{self.iss}/token",
            "jwks_uri": f"{self.iss}/jwks",
            "device_authorization_endpoint": f"{self.iss}/device",
            "revocation_endpoint": f"{self.iss}/revoke",
            "end_session_endpoint": f"{self.iss}/logout",
            "token_endpoint_auth_methods_supported": self.auth_methods,
            "code_challenge_methods_supported": ["S256"],
            "response_modes_supported": ["query", "fragment", "form_post"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }
        return _without_none(own | self.metadata_changes)

    # The browser's part

    def sign_in(self, url: str, sub: str = "") -> list[tuple[str, str]]:
        """The parameters that come back after *sub* signed in at the authorization URL *url*."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["client_id"] in self.secrets
        grant = Grant(
            client_id=asked["client_id"],
            sub=sub or self.person,
            nonce=asked.get("nonce"),
            challenge=asked.get("code_challenge"),
            redirect_uri=asked["redirect_uri"],
        )
        answer = [("state", asked["state"])]
        if self.names_itself:
            answer.append(("iss", self.iss))
        if asked["response_type"] == "id_token":
            return [("id_token", self.id_token_of(grant)), *answer]
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = grant
        return [("code", code), *answer]

    # Its tokens

    def claims(self, grant: Grant) -> dict[str, object]:
        """The claims of an ID token, with the changes."""
        now = int(self.clock())
        own: dict[str, object] = {
            "iss": self.iss,
            "sub": grant.sub,
            "aud": grant.client_id,
            "iat": now,
            "exp": now + 300,
            "nonce": grant.nonce,
            "email": f"{grant.sub}@example.com",
        }
        return _without_none(own | self.claims_changes)

    def id_token_of(self, grant: Grant) -> str:
        if self.id_token is not None:
            return self.id_token
        return self.issuer.token(self.claims(grant), header=self.header_changes)

    def access_token_of(self, grant: Grant) -> str:
        now = int(self.clock())
        claims = {
            "iss": self.iss,
            "sub": grant.sub,
            "aud": "https://gateway.example.com",
            "azp": grant.client_id,
            "iat": now,
            "exp": now + 300,
            "jti": "a1",
        }
        return self.issuer.token(claims, header={"typ": "at+jwt"})

    def logout_token(self, **changes: object) -> str:
        """A back-channel logout token, with *changes*. None takes a claim out."""
        now = int(self.clock())
        claims = {
            "iss": self.iss,
            "sub": "alice",
            "aud": CLIENT_ID,
            "sid": "s-1",
            "jti": "l-1",
            "iat": now,
            "exp": now + 120,
            "events": {LOGOUT_EVENT: {}},
        }
        return self.issuer.token(_without_none(claims | changes), header={"typ": "logout+jwt"})

    def tokens(self, grant: Grant, *, refresh_token: str = "") -> httpx2.Response:
        body = {
            "access_token": self.access_token_of(grant),
            "token_type": "Bearer",
            "expires_in": 300,
        }
        if id_token := self.id_token_of(grant):
            body["id_token"] = id_token
        if not refresh_token or self.rotates:
            self.sessions.pop(refresh_token, None)
            refresh_token = secrets.token_urlsafe(16)
            self.sessions[refresh_token] = Grant(grant.client_id, grant.sub)
            body["refresh_token"] = refresh_token
        return httpx2.Response(200, json=body)

    # Its endpoints

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        name = request.url.path.rpartition("/")[2]
        honest: dict[str, Endpoint] = {
            "openid-configuration": self._discovery,
            "jwks": self._jwks,
            "authorize": self._authorize,
            "token": self._token,
            "device": self._device,
            "revoke": self._revoke,
        }
        endpoint = self.endpoints.get(name) or honest.get(name)
        return await endpoint(request) if endpoint else httpx2.Response(404)

    def http(self) -> httpx2.AsyncClient:
        """A client that reaches this provider and no other host."""
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))

    def asked_for(self, name: str) -> list[httpx2.Request]:
        """The requests to one endpoint."""
        return [each for each in self.asked if each.url.path.endswith(f"/{name}")]

    async def _discovery(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=self.metadata())

    async def _jwks(self, _request: httpx2.Request) -> httpx2.Response:
        """The keys, and as at Keycloak one for encryption, which is passed over."""
        for_encryption = {**self.keys[0].jwk(), "kid": "encrypts", "use": "enc"}
        signing = [key.jwk() for key in self.keys]
        return httpx2.Response(200, json={"keys": [*signing, for_encryption]})

    async def _authorize(self, request: httpx2.Request) -> httpx2.Response:
        """A person who is signed in already: the answer comes at once."""
        answer = self.sign_in(str(request.url))
        uri = dict(request.url.params)["redirect_uri"]
        return httpx2.Response(302, headers={"Location": f"{uri}?{urlencode(answer)}"})

    async def _token(self, request: httpx2.Request) -> httpx2.Response:
        form = form_of(request)
        client_id = self._client(request, form)
        if client_id is None:
            return oauth_error("invalid_client", 401)
        match form["grant_type"]:
            case "authorization_code":
                return self._redeem(client_id, form)
            case "refresh_token":
                return self._refresh(client_id, form)
            case "client_credentials" if self.secrets[client_id]:
                return self._own(client_id, form)
            case grant_type if grant_type == _DEVICE:
                return self._of_device(client_id, form)
        return oauth_error("unsupported_grant_type")

    def _client(self, request: httpx2.Request, form: Mapping[str, str]) -> str | None:
        """The client that the request authenticates, None if it does not."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            method = "client_secret_basic"
            pair = base64.b64decode(given).decode("ascii")
            client_id, secret = map(unquote_plus, pair.split(":", 1))
        else:
            client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
            method = "client_secret_post" if secret else "none"
        known = client_id in self.secrets and self.secrets[client_id] == secret
        return client_id if known and method in self.auth_methods else None

    def _redeem(self, client_id: str, form: Mapping[str, str]) -> httpx2.Response:
        grant = self.codes.pop(form["code"], None)
        if grant is None or grant.client_id != client_id:
            return oauth_error("invalid_grant", description="Code not valid")
        if grant.redirect_uri != form["redirect_uri"]:
            return oauth_error("invalid_grant", description="Incorrect redirect_uri")
        if self.checks_pkce and grant.challenge != challenge_of(form["code_verifier"]):
            return oauth_error("invalid_grant", description="PKCE verification failed")
        self.used_codes.add(form["code"])
        return self.tokens(grant)

    def _refresh(self, client_id: str, form: Mapping[str, str]) -> httpx2.Response:
        grant = self.sessions.get(form["refresh_token"])
        if grant is None or grant.client_id != client_id:
            return oauth_error("invalid_grant", description="Session not active")
        return self.tokens(grant, refresh_token=form["refresh_token"])

    def _own(self, client_id: str, form: Mapping[str, str]) -> httpx2.Response:
        if "openid" in form.get("scope", "").split():
            return oauth_error("invalid_scope")
        token = self.access_token_of(Grant(client_id, f"service-account-{client_id}"))
        return httpx2.Response(200, json={"access_token": token, "token_type": "Bearer"})

    async def _device(self, request: httpx2.Request) -> httpx2.Response:
        form = form_of(request)
        client_id = self._client(request, form)
        if client_id is None:
            return oauth_error("invalid_client", 401)
        code = secrets.token_urlsafe(16)
        self.devices[code] = Grant(client_id, self.person, challenge=form.get("code_challenge"))
        body = {
            "device_code": code,
            "user_code": "WDJB-MJHT",
            "verification_uri": f"{self.iss}/code",
            "verification_uri_complete": f"{self.iss}/code?user_code=WDJB-MJHT",
            "expires_in": 600,
            "interval": 5,
        }
        return httpx2.Response(200, json=body)

    def _of_device(self, client_id: str, form: Mapping[str, str]) -> httpx2.Response:
        if self.pending_answers:
            return oauth_error(self.pending_answers.pop(0))
        grant = self.devices.pop(form["device_code"], None)
        if grant is None or grant.client_id != client_id:
            return oauth_error("invalid_grant")
        if self.checks_pkce and grant.challenge != challenge_of(form["code_verifier"]):
            return oauth_error("invalid_grant")
        return self.tokens(grant)

    async def _revoke(self, request: httpx2.Request) -> httpx2.Response:
        form = form_of(request)
        if self._client(request, form) is None:
            return oauth_error("invalid_client", 401)
        self.sessions.pop(form["token"], None)
        self.revoked.append(form["token"])
        return httpx2.Response(200)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application, for `served`."""
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        origin = urlsplit(self.iss)
        url = f"{origin.scheme}://{origin.netloc}{scope['path']}?{scope['query_string'].decode()}"
        headers = [(name.decode(), value.decode()) for name, value in scope["headers"]]
        given = await self.answer(
            httpx2.Request(scope["method"], url, headers=headers, content=body)
        )
        raw = [(name.lower(), value) for name, value in given.headers.raw]
        await send({"type": "http.response.start", "status": given.status_code, "headers": raw})
        await send({"type": "http.response.body", "body": given.content})


@contextmanager
def served(**settings: Any) -> Iterator[FakeProvider]:
    """Serve a provider with *settings* on a free port of loopback, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    iss = f"http://127.0.0.1:{listener.getsockname()[1]}/realms/octo"
    provider = FakeProvider(iss=iss, **settings)
    with in_thread(lambda: serving(provider, listener)):
        yield provider


def form_of(request: httpx2.Request) -> dict[str, str]:
    """The fields of a request's form, each of which may be there once."""
    pairs = parse_qsl(request.content.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def oauth_error(error: str, status: int = 400, description: str = "") -> httpx2.Response:
    body = {"error": error, "error_description": description or None}
    return httpx2.Response(status, json=_without_none(body))


def challenge_of(verifier: str) -> str:
    """The S256 challenge of RFC 7636, section 4.2."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _without_none(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}
