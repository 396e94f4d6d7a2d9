"""
The HTTP/1.1 client for the upstream gateway: a pool of connections.

What the broker authorized is sent to the byte, and no header is added but those that frame it.
Bodies stream both ways at once, and no faster than the receiver takes them. Idempotent requests
are sent once more if the connection that they reuse dies before it answers (RFC 9110, section
9.2.2), but never one whose body streamed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import httptools

from federation.gateway.addresses import Addresses
from federation.gateway.connection import Answer, Closed, Connection
from federation.gateway.headers import Headers, check_answer
from federation.gateway.refusals import UpstreamFailed
from federation.outbound.failures import known

_CONNECT_SECONDS = 5.0
"""The wait for a connection of the pool counts too: what was allowed may end meanwhile."""
# Shorter than servers keep an idle connection: uvicorn and Node.js 5 s, the real gateway 8 s or
# more. A request on a connection that the upstream closes just then is lost.
_IDLE_SECONDS = 4.0
_PIECE_BYTES = 64 * 1024
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_PORTS = {"http": 80, "https": 443}


class UpstreamRequest(NamedTuple):
    """A request to the upstream, complete and in the one form that was authorized."""

    method: str
    target: bytes
    """Path and query."""
    headers: Headers
    body: AsyncIterator[bytes] | bytes | None
    endless: bool = False
    """True if the response, once begun, may pause for any time: followed logs do."""

    def __repr__(self) -> str:
        return f"UpstreamRequest({self.method!r}, {self.target!r})"


class UpstreamResponse(NamedTuple):
    """The head of an upstream's response, and its body as it arrives, still encoded."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    """Ends the request at the upstream, read to its end or not. The receiver must call it."""
    whole: bytes | None = None
    """The whole body if it came together with the head; `body` then has no more."""


class Transport(Protocol):
    """Carries requests to one gateway."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """The beginning of the response to *request*. Raises: UpstreamFailed."""

    async def aclose(self) -> None:
        """Close the connections."""


class ConnectionPool:
    """
    At most *connections* connections to the gateway at *url*, which may be `unix:/path`.

    *timeout_seconds* is the time that the upstream has to begin its response, and then for each
    piece of it. *tls* is what verifies its certificate, and shows ours. A connection that has been
    idle for *idle_seconds* is closed.
    """

    def __init__(
        self,
        url: str,
        connections: int,
        timeout_seconds: float,
        tls: ssl.SSLContext | None = None,
        *,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        self._socket_path = url.removeprefix("unix:") if url.startswith("unix:") else None
        parts = urlsplit("http://localhost" if self._socket_path else url)
        self._host, self.port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        self._addresses = Addresses(self._host, self.port)
        host = parts.netloc.removesuffix(f":{_PORTS[parts.scheme]}")
        # With a dot at its end the name is looked up as it is; it is no part of the name elsewhere.
        host = host.replace(".:", ":").removesuffix(".")
        self._host_line = f"host: {host}".encode("ascii")
        self._is_tls = parts.scheme == "https"
        self._slots = asyncio.Semaphore(connections)
        self._idle: deque[Connection] = deque()
        """The one that was used last is at the end, and is used next."""
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._timeout_seconds = timeout_seconds
        self._idle_seconds = idle_seconds
        self.tls = tls
        """New connections use this context, also if it is replaced later."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """
        The beginning of the response to *request*.

        Raises: UpstreamFailed, and whatever a streamed body raises.
        """
        try:
            answer = await self._answer(request)
        except (httptools.HttpParserError, OSError) as error:
            raise _failed(error) from error
        try:
            _check_version(answer)
            check_answer(answer.status, answer.headers)
        except UpstreamFailed:
            self._finish(answer)
            raise
        whole = None
        if answer.is_whole():
            whole = answer.taken()
            self._finish(answer)
        pieces = _pieces(answer, None if request.endless else self._timeout_seconds)
        close = partial(self._close, answer)
        return UpstreamResponse(answer.status, answer.headers, pieces, close, whole)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in (*self._busy, *self._idle):
            connection.close()
        self._idle.clear()

    async def _answer(self, request: UpstreamRequest) -> Answer:
        """The answer to *request*, once it has begun."""
        until, fresh = asyncio.get_running_loop().time() + self._timeout_seconds, False
        while True:
            connection = await self._take(fresh=fresh)
            answer = connection.ask(request.method)
            try:
                self._write(answer, request)
                await answer.begin(until)
            except BaseException as error:
                self._finish(answer)
                if fresh or not _may_repeat(request, answer, error):
                    raise
                fresh = True
            else:
                return answer

    def _write(self, answer: Answer, request: UpstreamRequest) -> None:
        """Send *request*; a streamed or large body is sent while the answer arrives."""
        body, length = request.body, _length(request)
        head = self._head(request, length)
        write = answer.connection.transport.write
        if body is None:
            write(head)
        elif isinstance(body, bytes) and len(body) <= _PIECE_BYTES:
            write(head + body)
        else:
            write(head)
            pieces = _in_pieces(body) if isinstance(body, bytes) else body
            sends = answer.connection.send_body(answer, pieces, length, self._timeout_seconds)
            answer.is_sent = False
            answer.sending = asyncio.create_task(sends)

    def _head(self, request: UpstreamRequest, length: int | None) -> bytes:
        fields = [b"%b: %b" % field for field in request.headers if field[0] != b"content-length"]
        if length is not None:
            fields.append(b"content-length: %d" % length)
        elif request.body is not None:
            fields.append(b"transfer-encoding: chunked")
        method = request.method.encode("ascii")
        lines = [b"%b %b HTTP/1.1" % (method, request.target), self._host_line, *fields, b"", b""]
        head = b"\r\n".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1 or b"\0" in head:
            raise ValueError("a field of the request has the end of a line")
        return head

    async def _take(self, *, fresh: bool = False) -> Connection:
        """A connection for one request; a new one if it must be *fresh*."""
        if not fresh and not self._slots.locked() and (idle := self._quiet()):
            await self._slots.acquire()  # at once
        else:
            async with asyncio.timeout(min(_CONNECT_SECONDS, self._timeout_seconds)):
                await self._slots.acquire()
                try:
                    idle = None if fresh else self._quiet()
                    idle = idle or await self._connect()
                except BaseException:
                    self._slots.release()
                    raise
        self._busy.add(idle)
        return idle

    def _quiet(self) -> Connection | None:
        """The idle connection that was used last, None if none can be used."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.is_quiet():
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        while self._idle:  # there may be no more than the limit
            self._idle.pop().close()
        if self._socket_path:
            _, made = await loop.create_unix_connection(Connection, self._socket_path)
            return made
        reached = await self._addresses.connect()
        tls, name = (self.tls or True, self._host.rstrip(".")) if self._is_tls else (None, None)
        _, made = await loop.create_connection(
            Connection, sock=reached, ssl=tls, server_hostname=name
        )
        return made

    def _finish(self, answer: Answer) -> None:
        """Give the connection of *answer* back, or close it if something is left on it."""
        connection = answer.connection
        if connection.answer is not answer:
            return  # it was given back before
        if answer.sending is not None:
            answer.sending.cancel()
            answer.sending = None  # its end holds the frame that it has passed, and that the answer
        self._busy.discard(connection)
        if connection.rest():
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = connection.loop.call_later(self._idle_seconds, self._sweep)
        else:
            connection.close()
        self._slots.release()

    def _sweep(self) -> None:
        """Close the connections that have been idle for too long."""
        loop, self._sweeper = asyncio.get_running_loop(), None
        while self._idle and self._idle[0].idle_since + self._idle_seconds <= loop.time():
            self._idle.popleft().close()
        if self._idle:
            due = self._idle[0].idle_since + self._idle_seconds
            self._sweeper = loop.call_at(due, self._sweep)

    async def _close(self, answer: Answer) -> None:
        self._finish(answer)


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), _PIECE_BYTES):
        yield body[at : at + _PIECE_BYTES]


async def _pieces(answer: Answer, seconds: float | None) -> AsyncIterator[bytes]:
    """The body as it arrives. A pause longer than *seconds* is a failure; None allows any."""
    try:
        while piece := await answer.piece(seconds):
            yield piece
    except (httptools.HttpParserError, OSError) as error:
        raise _failed(error) from error


def _may_repeat(request: UpstreamRequest, answer: Answer, error: BaseException) -> bool:
    """True if *error* may only say that the upstream closed an old connection just then."""
    is_kept = request.body is None or isinstance(request.body, bytes)
    is_lost = answer.may_repeat and isinstance(error, (ConnectionError, Closed))
    return is_lost and is_kept and request.method in _IDEMPOTENT


def _length(request: UpstreamRequest) -> int | None:
    """The Content-Length to send, None for no such header."""
    if isinstance(request.body, bytes):
        return len(request.body)
    given = [value for name, value in request.headers if name == b"content-length"]
    if request.body is None:
        return 0 if given or request.method not in _WITHOUT_BODY else None
    return int(given[0]) if given else None


def _check_version(answer: Answer) -> None:
    if answer.version == "1.1":
        return
    if answer.version != "1.0":
        raise UpstreamFailed(f"it answered in another version of HTTP: {answer.version}")
    # RFC 9112, section 6.1: the framing of such an answer is faulty.
    if any(name.lower() == b"transfer-encoding" for name, _ in answer.headers):
        raise UpstreamFailed("it answered with Transfer-Encoding in HTTP/1.0")


def _failed(error: Exception) -> UpstreamFailed:
    if isinstance(error, TimeoutError):
        return UpstreamFailed("no connection in time", timed_out=True)
    told = str(error) if isinstance(error, OSError) else f"it is not HTTP: {error}"
    return UpstreamFailed(known(error, ca="upstream-ca") or told)
