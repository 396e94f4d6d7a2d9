"""
The connections to the upstream, by aiohttp, with all that it does besides turned off.

It keeps no cookies, follows no redirect, adds no header and decodes no body: what one caller's
request or answer holds must not reach another's, and what was decided about is sent to the
byte. Bodies flow both ways at once, and no faster than they are taken.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from federation.gateway.upstream import Answer, Headers, UpstreamFailed

__all__ = ["Wire"]

_CONNECT_SECONDS = 5.0
_HEAD_BYTES = 64 * 1024
# What the socket holds is read in one burst, and kept while a caller reads slowly.
_RECEIVE_BYTES = 64 * 1024
_HELD_BYTES = 16 * 1024
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Wire:
    """A pool of at most *connections* connections to the gateway at *url*."""

    def __init__(self, url: str, connections: int) -> None:
        self._url = url
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
        *,
        seconds: float,
        endless: bool,
    ) -> Answer:
        """As `Upstream.send`."""
        upload = _Upload(body, seconds) if isinstance(body, AsyncIterator) else None
        try:
            async with asyncio.timeout(seconds) as limit:
                if upload:
                    upload.limit = limit
                response = await self._open().request(
                    method,
                    URL(self._url + target.decode("ascii"), encoded=True),
                    headers=_text_headers(headers),
                    data=upload.pieces() if upload else body,
                    allow_redirects=False,
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if upload and upload.failure:
                raise upload.failure from error
            raise _failed(error) from error
        finally:
            if upload:
                upload.limit = None

        async def end() -> None:
            response.close()  # a connection whose answer was read to its end is free already

        pieces = _body(response, None if endless else seconds)
        return Answer(response.status, response.raw_headers, pieces, end, _whole(response))

    async def aclose(self) -> None:
        """The connections are closed."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._connections, socket_factory=_socket, ttl_dns_cache=30
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                skip_auto_headers=_NOT_ADDED,
                auto_decompress=False,
                trust_env=False,  # a proxy of the environment would see the upstream's password
                read_bufsize=_HELD_BYTES,
                max_line_size=_HEAD_BYTES,
                max_field_size=_HEAD_BYTES,
            )
        return self._session


@dataclass(slots=True)
class _Upload:
    """A body on its way up. The time to answer counts from its last piece."""

    source: AsyncIterator[bytes]
    seconds: float
    limit: asyncio.Timeout | None = None
    failure: BaseException | None = field(default=None)
    """Why the body ended early; it is the caller's leaving, and not the upstream's fault."""

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.source:
                yield piece
                if self.limit is not None:
                    self.limit.reschedule(asyncio.get_running_loop().time() + self.seconds)
        except Exception as failure:
            self.failure = failure
            raise


def _socket(address: aiohttp.connector.AddrInfoType) -> socket.socket:
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return made


def _text_headers(headers: Headers) -> CIMultiDict[str]:
    try:
        return CIMultiDict((name.decode("ascii"), value.decode("utf-8")) for name, value in headers)
    except UnicodeDecodeError as error:
        raise UpstreamFailed("a header of the request is not UTF-8") from error


def _whole(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, where all of it is here and is known to be all."""
    content = response.content
    if not content.is_eof() or content.exception() or _ends_with_connection(response):
        return None
    return content.read_nowait()


async def _body(response: aiohttp.ClientResponse, seconds: float | None) -> AsyncIterator[bytes]:
    """The body as it comes; with *seconds*, no pause in it is longer."""
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
    # A body without a length ends with its connection. To the library a reset is such an end.
    if protocol is not None and _ends_with_connection(response):
        lost = protocol.exception()
        if isinstance(lost, OSError):
            raise _failed(lost)


def _protocol(response: aiohttp.ClientResponse) -> ResponseHandler | None:
    connection = response.connection
    # Where all has come already, the connection was given up, and is known to nobody else.
    return connection.protocol if connection else getattr(response, "_protocol", None)


def _ends_with_connection(response: aiohttp.ClientResponse) -> bool:
    return not {"Content-Length", "Transfer-Encoding"} & response.headers.keys()


def _failed(error: Exception) -> UpstreamFailed:
    late = isinstance(error, TimeoutError)
    return UpstreamFailed(f"{type(error).__name__}: {error}", timed_out=late)
