"""
Answers to HTTP/1.0: without a length, the body ends where the connection does.

uvicorn sends such a body in chunks, which HTTP/1.0 does not know (RFC 9112, section 7.1).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

App = Callable[..., Awaitable[None]]

_NO_LINGER = struct.pack("ii", 1, 0)


def without_chunks(app: App, cycle: RequestResponseCycle) -> App:
    """Return *app* whose answer to the request of *cycle* is never chunked."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        until_close = False

        async def send_plain(message: Any) -> None:
            nonlocal until_close
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                until_close = all(name.lower() != b"content-length" for name, _ in headers)
                if until_close:
                    cycle.chunked_encoding = False
            elif until_close:
                # uvicorn lets a piece pass that is as long as what is still expected.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, receive, send_plain)
        except BaseException:
            if until_close:
                _reset(cycle)  # a plain close would make half a body look whole
            raise

    return answer


def _reset(cycle: RequestResponseCycle) -> None:
    """Close the connection so that its other end sees an error, and not the end of a body."""
    if not cycle.transport.is_closing():
        connection = cycle.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        cycle.transport.abort()
