"""An HTTP server with the broker's limits on loopback, in front of an application for tests."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvloop
from starlette.types import Receive, Scope, Send

from federation.demo.stage import serving
from federation.server.http_limits import http_config
from tests.harness.process import in_thread

PIECE = b"x" * 65536


class App:
    """
    Answers by the path: `/wait` once it is released, `/endless` without end, the rest at once.

    The answer to `/long` has 4 MiB. An answer to `/stream` says no length; `/broken` fails in the
    middle of such a one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.began: list[str] = []
        """The paths of the requests that reached it."""
        self.ended: list[str] = []
        """The paths of those that it finished, or whose client it saw leave."""
        self.bodies: list[bytes] = []
        self.headers: list[list[tuple[bytes, bytes]]] = []
        self.released = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.began.append(path)
        self.headers.append(scope["headers"])
        left = asyncio.create_task(self._read(receive))
        answered = asyncio.create_task(self._answer(path, send))
        await asyncio.wait({left, answered}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        self.ended.append(path)
        if answered.done():
            answered.result()
        else:
            answered.cancel()

    async def _read(self, receive: Receive) -> None:
        body = b""
        while (message := await receive())["type"] != "http.disconnect":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                self.bodies.append(body)

    async def _answer(self, path: str, send: Send) -> None:
        if path == "/wait":
            await self.released.wait()
        pieces = {"/endless": 1_000_000_000, "/long": 64}.get(path, 0)
        length = (b"content-length", b"%d" % (2 + pieces * len(PIECE)))
        headers = [] if path in {"/stream", "/broken"} else [length]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await asyncio.sleep(0)  # after a disconnect, `send` returns at once
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        if path == "/broken":
            raise ConnectionError
        await send({"type": "http.response.body", "body": b"k"})


class HttpServer:
    """A running server: its port, and its application."""

    def __init__(self, listener: socket.socket, app: App) -> None:
        self.address: tuple[str, int] = listener.getsockname()
        self.app = app

    def release(self) -> None:
        """Let it answer `/wait`."""
        self.app.loop.call_soon_threadsafe(self.app.released.set)

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """A connection to it, whose system takes no more unread bytes than *receive_buffer*."""
        made = socket.socket()
        made.settimeout(10)
        if receive_buffer is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        made.connect(self.address)
        return made

    def say(self, *pieces: bytes) -> bytes:
        """Everything that it answers to *pieces* until it hangs up, or is silent for a second."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return heard(connection)


@contextmanager
def http_server(**limits: Any) -> Iterator[HttpServer]:
    """Serve an `App` with *limits* inside the `with` block, on the event loop that `serve` uses."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)

    @asynccontextmanager
    async def server() -> AsyncIterator[HttpServer]:
        app = App(asyncio.get_running_loop())
        config = http_config(app, **limits)
        config.lifespan = "off"
        async with serving(app, listener, config):
            try:
                yield HttpServer(listener, app)
            finally:
                app.released.set()

    with in_thread(server, uvloop.new_event_loop) as up:
        yield up


def get(path: str = "/", *lines: bytes, version: str = "1.1") -> bytes:
    """A GET of *path* with further header *lines*."""
    fields = b"".join(line + b"\r\n" for line in (b"Host: x", *lines))
    return f"GET {path} HTTP/{version}\r\n".encode() + fields + b"\r\n"


def heard(connection: socket.socket, seconds: float = 1) -> bytes:
    """Everything received until the connection is closed, or silent for *seconds*."""
    connection.settimeout(seconds)
    said = bytearray()
    try:
        while piece := connection.recv(65536):
            said += piece
    except OSError:
        pass
    return bytes(said)


def is_closed(connection: socket.socket, seconds: float = 10) -> bool:
    """Return True if the server closes the connection within *seconds*. Its bytes are dropped."""
    connection.settimeout(seconds)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
