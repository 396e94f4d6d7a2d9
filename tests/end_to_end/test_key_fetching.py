"""The key ring over real sockets, plain and TLS, with servers that behave badly."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from tests.harness.builders import issuer
from tests.harness.certificates import Authority
from tests.harness.issuer import FakeKey
from tests.harness.raw_server import Reply, http_answer, raw_server

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@dataclass
class Good:
    """The answers of a good issuer at the URL *base*."""

    base: str = ""
    key: FakeKey = field(default_factory=FakeKey)

    async def __call__(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path.endswith("openid-configuration"):
            writer.write(http_answer(json.dumps(self.document).encode()))
        else:
            writer.write(http_answer(json.dumps({"keys": [self.key.jwk()]}).encode()))

    @property
    def document(self) -> dict[str, str]:
        return {"issuer": self.base, "jwks_uri": f"{self.base}/jwks"}


async def outcome(ring: KeyRing, iss: str, ca_bundle: str | None = None) -> Reason | None:
    try:
        await ring.key(issuer(iss, ca_bundle=ca_bundle), "k1", "RS256")
    except Refusal as refusal:
        return refusal.reason
    return None


def test_keys_come_over_a_real_connection() -> None:
    good = Good()

    async def story() -> None:
        ring = KeyRing()
        async with raw_server(good) as (good.base, asked):
            assert await outcome(ring, good.base) is None
            assert asked == ["/.well-known/openid-configuration", "/jwks"]
            await ring.aclose()

    asyncio.run(story())


async def endless(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        await writer.drain()


async def dribble(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def dribble_headers(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: 1\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def bomb(_path: str, writer: asyncio.StreamWriter) -> None:
    body = gzip.compress(b" " * 50_000_000)
    writer.write(http_answer(body, "200 OK", "Content-Encoding: gzip"))


async def redirect(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(http_answer(b"", "302 Found", f"Location: {path}?again"))


async def silence(_path: str, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def nonsense(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


async def cut_off(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    writer.close()


@pytest.mark.alone
@pytest.mark.parametrize(
    "reply",
    [endless, dribble, dribble_headers, bomb, redirect, silence, nonsense, cut_off],
    ids=lambda reply: reply.__name__,
)
def test_a_bad_server_gives_no_keys_within_the_time_limit(reply: Reply) -> None:
    async def story() -> None:
        ring = KeyRing(fetch_seconds=1.0)
        async with raw_server(reply) as (base, asked):
            begin = time.monotonic()
            assert await outcome(ring, base) is Reason.KEYS_UNAVAILABLE
            assert time.monotonic() - begin < 2
            assert len(asked) == 1
            assert ring.status()[base].failure
            await ring.aclose()

    asyncio.run(story())


def test_a_server_that_refuses_connections_gives_no_keys() -> None:
    async def story() -> None:
        ring = KeyRing()
        async with raw_server(silence) as (base, _):
            pass
        assert await outcome(ring, base) is Reason.KEYS_UNAVAILABLE
        await ring.aclose()

    asyncio.run(story())


def test_a_private_ca_is_trusted_for_the_issuer_that_names_it_and_for_no_other(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "authority")
    ca_bundle = authority.certificate.read_text()
    good = Good()

    async def story() -> None:
        ring = KeyRing()
        async with raw_server(good, tls=authority.server()) as (good.base, _):
            assert await outcome(ring, good.base, ca_bundle) is None
            assert await outcome(ring, good.base) is Reason.KEYS_UNAVAILABLE
            assert "its certificate is not trusted" in ring.status()[good.base].failure
            await ring.aclose()

    asyncio.run(story())
