"""
The gateway road: what a request costs through the broker, beside the same one sent directly.

Both are a small list of functions, as `faas-cli list` asks for it, in turns within one run. The
upstream and the broker share a core, so that the rates tell what each of them costs; delays are
compared at one rate that both can bear.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import jobs
from bench.load import Measure, run
from bench.servers import broker, running
from bench.upstream import PASSWORD, USER

ROUNDS, REQUESTS, WARM_UP = 3, 1000, 300
RESTING = 0.4
"""Of the broker's peak, the rate at which delays are compared."""


class Ports(NamedTuple):
    """Where the upstream and the broker before it listen."""

    upstream: int
    broker: int


@contextmanager
def servers(folder: Path, core: int | None) -> Iterator[Ports]:
    """A broker before a sample upstream, both on *core*."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "basic-auth-user").write_text(USER, "ascii")
    (secrets / "basic-auth-password").write_text(PASSWORD, "ascii")
    with ExitStack() as stack:
        behind = stack.enter_context(running(["bench.upstream"], folder / "upstream", core))
        flags = f"--upstream http://127.0.0.1:{behind} --upstream-secrets {secrets}"
        before = broker(folder / "gateway", jobs.documents(10), core, *flags.split())
        yield Ports(behind, stack.enter_context(before))


async def measured(ports: Ports) -> dict[str, float]:
    """The figures by title, each the median of its rounds."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    asked = {
        ports.upstream: _list(f"Basic {login}"),
        ports.broker: _list(f"Bearer {await _access_token(ports.broker)}"),
    }
    for port, request in asked.items():
        await run(port, [request] * WARM_UP)
    peaks: dict[int, list[Measure]] = {port: [] for port in ports}
    rested: dict[int, list[Measure]] = {port: [] for port in ports}
    for _ in range(ROUNDS):
        for port, request in asked.items():
            peaks[port].append(await run(port, [request] * REQUESTS))
    rate = RESTING * _median(peaks[ports.broker]).rate
    for _ in range(ROUNDS):
        for port, request in asked.items():
            rested[port].append(await run(port, [request] * (REQUESTS // 2), rate))
    direct, through = _median(peaks[ports.upstream]), _median(peaks[ports.broker])
    near, far = _median(rested[ports.upstream]), _median(rested[ports.broker])
    return {
        "directly, /s": direct.rate,
        "through the broker, /s": through.rate,
        "the broker's own cost, µs": 1e6 * (1 / through.rate - 1 / direct.rate),
        "rate for the delays, /s": rate,
        "directly p50, ms": near.p50_ms,
        "directly p99, ms": near.p99_ms,
        "added p50, ms": far.p50_ms - near.p50_ms,
        "added p99, ms": far.p99_ms - near.p99_ms,
    }


def _median(measures: list[Measure]) -> Measure:
    return Measure(*map(median, zip(*measures, strict=True)))


def _list(authorization: str) -> bytes:
    return (
        "GET /system/functions?namespace=dev HTTP/1.1\r\nHost: gw.example.com\r\n"
        f"User-Agent: faas-cli/0.17.4\r\nAuthorization: {authorization}\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    ).encode("ascii")


async def _access_token(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(next(jobs.requests(1)))
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    granted = json.loads(await reader.readexactly(length))
    writer.close()
    return str(granted["access_token"])
