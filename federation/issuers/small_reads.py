"""
Read an issuer's answers in small pieces, with a limit on their number.

The HTTP library reads 64 KiB and then parses all of it before the event loop can do anything else.
If these are 10,000 chunks of one byte each, or 3,400 interim answers (status 103), every other
request waits for half a second, again and again. With small pieces the others wait for a few
milliseconds. Only what this module does is bounded here; the length of a body is in `fetch`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from federation.outbound import AsyncRouted

_PIECE_BYTES = 512
_CONNECTION_BYTES = 1024 * 1024
"""More than the headers and bodies of discovery and key set may have together."""


def read_in_small_pieces(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Return *client*, which from now on reads in small pieces on each new connection."""
    # httpx has no argument for this; its connection pools have. A test over a real connection
    # fails if a new version of the library keeps them elsewhere.
    transport = client._transport
    for route in transport.routes if isinstance(transport, AsyncRouted) else (transport,):
        if isinstance(route, httpx2.AsyncHTTPTransport):
            pool = route._pool
            pool._network_backend = _Backend(pool._network_backend)
    return client


class _Backend(httpcore2.AsyncNetworkBackend):
    """Opens connections that are read in small pieces."""

    def __init__(self, inner: httpcore2.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


class _Stream(httpcore2.AsyncNetworkStream):
    """A connection that gives at most `_PIECE_BYTES` at once, and `_CONNECTION_BYTES` in all."""

    def __init__(self, inner: httpcore2.AsyncNetworkStream) -> None:
        self._inner = inner
        self._left = _CONNECTION_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._left <= 0:
            raise httpcore2.ReadError(f"more than {_CONNECTION_BYTES} bytes on one connection")
        piece = await self._inner.read(min(max_bytes, _PIECE_BYTES), timeout)
        self._left -= len(piece)
        await asyncio.sleep(0)  # a read that finds its data in memory lets nobody else run
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore2.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
