"""
Load: exchanges of fresh tokens, each on a connection of its own, and what became of each.

An answer counts only if all of it came. Where none came it is told how far the request got,
because that decides what is owed to the caller.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlencode

__all__ = ["Load", "Sent", "exchange", "granted", "quantiles_ms", "request_for", "told"]

_ANSWER_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One exchange that was asked for."""

    token: str = field(repr=False)
    began: float
    """On the monotonic clock."""
    seconds: float = 0.0
    status: int | None = None
    """None where no whole answer came."""
    reason: str = ""
    retry_after_seconds: int = 0
    request_id: str = ""
    access_token: str = field(default="", repr=False)
    broken: str = ""
    """Why no whole answer came: `refused` (no connection), `reset` (not a byte), or `cut`."""


def request_for(token: str) -> bytes:
    """The exchange of *token* as an HTTP request."""
    form = urlencode(
        {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        }
    )
    return (
        "POST /oauth/token HTTP/1.1\r\nHost: broker.test\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}\r\n\r\n"
        f"{form}"
    ).encode("ascii")


async def exchange(port: int, token: str, *, pause_at: int = 0, pause_seconds: float = 0) -> Sent:
    """What became of *token*; the caller may stop for a while after byte *pause_at*."""
    began = time.monotonic()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return Sent(token, began, broken="refused")
    request, answer = request_for(token), b""
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
    return _understood(token, began, time.monotonic() - began, answer)


def _understood(token: str, began: float, seconds: float, answer: bytes) -> Sent:
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
    A few clients that go on exchanging fresh tokens until the load ends.

    With *twice*, each token is sent by two at the same moment, and again until it is answered.
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
        """The load is on within; after it every request has come to its end."""
        self._over = False
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._go_on(number))
            try:
                yield self
            finally:
                self._over = True

    async def for_seconds(self, seconds: float) -> list[Sent]:
        """What was sent in so many seconds of load."""
        before = len(self.sent)
        async with self.running():
            await asyncio.sleep(seconds)
        return self.sent[before:]

    async def _go_on(self, number: int) -> None:
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
    """Those that were granted."""
    return [each for each in sent if each.status == 200]


def quantiles_ms(sent: Sequence[Sent]) -> str:
    """Median and 99th percentile of those that were answered."""
    took = sorted(each.seconds * 1000 for each in sent if each.status is not None)
    if not took:
        return "nothing answered"
    return f"p50 {took[len(took) // 2]:.0f} ms, p99 {took[len(took) * 99 // 100]:.0f} ms"


def told(sent: Sequence[Sent]) -> str:
    """How often each answer came, in one line."""
    seen = Counter(
        each.broken or each.reason or ("granted" if each.status == 200 else str(each.status))
        for each in sent
    )
    return ", ".join(f"{number:,} {what}" for what, number in seen.most_common())
