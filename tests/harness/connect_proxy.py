"""
A proxy on loopback, which takes every name for one server of this machine.

So tests ask for servers elsewhere by name, and need no DNS. `CONNECT` gets a tunnel; a plain
request is sent on. With *user*, others than `user:password` are answered 407.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.harness.raw_server import http_answer, serving


@dataclass
class ConnectProxy:
    """A running proxy, with the targets that it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)
    """The targets, such as `idp.example:443` or `http://idp.example/keys`."""
    credentials: list[str] = field(default_factory=list)
    """What clients sent as `Proxy-Authorization`, decoded."""


@asynccontextmanager
async def connect_proxy(
    port: int, *, user: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[ConnectProxy]:
    """Run a proxy that leads everybody to *port* of this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    scheme = "https" if tls else "http"
    proxy = ConnectProxy(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.decode("ascii").split(" ", 2)[:2]
        proxy.asked.append(target)
        given = _credentials(head)
        proxy.credentials += [given] if given else []
        if user and given != user:
            writer.write(http_answer("", "407 Proxy Authentication Required"))
            await writer.drain()
            return
        there, to_there = await asyncio.open_connection("127.0.0.1", port)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                to_there.write(head)
            await asyncio.gather(_copy(reader, to_there), _copy(there, writer))
        finally:
            to_there.close()

    async with serving(serve, listener, tls):
        yield proxy


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()


def _credentials(head: bytes) -> str:
    for line in head.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "proxy-authorization":
            return base64.b64decode(value.split()[1]).decode()
    return ""
