"""
Load from one client over keep-alive connections.

At full load each connection sends its next request once the last is answered. At a given rate
requests are due at even distances; one that had to wait for a connection counts from when it
was due. `run` is an asyncio client. `push` has sockets alone and takes a third of its processor,
for where client and servers share the cores.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

CONNECTIONS = 16
ANSWER_SECONDS = 30


class Measure(NamedTuple):
    """How a server answered: requests a second, and how long one took."""

    rate: float
    p50_ms: float
    p99_ms: float


async def run(port: int, requests: Sequence[bytes], rate: float | None = None) -> Measure:
    """What came of *requests*, as fast as they go or at *rate* a second; each must be a 200."""
    numbered = iter(enumerate(requests))
    seconds: list[float] = []
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    start = time.perf_counter()
    pace = (start, rate) if rate else None
    async with asyncio.timeout(ANSWER_SECONDS), asyncio.TaskGroup() as group:
        for reader, writer in connections:
            group.create_task(_send(reader, writer, numbered, seconds, pace))
    elapsed = time.perf_counter() - start
    for _, writer in connections:
        writer.close()
    seconds.sort()
    p50, p99 = (1000 * seconds[len(seconds) * part // 100] for part in (50, 99))
    return Measure(len(seconds) / elapsed, p50, p99)


async def _send(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    numbered: Iterator[tuple[int, bytes]],
    seconds: list[float],
    pace: tuple[float, float] | None,
) -> None:
    for number, request in numbered:
        began = time.perf_counter()
        if pace and (due := pace[0] + number / pace[1]) > began:
            await asyncio.sleep(due - began)
            began = time.perf_counter()  # a timer's lateness is the client's own
        elif pace:
            began = due
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(body.decode())


def push(port: int, requests: Sequence[bytes], connections: int = CONNECTIONS) -> float:
    """Requests a second, as fast as *requests* go over *connections*; each must be a 200."""
    left = iter(requests)
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            made = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS)
            stack.enter_context(closing(made))
            selector.register(made, selectors.EVENT_READ, _Pushed(made))
        start, waiting = time.perf_counter(), 0
        for key in selector.get_map().values():
            waiting += key.data.send(left)
        while waiting:
            ready = selector.select(ANSWER_SECONDS)
            if not ready:
                raise RuntimeError("no answer for long")
            waiting -= sum(key.data.answered() and not key.data.send(left) for key, _ in ready)
        return len(requests) / (time.perf_counter() - start)


class _Pushed:
    """One connection of `push`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answer = b""

    def send(self, left: Iterator[bytes]) -> bool:
        """The next of *left* is sent, if there is one."""
        request = next(left, None)
        if request is not None:
            self._connection.sendall(request)
        return request is not None

    def answered(self) -> bool:
        """Whether the answer is whole, with what came now."""
        self._answer += self._connection.recv(65536)
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(body.decode())
        self._answer = b""
        return True
