"""A webhook receiver on a loopback port, which a test can make fail."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Delivered:
    """A request that arrived whole, whatever its answer was."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)
        return found


class Receiver:
    """The requests that arrived, those that were taken, and the next answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Delivered] = []
        self.taken: list[Delivered] = []
        self.next: list[Behaviour] = []
        """The next answers. When there are none left, every request is accepted."""
        self.connections: list[socket.socket] = []

    @property
    def event_ids(self) -> list[str]:
        """The ids of the events that were taken, in order."""
        return [str(event["event_id"]) for each in self.taken for event in each.events]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until *condition* holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not hold in time"
            time.sleep(0.01)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, so that it is closed with the server."""
        self.receiver.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, *_args: object) -> None:
        """Ignore clients that hang up: tests do that on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        receiver = self.server.receiver
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # its sender was killed
            self.close_connection = True
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        arrived = Delivered(self.path, headers, body, time.monotonic())
        receiver.seen.append(arrived)
        if receiver.next:
            receiver.next.pop(0)(self)
        else:
            receiver.taken.append(arrived)
            answer(204)(self)

    def log_message(self, *_args: object) -> None:
        """Log nothing."""


def answer(status: int, **headers: str) -> Behaviour:
    """Answer with *status* and *headers*."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if status != 204:
            handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Hang up in the middle of the body of a 200."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Hang up without an answer."""
    handler.close_connection = True


def slow(seconds: float) -> Behaviour:
    """Answer 200 after some seconds."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        answer(200)(handler)

    return behave


def endless(handler: BaseHTTPRequestHandler) -> None:
    """Answer 200 with a body that does not end."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        handler.close_connection = True


@contextmanager
def receiving(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Serve a receiver inside the `with` block."""
    server = _Server(("127.0.0.1", port), _Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls else "http"
    server.receiver = Receiver(f"{scheme}://127.0.0.1:{server.server_address[1]}/events")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in server.receiver.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
