"""
Measure a gateway request through the broker against the same request sent straight.

Both ask for a short list of functions, as `faas-cli list` does, in turns within one run. For the
main figure the broker has a core of its own, and the client and the gateway share the other, for
both kinds of request. A second figure has the gateway on the broker's core. Delays are compared
at one rate that both can serve.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop

from bench import jobs
from bench.progress import say
from bench.servers import Place, broker, cpu_seconds, on_core, running
from bench.table import Found
from tests.harness.gateway import PASSWORD, USER, write_secrets
from tests.harness.load import Measure, exchange, measure
from tests.harness.process import ROOT, Server

ROUNDS, REQUESTS, WARM_UP = 7, 1500, 300
RESTING = 0.4
"""The part of the broker's peak rate at which delays are compared."""
FUNCTIONS = 10


class Pair(NamedTuple):
    """A gateway, and the broker in front of it."""

    upstream: Server
    broker: Server


class Rates(NamedTuple):
    """Requests per second, and the processor time of the broker per request."""

    straight: float
    through: float
    cpu_us: float


def measured(place: Place) -> Found:
    """Measure rates and delays, straight and through the broker: the medians of the rounds."""
    with (
        pair(place.folder / "apart", place.server_core, place.client_core) as apart,
        pair(place.folder / "together", place.server_core, place.server_core) as together,
        on_core(place.client_core),
    ):
        return uvloop.run(_measured(apart, together))


@contextmanager
def pair(
    folder: Path, core: int | None, upstream_core: int | None, *, roles: int = 10, root: Path = ROOT
) -> Iterator[Pair]:
    """Run a gateway on *upstream_core*, and a broker of *root* in front of it on *core*."""
    folder.mkdir()
    secrets = write_secrets(folder / "secrets", USER, PASSWORD)
    gateway = Server(["tests.harness.openfaas", str(FUNCTIONS)], folder / "upstream")
    with running(gateway, upstream_core) as behind:
        flags = ("--upstream", behind.url, "--upstream-secrets", str(secrets))
        with broker(folder / "broker", jobs.documents(roles), core, *flags, root=root) as front:
            yield Pair(behind, front)


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
    asked = list_request(f"Basic {login}"), await through(servers.broker)
    for server, request in zip(servers, asked, strict=True):
        await measure(server.port, [request] * WARM_UP)
    return asked


async def _rates(servers: Pair, asked: Asked) -> Rates:
    rounds = []
    for _ in range(ROUNDS):
        straight = await measure(servers.upstream.port, [asked[0]] * REQUESTS)
        before = cpu_seconds(servers.broker)
        through = await measure(servers.broker.port, [asked[1]] * REQUESTS)
        spent = cpu_seconds(servers.broker) - before
        rounds.append(Rates(straight.rate, through.rate, 1e6 * spent / REQUESTS))
    return Rates(*map(median, zip(*rounds, strict=True)))


async def _rested(servers: Pair, asked: Asked, rate: float) -> tuple[Measure, Measure]:
    rounds: tuple[list[Measure], list[Measure]] = ([], [])
    for _ in range(ROUNDS):
        for server, request, measures in zip(servers, asked, rounds, strict=True):
            measures.append(await measure(server.port, [request] * (REQUESTS // 3), rate))
    near, far = map(_median, rounds)
    return near, far


Asked = tuple[bytes, bytes]
"""The request that is sent straight, and the one to the broker."""


def _median(measures: Sequence[Measure]) -> Measure:
    return Measure(*map(median, zip(*measures, strict=True)))


async def through(broker: Server) -> bytes:
    """The request to *broker*, with a fresh access token of it."""
    granted = await exchange(broker.port, jobs.token(0))
    return list_request(f"Bearer {granted.access_token}")


def list_request(authorization: str) -> bytes:
    """`faas-cli list` as it is sent."""
    return (
        "GET /system/functions?namespace=dev HTTP/1.1\r\nHost: gw.example.com\r\n"
        f"User-Agent: faas-cli/0.17.4\r\nAuthorization: {authorization}\r\n"
        "Accept-Encoding: gzip\r\n\r\n"
    ).encode("ascii")
