"""
Load on a server: clients that judge each answer, and clients that measure.

`exchange` and `Load` send exchanges of fresh tokens, each on a connection of its own, and keep
the outcomes. `under_load` sends one request again and again from threads, to see whether a
server that stops drops any. `measure` and `measure_rate` send prepared requests over keep-alive
connections, and return rates and delays.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

from tests.harness.broker import AUDIENCE, form

CONNECTIONS = 16
"""The connections over which `measure` sends."""

_FORM = "application/x-www-form-urlencoded"
_ANSWER_SECONDS = 40.0
_MEASURED_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Sent:
    """One exchange and its outcome."""

    token: str = field(repr=False)
    began: float
    """When it was sent, on the monotonic clock."""
    seconds: float = 0.0
    status: int | None = None
    """None if no whole answer came."""
    reason: str = ""
    retry_after_seconds: int = 0
    request_id: str = ""
    access_token: str = field(default="", repr=False)
    broken: str = ""
    """The fault of an answer that is not whole: `refused`, `reset` (no byte), `cut` or `timeout`."""

    @property
    def answer(self) -> str:
        """The status and the reason of the answer, or why it is not whole."""
        return f"{self.status} {self.reason}".strip() if self.status else self.broken


def exchange_request(token: str, *, close: bool = False) -> bytes:
    """The HTTP request that exchanges *token*. With *close*, it is the last on its connection."""
    body = urlencode(form(token))
    head = [
        "POST /oauth/token HTTP/1.1",
        f"Host: {urlsplit(AUDIENCE).hostname}",
        *(["Connection: close"] if close else []),
        f"Content-Type: {_FORM}",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", body]).encode("ascii")


async def exchange(port: int, token: str, *, pause_at: int = 0, pause_seconds: float = 0) -> Sent:
    """Exchange *token*. The client may pause after it has sent *pause_at* bytes."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return Sent(token, began, broken="refused")
    request, answer = exchange_request(token, close=True), b""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            if pause_seconds:
                writer.write(request[:pause_at])
                await asyncio.sleep(pause_seconds)
            writer.write(request[pause_at:])
            while piece := await reader.read(65536):
                answer += piece
    except (OSError, TimeoutError) as error:
        broken = "timeout" if isinstance(error, TimeoutError) else "cut" if answer else "reset"
        return Sent(token, began, time.monotonic() - began, broken=broken)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return _parsed(token, began, time.monotonic() - began, answer)


def _parsed(token: str, began: float, seconds: float, answer: bytes) -> Sent:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    if len(body) != int(headers.get("content-length", -1)):
        return Sent(token, began, seconds, broken="cut" if answer else "reset")
    said = json.loads(body) if "json" in headers.get("content-type", "") else {}
    return Sent(
        token,
        began,
        seconds,
        status=int(lines[0].split()[1]),
        reason=str(said.get("reason", "")),
        retry_after_seconds=int(headers.get("retry-after", 0)),
        request_id=headers.get("x-request-id", ""),
        access_token=str(said.get("access_token", "")),
    )


class Load:
    """
    Clients that exchange fresh tokens until the load ends.

    With *twice*, two clients send each token at the same moment, again and again until one gets
    an answer.
    """

    def __init__(
        self,
        ports: Sequence[int],
        fresh: Callable[[], str],
        *,
        clients: int = 4,
        pause_seconds: float = 0.02,
        twice: bool = False,
    ) -> None:
        self.sent: list[Sent] = []
        self.ports = list(ports)
        self._fresh = fresh
        self._clients = clients
        self._pause = pause_seconds
        self._twice = twice
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Send inside the `with` block. When it ends, every request has ended too."""
        self._over = False
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._client(number))
            try:
                yield self
            finally:
                self._over = True

    async def for_seconds(self, seconds: float) -> list[Sent]:
        """Send for so many seconds, and return what was sent."""
        before = len(self.sent)
        async with self.running():
            await asyncio.sleep(seconds)
        return self.sent[before:]

    async def _client(self, number: int) -> None:
        while not self._over:
            token = self._fresh()
            port = self.ports[number % len(self.ports)]
            if self._twice:
                await self._both(token)
            else:
                self.sent.append(await exchange(port, token))
            await asyncio.sleep(self._pause)

    async def _both(self, token: str) -> None:
        for _ in range(5):
            ports = (self.ports[0], self.ports[-1])
            both = await asyncio.gather(*(exchange(port, token) for port in ports))
            self.sent += both
            if any(sent.status is not None for sent in both) or self._over:
                return
            await asyncio.sleep(0.2)


def granted(sent: Sequence[Sent]) -> list[Sent]:
    """Those of *sent* that were granted."""
    return [each for each in sent if each.status == 200]


def quantiles_ms(sent: Sequence[Sent]) -> str:
    """Median and 99th percentile of the delays of those that were answered."""
    took = sorted(each.seconds * 1000 for each in sent if each.status is not None)
    if not took:
        return "nothing answered"
    return f"p50 {took[len(took) // 2]:.0f} ms, p99 {took[len(took) * 99 // 100]:.0f} ms"


def summary(sent: Sequence[Sent]) -> str:
    """The number of each kind of answer, in one line."""
    seen = Counter(
        each.broken or each.reason or ("granted" if each.status == 200 else str(each.status))
        for each in sent
    )
    return ", ".join(f"{number:,} {what}" for what, number in seen.most_common())


@dataclass
class Answers:
    """The answers of a server to `under_load`."""

    statuses: list[int] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """The errors of requests that were sent on an accepted connection and not answered."""
    not_accepted: int = 0
    """Connections that were reset before their first answer. The client connects again."""
    closed_with_warning: int = 0
    """Keep-alive connections that ended after an answer with `Connection: close`."""
    refused: threading.Event = field(default_factory=threading.Event)
    """Set once the server refuses connections."""


@contextmanager
def under_load(url: str, body: bytes, clients: int = 8) -> Iterator[Answers]:
    """
    Send *body* to *url* again and again, from threads, inside the `with` block.

    Half of the *clients* keep their connections, half take a new one for each request. A client
    ends when the server refuses a connection.
    """
    answers, stop = Answers(), threading.Event()
    threads = [
        threading.Thread(target=_send_again, args=(url, body, place % 2 == 0, answers, stop))
        for place in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _send_again(
    url: str, body: bytes, keeps: bool, answers: Answers, stop: threading.Event
) -> None:
    place = urlsplit(url)
    headers = {"Content-Type": _FORM, **({} if keeps else {"Connection": "close"})}
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    try:
        while not stop.is_set():
            is_new = connection.sock is None
            try:
                if is_new:
                    connection.connect()
                connection.request("POST", place.path, body, headers)
                answer = connection.getresponse()
            except ConnectionRefusedError:
                raise
            except ConnectionError:
                if not is_new:
                    raise
                answers.not_accepted += 1
                connection.close()
                continue
            answer.read()
            answers.statuses.append(answer.status)
            if answer.getheader("Connection") == "close":
                answers.closed_with_warning += keeps
                connection.close()
    except ConnectionRefusedError:
        answers.refused.set()
    except (OSError, http.client.HTTPException) as error:
        answers.dropped.append(repr(error))
    finally:
        connection.close()


class Measure(NamedTuple):
    """Requests per second, and the delays of the median and the slowest percent."""

    rate: float
    p50_ms: float
    p99_ms: float


async def measure(
    port: int,
    requests: Sequence[bytes],
    rate: float | None = None,
    *,
    connections: int = CONNECTIONS,
) -> Measure:
    """
    Send *requests* at full speed, or at *rate* per second. Raises if an answer is not a 200.

    At full speed, each connection sends its next request when the last is answered. At a rate,
    requests are due at equal distances, and the delay of one that had to wait for a connection
    counts from when it was due.
    """
    numbered = iter(enumerate(requests))
    seconds: list[float] = []
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(connections)]
    start = time.perf_counter()
    pace = (start, rate) if rate else None
    async with asyncio.timeout(_MEASURED_SECONDS), asyncio.TaskGroup() as group:
        for reader, writer in opened:
            group.create_task(_send(reader, writer, numbered, seconds, pace))
    elapsed = time.perf_counter() - start
    for _, writer in opened:
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
            began = time.perf_counter()  # a late timer is the client's fault, not the server's
        elif pace:
            began = due
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(body.decode())


def measure_rate(port: int, requests: Sequence[bytes], connections: int = CONNECTIONS) -> float:
    """
    The requests per second of *requests* at full speed. Raises if an answer is not a 200.

    It uses bare sockets, which takes a third of the processor time of `measure`: for when client
    and servers share their cores.
    """
    left = iter(requests)
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for _ in range(connections):
            made = socket.create_connection(("127.0.0.1", port), _MEASURED_SECONDS)
            stack.enter_context(closing(made))
            selector.register(made, selectors.EVENT_READ, _Connection(made))
        start, waiting = time.perf_counter(), 0
        for key in selector.get_map().values():
            waiting += key.data.send(left)
        while waiting:
            ready = selector.select(_MEASURED_SECONDS)
            if not ready:
                raise RuntimeError(f"no answer for {_MEASURED_SECONDS} s")
            waiting -= sum(key.data.answered() and not key.data.send(left) for key, _ in ready)
        return len(requests) / (time.perf_counter() - start)


class _Connection:
    """A connection of `measure_rate`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answer = b""

    def send(self, left: Iterator[bytes]) -> bool:
        """Send the next of *left*. False if there is none."""
        request = next(left, None)
        if request is not None:
            self._connection.sendall(request)
        return request is not None

    def answered(self) -> bool:
        """Read what has arrived. True if the answer is complete."""
        self._answer += self._connection.recv(65536)
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if not end or len(body) < length:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(body.decode())
        self._answer = b""
        return True
