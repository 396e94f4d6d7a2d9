"""A shutdown answers every connection that was accepted, also those in the listener's queue."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from starlette.types import Receive, Scope, Send

from federation.server.http_limits import http_config
from federation.server.shutdown import GracefulServer

pytestmark = pytest.mark.alone

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
ASK_AND_STAY = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers every request with 204, and counts them."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.requests += 1
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


def server_of(app: App) -> GracefulServer:
    config = http_config(app)
    config.lifespan = "off"
    return GracefulServer(config)


def connect(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=10)


def shut_down_after(queue_up: Callable[[socket.socket], Awaitable[None]]) -> None:
    """Shut a server down at once after *queue_up*, which the server has no turn to accept."""

    async def run() -> None:
        server = server_of(App())
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
            await server.startup(sockets=[listener])
            await queue_up(listener)
            await server.shutdown([listener])

    asyncio.run(asyncio.wait_for(run(), 20))


class TestQueue:
    """Connections that wait in the listener's queue when the shutdown begins."""

    @pytest.mark.parametrize("request_", [ASK, ASK_AND_STAY], ids=["last", "keep-alive"])
    def test_requests_in_the_queue_are_answered(self, request_: bytes) -> None:
        clients: list[socket.socket] = []

        async def queue_up(listener: socket.socket) -> None:
            for _ in range(20):
                clients.append(connect(listener))
                clients[-1].sendall(request_)

        shut_down_after(queue_up)
        for client in clients:
            with client:
                assert client.recv(1000).startswith(b"HTTP/1.1 204 ")

    def test_a_queued_connection_may_send_its_request_a_moment_later(self) -> None:
        answers: list[bytes] = []
        asking: list[threading.Timer] = []

        async def queue_up(listener: socket.socket) -> None:
            client = connect(listener)

            def ask() -> None:
                with client:
                    client.sendall(ASK_AND_STAY)
                    answers.append(client.recv(1000))

            asking.append(threading.Timer(0.3, ask))
            asking[0].start()

        shut_down_after(queue_up)
        asking[0].join()
        assert [answer.splitlines()[0] for answer in answers] == [b"HTTP/1.1 204 No Content"]

    def test_a_client_that_hung_up_in_the_queue_disturbs_no_other(self) -> None:
        clients: list[socket.socket] = []

        async def queue_up(listener: socket.socket) -> None:
            for number in range(10):
                client = connect(listener)
                client.sendall(ASK)
                if number % 2:
                    no_linger = struct.pack("ii", 1, 0)  # closing sends a reset
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
                    client.close()
                else:
                    clients.append(client)

        shut_down_after(queue_up)
        for client in clients:
            with client:
                assert client.recv(1000).startswith(b"HTTP/1.1 204 ")


def test_every_request_that_was_read_is_answered_while_clients_keep_coming() -> None:
    app, outcomes, ended = App(), Counter[str](), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    address = listener.getsockname()

    def client() -> None:
        while not ended.is_set():
            try:
                with socket.create_connection(address, timeout=10) as connection:
                    connection.sendall(ASK)
                    outcomes[connection.recv(1000)[9:12].decode()] += 1
            except ConnectionError:
                outcomes["not accepted"] += 1  # refused, or reset in the moment of the close

    async def stopped() -> None:
        server = server_of(app)
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
    assert outcomes.keys() == {"204", "not accepted"}
    assert outcomes["204"] == app.requests


def test_a_worker_that_shuts_down_leaves_the_port_to_the_others() -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            servers = [server_of(App()) for _ in range(2)]
            running = [asyncio.create_task(each._serve([listener.dup()])) for each in servers]
            await asyncio.sleep(0.1)
            servers[0].should_exit = True
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(ASK)
                assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 204 ")
                writer.close()
                await asyncio.sleep(0.05)
            assert running[0].done()
            servers[1].should_exit = True
            await asyncio.gather(*running)

    asyncio.run(asyncio.wait_for(run(), 30))
