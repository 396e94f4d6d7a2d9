"""
Load from one asyncio client over keep-alive connections.

At full load each connection sends its next request once the last is answered. At a given rate
requests are due at even distances; one that had to wait for a connection counts from when it
was due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
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
