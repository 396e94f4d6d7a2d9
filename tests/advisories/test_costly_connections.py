"""
Connections that cost more than they are worth: many pipelined requests, unread answers, half heads.

Each is a real socket to a server with the broker's limits.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from contextlib import ExitStack

import pytest
from starlette.types import Message

from federation.gateway.refusals import CallerGone
from federation.gateway.request import RequestBody
from federation.server import http_limits
from federation.server.http_limits import BoundedHttp
from tests.harness.http_server import get, heard, http_server, is_closed
from tests.harness.process import until

pytestmark = pytest.mark.alone

MANY = 2000


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pipelined requests of a connection that wait, after each head."""
    seen: list[int] = []
    on_headers_complete = BoundedHttp.on_headers_complete

    def count(connection: BoundedHttp) -> None:
        on_headers_complete(connection)
        seen.append(len(connection.pipeline))

    monkeypatch.setattr(BoundedHttp, "on_headers_complete", count)
    return seen


class TestPipelining:
    @pytest.mark.parametrize("size", [None, 7, 1000], ids=["in one read", "of 7 bytes", "of 1000"])
    def test_at_most_four_requests_wait_and_none_is_lost(
        self, size: int | None, waiting: list[int]
    ) -> None:
        many = 300 if size == 7 else MANY
        sent = get("/wait") + b"".join(get(f"/{n}") for n in range(many)) + get("/end")
        with http_server() as server, server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            step = size or len(sent)
            for at in range(0, len(sent), step):
                connection.sendall(sent[at : at + step])
            time.sleep(0.2)
            assert server.app.began == ["/wait"]
            assert max(waiting) == 4
            server.release()
            assert heard(connection, 0.5).count(b"HTTP/1.1 200 OK") == many + 2
        assert server.app.began == ["/wait", *(f"/{n}" for n in range(many)), "/end"]
        assert max(waiting) == 4

    def test_bodies_of_waiting_requests_stay_with_them(self) -> None:
        lines = [b"\r\n\r\n" * n for n in range(50)]
        posts = [
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            for body in lines
        ]
        with http_server() as server, server.connect() as connection:
            connection.sendall(b"".join(posts) + get("/end", b"Connection: close"))
            assert heard(connection, 5).count(b"HTTP/1.1 200 OK") == 51
            assert server.app.bodies == [*lines, b""]

    def test_ends_of_heads_in_a_body_cost_nothing(self) -> None:
        body = b"\r\n\r\n" * 1024 * 1024
        head = b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with http_server() as server, server.connect() as connection:
            began = time.process_time()
            connection.sendall(head + body)
            assert until(lambda: server.app.bodies == [body], 20)
            assert time.process_time() - began < 1

    def test_a_head_end_split_between_two_reads_lets_no_fifth_request_wait(
        self, waiting: list[int]
    ) -> None:
        for cut in range(1, 5):
            with http_server() as server, server.connect() as connection:
                connection.sendall(get("/wait") + get() * 3 + get()[:-cut])
                time.sleep(0.1)
                connection.sendall(get()[-cut:] + get() * 5)
                time.sleep(0.1)
                server.release()
                assert heard(connection, 0.5).count(b"HTTP/1.1 200 OK") == 10
        assert max(waiting) == 4

    @pytest.mark.parametrize(
        "pipelined", [1, MANY], ids=["with one pipelined", "with many pipelined"]
    )
    @pytest.mark.parametrize("how", ["closes", "resets"])
    def test_a_client_that_pipelines_and_leaves_is_noticed(self, pipelined: int, how: str) -> None:
        with http_server() as server:
            connection = server.connect()
            connection.sendall(get("/wait") + get() * pipelined)
            assert until(lambda: server.app.began == ["/wait"], 5)
            if how == "resets":
                no_linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
            connection.close()
            assert until(lambda: server.app.ended == ["/wait"], 5)
            assert server.app.began == ["/wait"], "nothing more is done for it"

    def test_an_answer_is_not_cut_by_the_beginning_of_the_next_request(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.3)
        with http_server() as server, server.connect() as connection:
            connection.sendall(get("/wait") + b"GET /next")
            time.sleep(0.8)
            server.release()
            assert heard(connection, 0.2).endswith(b"\r\n\r\nok")
            assert is_closed(connection, 1), "the next one has its time from then on"


class TestFaultsBehindOtherRequests:
    """An answer to a fault is never taken for the answer to a request before it."""

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(b"\x00\x00", id="garbage"),
            pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="no host"),
            pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70_000, id="a large head"),
            pytest.param(
                b"POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                id="a broken body",
            ),
        ],
    )
    def test_requests_before_it_are_answered_and_then_the_connection_closes(
        self, fault: bytes
    ) -> None:
        with http_server() as server, server.connect() as connection:
            connection.sendall(get("/wait") + get("/1") + fault + get("/never"))
            time.sleep(0.2)
            server.release()
            said = heard(connection, 5)
            assert is_closed(connection, 1)
        assert server.app.began == ["/wait", "/1"]
        assert said.count(b"HTTP/1.1 200 OK") == said.count(b"HTTP/1.1 ") == 2

    def test_a_fault_in_its_own_body_is_400(self) -> None:
        head = b"POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with http_server() as server:
            assert server.say(head, b"zz\r\n").startswith(b"HTTP/1.1 400 ")
            assert until(lambda: server.app.ended == ["/wait"], 5)


class TestUnreadAnswers:
    def test_an_answer_that_nobody_reads_ends(self) -> None:
        with http_server(send_seconds=0.5) as server, server.connect(4096) as connection:
            connection.sendall(get("/endless"))
            began = time.monotonic()
            assert until(lambda: server.app.ended == ["/endless"], 10)
            assert 0.4 < time.monotonic() - began < 3

    def test_a_reader_of_a_few_bytes_is_nobody(self) -> None:
        with http_server(send_seconds=0.8) as server, server.connect(4096) as connection:
            connection.sendall(get("/endless"))

            def reads_on() -> bool:
                connection.recv(1)
                time.sleep(0.05)
                return server.app.ended == ["/endless"]

            began = time.monotonic()
            assert until(reads_on, 10)
            assert 0.7 < time.monotonic() - began < 4

    @pytest.mark.parametrize("line", [b"Connection: close", b"X: y"], ids=["close", "keep-alive"])
    def test_the_last_bytes_of_an_answer_count_too(self, line: bytes) -> None:
        with http_server(send_seconds=0.5) as server, server.connect(4096) as connection:
            connection.sendall(get("/long", line))
            assert until(lambda: server.app.ended == ["/long"], 10), "the application is done"
            time.sleep(1.5)
            said = heard(connection, 2)
            assert is_closed(connection, 2)
        assert b"HTTP/1.1 200 OK" in said
        assert len(said) < 3_000_000, "it was cut off"

    def test_a_client_that_leaves_in_its_upload_ends_the_answer_that_had_begun(self) -> None:
        """The HTTP client reads the upload in a task of its own, and goes on with the answer."""
        arriving: list[Message] = [
            {"type": "http.request", "body": b"half", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Message:
            await asyncio.sleep(0.01)
            return arriving.pop(0) if len(arriving) > 1 else arriving[0]

        async def story() -> None:
            body = RequestBody(receive)

            async def upload() -> None:
                async for _ in body.stream():
                    pass

            async def answer_without_end() -> None:
                uploading = asyncio.create_task(upload())
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.gather(uploading, return_exceptions=True)

            async with asyncio.timeout(5):
                with pytest.raises(CallerGone):
                    await body.cancel_on_disconnect(answer_without_end())

        asyncio.run(story())


class TestHeads:
    def test_a_head_has_at_most_128_fields(self) -> None:
        with http_server() as server:
            for count, status in ((127, b"200"), (128, b"431")):
                lines = [b"X: 1"] * count
                answer = server.say(get("/", *lines[1:], b"Connection: close"))
                assert answer.startswith(b"HTTP/1.1 " + status)

    def test_a_chunked_body_that_looks_like_the_ends_of_heads_is_parsed_in_few_steps(self) -> None:
        chunk = b"10000\r\n" + b"\r\n\r\n" * 16384 + b"\r\n"
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with http_server() as server:
            began = time.process_time()
            answers = server.say(head + chunk * 64 + b"0\r\n\r\n" + get("/", b"Connection: close"))
            assert time.process_time() - began < 1, "4 MiB; head by head a MiB takes 0.4 s"
        assert answers.count(b"HTTP/1.1 200 ") == 2


class TestHalfHeads:
    CONNECTIONS = 30

    @pytest.mark.parametrize(
        "half", [b"", b"GET /li", get() + b"GET /"], ids=["nothing", "half a head", "after another"]
    )
    def test_a_new_client_is_served_while_half_heads_hold_every_connection(
        self, half: bytes
    ) -> None:
        with http_server(connections=self.CONNECTIONS) as server, ExitStack() as stack:
            for _ in range(3 * self.CONNECTIONS):
                stack.enter_context(server.connect()).sendall(half)
            for _ in range(10):
                with server.connect() as client:
                    client.sendall(get("/", b"Connection: close"))
                    assert heard(client, 5).startswith(b"HTTP/1.1 200 ")

    def test_the_one_that_has_waited_longest_goes_first(self) -> None:
        with http_server(connections=4) as server, ExitStack() as stack:

            def connect(sending: bytes) -> socket.socket:
                made = stack.enter_context(server.connect())
                made.sendall(sending)
                time.sleep(0.05)
                return made

            busy, idle, half = connect(get("/wait")), connect(get()), connect(b"GET")
            assert heard(idle, 0.2)
            connect(b"")
            assert is_closed(idle, 0.5)
            assert not is_closed(half, 0.1)
            connect(b"")
            assert is_closed(half, 0.5)
            server.release()
            assert heard(busy, 0.5).startswith(b"HTTP/1.1 200 ")

    def test_a_connection_whose_request_is_answered_is_never_closed_for_another(self) -> None:
        with http_server(connections=3) as server, ExitStack() as stack:
            busy = [stack.enter_context(server.connect()) for _ in range(2)]
            for each in busy:
                each.sendall(get("/wait"))
            assert until(lambda: len(server.app.began) == 2, 5)
            assert server.say(get("/", b"Connection: close")).startswith(b"HTTP/1.1 503 ")
            server.release()
            assert all(heard(each, 0.5).startswith(b"HTTP/1.1 200 ") for each in busy)
