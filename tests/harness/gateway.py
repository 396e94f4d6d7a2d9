"""A broker before a sample upstream, all within the test."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx2
from starlette.types import ASGIApp

from federation.claims import Claims
from federation.demo.upstream import Function, Received, SampleUpstream
from federation.documents.model import Policy
from federation.gateway.client import BasicAuth, Upstream, UpstreamRequest, UpstreamResponse
from federation.gateway.refusals import UpstreamFailed
from federation.tokens import mint
from federation.tokens.mint import FUNCTION_TOKEN_TYPE
from tests.harness import built
from tests.harness.broker import URL, InProcess
from tests.harness.builders import good

USER: Final = "admin"
PASSWORD: Final = "the-upstreams-own"
BASIC: Final = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
UPSTREAM: Final = httpx2.URL("http://upstream.test")

Statement = Mapping[str, Any]


class Reaching(httpx2.AsyncBaseTransport):
    """Reaches an application by the target on the request line, as a socket would."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = httpx2.ASGITransport(app)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        target = request.extensions.get("target")
        if target is not None:
            request.url = request.url.copy_with(raw_path=target)
            assert request.url.raw_path == target, "the test's own client must not rewrite it"
        return await self._inner.handle_async_request(request)


class ByHttpx:
    """Carries requests through a transport of httpx2, for tests that bring one."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        sent = httpx2.Request(
            request.method,
            UPSTREAM,
            headers=list(request.headers),
            content=request.body,
            extensions={"target": request.target},
        )
        try:
            async with asyncio.timeout(5):
                response = await self._transport.handle_async_request(sent)
        except (httpx2.TransportError, TimeoutError) as error:
            raise self._failed(error) from error
        return UpstreamResponse(
            response.status_code, response.headers.raw, self._body(response), response.aclose
        )

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _body(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        try:
            async for piece in response.aiter_raw():
                yield piece
        except httpx2.TransportError as error:
            raise self._failed(error) from error

    @staticmethod
    def _failed(error: Exception) -> UpstreamFailed:
        late = isinstance(error, httpx2.TimeoutException | TimeoutError)
        return UpstreamFailed(f"{type(error).__name__}: {error}", timed_out=late)


class Front(InProcess):
    """
    A broker before `sample`, whose tokens have the policy `p`.

    *transport* is another way to another upstream.
    """

    def __init__(
        self,
        folder: Path,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        upstream: Upstream | None = None,
        **settings: Any,
    ) -> None:
        self.secrets = folder
        self.write_secrets(USER, PASSWORD)
        self.sample = SampleUpstream(USER, PASSWORD, ("openfaas-fn", "dev", "staging"))
        self.sample.functions["dev", "figlet"] = Function({"image": "figlet:1"})
        self.sample.secrets["dev", "s1"] = "v1"
        reached = transport or Reaching(self.sample.app)
        super().__init__(
            upstream=upstream or Upstream(ByHttpx(reached), BasicAuth(folder, look_seconds=0)),
            signing_key=(folder / "basic-auth-user",),  # so that no folder of keys is watched
            **settings,
        )

    def write_secrets(self, user: str, password: str) -> None:
        """The files that the broker reads the upstream's password from."""
        (self.secrets / "basic-auth-user").write_text(f"{user}\n", "ascii")
        (self.secrets / "basic-auth-password").write_text(f"{password}\n", "ascii")

    def grant(self, *statements: Statement | tuple[str, str]) -> str:
        """A token whose policy has *statements*; an action and a resource is one that allows."""
        written = [
            {"action": [s[0]], "resource": [s[1]]} if isinstance(s, tuple) else s
            for s in statements
        ]
        return self.bearing(built.policy("p", *written))

    def bearing(self, *policies: Policy, **claims: object) -> str:
        """A token with *policies*, which are all that there are."""
        self.source.catalog = built.catalog(policies=policies)
        return self.signed({**self.said(), "policy": [p.name for p in policies], **claims})

    def said(self) -> dict[str, object]:
        """What a good access token says."""
        now = int(self.clock())
        return {
            **good("github-push-main", self.clock()),
            "iss": URL,
            "aud": URL,
            "sub": "fed:repo:octo-org/octo-repo:ref:refs/heads/main",
            "fed:iss": built.GITHUB,
            "role": ["deployer"],
            "iat": now,
            "nbf": now,
            "exp": now + 900,
            "jti": "ours",
        }

    def signed(self, claims: Mapping[str, object], typ: str = "at+jwt") -> str:
        """*claims* with the broker's own signature."""
        return mint.sign(Claims(claims), self.signing.signs, typ).token

    def function_token(
        self, permissions: Sequence[str], audience: Sequence[str] = (), **claims: object
    ) -> str:
        """A function token as the broker mints it, with *claims* changed."""
        said = mint.function_claims(
            Claims(self.said()),
            permissions=permissions,
            audience=audience,
            now=self.clock(),
            jti="a function's",
        )
        return self.signed({**said, **claims}, FUNCTION_TOKEN_TYPE)

    def call(
        self, method: str, target: str, token: str | None = None, **request: Any
    ) -> httpx2.Response:
        """The answer to a request with *token*."""
        headers = {**({"authorization": f"Bearer {token}"} if token else {})}
        headers |= request.pop("headers", {})
        return self.ask(method, target, headers=headers, **request)

    @property
    def received(self) -> list[Received]:
        """What reached the upstream."""
        return list(self.sample.received)


def header(received: Received, name: str) -> bytes | None:
    """The only header of that name, None without one."""
    values = [value for given, value in received.headers if given.lower() == name.encode()]
    assert len(values) < 2, values
    return values[0] if values else None
