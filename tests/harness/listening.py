"""A broker before a sample upstream, both on loopback sockets, served as `serve` does."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop

from federation.demo.stage import serving
from federation.gateway.upstream import BasicAuth, Upstream
from federation.gateway.wire import Wire
from federation.server.http_limits import http_config
from tests.harness.gateway import Front


class Listening(Front):
    """A broker that is up at `port`, before `sample`, which is up too."""

    def __init__(self, folder: Path, *, timeout: float = 5, **settings: Any) -> None:
        self.listener, self.behind = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.port: int = self.listener.getsockname()[1]
        self.upstream_port: int = self.behind.getsockname()[1]
        upstream = Upstream(
            Wire(f"http://127.0.0.1:{self.upstream_port}", connections=100),
            BasicAuth(folder),
            timedelta(seconds=timeout),
        )
        super().__init__(folder, upstream=upstream, **settings)

    async def serve(self, up: threading.Event, down: threading.Event) -> None:
        """Both answer from the one event until the other."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(serving(self.sample.app, self.behind))
            served = serving(self.app, self.listener, http_config(self.app))
            await stack.enter_async_context(served)
            up.set()
            await asyncio.to_thread(down.wait)

    def say(self, *pieces: bytes, seconds: float = 5) -> bytes:
        """What the broker answers to *pieces*, until it hangs up or was silent so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            heard = bytearray()
            try:
                for piece in pieces:
                    connection.sendall(piece)
                while chunk := connection.recv(65536):
                    heard += chunk
            except OSError:  # it hung up, or is silent
                pass
            return bytes(heard)


@contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[Listening]:
    """A broker that is up within."""
    front = Listening(folder, **settings)
    up, down = threading.Event(), threading.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(front.serve(up, down))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(20)
        yield front
    finally:
        down.set()
        thread.join()
