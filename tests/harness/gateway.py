"""
Brokers in front of an OpenFaaS gateway, in three forms.

`Front` is all within the test, without sockets. `Listening` is the same on loopback sockets,
served as `serve` does. `Fronted` is two processes: `federation serve`, and the gateway of
`tests.harness.openfaas`.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import uvloop
from starlette.types import ASGIApp

from federation.claims import Claims
from federation.demo.issuer import LocalIssuer
from federation.demo.stage import serving
from federation.documents.model import Policy
from federation.gateway.client import UpstreamRequest, UpstreamResponse
from federation.gateway.refusals import UpstreamFailed
from federation.gateway.upstream import BasicAuth, Upstream
from federation.server.http_limits import http_config
from federation.tokens import mint
from federation.tokens.mint import FUNCTION_TOKEN_TYPE
from tests.harness import builders, documents
from tests.harness.broker import URL, InProcess, Served, local_issuer, started
from tests.harness.builders import good
from tests.harness.openfaas import PASSWORD, USER, Function, Received, SampleUpstream
from tests.harness.process import Server, in_thread

__all__ = [
    "BASIC",
    "PASSWORD",
    "USER",
    "Front",
    "Fronted",
    "Listening",
    "fronted",
    "header",
    "listening",
    "sample",
    "write_secrets",
]

BASIC: Final = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
UPSTREAM: Final = httpx2.URL("http://upstream.test")

Statement = Mapping[str, Any]


class Reaching(httpx2.AsyncBaseTransport):
    """Sends a request to an application with its exact target, as a socket would."""

    def __init__(self, app: ASGIApp) -> None:
        self._inner = httpx2.ASGITransport(app)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        target = request.extensions.get("target")
        if target is not None:
            request.url = request.url.copy_with(raw_path=target)
            assert request.url.raw_path == target, "the test's own client must not rewrite it"
        return await self._inner.handle_async_request(request)


class ByHttpx:
    """The broker's way to the upstream, through any transport of the HTTP client."""

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
    A broker in front of the gateway `sample`.

    A test may bring a *transport* to another upstream.
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
        self.sample = SampleUpstream()
        self.sample.functions["dev", "figlet"] = Function({"image": "figlet:1"})
        self.sample.secrets["dev", "s1"] = "v1"
        reached = ByHttpx(transport or Reaching(self.sample.app))
        super().__init__(
            upstream=upstream
            or Upstream(reached, reached, reached, BasicAuth(folder, look_seconds=0)),
            signing_key=(folder / "basic-auth-user",),  # so that no folder of keys is watched
            **settings,
        )

    def write_secrets(self, user: str, password: str) -> None:
        """Replace the files from which the broker reads the gateway's password."""
        write_secrets(self.secrets, user, password)

    def grant(self, *statements: Statement | tuple[str, str]) -> str:
        """A token whose only policy has *statements*; an (action, resource) pair allows."""
        written = [
            {"action": [s[0]], "resource": [s[1]]} if isinstance(s, tuple) else s
            for s in statements
        ]
        return self.bearing(builders.policy("p", *written))

    def bearing(self, *policies: Policy, **claims: object) -> str:
        """A token with *policies*, which become all policies of the catalog."""
        self.source.catalog = builders.catalog(policies=policies)
        return self.signed({**self.said(), "policy": [p.name for p in policies], **claims})

    def said(self) -> dict[str, object]:
        """The claims of a valid access token."""
        now = int(self.clock())
        return {
            **good("github-push-main", self.clock()),
            "iss": URL,
            "aud": URL,
            "sub": "fed:repo:octo-org/octo-repo:ref:refs/heads/main",
            "fed:iss": builders.GITHUB,
            "role": ["deployer"],
            "iat": now,
            "nbf": now,
            "exp": now + 900,
            "jti": "ours",
        }

    def signed(self, claims: Mapping[str, object], typ: str = "at+jwt") -> str:
        """A token of *claims*, signed by the broker's key."""
        return mint.sign(Claims(claims), self.signing.signs, typ).token

    def function_token(
        self, permissions: Sequence[str], audience: Sequence[str] = (), **claims: object
    ) -> str:
        """A function token as the broker mints it, with changes to its *claims*."""
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
        """The requests that reached the gateway."""
        return list(self.sample.received)


class Listening(Front):
    """A broker at `port` in front of `sample`, both on loopback sockets."""

    def __init__(
        self, folder: Path, *, timeout: float = 5, connections: int = 100, **settings: Any
    ) -> None:
        self.listener, self.behind = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.port: int = self.listener.getsockname()[1]
        self.upstream_port: int = self.behind.getsockname()[1]
        upstream = Upstream.at(
            f"http://127.0.0.1:{self.upstream_port}",
            connections=connections,
            timeout_seconds=timeout,
            auth=BasicAuth(folder),
        )
        super().__init__(folder, upstream=upstream, **settings)

    def revoke(self, jti: str) -> None:
        """Revoke the token *jti*, as another program does that shares the state."""
        asyncio.run(self.state.revoke(jti, self.clock() + 900))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve the broker and the gateway inside the `with` block."""
        async with (
            serving(self.sample.app, self.behind),
            serving(self.app, self.listener, http_config(self.app)),
        ):
            yield

    def say(self, *pieces: bytes, seconds: float = 5) -> bytes:
        """The answer to *pieces*, until the broker hangs up or is silent for *seconds*."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            heard = bytearray()
            try:
                for piece in pieces:
                    connection.sendall(piece)
                while chunk := connection.recv(65536):
                    heard += chunk
            except OSError:  # it hung up, or is silent
                pass
            return bytes(heard)


@contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[Listening]:
    """Serve a broker and a gateway inside the `with` block."""
    front = Listening(folder, **settings)
    with in_thread(front.serving, uvloop.new_event_loop):
        yield front


@dataclass(frozen=True)
class Fronted:
    """A broker process in front of a gateway process at the URL *upstream*."""

    broker: Served
    upstream: str

    def token(self, job: str = "main") -> str:
        """An access token. `main` may do everything in `dev`; `feature` may call one function."""
        return self.broker.access_token(job)

    def directly(self, method: str, target: str, **request: Any) -> httpx2.Response:
        """The gateway's answer to a request that does not go through the broker."""
        url = f"{self.upstream}{target}"
        answer = httpx2.request(method, url, auth=(USER, PASSWORD), timeout=20, **request)
        return answer.raise_for_status()

    def state(self) -> dict[str, Any]:
        """The requests that the gateway received, and the number of logs followed there."""
        told: dict[str, Any] = self.directly("GET", "/test/state").json()
        return told

    def reset(self) -> None:
        """Forget all requests, and have one function and one secret: `figlet` and `s1` in `dev`."""
        self.directly("POST", "/test/reset")


@contextmanager
def fronted(
    folder: Path, *flags: str, behind: Callable[[], AbstractContextManager[str]] | None = None
) -> Iterator[Fronted]:
    """
    Run a gateway, and a broker in front of it with *flags*, inside the `with` block.

    *behind* runs another gateway than `sample`, and gives its URL.
    """
    secrets = write_secrets(folder / "secrets", USER, PASSWORD)
    with (behind or sample)() as url, local_issuer() as issuer:
        own = ("--upstream", url, "--upstream-secrets", str(secrets))
        with started(folder, issuer, *own, *flags, written=_documents) as broker:
            yield Fronted(broker, url)


def _documents(issuer: LocalIssuer) -> str:
    """Documents by which jobs on main may do everything in `dev` and `dev2`."""
    iss = issuer.iss("github")
    everything = {
        "action": ["Function:*", "Secret:*", "Namespace:*"],
        "resource": ["dev:*", "dev2:*"],
    }
    return documents.as_text(
        documents.issuer("local", iss, tokenExpiry="1h"),
        documents.policy("dev-rw", everything, {"action": ["System:Info"], "resource": ["*"]}),
        documents.policy(
            "elsewhere", {"action": ["Function:Invoke"], "resource": ["staging:cows"]}
        ),
        documents.role("deployer", iss, "main", policy="dev-rw"),
        documents.role("feature", iss, "feature/login", policy="elsewhere"),
    )


@contextmanager
def sample() -> Iterator[str]:
    """Run a gateway, and yield its URL; kill it at the end, whatever it is doing."""
    with tempfile.TemporaryDirectory() as temporary:
        gateway = Server(["tests.harness.openfaas"], Path(temporary))
        try:
            gateway.start()
            yield gateway.url
        finally:
            gateway.kill()


def write_secrets(folder: Path, user: str, password: str) -> Path:
    """Write the files of a gateway's password, as they are mounted for the broker."""
    folder.mkdir(exist_ok=True)
    (folder / "basic-auth-user").write_text(f"{user}\n", "ascii")
    (folder / "basic-auth-password").write_text(f"{password}\n", "ascii")
    return folder


def header(received: Received, name: str) -> bytes | None:
    """The value of a header, None without one. There must not be two."""
    values = [value for given, value in received.headers if given.lower() == name.encode()]
    assert len(values) < 2, values
    return values[0] if values else None
