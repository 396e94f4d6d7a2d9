"""
OIDC issuers for tests: their keys, the tokens that they sign, and how they serve their keys.

`FakeIssuer` answers within the process, through the HTTP client's transport. `CiIssuer` serves
such issuers on a real port, and can be slow, down or wrong. `local_issuer` runs the issuer of
`federation demo`, which also gives jobs their ID tokens as a CI runner does.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from federation.demo.issuer import LocalIssuer
from federation.demo.jobs import claims_of
from federation.demo.stage import serving
from tests.harness import documents
from tests.harness.builders import AUDIENCE, GITHUB
from tests.harness.process import in_thread
from tests.harness.raw_server import http_answer, raw_server

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
)
Answer = Callable[[httpx2.Request], Awaitable[httpx2.Response]]

CURVES: Mapping[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
    "ES256K": ec.SECP256K1(),
}


@cache
def private_key(alg: str, which: int = 0, bits: int = 2048) -> PrivateKey:
    """A key for *alg*, generated once per process; use *which* to get different ones."""
    if alg in CURVES:
        return ec.generate_private_key(CURVES[alg])
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if alg == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def compact(header: object, payload: object, sign: Callable[[bytes], bytes]) -> str:
    """A compact JWS of *header* and *payload*, which are encoded as JSON unless they are bytes."""
    segments = (
        part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
        for part in (header, payload)
    )
    signing_input = ".".join(map(base64url, segments))
    return f"{signing_input}.{base64url(sign(signing_input.encode('ascii')))}"


@dataclass(frozen=True)
class FakeKey:
    """A signing key of an issuer."""

    kid: str | None = "k1"
    alg: str = "RS256"
    which: int = 0
    bits: int = 2048

    @property
    def private(self) -> PrivateKey:
        family = "RS256" if self.alg.startswith(("RS", "PS")) else self.alg
        return private_key(family, self.which, self.bits)

    def sign(self, message: bytes, alg: str | None = None) -> bytes:
        algorithm: Any = get_default_algorithms()[alg or self.alg]
        signature: bytes = algorithm.sign(message, self.private)
        return signature

    def jwk(self, **changes: object) -> dict[str, object]:
        """The public key as an issuer publishes it, with *changes*."""
        algorithm: Any = get_default_algorithms()["EdDSA" if self.alg == "Ed448" else self.alg]
        jwk = {
            **algorithm.to_jwk(self.private.public_key(), as_dict=True),
            "kid": self.kid,
            "alg": self.alg,
            "use": "sig",
        } | changes
        return {member: value for member, value in jwk.items() if value is not None}


class FakeIssuer:
    """
    An issuer within the process: it signs tokens and answers the key ring's requests.

    `discovery` and `key_set` make its two answers: a test replaces one to make it fail.
    `requests` lists every URL that was asked for.
    """

    def __init__(self, iss: str = GITHUB, *keys: FakeKey) -> None:
        self.iss = iss
        self.keys: tuple[FakeKey, ...] = keys or (FakeKey(),)
        self.base = iss
        """The URL at which it answers."""
        self.jwks_uri = f"{iss}/.well-known/jwks"
        self.requests: list[str] = []
        self.seen: list[httpx2.Request] = []
        self.discovery: Answer = self.good_discovery
        self.key_set: Answer = self.good_key_set

    def token(
        self,
        claims: Mapping[str, object] | bytes,
        *,
        key: FakeKey | None = None,
        signed_with: str | None = None,
        header: Mapping[str, object] | None = None,
    ) -> str:
        """*claims*, signed with *key* or its first one. None in *header* removes a member."""
        key = key or self.keys[0]
        members = {"typ": "JWT", "alg": key.alg, "kid": key.kid, **(header or {})}
        kept = {member: value for member, value in members.items() if value is not None}
        return compact(kept, claims, lambda message: key.sign(message, signed_with))

    def jwks(self) -> dict[str, object]:
        return {"keys": [key.jwk() for key in self.keys]}

    def metadata(self) -> dict[str, object]:
        return {"issuer": self.iss, "jwks_uri": self.jwks_uri}

    async def good_discovery(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=self.metadata())

    async def good_key_set(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=self.jwks())

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(str(request.url))
        self.seen.append(request)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return await self.discovery(request)
        return await self.key_set(request)

    def connect(self, _ca_bundle: str | None = None) -> httpx2.AsyncClient:
        """A client that reaches this issuer and no other host."""
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))

    @property
    def fetches(self) -> int:
        """The number of times that its key set was fetched."""
        return sum(not url.endswith("openid-configuration") for url in self.requests)


def answering(status: int = 200, **content: Any) -> Answer:
    """An answer that is always the same."""

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, **content)

    return answer


@dataclass(slots=True)
class CiIssuer:
    """
    Issuers on a loopback port, which sign tokens of CI jobs and can fail.

    Each issuer has a name, the first part of its path, so that several can fail in different
    ways before one broker.
    """

    algorithm: str = "RS256"
    """GitHub signs with RS256. ES256 signs twenty times faster, and is for a generic issuer."""
    port: int = 0
    ahead_seconds: float = 0.0
    """Its clock is so far ahead of ours."""
    delay_seconds: dict[str, float] = field(default_factory=dict)
    """By issuer: how long it waits before it answers."""
    garbage: dict[str, Callable[[str], bytes]] = field(default_factory=dict)
    """By issuer: the answer to a path that it gives instead of the right one."""
    _issuers: dict[str, FakeIssuer] = field(default_factory=dict)
    _server: AsyncExitStack = field(default_factory=AsyncExitStack)

    def iss(self, name: str = "ci") -> str:
        """The `iss` of the issuer *name*."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def issuer(self, name: str = "ci") -> FakeIssuer:
        """The issuer *name*, with its keys: the newest last."""
        if name not in self._issuers:
            self._issuers[name] = FakeIssuer(self.iss(name), FakeKey("key-0", self.algorithm))
        return self._issuers[name]

    def token(self, name: str = "ci", job: str = "main", *, unpublished: bool = False) -> str:
        """A fresh token, signed with the newest key, or with one that is never published."""
        key = self.issuer(name).keys[-1]
        return self._signed(name, job, replace(key, kid="unpublished") if unpublished else key)

    def old_token(self, name: str = "ci") -> str:
        """A fresh token, signed with the first key."""
        return self._signed(name, "main", self.issuer(name).keys[0])

    def rotate(self, name: str = "ci") -> None:
        """Sign with a new key from now on. The earlier keys stay published."""
        issuer = self.issuer(name)
        number = len(issuer.keys)
        issuer.keys += (FakeKey(f"key-{number}", self.algorithm, which=number),)

    def documents(
        self,
        names: Iterable[str] = ("ci",),
        *,
        fetched: bool = False,
        branches: Iterable[str] = ("main",),
    ) -> str:
        """Documents that trust the issuers *names*: their keys are pinned, or are *fetched*."""
        provider = "github" if self.algorithm == "RS256" else "generic"
        written = [documents.DEPLOY]
        for name in names:
            iss = self.iss(name)
            spec = {"provider": provider, "subjectTokenUse": "once"}
            keys = {} if fetched else {"jwks": self.issuer(name).jwks()}
            written.append(documents.issuer(name, iss, **spec, **keys))
            written.append(documents.role(name, iss, *branches))
        return documents.as_text(*written)

    async def up(self) -> None:
        """Answer, at the same port as before."""
        server = raw_server(self._reply, port=self.port)
        url, _ = await self._server.enter_async_context(server)
        self.port = int(url.rpartition(":")[2])

    async def down(self) -> None:
        """Refuse connections."""
        await self._server.aclose()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[CiIssuer]:
        """Answer inside the `with` block."""
        await self.up()
        try:
            yield self
        finally:
            await self.down()

    def _signed(self, name: str, job: str, key: FakeKey) -> str:
        issuer, now = self.issuer(name), time.time() + self.ahead_seconds
        claims = claims_of("github", job, iss=issuer.iss, audience=AUDIENCE, now=now)
        return issuer.token(claims, key=key)

    async def _reply(self, path: str, writer: asyncio.StreamWriter) -> None:
        name = path.split("/")[1]
        await asyncio.sleep(self.delay_seconds.get(name, 0.0))
        writer.write(self.garbage.get(name, self._right_answer)(path))

    def _right_answer(self, path: str) -> bytes:
        issuer = self.issuer(path.split("/")[1])
        return http_answer(
            json.dumps(issuer.jwks() if path.endswith("/jwks") else issuer.metadata())
        )


@contextmanager
def local_issuer() -> Iterator[LocalIssuer]:
    """Serve the issuer of `federation demo` on a free port, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    issuer = LocalIssuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with in_thread(lambda: serving(issuer.app, listener)):
        yield issuer
