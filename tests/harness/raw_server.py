"""
A server that writes whatever bytes a test wants, for peers that break HTTP or die half-way.

It answers one request per connection, and then closes the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Reply = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer to the request for a path. It may close or abort the connection."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection."""


def http_answer(body: str | bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP/1.1 response."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


@asynccontextmanager
async def raw_server(
    reply: Reply, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve *reply* on loopback; yield the base URL, and the list of the paths asked for."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        asked.append(request.split(b" ", 2)[1].decode("ascii"))
        await reply(asked[-1], writer)
        await writer.drain()

    listener = socket.create_server(("127.0.0.1", port))
    scheme = "https" if tls else "http"
    async with serving(serve, listener, tls):
        yield f"{scheme}://127.0.0.1:{listener.getsockname()[1]}", asked


@asynccontextmanager
async def serving(
    serve: Serve, listener: socket.socket, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Run *serve* for each connection on *listener*, inside the block; leave none behind."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, sock=listener, ssl=tls)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0.01)  # the event loop closes the connections in its next turn
