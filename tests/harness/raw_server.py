"""
A server that writes whatever bytes a test wants, for peers that break HTTP or die half-way.

It answers one request per connection, and then closes the connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Reply = Callable[[str, asyncio.StreamWriter], Awaitable[None]]
"""Writes the answer to the request for a path. It may close or abort the connection."""


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
    serving: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if task := asyncio.current_task():
            serving.add(task)
            task.add_done_callback(serving.discard)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                request = await reader.readuntil(b"\r\n\r\n")
                asked.append(request.split(b" ", 2)[1].decode("ascii"))
                await reply(asked[-1], writer)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port, ssl=tls)
    scheme = "https" if tls else "http"
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0.01)  # the event loop closes the connections in its next turn
