"""Connections that try to use up a real server's memory or time are cut off."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx2
import pytest

from tests.harness.broker import Served, served

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("broker")) as up:
        up.access_token()
        yield up


def push(connection: socket.socket, opening: bytes, filling: bytes, closing: bytes = b"") -> int:
    """Send up to 10 MiB of *filling*; return the bytes sent until the server closed."""
    sent = 0
    try:
        connection.sendall(opening)
        while sent < 10 * MIB:
            connection.sendall(filling)
            sent += len(filling)
        connection.sendall(closing)
    except OSError:
        pass
    return sent


def heard(connection: socket.socket, seconds: float = 30) -> bytes:
    """Everything the server sends until it closes the connection."""
    connection.settimeout(seconds)
    said = b""
    try:
        while chunk := connection.recv(65536):
            said += chunk
    except ConnectionResetError:
        pass
    return said


GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CHUNKED = (
    b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)


@pytest.mark.parametrize(
    ("opening", "filling"),
    [
        pytest.param(GET + b"X-Big: ", b"a" * 65536, id="one endless value"),
        pytest.param(GET, b"a" * 65536, id="one endless name"),
        pytest.param(GET, b"X: y\r\n" * 10_000, id="endless small fields"),
        pytest.param(b"GET /", b"a" * 65536, id="an endless path"),
        pytest.param(b"GET /?", b"a=b&" * 16384, id="an endless query"),
        pytest.param(b"", b"A" * 65536, id="an endless method"),
        pytest.param(b"", b"\r\n" * 32768, id="endless empty lines"),
        pytest.param(CHUNKED + b"0\r\n", b"X: y\r\n" * 10_000, id="endless trailers"),
        pytest.param(CHUNKED + b"0\r\nX: ", b"a" * 65536, id="one endless trailer"),
        pytest.param(CHUNKED + b"1;", b"a" * 65536, id="an endless chunk extension"),
    ],
)
def test_a_head_of_ten_mebibytes_is_neither_read_nor_kept(
    broker: Served, opening: bytes, filling: bytes
) -> None:
    before = broker.resident_bytes()
    with broker.connect() as connection:
        sent = push(connection, opening, filling)
        said = heard(connection)
    assert sent < 8 * MIB  # so much may fit into the buffers of two sockets
    assert b" 200 " not in said
    assert broker.resident_bytes() - before < 8 * MIB
    assert httpx2.get(f"{broker.url}/livez").status_code == 200


@pytest.mark.parametrize(
    ("size", "status"),
    [pytest.param(32 * 1024, 200, id="32 KiB"), pytest.param(70 * 1024, 431, id="70 KiB")],
)
def test_a_head_above_the_limit_gets_431(broker: Served, size: int, status: int) -> None:
    with broker.connect() as connection:
        connection.sendall(GET + b"X-Big: " + b"a" * size + b"\r\nConnection: close\r\n\r\n")
        assert heard(connection).startswith(b"HTTP/1.1 %d " % status)


def test_a_connection_whose_head_does_not_end_is_closed(broker: Served) -> None:
    openings = {
        "half a line": b"GET /li",
        "half a head": GET,
        "a whole request and half a second": GET + b"\r\nGET /",
    }
    began = time.monotonic()
    connections = {name: broker.connect() for name in openings}
    for name, connection in connections.items():
        connection.sendall(openings[name])
    for connection in connections.values():
        with connection:
            heard(connection)
    assert time.monotonic() - began < 15


def test_a_connection_whose_head_arrives_too_slowly_is_closed(broker: Served) -> None:
    began = time.monotonic()
    with broker.connect() as connection:
        connection.sendall(GET)
        with suppress(OSError):
            while time.monotonic() - began < 30:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.5)
    assert time.monotonic() - began < 15


def test_a_body_that_arrives_too_slowly_is_answered_and_the_connection_closed(
    broker: Served,
) -> None:
    began = time.monotonic()
    with broker.connect() as connection:
        connection.sendall(CHUNKED)
        connection.settimeout(0.5)
        said = b""
        while time.monotonic() - began < 60:
            try:
                connection.sendall(b"1\r\na\r\n")
                chunk = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
            if not chunk:
                break
            said += chunk
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"took too long" in said
    assert time.monotonic() - began < 40


def test_a_large_body_is_answered_before_it_ends(broker: Served) -> None:
    with broker.connect() as connection:
        push(connection, CHUNKED, b"10000\r\n" + b"a" * 65536 + b"\r\n")
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"larger than 64 KiB" in said


def test_a_keep_alive_connection_serves_many_requests(broker: Served) -> None:
    with httpx2.Client() as client:
        for _ in range(3):
            assert client.get(f"{broker.url}/livez").status_code == 200
            time.sleep(1)
