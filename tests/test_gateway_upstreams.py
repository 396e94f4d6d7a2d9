"""The ways to the upstream: two pools of connections, TLS of our own, a Unix socket, a password."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from federation.gateway.client import Transport, UpstreamRequest
from federation.gateway.refusals import UpstreamFailed
from federation.gateway.upstream import BasicAuth, Tls, Upstream
from tests.harness.broker import logged
from tests.harness.certificates import Authority
from tests.harness.gateway import Listening, listening, write_secrets

pytestmark = pytest.mark.alone

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GET = UpstreamRequest("GET", b"/system/info", [], None)


async def told(transport: Transport) -> tuple[int, bytes]:
    response = await transport.send(GET)
    try:
        return response.status, response.whole or b""
    finally:
        await response.close()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
    with suppress(OSError):
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def answering(tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve `ANSWER` on loopback, and yield the URL."""
    server = await asyncio.start_server(_answer, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)  # the event loop frees closed connections in its next iterations


def ask(
    tls: Tls | None,
    server: ssl.SSLContext | None,
    run: Callable[[Coroutine[None, None, tuple[int, bytes]]], tuple[int, bytes]] = asyncio.run,
) -> tuple[int, bytes]:
    """The answer of a server with the context *server* to an upstream with *tls*."""

    async def story() -> tuple[int, bytes]:
        async with answering(server) as url:
            upstream = Upstream.at(url, connections=3, timeout_seconds=5, tls=tls)
            try:
                return await told(upstream.api)
            finally:
                await upstream.aclose()

    return run(story())


# -- two pools


@contextmanager
def with_four_connections(folder: Path) -> Iterator[Listening]:
    with listening(folder, connections=4, timeout=2) as front:
        yield front


def test_calls_of_functions_leave_the_api_its_own_connections(tmp_path: Path) -> None:
    """Anybody may call functions in open mode, so they could take all connections."""
    head = b"POST /function/figlet.dev HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow"

    async def story(front: Listening) -> bytes:
        token = front.grant(("*", "*"))
        slow = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(20)]
        try:
            for _, writer in slow:
                writer.write(head)
            await asyncio.sleep(0.5)
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            slow.append((reader, writer))
            writer.write(
                b"GET /system/functions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                b"Authorization: Bearer %b\r\n\r\n" % token.encode()
            )
            return await reader.read()
        finally:
            for _, writer in slow:
                writer.close()

    with with_four_connections(tmp_path) as front:
        assert asyncio.run(story(front)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("connections", "api", "functions", "logs"),
    [(3, 1, 1, 1), (4, 1, 2, 1), (100, 25, 63, 12)],
)
def test_the_api_has_a_quarter_of_the_connections_and_logs_an_eighth(
    connections: int, api: int, functions: int, logs: int
) -> None:
    async def most(transport_of: Callable[[Upstream], Transport]) -> int:
        """The connections that are open at once when many callers ask."""
        held: list[asyncio.StreamWriter] = []

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)
            await reader.read()

        server = await asyncio.start_server(hold, "127.0.0.1", 0, backlog=1024)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = Upstream.at(url, connections=connections, timeout_seconds=30)
        asking = [
            asyncio.create_task(transport_of(upstream).send(GET)) for _ in range(connections + 5)
        ]
        await asyncio.sleep(0.2 + connections / 500)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await upstream.aclose()
        server.close()
        for writer in held:
            writer.close()
        await server.wait_closed()
        await asyncio.sleep(0.05)
        return len(held)

    assert asyncio.run(most(lambda upstream: upstream.api)) == api
    assert asyncio.run(most(lambda upstream: upstream.functions)) == functions
    assert asyncio.run(most(lambda upstream: upstream.logs)) == logs


def test_a_call_that_finds_no_connection_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was good when the wait began may be revoked by its end."""
    monkeypatch.setattr("federation.gateway.client._CONNECT_SECONDS", 0.2)

    async def story() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = Upstream.at(url, connections=3, timeout_seconds=30)
        first = asyncio.create_task(upstream.api.send(GET))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            with pytest.raises(UpstreamFailed) as failed:
                await upstream.api.send(GET)
        assert failed.value.timed_out
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await upstream.aclose()
        await asyncio.sleep(0.05)
        server.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: secret\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nSet-Cookie secret\r\n\r\n",
        b"HTTP/1.1 secret secret\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsecret\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: secret\r\n\r\n",
    ],
    ids=["too many headers", "header", "status line", "chunk", "length"],
)
def test_the_reason_of_a_failure_quotes_neither_the_query_nor_the_answer(answer: bytes) -> None:
    async def read(upstream: Upstream) -> None:
        asked = UpstreamRequest("GET", b"/function/f?token=secret", [], None)
        response = await upstream.api.send(asked)
        async for _ in response.body:
            pass

    async def story() -> str:
        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(reply, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        upstream = Upstream.at(url, connections=3, timeout_seconds=5)
        with pytest.raises(UpstreamFailed) as failed:
            await read(upstream)
        await upstream.aclose()
        server.close()
        return failed.value.why

    why = asyncio.run(story())
    assert "secret" not in why
    assert why


# -- TLS and a Unix socket


def test_a_private_ca_is_trusted_and_no_other(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    assert ask(Tls(ours.certificate), ours.server()) == (200, b"hello")
    assert ask(Tls(ours.certificate), ours.server(), uvloop.run) == (200, b"hello")
    for tls in (None, Tls(theirs.certificate)):
        with pytest.raises(UpstreamFailed, match="its certificate is not trusted"):
            ask(tls, ours.server())


def demanding(authority: Authority) -> ssl.SSLContext:
    """A server that wants a client's certificate of *authority*."""
    context = authority.server()
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_the_broker_shows_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.client(tmp_path / "client")
    server = demanding(authority)
    assert ask(Tls(authority.certificate, certificate, key), server) == (200, b"hello")
    with pytest.raises(UpstreamFailed):
        ask(Tls(authority.certificate), server)


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old.certificate.read_bytes())

    async def story() -> None:
        async with answering(new.server()) as url:
            upstream = Upstream.at(url, connections=3, timeout_seconds=5, tls=Tls(ca))
            with pytest.raises(UpstreamFailed):
                await told(upstream.functions)
            ca.write_bytes(new.certificate.read_bytes())
            upstream.renew()
            assert await told(upstream.functions) == (200, b"hello")
            ca.write_bytes(b"broken")
            with pytest.raises(ValueError, match="holds no certificate"):
                upstream.renew()
            assert await told(upstream.api) == (200, b"hello")
            await upstream.aclose()

    asyncio.run(story())


def replace(file: Path, content: bytes) -> None:
    """Write *file* anew in one step, as a mounted Secret is."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)


def test_renewed_files_are_noticed_and_broken_ones_logged_once(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old.certificate.read_bytes())

    async def story() -> None:
        async with answering(new.server()) as url:
            upstream = Upstream.at(url, connections=3, timeout_seconds=5, tls=Tls(ca))
            following = asyncio.create_task(upstream.follow_renewals(look_seconds=0.01))
            await asyncio.sleep(0.05)
            replace(ca, b"broken")
            await asyncio.sleep(0.1)
            replace(ca, new.certificate.read_bytes())
            await asyncio.sleep(0.2)
            assert await told(upstream.api) == (200, b"hello")
            following.cancel()
            await upstream.aclose()

    with logged() as log:
        asyncio.run(story())
    assert log.getvalue().count("cannot be used") == 1
    assert log.getvalue().count("upstream renewed") == 1


def test_a_unix_socket_is_an_upstream(tmp_path: Path) -> None:
    path = tmp_path / "gateway.sock"

    async def story() -> tuple[int, bytes]:
        server = await asyncio.start_unix_server(_answer, path)
        upstream = Upstream.at(f"unix:{path}", connections=3, timeout_seconds=5)
        try:
            return await told(upstream.api)
        finally:
            await upstream.aclose()
            server.close()
            await server.wait_closed()
            await asyncio.sleep(0.05)

    assert asyncio.run(story()) == (200, b"hello")


# -- the password


@pytest.mark.parametrize("empty", ["basic-auth-user", "basic-auth-password"])
@pytest.mark.parametrize("content", ["", "\n", " \t\n"])
def test_an_empty_password_is_never_sent(tmp_path: Path, empty: str, content: str) -> None:
    folder = write_secrets(tmp_path / "secrets", "admin", "secret")
    (folder / empty).write_text(content)
    with pytest.raises(ValueError, match=f"{empty} is empty"):
        BasicAuth(folder).header()


@pytest.mark.parametrize("break_it", [lambda file: file.write_text(""), Path.unlink])
def test_the_last_good_password_is_kept_and_the_problem_logged_once(
    tmp_path: Path, break_it: Callable[[Path], object]
) -> None:
    folder = write_secrets(tmp_path / "secrets", "admin", "secret")
    auth = BasicAuth(folder, look_seconds=0)
    good = auth.header()
    break_it(folder / "basic-auth-password")
    with logged() as log:
        assert [auth.header() for _ in range(3)] == [good] * 3
    assert log.getvalue().count("the last one is used") == 1
    write_secrets(folder, "admin", "renewed")
    os.utime(folder / "basic-auth-password", ns=(1, 1))
    assert auth.header() != good
