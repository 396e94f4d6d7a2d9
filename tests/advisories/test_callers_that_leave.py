"""
A caller that leaves ends its request at the upstream, whatever the upstream is doing.

Else a stranger could take every connection for functions, one by one, without keeping any itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import uvloop

from federation.demo.stage import serving
from federation.gateway.upstream import Upstream
from federation.server.http_limits import http_config
from tests.harness import raw_server
from tests.harness.gateway import Front
from tests.harness.process import in_thread

BODY_BYTES: Final = 100_000_000
"""More than all buffers on the way hold."""
HEAD: Final = (
    b"POST /function/a.dev HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES
)


class Streaming(Front):
    """A broker on a loopback socket. The function behind it answers for ever and reads no body."""

    def __init__(self, folder: Path) -> None:
        self.listener, self._behind = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.open = 0
        url = f"http://127.0.0.1:{self._behind.getsockname()[1]}"
        super().__init__(folder, upstream=Upstream.at(url, connections=3, timeout_seconds=30))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b" /healthz " in await reader.readuntil(b"\r\n\r\n"):
            return  # the broker looks whether the gateway is there
        self.open += 1
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                writer.write(b"5\r\nhello\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        finally:
            self.open -= 1

    def wait_for(self, connections: int) -> None:
        """Wait until the function has so many *connections*, or fail."""
        until = time.monotonic() + 15  # its answer has no end, so nothing else ends one
        while self.open != connections:
            assert time.monotonic() < until
            time.sleep(0.02)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with (
            raw_server.serving(self._stream, self._behind),
            serving(self.app, self.listener, http_config(self.app)),
        ):
            yield


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_a_body_that_the_upstream_does_not_read_keeps_no_connection(
    tmp_path: Path, *, reset: bool
) -> None:
    """The broker waits to send on, and reads nothing from its caller meanwhile."""
    front = Streaming(tmp_path)
    with in_thread(front.serving, uvloop.new_event_loop):
        with socket.create_connection(front.listener.getsockname(), timeout=1) as caller:
            with suppress(TimeoutError):
                caller.sendall(HEAD)
                caller.sendall(bytes(BODY_BYTES))
            front.wait_for(1)
            if reset:
                linger = struct.pack("ii", 1, 0)
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        front.wait_for(0)
