"""
The gateway road: what a request costs through the broker, beside the same one sent straight.

Both are a small list of functions, as `faas-cli list` asks for it, in turns within one run. The
figure is of a broker that has a core of its own; the client and the upstream share the other,
also where requests go straight. Beside it stands what comes of it where the upstream shares the
broker's core. Delays are compared at one rate that both can bear.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

from bench import jobs
from bench.load import Measure, run
from bench.progress import say
from bench.servers import Place, Server, broker, on_core, running
from bench.table import Found
from bench.upstream import PASSWORD, USER

ROUNDS, REQUESTS, WARM_UP = 7, 1500, 300
RESTING = 0.4
"""Of the broker's peak, the rate at which delays are compared."""


class Pair(NamedTuple):
    """An upstream, and the broker before it."""

    upstream: Server
    broker: Server


class Rates(NamedTuple):
    """Requests a second, and what the broker's part takes of its processor."""

    straight: float
    through: float
    cpu_us: float


def measured(place: Place) -> Found:
    """Rates and delays, straight and through the broker, each the median of its rounds."""
    with (
        pair(place.folder / "apart", place.server_core, place.client_core) as apart,
        pair(place.folder / "together", place.server_core, place.server_core) as together,
        on_core(place.client_core),
    ):
        return uvloop.run(_measured(apart, together))


@contextmanager
def pair(folder: Path, core: int | None, upstream_core: int | None) -> Iterator[Pair]:
    """A broker on *core* before a sample upstream on *upstream_core*."""
    secrets = folder / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "basic-auth-user").write_text(USER, "ascii")
    (secrets / "basic-auth-password").write_text(PASSWORD, "ascii")
    with ExitStack() as stack:
        upstream = running(["bench.upstream"], folder / "upstream.log", upstream_core)
        behind = stack.enter_context(upstream)
        flags = "--upstream", f"http://127.0.0.1:{behind.port}", "--upstream-secrets", str(secrets)
        before = broker(folder / "broker", jobs.documents(10), core, *flags)
        yield Pair(behind, stack.enter_context(before))


async def _measured(apart: Pair, together: Pair) -> Found:
    own = await _rates(apart, asked := await _asked(apart))
    say(f"the upstream on another core: {own.straight:,.0f} straight, {own.through:,.0f} through")
    shared = await _rates(together, await _asked(together))
    say(f"on the broker's core: {shared.straight:,.0f} straight, {shared.through:,.0f} through")
    rate = RESTING * own.through
    near, far = await _rested(apart, asked, rate)
    return Found(
        figures={
            "gateway": own.through / own.straight,
            "gateway_added": far.p50_ms - near.p50_ms,
        },
        details={
            "upstream on another core: straight, /s": own.straight,
            "upstream on another core: through, /s": own.through,
            "the broker's part, µs of processor": own.cpu_us,
            "upstream on the broker's core: straight, /s": shared.straight,
            "upstream on the broker's core: through, /s": shared.through,
            "the same, through / straight": shared.through / shared.straight,
            "rate for the delays, /s": rate,
            "straight p50, ms": near.p50_ms,
            "straight p99, ms": near.p99_ms,
            "added p50, ms": far.p50_ms - near.p50_ms,
            "added p99, ms": far.p99_ms - near.p99_ms,
        },
    )


async def _asked(servers: Pair) -> Asked:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    token = await _access_token(servers.broker.port)
    asked = _list(f"Basic {login}"), _list(f"Bearer {token}")
    for server, request in zip(servers, asked, strict=True):
        await run(server.port, [request] * WARM_UP)
    return asked


async def _rates(servers: Pair, asked: Asked) -> Rates:
    rounds = []
    for _ in range(ROUNDS):
        straight = await run(servers.upstream.port, [asked[0]] * REQUESTS)
        before = servers.broker.cpu_seconds()
        through = await run(servers.broker.port, [asked[1]] * REQUESTS)
        spent = servers.broker.cpu_seconds() - before
        rounds.append(Rates(straight.rate, through.rate, 1e6 * spent / REQUESTS))
    return Rates(*map(median, zip(*rounds, strict=True)))


async def _rested(servers: Pair, asked: Asked, rate: float) -> tuple[Measure, Measure]:
    rounds: tuple[list[Measure], list[Measure]] = ([], [])
    for _ in range(ROUNDS):
        for server, request, measures in zip(servers, asked, rounds, strict=True):
            measures.append(await run(server.port, [request] * (REQUESTS // 3), rate))
    near, far = map(_median, rounds)
    return near, far


Asked = tuple[bytes, bytes]
"""The request that is sent straight, and the one to the broker."""


def _median(measures: Sequence[Measure]) -> Measure:
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
