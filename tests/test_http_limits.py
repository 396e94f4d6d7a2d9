"""Limits of one connection; tests/advisories has connections that cost more than they are worth."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import ExitStack

import pytest
import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from federation.server import http_limits
from federation.server.http_limits import CONNECTIONS, http_config
from tests.harness.http_server import get, heard, http_server, is_closed
from tests.harness.process import until

pytestmark = pytest.mark.alone

CLOSE = b"Connection: close"


def _read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


HEAD_OF_FOUR_BYTES = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


class TestConnections:
    def test_those_beyond_the_limit_get_503_and_further_ones_are_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_limits, "_REFUSED_CONNECTIONS", 3)
        with http_server(connections=3) as server, ExitStack() as opened:

            def connect(sending: bytes) -> socket.socket:
                made = opened.enter_context(server.connect())
                made.sendall(sending)
                return made

            busy = [connect(get("/wait")) for _ in range(2)]
            assert until(lambda: len(server.app.began) == 2, 5)
            assert heard(connect(get("/", CLOSE)), 5).startswith(b"HTTP/1.1 503 ")
            server.release()
            assert all(heard(each, 0.2).startswith(b"HTTP/1.1 200 ") for each in busy)

    def test_a_process_serves_2000_connections_and_refuses_500_more(self) -> None:
        assert CONNECTIONS == 2000
        assert http_limits._REFUSED_CONNECTIONS == 500
        assert http_config(Starlette()).limit_concurrency == 2000


class TestKeepAlive:
    @pytest.mark.parametrize("first", [b"", get()], ids=["before a request", "after one"])
    def test_an_idle_connection_is_kept_for_the_time_and_then_closed(self, first: bytes) -> None:
        with http_server(keep_alive_seconds=0.5) as server, server.connect() as connection:
            connection.sendall(first)
            heard(connection, 0.1)
            began = time.monotonic()
            assert is_closed(connection, 5)
            assert 0.3 < time.monotonic() - began < 1.5

    @pytest.mark.parametrize("half", [b"G", b"\r\n", get()[:-2]])
    @pytest.mark.parametrize("first", [b"", get()], ids=["before a request", "after one"])
    def test_the_first_byte_of_a_head_starts_its_deadline(
        self, first: bytes, half: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.3)
        with http_server() as server, server.connect() as connection:
            connection.sendall(first)
            heard(connection, 0.5)
            connection.sendall(half)
            assert is_closed(connection, 1)

    def test_a_head_in_single_bytes_does_not_extend_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.3)
        with http_server() as server, server.connect() as connection:
            began = time.monotonic()
            for byte in get():
                time.sleep(0.05)
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    break
            assert time.monotonic() - began < 1

    def test_a_request_that_is_here_but_not_read_is_not_lost(self) -> None:
        """The timer of an idle connection may run before its socket is read."""
        with http_server(keep_alive_seconds=0.3) as server:
            for _ in range(5):
                with server.connect() as connection:
                    connection.sendall(get())
                    assert heard(connection, 0.1)
                    # The loop does nothing else until the timer is due and the request is there.
                    server.app.loop.call_soon_threadsafe(time.sleep, 0.4)
                    time.sleep(0.1)
                    connection.sendall(get("/late", CLOSE))
                    assert heard(connection, 5).startswith(b"HTTP/1.1 200 ")

    def test_a_body_that_ends_after_its_answer_leaves_an_idle_connection(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.3)
        with http_server() as server, server.connect() as connection:
            connection.sendall(HEAD_OF_FOUR_BYTES)
            assert heard(connection, 0.1).startswith(b"HTTP/1.1 200 ")
            connection.sendall(b"abcd")
            time.sleep(0.5)
            connection.sendall(get("/", CLOSE))
            assert heard(connection, 5).startswith(b"HTTP/1.1 200 ")

    def test_a_body_that_never_ends_after_its_answer_is_not_awaited(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.3)
        with http_server() as server, server.connect() as connection:
            connection.sendall(HEAD_OF_FOUR_BYTES)
            assert is_closed(connection, 1)


class TestHttp10:
    @pytest.mark.parametrize("method", [b"GET", b"HEAD"])
    def test_an_answer_without_a_length_ends_with_the_connection(self, method: bytes) -> None:
        with http_server() as server:
            said = server.say(get("/stream", version="1.0").replace(b"GET", method))
        head, _, body = said.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"transfer-encoding" not in head.lower()
        assert b"connection: close" in head.lower()
        assert body == (b"ok" if method == b"GET" else b"")

    def test_an_answer_with_a_length_keeps_it(self) -> None:
        with http_server() as server:
            said = server.say(get("/", version="1.0")).lower()
        assert b"\r\ncontent-length: 2\r\n" in said
        assert said.endswith(b"\r\n\r\nok")

    def test_half_an_answer_does_not_look_whole(self) -> None:
        with http_server() as server, server.connect() as connection:
            connection.sendall(get("/broken", version="1.0"))
            with pytest.raises(ConnectionResetError):
                _read_to_the_end(connection)

    def test_it_needs_no_host(self) -> None:
        with http_server() as server:
            assert server.say(b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 200 ")


class TestHeaders:
    @pytest.mark.parametrize(
        ("request_", "sentence"),
        [
            pytest.param(
                get("/", b"X: caf\xe9"),
                b"The value of a header is neither ASCII nor UTF-8.",
                id="Latin-1",
            ),
            pytest.param(
                b"GET / HTTP/1.1\r\n\r\n", b"The request must have one Host header.", id="no host"
            ),
            pytest.param(
                get("/", b"Host: y"), b"The request must have one Host header.", id="two hosts"
            ),
            pytest.param(
                b"CONNECT /x HTTP/1.1\r\nHost: x\r\n\r\n",
                b"CONNECT is not supported.",
                id="connect",
            ),
        ],
    )
    def test_a_head_that_is_not_plain_is_400_with_one_sentence(
        self, request_: bytes, sentence: bytes
    ) -> None:
        with http_server() as server:
            said = server.say(request_)
        assert said.startswith(b"HTTP/1.1 400 ")
        assert said.partition(b"\r\n\r\n")[2] == sentence
        assert server.app.began == []

    @pytest.mark.parametrize("rest", [b"", b"x" * 200_000], ids=["alone", "before much more"])
    def test_a_broken_chunk_is_400(self, rest: bytes) -> None:
        head = b"POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with http_server() as server:
            assert server.say(head + b"zz\r\n" + rest)[:13] in {b"HTTP/1.1 400 ", b""}

    def test_utf_8_and_white_space_around_a_value_are_fine(self) -> None:
        head = b"POST / HTTP/1.1\r\nHost: x \r\nX: caf\xc3\xa9\t \r\nContent-Length: 4 \t\r\n"
        with http_server() as server:
            assert server.say(head + CLOSE + b" \r\n\r\nabcd").startswith(b"HTTP/1.1 200 ")
            assert server.app.bodies == [b"abcd"]
        headers = dict(server.app.headers[0])
        assert (headers[b"x"], headers[b"content-length"]) == (b"caf\xc3\xa9", b"4")


def test_uvicorn_has_the_names_that_the_limits_lean_on() -> None:
    """A new version of uvicorn that moves one of them fails here, and not in the middle of a night."""

    async def made() -> HttpToolsProtocol:
        config = http_config(Starlette())
        config.load()
        server = uvicorn.Server(config)
        protocol = HttpToolsProtocol(config, server.server_state, {})
        protocol.on_message_begin()
        return protocol

    protocol = asyncio.run(made())
    for name in (
        "connections", "tasks", "transport", "flow", "parser", "pipeline", "cycle", "scope", "url",
        "headers", "limit_concurrency", "timeout_keep_alive", "timeout_keep_alive_task",
    ):  # fmt: skip
        assert hasattr(protocol, name), name
    for name in (
        "timeout_keep_alive_handler", "_unset_keepalive_if_required", "_start_asgi_task",
        "send_400_response", "on_response_complete", "shutdown",
    ):  # fmt: skip
        assert callable(getattr(protocol, name)), name
    cycle = set(RequestResponseCycle.__init__.__code__.co_names)
    assert cycle >= {
        "scope", "transport", "message_event", "disconnected", "keep_alive", "more_body",
        "response_started", "response_complete", "chunked_encoding", "expected_content_length",
    }  # fmt: skip
    assert {"read_paused", "pause_reading", "resume_reading"} <= set(dir(FlowControl)) | set(
        FlowControl.__init__.__code__.co_names
    )
    assert {"startup", "shutdown"} <= set(dir(uvicorn.Server))
    assert hasattr(uvicorn.Server(http_config(Starlette())), "server_state")
    assert "servers" in uvicorn.Server.startup.__code__.co_names
    assert "lifespan" in uvicorn.Server._serve.__code__.co_names
