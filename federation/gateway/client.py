"""
The HTTP client for the upstream gateway: a pool of aiohttp connections.

What the broker authorized is sent to the byte. Everything that aiohttp would do besides is off:
it keeps no cookies, follows no redirect, adds no header and decodes no body, so nothing of one
caller's request or response reaches another. Bodies stream both ways at once, and no faster than
the receiver takes them.
"""

from __future__ import annotations

import asyncio
import io
import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from multidict import CIMultiDict
from yarl import URL

from federation.gateway.headers import Headers, check_answer, has_no_body
from federation.gateway.refusals import UpstreamFailed
from federation.outbound.failures import known

_CONNECT_SECONDS = 5.0
# Shorter than servers keep an idle connection: uvicorn and Node.js 5 s, the real gateway 8 s or
# more. A request on a connection that the upstream closes just then is lost.
_IDLE_SECONDS = 4.0
_HEAD_BYTES = 64 * 1024
# A socket is read in large bursts; aiohttp stops reading when this much waits for the caller.
_RECEIVE_BYTES = 64 * 1024
_BUFFERED_BYTES = 16 * 1024
_PIECE_BYTES = 64 * 1024
# The message of an error goes on with bytes of the answer, or with another error's message.
_BEFORE_QUOTED = re.compile(r"[^:'\"<\n]{0,100}")
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """A request to the upstream, complete and in the one form that was authorized."""

    method: str
    target: bytes
    """Path and query."""
    headers: Headers = field(repr=False)
    body: AsyncIterator[bytes] | bytes | None = field(repr=False)
    endless: bool = False
    """True if the response, once begun, may pause for any time: followed logs do."""


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
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
        self._url = "http://localhost" if self._socket_path else url
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._idle_seconds = idle_seconds
        self._session: aiohttp.ClientSession | None = None
        self.tls = tls
        """New connections use this context, also if it is replaced later."""

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """
        The beginning of the response to *request*.

        Raises: UpstreamFailed, and whatever a streamed body raises.
        """
        seconds, body = self._timeout_seconds, request.body
        upload = _Upload(body, seconds) if isinstance(body, AsyncIterator) else None
        try:
            async with asyncio.timeout(seconds) as deadline:
                if upload:
                    upload.deadline = deadline
                response = await self._open().request(
                    request.method,
                    URL(self._url + request.target.decode("ascii"), encoded=True),
                    headers=_text_headers(request.headers),
                    data=upload.pieces() if upload else _in_pieces(body),
                    allow_redirects=False,
                    ssl=self.tls or True,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if upload and upload.failure:
                raise upload.failure from error
            raise _failed(error) from error
        finally:
            if upload:
                upload.deadline = None

        async def close() -> None:
            response.close()  # after a body that was read to its end this does nothing

        try:
            _check_version(response)
            check_answer(response.status, response.raw_headers)
        except UpstreamFailed:
            await close()
            raise
        pieces = _pieces(response, None if request.endless else seconds)
        return UpstreamResponse(
            response.status, response.raw_headers, pieces, close, _whole(response)
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                # The wait for a connection of the pool counts too: what was allowed may end meanwhile.
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=_CONNECT_SECONDS, sock_connect=_CONNECT_SECONDS
                ),
                skip_auto_headers=_NOT_ADDED,
                auto_decompress=False,
                trust_env=False,  # a proxy of the environment would see the upstream's password
                read_bufsize=_BUFFERED_BYTES,
                max_line_size=_HEAD_BYTES,
                max_field_size=_HEAD_BYTES,
            )
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket_path:
            return _UnixConnector(
                self._socket_path,
                limit=self._connections,
                keepalive_timeout=self._idle_seconds,
            )
        return _TcpConnector(
            limit=self._connections,
            keepalive_timeout=self._idle_seconds,
            socket_factory=_socket,
            ttl_dns_cache=30,
        )


@dataclass(slots=True)
class _Upload:
    """A streamed request body. Each piece gives the upstream its full time again."""

    source: AsyncIterator[bytes]
    seconds: float
    deadline: asyncio.Timeout | None = None
    failure: Exception | None = None
    """The error that ended the body early: the caller's disconnect, not the upstream's fault."""

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.source:
                yield piece
                if self.deadline is not None:
                    self.deadline.reschedule(asyncio.get_running_loop().time() + self.seconds)
        except Exception as failure:
            self.failure = failure
            raise


class _CheckedConnector(aiohttp.BaseConnector):
    """
    Hands out no pooled connection on which the upstream has said something since its last answer.

    aiohttp would take that for the answer to the next request, which is another caller's. Most of
    such connections have just been closed by the upstream, so a new one also saves a failure.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if not _has_spoken(connection):
                return connection
            connection.close()
        return None


class _TcpConnector(_CheckedConnector, aiohttp.TCPConnector):
    """Connections over TCP."""


class _UnixConnector(_CheckedConnector, aiohttp.UnixConnector):
    """Connections to a Unix socket."""


def _has_spoken(idle: Connection) -> bool:
    """True if bytes or the end have arrived on an *idle* connection, read by aiohttp or not."""
    protocol = idle.protocol
    if protocol is None or protocol.transport is None or protocol.should_close:
        return True
    arrived = select.poll()
    arrived.register(protocol.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(arrived.poll(0))


def _socket(address: aiohttp.connector.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return made


def _in_pieces(body: AsyncIterator[bytes] | bytes | None) -> object:
    """*body* for aiohttp, so that a large one is written piece by piece, as the upstream reads."""
    return io.BytesIO(body) if isinstance(body, bytes) and len(body) > _PIECE_BYTES else body


def _text_headers(headers: Headers) -> CIMultiDict[str]:
    return CIMultiDict([(name.decode("ascii"), value.decode("utf-8")) for name, value in headers])


def _whole(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, if all of it has arrived and it is certain that nothing is missing."""
    content = response.content
    if not content.is_eof() or content.exception() or _ends_with_connection(response):
        return None
    return content.read_nowait()


async def _pieces(response: aiohttp.ClientResponse, seconds: float | None) -> AsyncIterator[bytes]:
    """The body as it arrives. A pause longer than *seconds* is a failure; None allows any."""
    content, protocol = response.content, _protocol(response)
    try:
        while True:
            async with asyncio.timeout(seconds):
                piece = await content.readany()
            if not piece:
                break
            yield piece
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _failed(error) from error
    # A body without a length ends with its connection. aiohttp takes a reset for such an end too.
    if protocol is not None and _ends_with_connection(response):
        lost = protocol.exception()
        if isinstance(lost, OSError):
            raise _failed(lost)


def _protocol(response: aiohttp.ClientResponse) -> ResponseHandler | None:
    connection = response.connection
    # After the whole body arrived, aiohttp has released the connection and keeps only this.
    return connection.protocol if connection else getattr(response, "_protocol", None)


def _ends_with_connection(response: aiohttp.ClientResponse) -> bool:
    headers = response.headers
    framed = "Content-Length" in headers or "Transfer-Encoding" in headers
    return not framed and not has_no_body(response.method, response.status)


def _check_version(response: aiohttp.ClientResponse) -> None:
    version = response.version
    if version == aiohttp.HttpVersion11:
        return
    if version != aiohttp.HttpVersion10:
        raise UpstreamFailed(f"it answered in another version of HTTP: {version}")
    # RFC 9112, section 6.1: the framing of such an answer is faulty.
    if "Transfer-Encoding" in response.headers:
        raise UpstreamFailed("it answered with Transfer-Encoding in HTTP/1.0")


def _failed(error: Exception) -> UpstreamFailed:
    late = isinstance(error, TimeoutError)
    why = known(error, ca="upstream-ca") or f"{type(error).__name__}: {_said(error)}"
    return UpstreamFailed(why, timed_out=late)


def _said(error: Exception) -> str:
    """What *error* says, without the URL and what came from the upstream, which may be secret."""
    if isinstance(error, OSError):
        return str(error)
    said = getattr(error, "message", None) or next(iter(error.args), "")
    return _BEFORE_QUOTED.match(said)[0] if isinstance(said, str) else ""  # type: ignore[index]  # it always matches
