"""Whole stand-ins for the world outside: an issuer with its keys, and a clock that can be set."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from tests.harness.built import GITHUB

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
    """A key for *alg*, made once for the whole session; *which* tells several apart."""
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
    """A compact JWS of *header* and *payload*; bytes are taken as they are."""
    segments = (
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    )
    signing_input = ".".join(map(base64url, segments))
    return f"{signing_input}.{base64url(sign(signing_input.encode('ascii')))}"


@dataclass(frozen=True)
class FakeKey:
    """One signing key of an issuer."""

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
        """The public half as an issuer publishes it, with *changes*."""
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
    An issuer: it signs, and serves its discovery document and key set.

    `discovery` and `key_set` are its two answers; a test that wants a fault replaces one.
    `requests` holds every URL that was asked for.
    """

    def __init__(self, iss: str = GITHUB, *keys: FakeKey) -> None:
        self.iss = iss
        self.keys: tuple[FakeKey, ...] = keys or (FakeKey(),)
        self.base = iss
        """Where it is reached."""
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
        """*claims*, signed by *key* or the first; None in *header* takes a member away."""
        key = key or self.keys[0]
        members = {"typ": "JWT", "alg": key.alg, "kid": key.kid, **(header or {})}
        kept = {member: value for member, value in members.items() if value is not None}
        return compact(kept, claims, lambda message: key.sign(message, signed_with))

    def jwks(self) -> dict[str, object]:
        return {"keys": [key.jwk() for key in self.keys]}

    async def good_discovery(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"issuer": self.iss, "jwks_uri": self.jwks_uri})

    async def good_key_set(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=self.jwks())

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(str(request.url))
        self.seen.append(request)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            return await self.discovery(request)
        return await self.key_set(request)

    def connect(self, _ca_bundle: str | None = None) -> httpx2.AsyncClient:
        """A client that reaches this issuer and nobody else."""
        return httpx2.AsyncClient(transport=httpx2.MockTransport(self.answer))

    @property
    def fetches(self) -> int:
        """How often its key set was asked for."""
        return sum(not url.endswith("openid-configuration") for url in self.requests)


def answering(status: int = 200, **content: Any) -> Answer:
    """The answer that is always the same."""

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, **content)

    return answer


class Clock:
    """A clock that goes on only when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
