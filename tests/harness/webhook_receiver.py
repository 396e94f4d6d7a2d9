"""A real webhook receiver on a free loopback port, which can be told to fail."""

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
    """One request that arrived whole, whatever came of it."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.body)
        return found


class Receiver:
    """What arrived, what was taken, and how the next requests are answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: list[Delivered] = []
        self.taken: list[Delivered] = []
        self.next: list[Behaviour] = []
        """Answers to come; when there are none left, all is taken."""
        self.connections: list[socket.socket] = []

    @property
    def event_ids(self) -> list[str]:
        """The ids of the events taken, in order."""
        return [str(event["event_id"]) for each in self.taken for event in each.events]

    def wait_for(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """*condition* holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that"
            time.sleep(0.01)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    receiver: Receiver

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a connection that is known, so that it can be ended with the server."""
        self.receiver.connections.append(request)
        super().process_request(request, client_address)

    def handle_error(self, *_args: object) -> None:
        """A client that hangs up is part of the tests."""


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
        """Quiet."""


def answer(status: int, **headers: str) -> Behaviour:
    """The answer with *status*."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        if status != 204:
            handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Hang up within the body of a 200."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b"half")
    handler.close_connection = True


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Hang up without an answer."""
    handler.close_connection = True


def slow(seconds: float) -> Behaviour:
    """No answer for a while, then a good one."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        answer(200)(handler)

    return behave


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A 200 with more of a body than anybody should read."""
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
    """A receiver that is up within."""
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
