"""The HTTP client for the upstream: bytes pass unchanged, half a response is a failure."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import chain

import pytest
import uvloop

from federation.gateway.addresses import _NEXT_ADDRESS_SECONDS, _first
from federation.gateway.client import ConnectionPool, UpstreamRequest
from federation.gateway.connection import Answer, Connection
from federation.gateway.refusals import UpstreamFailed

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
PIECE = b"x" * 1000


@asynccontextmanager
async def connected(peer: Peer, *, idle_seconds: float = 4) -> AsyncIterator[ConnectionPool]:
    """A pool of connections to a server that handles each by *peer*."""

    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(end := asyncio.Event())
        with suppress(OSError, asyncio.IncompleteReadError):
            await peer(reader, writer)
        with suppress(OSError):
            writer.close()
            await writer.wait_closed()
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    pool = ConnectionPool(url, 4, 1, idle_seconds=idle_seconds)
    try:
        yield pool
    finally:
        await pool.aclose()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*(end.wait() for end in ended))
        await asyncio.sleep(0.01)  # the event loop frees closed connections in its next iterations


def ask(
    peer: Peer,
    target: bytes = b"/function/a.dev",
    headers: Headers | None = None,
    body: Callable[[], AsyncIterator[bytes]] | None = None,
) -> tuple[int, bytes]:
    """Status and body of the response of *peer*."""

    async def story() -> tuple[int, bytes]:
        async with connected(peer) as pool:
            method = "POST" if body else "GET"
            request = UpstreamRequest(method, target, headers or [], body() if body else None)
            response = await pool.send(request)
            try:
                return response.status, b"".join([piece async for piece in response.body])
            finally:
                await response.close()

    return asyncio.run(story())


def saying(answer: bytes, *, reset: bool = False) -> Peer:
    """A server that sends *answer* to every request, then closes or resets the connection."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        if reset:
            await asyncio.sleep(0.05)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    return peer


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    assert ask(saying(b"HTTP/1.1 200 OK\r\n\r\n" + PIECE)) == (200, PIECE)


@pytest.mark.parametrize(
    "peer",
    [
        saying(b"HTTP/1.1 200 OK\r\n\r\n" + PIECE, reset=True),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + PIECE),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + PIECE + b"\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nContent-Le"),
        saying(b""),
        saying(b"SSH-2.0-x\r\n\r\n"),
    ],
    ids=["reset", "short", "no-last-chunk", "half-a-head", "nothing", "another-protocol"],
)
def test_half_a_response_is_a_failure(peer: Peer) -> None:
    with pytest.raises(UpstreamFailed):
        ask(peer)


@pytest.mark.parametrize(
    "target", [b"/function/a.dev?q=a%20b&c=%2F&%22", b"/function/a.dev/x%2fy/?", b"/system/info"]
)
def test_the_target_is_sent_to_the_byte(target: bytes) -> None:
    seen: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert ask(peer, target)[0] == 204
    assert seen == [b"GET " + target + b" HTTP/1.1"]


def test_no_header_is_added_but_those_of_the_connection() -> None:
    seen: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend((await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")[1:-2])
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    ask(peer, headers=[(b"x-a", b"1"), (b"x-a", "é".encode())])
    assert {line.partition(b":")[0] for line in seen} <= {b"host", b"x-a", b"connection"}
    assert [line for line in seen if line.startswith(b"x-a")] == [b"x-a: 1", b"x-a: \xc3\xa9"]


def test_a_response_may_begin_before_the_request_body_has_ended() -> None:
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await begun.wait()
        yield b"second"

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"first")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n")
        begun.set()
        await reader.readuntil(b"second")
        writer.write(b"second")
        await writer.drain()

    assert ask(peer, body=body) == (200, b"second")


@pytest.mark.alone
def test_a_response_that_has_begun_may_wait_for_the_whole_request_body() -> None:
    """Each piece of the request gives the upstream its time again. docs/gateway.md says so."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            await asyncio.sleep(0.4)
            yield b"piece"

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"done")

    assert ask(peer, body=body) == (200, b"done")


def test_a_disconnect_of_the_caller_is_not_a_failure_of_the_upstream() -> None:
    class Left(Exception):
        pass

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        raise Left

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(Left):
        ask(peer, body=body)


def test_an_upstream_that_does_not_answer_is_too_slow() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with pytest.raises(UpstreamFailed) as failed:
        ask(peer)
    assert failed.value.timed_out


def pausing(seconds: float) -> Peer:
    """A server that rests in the middle of its answer."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await asyncio.sleep(seconds)
        writer.write(b"later")

    return peer


async def told_by_a_pausing_server(seconds: float, *, endless: bool) -> bytes:
    """The body that a pool that waits for a second gets."""
    async with asyncio.timeout(10), connected(pausing(seconds)) as pool:
        request = UpstreamRequest("GET", b"/system/logs", [], None, endless=endless)
        response = await pool.send(request)
        try:
            return b"".join([piece async for piece in response.body])
        finally:
            await response.close()


@pytest.mark.alone
def test_an_upstream_that_rests_in_the_middle_of_its_answer_is_too_slow() -> None:
    with pytest.raises(UpstreamFailed) as failed:
        asyncio.run(told_by_a_pausing_server(1.8, endless=False))
    assert failed.value.timed_out


def test_a_log_that_is_followed_may_rest() -> None:
    assert asyncio.run(told_by_a_pausing_server(1.5, endless=True)) == b"firstlater"


# -- connections that are used again


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def told(
    pool: ConnectionPool, method: str, body: AsyncIterator[bytes] | None = None
) -> bytes:
    """The body of the response to a request."""
    response = await pool.send(UpstreamRequest(method, b"/function/a.dev", [], body))
    try:
        return (response.whole or b"") + b"".join([piece async for piece in response.body])
    finally:
        await response.close()


def test_an_answer_that_nobody_has_read_yet_is_not_the_next_callers() -> None:
    open_now: list[asyncio.StreamWriter] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.append(writer)
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"honest"))

    async def story() -> bytes:
        async with connected(peer) as pool:
            await told(pool, "GET")
            # It is in the kernel at once, and the event loop does not run before the next request.
            os.write(open_now[0].get_extra_info("socket").fileno(), answer(b"EVIL!"))
            return await told(pool, "GET")

    assert asyncio.run(story()) == b"honest"
    assert len(open_now) == 2


@pytest.mark.parametrize(("idle_seconds", "connections"), [(0.05, 2), (5, 1)])
def test_an_idle_connection_is_not_used_after_its_time(
    idle_seconds: float, connections: int
) -> None:
    """The upstream closes it soon, and a POST that crosses with that would be lost."""
    opened = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"honest"))

    async def story() -> None:
        async with connected(peer, idle_seconds=idle_seconds) as pool:
            await told(pool, "POST")
            await asyncio.sleep(0.2)
            await told(pool, "POST")

    asyncio.run(story())
    assert opened == connections


async def _only_copy() -> AsyncIterator[bytes]:
    yield b"the only "
    yield b"copy"


def dying(seen: list[bytes]) -> Peer:
    """A server that answers the first request, and dies while it reads the second."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
        writer.write(answer(b"first"))
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
        writer.transport.abort()

    return peer


def test_a_streamed_body_is_never_sent_again_without_its_content() -> None:
    """aiohttp before 3.14.4 repeated the PUT with no body, and the function took it for a whole one."""
    seen: list[bytes] = []

    async def story() -> bytes:
        async with connected(dying(seen)) as pool:
            await told(pool, "GET")
            return await told(pool, "PUT", _only_copy())

    with pytest.raises(UpstreamFailed):
        asyncio.run(story())
    assert seen == [b"GET", b"PUT"]


@pytest.mark.parametrize(
    ("method", "sent"),
    [("GET", [b"GET", b"GET", b"GET"]), ("POST", [b"GET", b"POST"])],
)
def test_only_idempotent_requests_are_sent_again_once(method: str, sent: list[bytes]) -> None:
    """If the connection that they reuse dies. docs/gateway.md says so."""
    seen: list[bytes] = []

    async def story() -> bytes:
        async with connected(dying(seen)) as pool:
            await told(pool, "GET")
            return await told(pool, method)

    with suppress(UpstreamFailed):
        asyncio.run(story())
    assert seen == sent


def test_a_large_body_that_is_sent_again_is_sent_whole() -> None:
    """A deployment is a PUT with its whole body in memory."""
    body = bytes(range(256)) * 4096
    whole: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not whole:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"first"))
            whole.append(b"")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1000)
            writer.transport.abort()
            return
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % len(body) in head.lower()
        assert b"content-disposition" not in head.lower()
        whole.append(await reader.readexactly(len(body)))
        writer.write(answer(b"done"))

    async def story() -> bytes:
        async with connected(peer) as pool:
            await told(pool, "GET")
            request = UpstreamRequest("PUT", b"/system/functions", [], body)
            response = await pool.send(request)
            await response.close()
            return response.whole or b""

    assert asyncio.run(story()) == b"done"
    assert whole == [b"", body]


def test_an_answer_before_the_body_has_ended_leaves_no_rest_for_the_next_request() -> None:
    """The rest of the body would be read as the next caller's request."""
    heads: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer(b"early"))

    async def endless() -> AsyncIterator[bytes]:
        yield b"POST /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        await asyncio.sleep(60)

    async def story() -> list[bytes]:
        async with connected(peer) as pool:
            early = await told(pool, "POST", endless())
            return [early, await told(pool, "GET")]

    assert asyncio.run(story()) == [b"early", b"early"]
    assert b"GET /function/a.dev HTTP/1.1" in heads[-1]


def test_an_answer_that_was_not_read_to_its_end_is_nobody_elses() -> None:
    """Its rest waits in the connection, also if the caller left before it."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(bytes(400_000) if head.startswith(b"POST") else b"mine"))

    async def story() -> bytes:
        async with connected(peer) as pool:
            for _ in range(6):  # more than there are connections
                large = await pool.send(UpstreamRequest("POST", b"/function/a.dev", [], None))
                assert large.whole is None
                await asyncio.sleep(0.02)
                await large.close()
            return await told(pool, "GET")

    assert asyncio.run(story()) == b"mine"


CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"
LENGTH = b"Content-Length: 5\r\n\r\n", b"hello"


@pytest.mark.parametrize("pieces", [1, 2, 1000], ids=["in-one", "in-two", "byte-by-byte"])
@pytest.mark.parametrize("framing", [CHUNKS, LENGTH], ids=["chunks", "length"])
@pytest.mark.parametrize(
    ("method", "status"), [("GET", 204), ("GET", 304), ("POST", 204), ("HEAD", 200)]
)
def test_an_answer_without_a_body_is_the_same_however_it_arrives(
    method: str, status: int, framing: tuple[bytes, bytes], pieces: int
) -> None:
    """It ends with its head (RFC 9112, section 6.3). No request asked for what follows."""
    opened, sent = 0, asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await reader.readuntil(b"\r\n\r\n")
        if opened == 2:
            writer.write(answer(b"honest"))
            return
        try:
            await send(writer)
        finally:  # also if the broker has closed the connection
            sent.set()
        await reader.read()

    async def send(writer: asyncio.StreamWriter) -> None:
        head, rest = b"HTTP/1.1 %d X\r\n%b" % (status, framing[0]), framing[1]
        whole = head + rest
        each = [whole] if pieces == 1 else [head, rest]
        for piece in each if pieces < 3 else [whole[at : at + 1] for at in range(len(whole))]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.002)

    async def story() -> tuple[int, bytes | None, bytes]:
        async with connected(peer) as pool:
            response = await pool.send(UpstreamRequest(method, b"/function/a.dev", [], None))
            assert [piece async for piece in response.body] == []
            await response.close()
            await sent.wait()
            return response.status, response.whole, await told(pool, "GET")

    assert uvloop.run(story()) == (status, b"", b"honest")
    assert opened == 2


def test_an_answer_in_another_protocol_is_refused_however_it_arrives() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in b"HTTP/1.1 100 X\r\nA: b\r\n\r\n\r\nRTSP/1.1 200 OK\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.001)

    with pytest.raises(UpstreamFailed, match="not HTTP"):
        ask(peer)


def test_an_answer_that_nobody_reads_stops_the_upstream() -> None:
    taken = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(200):
            writer.write(bytes(100_000))
            await writer.drain()
            taken += 100_000

    async def story() -> int:
        async with connected(peer) as pool:
            response = await pool.send(UpstreamRequest("GET", b"/function/a.dev", [], None))
            await asyncio.sleep(0.3)
            unread = taken
            assert sum([len(piece) async for piece in response.body]) == 20_000_000
            await response.close()
            return unread

    assert uvloop.run(story()) < 2_000_000


def test_a_response_that_is_closed_twice_gives_its_connection_back_once() -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b"honest"))

    async def story() -> list[bytes]:
        async with connected(peer) as pool:
            for _ in range(5):
                first = await pool.send(UpstreamRequest("GET", b"/function/a.dev", [], None))
                await first.close()
                await first.close()
            return await asyncio.gather(*(told(pool, "GET") for _ in range(20)))

    assert asyncio.run(story()) == [b"honest"] * 20


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 100 Continue\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 ", b"OK"),
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y"),
    ],
    ids=["100s", "of-a-100", "reason", "name", "value", "fields", "chunk", "trailers", "trailer"],
)
def test_what_never_ends_is_cut_off(begins: bytes, goes_on: bytes) -> None:
    """The parser keeps a field until it is complete: an upstream could fill the memory."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begins)
        for _ in range(2000):
            writer.write(goes_on * (10_000 // len(goes_on)))
            await writer.drain()

    with pytest.raises(UpstreamFailed) as failed:
        ask(peer)
    assert "too large" in failed.value.why


def test_interim_answers_have_a_limit_together() -> None:
    """All of them are kept until the head of the answer that they precede is complete."""
    interim = b"HTTP/1.1 102 %b\r\nX: y\r\n\r\n" % (b"x" * 50_000)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(100):
            writer.write(interim)
            await writer.drain()
        writer.write(answer(b"late"))

    with pytest.raises(UpstreamFailed, match="too large"):
        ask(peer)


def test_what_follows_an_answer_without_end_is_cut_off() -> None:
    """Its caller reads slowly, so its connection is not given back yet."""
    sent = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"helloHTTP/1.1 200 OK\r\nX: ")
        for _ in range(1000):
            writer.write(b"x" * 10_000)
            await writer.drain()
            sent += 10_000

    async def story() -> bytes:
        async with connected(peer) as pool:
            response = await pool.send(UpstreamRequest("GET", b"/function/a.dev", [], None))
            await asyncio.sleep(0.5)
            try:
                return b"".join([piece async for piece in response.body])
            finally:
                await response.close()

    assert uvloop.run(story()) == b"hello"
    assert sent < 5_000_000


# -- what is sent


def test_no_password_and_no_body_is_in_the_repr() -> None:
    password = [(b"authorization", b"Basic hidden")]
    request = UpstreamRequest("POST", b"/system/secrets", password, b"hidden")
    assert "hidden" not in f"{request!r}{request._replace(method='PUT')!r}"


@pytest.mark.parametrize(
    ("target", "field"),
    [
        (b"/function/a.dev", (b"x-a", b"b\r\nX-Evil: 1")),
        (b"/function/a.dev", (b"x-a", b"b\nX-Evil: 1")),
        (b"/function/a.dev", (b"x-a", b"b\rX-Evil: 1")),
        (b"/function/a.dev", (b"x-a\r\nx-evil", b"b")),
        (b"/function/a.dev", (b"x-a", b"b\0")),
        (b"/ HTTP/1.1\r\nHost: evil\r\n\r\nGET /", (b"x-a", b"b")),
    ],
    ids=["crlf", "lf", "cr", "name", "nul", "target"],
)
def test_nothing_that_would_end_a_line_is_sent(target: bytes, field: tuple[bytes, bytes]) -> None:
    """The doors refuse such requests. If one of them did not, it would smuggle another request."""
    heard: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())

    with pytest.raises(ValueError, match="end of a line"):
        ask(peer, target, [field])
    assert b"".join(heard) == b""


@pytest.mark.parametrize("announced", [5, 29, 31, 500])
def test_a_streamed_body_of_another_length_than_announced_is_not_sent_on(announced: int) -> None:
    """The rest of it would be read as the next request, or the next request as its rest."""
    heard = bytearray()

    async def peer(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            heard.extend(piece)

    async def body() -> AsyncIterator[bytes]:
        yield b"four"
        yield b"GET /smuggled HTTP/1.1\r\n\r\n"
        assert announced > 30, "no more is read of a body that is too long"

    with pytest.raises(UpstreamFailed, match="broke off"):
        ask(peer, headers=[(b"content-length", b"%d" % announced)], body=body)
    assert heard.partition(b"\r\n\r\n")[2].startswith(b"four")
    assert len(heard.partition(b"\r\n\r\n")[2]) <= announced


def test_each_request_has_one_framing() -> None:
    async def framing(
        pool: ConnectionPool, method: str, body: AsyncIterator[bytes] | bytes | None, *given: bytes
    ) -> None:
        headers = [(b"content-length", length) for length in given]
        response = await pool.send(UpstreamRequest(method, b"/function/a.dev", headers, body))
        await response.close()

    heads: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async def story() -> None:
        async with connected(peer) as pool:
            await framing(pool, "GET", None)
            await framing(pool, "POST", None)
            await framing(pool, "GET", None, b"0")
            await framing(pool, "PUT", b"ab")
            await framing(pool, "PUT", b"ab", b"7")
            await framing(pool, "POST", _only_copy())
            await framing(pool, "POST", _only_copy(), b"13", b"13")

    asyncio.run(story())
    lines = [re.findall(rb"content-length: \d+|transfer-encoding: \w+", head) for head in heads]
    none, two = b"content-length: 0", b"content-length: 2"
    chunks, whole = b"transfer-encoding: chunked", b"content-length: 13"
    assert lines == [[], [none], [none], [two], [two], [chunks], [whole]]


def test_another_address_of_the_name_is_tried_if_one_refuses() -> None:
    """`localhost` often is `::1` first, and the server may listen on the other one only."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"here"))

    async def story() -> bytes:
        async with connected(peer) as pool:
            named = ConnectionPool(f"http://localhost:{pool.port}", 4, 1)
            try:
                return await told(named, "GET")
            finally:
                await named.aclose()

    assert uvloop.run(story()) == b"here"


def test_another_address_is_tried_while_one_is_slow_and_only_one_connection_is_kept() -> None:
    made: list[socket.socket] = []

    async def way(seconds: float) -> socket.socket:
        await asyncio.sleep(seconds)
        made.append(socket.socket())
        return made[-1]

    async def story() -> None:
        assert await _first([partial(way, 60), partial(way, 0)]) is made[0]
        both = await _first([partial(way, _NEXT_ADDRESS_SECONDS), partial(way, 0)])
        await asyncio.sleep(0)
        assert [each for each in made[1:] if each.fileno() != -1] == [both]
        made[0].close()
        both.close()

    asyncio.run(story())


def test_a_failure_keeps_nothing_of_its_connection() -> None:
    """An error that holds its own traceback would hold the answer until the collector comes."""

    async def kept(peer: Peer) -> list[object]:
        async with connected(peer) as pool:
            with suppress(UpstreamFailed):
                await told(pool, "GET")
        return [found for found in gc.get_objects() if isinstance(found, (Answer, Connection))]

    gc.collect()
    gc.disable()
    try:
        for said in (
            b"",
            b"nothing",
            answer(b"x" * 9)[:-1],
            answer(b"whole"),
            b"HTTP/1.1 101 X\r\n\r\n",
        ):
            assert uvloop.run(kept(saying(said))) == [], said
    finally:
        gc.enable()


# -- which connections are used again


@pytest.mark.parametrize(
    ("said", "connections"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 1),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 2),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", 2),
    ],
    ids=["a-length", "chunks", "no-body", "close", "http-1-0"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_connection_is_used_again_if_its_answer_allows_it(
    said: bytes, connections: int, streamed: bool
) -> None:
    opened = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        while True:  # it closes nothing, whatever it said
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                await reader.readuntil(b"\r\n0\r\n\r\n")
            writer.write(said)

    async def story() -> None:
        async with connected(peer) as pool:
            await told(pool, "POST", _only_copy() if streamed else None)
            await told(pool, "POST")

    asyncio.run(story())
    assert opened == connections


def test_a_connection_with_half_a_request_is_not_used_again() -> None:
    """The head of the next caller's request would be read as the rest of this one."""
    heard: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"early" if head.startswith(b"POST") else b"mine"))
        heard.append(await reader.read())

    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        await asyncio.sleep(60)

    async def story() -> bytes:
        async with connected(peer) as pool:
            request = UpstreamRequest("POST", b"/x", [(b"content-length", b"1000")], body())
            response = await pool.send(request)
            await response.close()
            return await told(pool, "GET")

    assert asyncio.run(story()) == b"mine"
    assert sorted(heard) == [b"", b"half"]


def test_a_closed_connection_is_not_used_though_its_file_number_is_another_files_now() -> None:
    """A POST would be lost. The kernel gives a free number to the next file."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"honest"))

    async def story() -> bytes:
        async with connected(peer) as pool:
            await told(pool, "POST")
            await asyncio.sleep(0.1)
            pairs = [socket.socketpair() for _ in range(8)]
            try:
                return await told(pool, "POST")
            finally:
                for one in chain.from_iterable(pairs):
                    one.close()

    assert asyncio.run(story()) == b"honest"


def test_a_connection_with_an_unread_end_of_an_answer_is_not_used_again() -> None:
    """Nothing more is read from it while much of the answer waits for its caller, who has left."""

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(answer(b"mine"))
                continue
            large = answer(bytes(50_000))
            writer.write(large[:10_000])
            await asyncio.sleep(0.05)
            writer.write(large[10_000:])

    async def story() -> bytes:
        async with connected(peer) as pool:
            response = await pool.send(UpstreamRequest("POST", b"/function/a.dev", [], None))
            await asyncio.sleep(0.2)
            await response.close()
            return await told(pool, "GET")

    assert asyncio.run(story()) == b"mine"


# -- a body on its way


def test_a_body_without_a_length_is_sent_in_chunks() -> None:
    heard: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        heard.append(await reader.readuntil(b"0\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert ask(peer, body=_only_copy)[0] == 204
    assert heard == [b"9\r\nthe only \r\n4\r\ncopy\r\n0\r\n\r\n"]


def test_an_upstream_that_does_not_read_stops_its_caller() -> None:
    """Else the broker would keep the rest of the body in memory."""
    given = 0
    unread: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        nonlocal given
        for _ in range(400):
            given += 100_000
            yield bytes(100_000)

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)
        unread.append(given)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(40_000_000)
        writer.write(answer(b"whole"))
        await writer.drain()

    headers = [(b"content-length", b"40000000")]
    assert ask(peer, headers=headers, body=body)[0] == 200
    assert unread[0] < 20_000_000


@pytest.mark.alone
def test_an_upstream_has_its_time_again_after_each_piece_of_a_body() -> None:
    """A long upload is not an upstream that does not answer."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x"
            await asyncio.sleep(0.3)  # in all more than the second that this pool waits

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(answer(b"late"))
        await writer.drain()

    assert ask(peer, body=body)[0] == 200


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_what_has_arrived_is_read_though_the_request_broke_off_meanwhile(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"first")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + bytes(40_000))
        await reader.read()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(0.2)
        raise ConnectionResetError("the caller left")

    heard = bytearray()

    async def story() -> None:
        async with connected(peer) as pool:
            response = await pool.send(UpstreamRequest("POST", b"/x", [], body()))
            await asyncio.sleep(0.4)
            try:
                async for piece in response.body:
                    heard.extend(piece)
            finally:
                await response.close()

    with pytest.raises(UpstreamFailed, match="body of the request broke off"):
        run(story())
    assert heard == bytes(40_000)


# -- limits of a head


@pytest.mark.parametrize(
    ("fields", "is_taken"),
    [
        ([b"X: y"] * 128, True),
        ([b"X: y"] * 129, False),
        ([b"X: " + b"y" * (2**15 - 1)] * 2, True),
        ([b"X: " + b"y" * (2**15 - 1), b"X: " + b"y" * 2**15], False),
    ],
    ids=["128-fields", "129-fields", "64-kib", "64-kib-and-a-byte"],
)
def test_a_head_has_at_most_128_fields_of_64_kib_together(
    fields: list[bytes], is_taken: bool
) -> None:
    peer = saying(b"\r\n".join((b"HTTP/1.1 204 No Content", *fields, b"", b"")))
    if is_taken:
        assert ask(peer)[0] == 204
    else:
        with pytest.raises(UpstreamFailed, match="too large"):
            ask(peer)
