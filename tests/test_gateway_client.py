"""The HTTP client for the upstream: bytes pass unchanged, half a response is a failure."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from federation.gateway.client import ConnectionPool, UpstreamRequest
from federation.gateway.refusals import UpstreamFailed

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
PIECE = b"x" * 1000


@asynccontextmanager
async def connected(peer: Peer) -> AsyncIterator[ConnectionPool]:
    """A pool of connections to a server that handles each by *peer*."""

    ended: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(end := asyncio.Event())
        with suppress(OSError, asyncio.IncompleteReadError):
            await peer(reader, writer)
            writer.close()
            await writer.wait_closed()
        end.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = ConnectionPool(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 4, 1)
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
    assert seen == [b"GET " + target.removesuffix(b"?") + b" HTTP/1.1"]


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
