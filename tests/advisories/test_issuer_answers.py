"""
Issuers that answer in a way that harms others, over real connections.

While one issuer misbehaves, the exchange of another's token must not wait for it. Nothing that an
issuer sends may come back to it or reach another. A token for an issuer goes to that issuer alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest

from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_signature, find_signer, verify
from federation.jose import jws
from tests.harness.builders import GENERIC, GITHUB, NOW, good, issuer
from tests.harness.clock import Clock
from tests.harness.issuer import FakeIssuer, FakeKey, answering
from tests.harness.raw_server import http_answer

TURNS = 12
"""About so many times an exchange waits for the event loop."""


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# Nobody waits for another's issuer


Talk = Callable[[socket.socket], None]
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def single_byte_chunks(client: socket.socket) -> None:
    client.sendall(CHUNKED)
    for _ in range(26):
        client.sendall(b"1\r\n \r\n" * 10_000)


def single_bytes(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 250000\r\n\r\n")
    for _ in range(250_000):
        client.send(b" ")


def interim_answers(client: socket.socket) -> None:
    while True:
        client.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000)


def endless_body(client: socket.socket) -> None:
    client.sendall(CHUNKED)
    while True:
        client.sendall(b"10000\r\n" + b" " * 65_536 + b"\r\n")


def endless_header(client: socket.socket) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"Set-Cookie: a=b\r\n" * 1_000)


def silence(client: socket.socket) -> None:
    client.recv(1)  # until the broker gives up


def many_keys(client: socket.socket) -> None:
    jwk = FakeKey("k", "ES256").jwk()
    bare = {member: jwk[member] for member in ("kty", "crv", "x", "y")}
    client.sendall(http_answer(json.dumps({"keys": [bare] * 1_900}, separators=(",", ":"))))


def deep_json(client: socket.socket) -> None:
    client.sendall(http_answer(b"[" * 250_000))


@contextmanager
def hostile(talk: Talk) -> Iterator[JwtIssuer]:
    """An issuer on a real port that answers every request by *talk*."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):  # until the listener is closed
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    client.recv(65_536)
                    talk(client)

    thread = Thread(target=serve, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield issuer(base, jwks_uri=f"{base}/jwks")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


async def longest_wait(ring: KeyRing, bad: JwtIssuer) -> float:
    """The time that the slowest exchange of another issuer takes while keys of *bad* are fetched."""
    fake = FakeIssuer(GITHUB)
    trusted = {GITHUB: issuer(GITHUB, jwks=fake.jwks())}
    token, slowest = fake.token(good()), 0.0
    fetching = asyncio.create_task(ring.refresh_due([bad, *trusted.values()]))
    while not fetching.done():
        begin = time.perf_counter()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        parsed = jws.parse(token)
        signer = await find_signer(parsed, trusted, ring)
        verify(check_signature(parsed, signer), NOW)
        slowest = max(slowest, time.perf_counter() - begin)
        await asyncio.sleep(0.001)
    await fetching
    return slowest


@pytest.mark.alone
@pytest.mark.parametrize(
    "talk",
    [
        *(single_byte_chunks, single_bytes, interim_answers, endless_body, endless_header),
        *(silence, many_keys, deep_json),
    ],
    ids=lambda talk: talk.__name__,
)
def test_an_issuers_answer_delays_no_other_issuers_exchange(talk: Talk) -> None:
    async def story(bad: JwtIssuer) -> float:
        ring = KeyRing(fetch_seconds=2.0)
        try:
            return await longest_wait(ring, bad)
        finally:
            await ring.aclose()

    # The machine may be busy with something else, so one quick run of three is enough.
    waits: list[float] = []
    with hostile(talk) as bad:
        while not waits or (min(waits) > 0.2 and len(waits) < 3):
            waits.append(asyncio.run(story(bad)))
    assert min(waits) < 0.2


# Nothing comes back


def test_no_cookie_is_sent_back_or_to_another_issuer() -> None:
    heard: list[str] = []
    bases: list[str] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        heard.append(request.lower())
        host = f"http://{request.partition('Host: ')[2].partition(chr(13))[0]}"
        document = {"issuer": host, "jwks_uri": f"{host}/jwks", "keys": [FakeKey().jwk()]}
        cookies = [f"Set-Cookie: c{n}={'x' * 4000}; Path=/" for n in range(15)]
        writer.write(http_answer(json.dumps(document), "200 OK", *cookies))
        await writer.drain()
        writer.close()

    async def story() -> None:
        servers = [await asyncio.start_server(reply, "127.0.0.1", 0) for _ in range(2)]
        bases.extend(f"http://127.0.0.1:{s.sockets[0].getsockname()[1]}" for s in servers)
        ring = KeyRing()
        for base in bases:
            assert (await ring.key(issuer(base), "k1", "RS256")).kid == "k1"
        await ring.aclose()
        for server in servers:
            server.close()
            await server.wait_closed()

    asyncio.run(story())
    assert len(heard) == 4
    assert not any("cookie:" in request for request in heard)


# A token for one issuer


class Asked:
    """A ring that reaches two issuers, and the `Authorization` of each request by URL."""

    def __init__(self) -> None:
        self.cluster, self.other = FakeIssuer("https://10.0.0.1:6443"), FakeIssuer(GENERIC)
        self.ring = KeyRing(lambda _: httpx2.AsyncClient(transport=self._transport()), Clock())
        self.sent: dict[str, str | None] = {}

    def _transport(self) -> httpx2.MockTransport:
        async def answer(request: httpx2.Request) -> httpx2.Response:
            self.sent[str(request.url)] = request.headers.get("authorization")
            ours = str(request.url).startswith(self.cluster.iss)
            return await (self.cluster if ours else self.other).answer(request)

        return httpx2.MockTransport(answer)

    def reason(self, *trusted: JwtIssuer) -> Reason | None:
        """The reason why a key of one of *trusted* is not found, None if all are."""

        async def story() -> Reason | None:
            try:
                for each in trusted:
                    await self.ring.key(each, "k1", "RS256")
            except Refusal as refusal:
                return refusal.reason
            finally:
                await self.ring.aclose()
            return None

        return asyncio.run(story())

    @property
    def failure(self) -> str:
        return self.ring.status()[self.cluster.iss].failure


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("eyJ0b2tlbg.of-the.cluster_\n")
    return path


def with_token(file: Path, **changes: Any) -> JwtIssuer:
    return issuer("https://10.0.0.1:6443", bearer_token_file=str(file), **changes)


def test_the_token_is_sent_to_its_issuer_for_discovery_and_keys_and_to_no_other(file: Path) -> None:
    asked = Asked()
    assert asked.reason(with_token(file), issuer(GENERIC)) is None
    base, bearer = asked.cluster.iss, "Bearer eyJ0b2tlbg.of-the.cluster_"
    assert asked.sent == {
        f"{base}/.well-known/openid-configuration": bearer,
        f"{base}/.well-known/jwks": bearer,
        f"{GENERIC}/.well-known/openid-configuration": None,
        f"{GENERIC}/.well-known/jwks": None,
    }


def test_the_token_leaves_for_no_address_that_the_document_does_not_name(file: Path) -> None:
    for elsewhere in (
        "https://evil.example/jwks",
        "https://10.0.0.1/jwks",
        "http://10.0.0.1:6443/",
    ):
        asked = Asked()
        asked.cluster.jwks_uri = elsewhere
        assert asked.reason(with_token(file)) is Reason.KEYS_UNAVAILABLE
        assert list(asked.sent) == [f"{asked.cluster.iss}/.well-known/openid-configuration"]
        assert "set jwksUri" in asked.failure
    asked = Asked()
    asked.cluster.discovery = answering(302, headers={"Location": "https://evil.example/"})
    assert asked.reason(with_token(file)) is Reason.KEYS_UNAVAILABLE
    assert not any("evil" in url for url in asked.sent)
    asked = Asked()
    assert asked.reason(with_token(file, jwks_uri="https://10.0.0.1:6443/openid/v1/jwks")) is None
    assert list(asked.sent) == ["https://10.0.0.1:6443/openid/v1/jwks"]


def test_the_token_is_read_anew_for_each_fetch(file: Path) -> None:
    asked = Asked()
    trusted, renew = with_token(file), file.write_text

    async def story() -> None:
        await asked.ring.key(trusted, "k1", "RS256")
        renew("renewed")
        with pytest.raises(Refusal):
            await asked.ring.key(trusted, "other", "RS256")
        await asked.ring.aclose()

    asyncio.run(story())
    assert set(asked.sent.values()) == {"Bearer renewed"}


@pytest.mark.parametrize(
    "content",
    ["", "\n", "two tokens", "secret\r\nX-Evil: 1", "secret\0", "sécret", "s" * 20_000, "=secret"],
    ids=lambda content: repr(content)[:12],
)
def test_a_file_that_holds_no_token_is_not_sent_and_not_quoted(file: Path, content: str) -> None:
    file.write_text(content)
    asked = Asked()
    assert asked.reason(with_token(file)) is Reason.KEYS_UNAVAILABLE
    assert asked.sent == {}
    assert asked.failure.startswith(f"bearerTokenFile {file}: ")
    assert "secret" not in asked.failure
    assert "cret" not in asked.failure


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder, tmp_path / "none", Path("/dev/zero")):
        asked = Asked()
        assert asked.reason(with_token(path)) is Reason.KEYS_UNAVAILABLE
        assert asked.sent == {}
        assert asked.failure.startswith(f"bearerTokenFile {path}: ")


# Keys


def test_a_made_up_kid_before_a_rotation_keeps_the_new_key_out_for_seconds_only() -> None:
    fake, clock = FakeIssuer(GITHUB), Clock()
    ring = KeyRing(fake.connect, clock)

    async def reason(kid: str) -> Reason | None:
        try:
            await ring.key(issuer(GITHUB), kid, "RS256")
        except Refusal as refusal:
            return refusal.reason
        return None

    async def story() -> None:
        assert await reason("k1") is None
        assert await reason("made up") is Reason.UNKNOWN_KEY
        fake.keys = (FakeKey("k2", which=1),)
        clock.advance(10)
        assert await reason("k2") is None
        await ring.aclose()

    asyncio.run(story())
