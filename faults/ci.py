"""
A CI issuer that can fail, the tokens of its jobs, and the documents that trust it.

Several issuers live at one port, by the first part of the path, so that each can fail in its
own way before one broker.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from federation.demo.jobs import claims_of

__all__ = ["AUDIENCE", "CiIssuer", "Key", "documents", "http_answer"]

AUDIENCE = "https://broker.test"
"""The brokers' public URL, whatever port they are at."""

_POLICY = {
    "statement": [
        {"sid": "all", "effect": "Allow", "action": ["Function:*"], "resource": ["dev:*"]}
    ]
}
_HEAD_SECONDS = 5.0

Answer = Callable[[str], bytes]
"""The whole HTTP response to a request for a path."""


@dataclass(frozen=True, slots=True)
class Key:
    """What an issuer signs with."""

    kid: str
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def new(cls, number: int, algorithm: str) -> Key:
        """A key that nobody else has."""
        if algorithm == "ES256":
            return cls(f"key-{number}", ec.generate_private_key(ec.SECP256R1()))
        return cls(f"key-{number}", rsa.generate_private_key(public_exponent=65537, key_size=2048))

    @property
    def algorithm(self) -> str:
        """The `alg` of what it signs."""
        return "RS256" if isinstance(self.private, rsa.RSAPrivateKey) else "ES256"

    def token(self, iss: str, job: str, now: float) -> str:
        """A subject token that was never used."""
        claims = claims_of("github", job, iss=iss, audience=AUDIENCE, now=now)
        return jwt.encode(claims, self.private, self.algorithm, {"kid": self.kid})

    def jwk(self) -> dict[str, object]:
        """What the issuer publishes of it."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            public = jwt.algorithms.RSAAlgorithm.to_jwk(self.private.public_key())
        else:
            public = jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key())
        return {**json.loads(public), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


@dataclass(slots=True)
class CiIssuer:
    """Signs tokens, and answers for its keys as it is told to."""

    algorithm: str = "RS256"
    """As the real ones do; `ES256` signs twenty times faster, and is for a generic issuer."""
    port: int = 0
    ahead_seconds: float = 0.0
    """How far its clock is ahead of ours."""
    delay_seconds: dict[str, float] = field(default_factory=dict)
    """By issuer: how long an answer takes."""
    garbage: dict[str, Answer] = field(default_factory=dict)
    """By issuer: what is answered in place of the truth."""
    _keys: dict[str, list[Key]] = field(default_factory=dict)
    _server: asyncio.Server | None = None

    def iss(self, name: str = "ci") -> str:
        """The `iss` of the issuer *name*."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def token(self, name: str = "ci", job: str = "main", *, unpublished: bool = False) -> str:
        """A subject token that was never used, by the newest key or by one nobody can know."""
        key = (
            Key("nobody-knows", self.keys(name)[0].private) if unpublished else self.keys(name)[-1]
        )
        return self._signed(name, job, key)

    def old_token(self, name: str = "ci") -> str:
        """A token by the first key of the issuer *name*."""
        return self._signed(name, "main", self.keys(name)[0])

    def keys(self, name: str) -> list[Key]:
        """All keys of the issuer *name*, the newest last."""
        if not self._keys:
            self._keys[name] = [Key.new(0, self.algorithm)]
        first = next(iter(self._keys.values()))[0]  # one is enough for all issuers
        return self._keys.setdefault(name, [first])

    def rotate(self, name: str = "ci") -> None:
        """The issuer *name* signs with another key; it publishes the earlier ones too."""
        self.keys(name).append(Key.new(len(self.keys(name)), self.algorithm))

    def jwks(self, name: str = "ci") -> dict[str, object]:
        """The keys that *name* publishes."""
        return {"keys": [key.jwk() for key in self.keys(name)]}

    async def up(self) -> None:
        """It answers, at the same port as before."""
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Connections to it are refused."""
        server, self._server = self._server, None
        if server:
            server.close()
            await server.wait_closed()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[CiIssuer]:
        """It is up within."""
        await self.up()
        try:
            yield self
        finally:
            await self.down()

    def _signed(self, name: str, job: str, key: Key) -> str:
        return key.token(self.iss(name), job, time.time() + self.ahead_seconds)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode("ascii")
            name = path.split("/")[1]
            await asyncio.sleep(self.delay_seconds.get(name, 0.0))
            writer.write(self.garbage.get(name, self._truth)(path))
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, IndexError):
            pass
        finally:
            writer.close()

    def _truth(self, path: str) -> bytes:
        name = path.split("/")[1]
        if path.endswith("/jwks"):
            return http_answer(json.dumps(self.jwks(name)))
        return http_answer(
            json.dumps({"issuer": self.iss(name), "jwks_uri": f"{self.iss(name)}/jwks"})
        )


def http_answer(body: str | bytes, status: str = "200 OK", extra: str = "") -> bytes:
    """An HTTP/1.1 response that ends its connection."""
    content = body.encode() if isinstance(body, str) else body
    head = (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n{extra}\r\n"
    )
    return head.encode("ascii") + content


def documents(
    issuer: CiIssuer,
    names: Iterable[str] = ("ci",),
    *,
    fetched: bool = False,
    branches: Iterable[str] = ("main",),
) -> str:
    """Trust in the issuers *names*, keys pinned unless *fetched*; one Role for each."""
    said: list[tuple[str, str, Mapping[str, object]]] = [("Policy", "deploy", _POLICY)]
    for name in names:
        pinned = {} if fetched else {"jwks": issuer.jwks(name)}
        provider = "github" if issuer.algorithm == "RS256" else "generic"
        trusted = {"iss": issuer.iss(name), "aud": [AUDIENCE], "provider": provider, **pinned}
        trusted["subjectTokenUse"] = "once"
        equal = {
            "jwt:iss": [issuer.iss(name)],
            "jwt:repository_owner_id": ["13420041"],
            "jwt:repository_id": ["412890077"],
            "jwt:ref": [f"refs/heads/{branch}" for branch in branches],
        }
        said += [
            ("JwtIssuer", name, trusted),
            ("Role", name, {"policy": ["deploy"], "condition": {"StringEqual": equal}}),
        ]
    return "\n---\n".join(
        json.dumps(
            {
                "apiVersion": "iam.openfaas.com/v1",
                "kind": kind,
                "metadata": {"name": name},
                "spec": spec,
            }
        )
        for kind, name, spec in said
    )
