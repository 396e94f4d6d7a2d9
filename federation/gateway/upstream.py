"""
The gateway behind the broker: how it is reached, and with whose credentials.

The upstream's own user and password are read from files and replace whatever the caller sent.
Redirects are never followed; an answer streams through as it comes.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx

__all__ = ["Answer", "BasicAuth", "Upstream", "UpstreamFailed"]

_CONNECT_SECONDS = 5.0
_RECEIVE_BYTES = 128 * 1024

Headers = Sequence[tuple[bytes, bytes]]


class UpstreamFailed(Exception):
    """The upstream gave no usable answer: *why*, for the operator; was it too slow?"""

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of an upstream's answer, and its body as it comes, still encoded."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]


class BasicAuth:
    """User and password from the files of a folder, read again when they change."""

    def __init__(self, folder: Path) -> None:
        self._files = tuple(folder / name for name in ("basic-auth-user", "basic-auth-password"))
        self._read: tuple[tuple[int, ...], bytes] | None = None

    def header(self) -> bytes:
        """
        The value of `Authorization` for the upstream.

        Raises: OSError where a file cannot be read.
        """
        stamp = tuple(file.stat().st_mtime_ns for file in self._files)
        if self._read is None or self._read[0] != stamp:
            user, password = (file.read_bytes().strip() for file in self._files)
            self._read = stamp, b"Basic " + base64.b64encode(user + b":" + password)
        return self._read[1]


@dataclass(frozen=True, slots=True)
class Upstream:
    """
    Sends canonical requests to one gateway.

    By a bare transport: what a client does besides, such as to keep cookies of one answer for
    the next request, would carry things from one caller to another.
    """

    url: httpx.URL
    auth: BasicAuth | None
    transport: httpx.AsyncBaseTransport = field(repr=False)
    timeout: timedelta

    @classmethod
    def at(
        cls, url: str, auth: BasicAuth | None, *, timeout: timedelta, connections: int
    ) -> Upstream:
        """The gateway at *url*; *timeout* is how long it may take to begin an answer."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # What the socket holds is read in one burst, and kept while a caller reads slowly.
        receive = (socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        transport = httpx.AsyncHTTPTransport(limits=limits, socket_options=[receive])
        return cls(httpx.URL(url), auth, transport, timeout)

    def authorization(self) -> bytes | None:
        """
        The value of `Authorization` for the API, None where it has no password.

        Raises: UpstreamFailed where the files of the password cannot be read.
        """
        try:
            return self.auth.header() if self.auth else None
        except OSError as error:
            raise UpstreamFailed(f"its password cannot be read: {error}") from error

    @asynccontextmanager
    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
        *,
        endless: bool = False,
    ) -> AsyncIterator[Answer]:
        """
        The answer to one request; leaving the context ends the request, finished or not.

        With *endless* the answer, once it has begun, may pause as long as it likes.
        Raises: UpstreamFailed.
        """
        seconds = self.timeout.total_seconds()
        timeout = httpx.Timeout(
            seconds, connect=_CONNECT_SECONDS, read=None if endless else seconds
        )
        request = httpx.Request(
            method,
            self.url,
            headers=list(headers),
            content=body,
            # The target as it was decided about, to the byte: the library would write its own.
            extensions={"target": target, "timeout": timeout.as_dict()},
        )
        try:
            async with asyncio.timeout(seconds if endless else None):
                response = await self.transport.handle_async_request(request)
        except (httpx.TransportError, TimeoutError) as error:
            raise _failed(error) from error
        try:
            yield Answer(response.status_code, response.headers.raw, _body(response))
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """The connections are closed."""
        await self.transport.aclose()


async def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.TransportError as error:
        raise _failed(error) from error


def _failed(error: httpx.TransportError | TimeoutError) -> UpstreamFailed:
    late = isinstance(error, httpx.TimeoutException | TimeoutError)
    return UpstreamFailed(f"{type(error).__name__}: {error}", timed_out=late)
