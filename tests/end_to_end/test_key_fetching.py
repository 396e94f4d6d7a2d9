"""Keys over real sockets: plain and TLS on the loopback, with servers that behave badly."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from tests.harness.builders import issuer
from tests.harness.fakes import FakeKey

pytestmark = pytest.mark.e2e


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


Reply = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def served(
    reply: Reply, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """The base URL of a server whose every answer is written by *reply*, and what it was asked."""
    asked: list[str] = []
    serving: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                asked.append(request.split(b" ", 2)[1].decode())
                await reply(asked[-1], writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}", asked
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0.01)  # what was aborted is let go by the loop's next turn


@dataclass
class Good:
    """Answers as a good issuer does, once it knows where it is."""

    base: str = ""
    key: FakeKey = field(default_factory=FakeKey)

    async def __call__(self, path: str, writer: asyncio.StreamWriter) -> None:
        if path.endswith("openid-configuration"):
            writer.write(answer(json.dumps(self.document).encode()))
        else:
            writer.write(answer(json.dumps({"keys": [self.key.jwk()]}).encode()))

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
        async with served(good) as (good.base, asked):
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
    writer.write(answer(body, "200 OK", "Content-Encoding: gzip"))


async def redirect(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(b"", "302 Found", f"Location: {path}?again"))


async def silence(_path: str, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def nonsense(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


async def cut_off(_path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
    writer.close()


@pytest.mark.parametrize(
    "reply",
    [endless, dribble, dribble_headers, bomb, redirect, silence, nonsense, cut_off],
    ids=lambda reply: reply.__name__,
)
def test_a_bad_server_gives_no_keys_within_the_time_limit(reply: Reply) -> None:
    async def story() -> None:
        ring = KeyRing(fetch_seconds=1.0)
        async with served(reply) as (base, asked):
            begin = time.monotonic()
            assert await outcome(ring, base) is Reason.KEYS_UNAVAILABLE
            assert time.monotonic() - begin < 2
            assert len(asked) == 1
            assert ring.status()[base].failure
            await ring.aclose()

    asyncio.run(story())


def test_nobody_listening_gives_no_keys() -> None:
    async def story() -> None:
        ring = KeyRing()
        async with served(silence) as (base, _):
            pass
        assert await outcome(ring, base) is Reason.KEYS_UNAVAILABLE
        await ring.aclose()

    asyncio.run(story())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file with a key and a certificate for 127.0.0.1, and the certificate as a CA bundle."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(private + pem)
    return path, pem.decode()


def test_a_private_ca_is_trusted_for_the_issuer_that_names_it_and_for_no_other(
    certificate: tuple[Path, str],
) -> None:
    path, ca_bundle = certificate
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(path)
    good = Good()

    async def story() -> None:
        ring = KeyRing()
        async with served(good, tls) as (good.base, _):
            assert await outcome(ring, good.base, ca_bundle) is None
            assert await outcome(ring, good.base) is Reason.KEYS_UNAVAILABLE
            assert "CERTIFICATE_VERIFY_FAILED" in ring.status()[good.base].failure
            await ring.aclose()

    asyncio.run(story())
