"""A server that stops loses nobody who was let in, and lets in nobody whom it would lose."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections import Counter

import pytest
from starlette.types import Receive, Scope, Send

from federation.cli.serve import configured
from federation.server.shutdown import DrainingServer, let_nobody_begin

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
NO_FILTER = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a filter")


class SlowToClose(socket.socket):
    """A listener whose process has to wait for the processor just as it closes it."""

    def close(self) -> None:
        """Close it, a while later."""
        time.sleep(0.1)
        super().close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


async def nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def come(listener: socket.socket, patience: float = 0.1) -> socket.socket:
    """A connection to *listener*. Raises `TimeoutError` if nobody lets it in."""
    return socket.create_connection(listener.getsockname()[:2], timeout=patience)


@NO_FILTER
@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        pytest.param(
            socket.AF_INET6,
            "::1",
            marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on loopback here"),
        ),
    ],
)
def test_who_has_begun_still_comes_and_nobody_else(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener, come(listener) as client:
        let_nobody_begin(listener)
        with pytest.raises(TimeoutError):
            come(listener)
        served, _ = listener.accept()
        with served:
            client.sendall(b"ask")
            assert served.recv(10) == b"ask"
            served.sendall(b"answer")
            assert client.recv(10) == b"answer"
            client.shutdown(socket.SHUT_WR)
            assert served.recv(10) == b""


@NO_FILTER
def test_another_listener_on_that_port_is_not_concerned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        let_nobody_begin(listener)
        port = listener.getsockname()[1]
    with socket.create_server(("127.0.0.1", port)) as listener, come(listener):
        pass


def test_a_listener_that_is_closed_is_no_failure() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.close()
    let_nobody_begin(listener)


@NO_FILTER
def test_nobody_is_let_in_to_be_thrown_out() -> None:
    listener = SlowToClose(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    address, outcomes, ended = listener.getsockname(), Counter[str](), threading.Event()

    def client() -> None:
        while not ended.is_set():
            try:
                with socket.create_connection(address, timeout=0.05) as connection:
                    connection.settimeout(10)
                    connection.sendall(ASK)
                    outcomes[connection.recv(1000)[9:12].decode()] += 1
            except (TimeoutError, ConnectionRefusedError):
                outcomes["not let in"] += 1
            except OSError as error:
                outcomes[type(error).__name__] += 1

    async def stopped() -> None:
        config = configured(nothing)
        config.lifespan = "off"
        server = DrainingServer(config)
        running = asyncio.create_task(server._serve([listener]))
        await asyncio.sleep(0.3)
        server.should_exit = True
        await running

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    asyncio.run(asyncio.wait_for(stopped(), 20))
    ended.set()
    for each in clients:
        each.join()
    assert outcomes.keys() == {"204", "not let in"}
