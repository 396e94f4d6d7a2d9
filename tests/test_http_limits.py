"""The number of connections that one process accepts; tests/advisories has the other limits."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from federation.demo.stage import serving
from federation.server import http_limits
from federation.server.http_limits import CONNECTIONS, http_config
from tests.harness.process import in_thread

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a server that serves two connections and refuses three more."""
    app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))])
    listener = socket.create_server(("127.0.0.1", 0))

    @asynccontextmanager
    async def server() -> AsyncIterator[None]:
        async with serving(app, listener, http_config(app, connections=2)):
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_limits, "_REFUSED_CONNECTIONS", 3)
        with in_thread(server):
            yield listener.getsockname()[1]


def answer(connection: socket.socket) -> bytes:
    """The status line of the answer to a request, `b""` if the connection was closed."""
    try:
        connection.sendall(REQUEST)
        return connection.recv(65536).partition(b"\r\n")[0]
    except ConnectionError:
        return b""


def test_connections_beyond_the_limit_get_503_and_further_ones_are_closed(port: int) -> None:
    with ExitStack() as opened:

        def connect() -> socket.socket:
            return opened.enter_context(socket.create_connection(("127.0.0.1", port), 5))

        first = connect()
        assert answer(first) == b"HTTP/1.1 200 OK"
        others = [connect() for _ in range(4)]
        assert answer(connect()) == b"", "the sixth is closed"
        assert {answer(each) for each in others} == {b"HTTP/1.1 503 Service Unavailable"}


def test_a_process_serves_2000_connections_and_refuses_500_more() -> None:
    assert CONNECTIONS == 2000
    assert http_limits._REFUSED_CONNECTIONS == 500
    assert http_config(Starlette()).limit_concurrency == 2000
