"""
Measure the exchange against the limit of one core, with few Roles and with many.

The limit is the processor time of a do-nothing POST through the same server, of one RSA-2048
verification and of one P-256 signature. All are measured in turns, round after round, so that a
slow moment of the machine affects all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from statistics import median
from typing import NamedTuple

import uvloop

from bench import jobs
from bench.limit import Seconds, cost, signature, verification
from bench.progress import say
from bench.servers import Place, broker, cpu_seconds, on_core, running
from bench.table import Found
from tests.harness.load import CONNECTIONS, measure
from tests.harness.process import Server

SIZES, MAIN = (10, 100, 1_000, 10_000), 1_000
NOTHING = 0
ROUNDS, REQUESTS, WARM_UP = 5, 1000, 300
ONE_AT_A_TIME = 200
"""The requests of a round over a single connection."""
NOTHING_TIMES = 8
"""The do-nothing server is too fast to be timed with so few requests: it gets them 8 times."""


class Sample(NamedTuple):
    """The figures of one server in one round."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


def measured(place: Place) -> Found:
    """Measure exchanges at full speed with each number of Roles, and at half of it with 1,000."""
    with ExitStack() as stack:
        servers: dict[int, Server] = {
            NOTHING: stack.enter_context(
                running(Server(["bench.noop"], place.folder / "noop"), place.server_core)
            )
        }
        for roles in SIZES:
            started = broker(
                place.folder / f"roles-{roles}", jobs.documents(roles), place.server_core
            )
            servers[roles] = stack.enter_context(started)
            say(f"a broker with {roles:,} Roles is up")
        count = WARM_UP + ROUNDS * (2 * REQUESTS + ONE_AT_A_TIME)
        say(f"signing {count:,} subject tokens")
        requests = list(jobs.requests(count))
        with on_core(place.client_core):
            return uvloop.run(_measured(servers, requests, place.server_core))


async def _measured(
    servers: Mapping[int, Server], requests: Sequence[bytes], server_core: int | None
) -> Found:
    for server in servers.values():
        await measure(server.port, requests[:WARM_UP])
    left = iter(requests[WARM_UP:])
    fresh = [list(islice(left, REQUESTS)) for _ in range(2 * ROUNDS)]
    crypto: list[tuple[Seconds, Seconds]] = []
    rounds: dict[int, list[Sample]] = {roles: [] for roles in servers}
    for number in range(ROUNDS):
        with on_core(server_core):
            crypto.append((cost(verification()), cost(signature())))
        for roles, server in servers.items():
            sent = [*fresh[number]] * (NOTHING_TIMES if roles == NOTHING else 1)
            rounds[roles].append(await _sample(server, sent))
        told = ", ".join(f"{rounds[roles][-1].rate:,.0f}" for roles in servers)
        say(f"round {number + 1} of {ROUNDS}: nothing, then by Roles: {told} a second")
    peak = {roles: _median(samples) for roles, samples in rounds.items()}
    one = _median(
        [
            await _sample(servers[MAIN], list(islice(left, ONE_AT_A_TIME)), connections=1)
            for _ in range(ROUNDS)
        ]
    )
    say(f"half of peak, {MAIN:,} Roles")
    half = [
        await _sample(servers[MAIN], fresh[ROUNDS + number], peak[MAIN].rate / 2)
        for number in range(ROUNDS)
    ]
    verify, sign = (Seconds(*map(median, zip(*c, strict=True))) for c in zip(*crypto, strict=True))
    return _found(peak, _median(half), one, verify, sign)


async def _sample(
    server: Server,
    requests: Sequence[bytes],
    rate: float | None = None,
    *,
    connections: int = CONNECTIONS,
) -> Sample:
    before = cpu_seconds(server)
    measured = await measure(server.port, requests, rate, connections=connections)
    return Sample(*measured, 1e6 * (cpu_seconds(server) - before) / len(requests))


def _median(samples: Sequence[Sample]) -> Sample:
    return Sample(*map(median, zip(*samples, strict=True)))


def _found(
    peak: Mapping[int, Sample], half: Sample, one: Sample, verify: Seconds, sign: Seconds
) -> Found:
    limit_us = peak[NOTHING].cpu_us + 1e6 * (verify.cpu + sign.cpu)
    limit_rate = 1 / (1 / peak[NOTHING].rate + verify.wall + sign.wall)
    costs = {roles: peak[roles].cpu_us for roles in SIZES}
    main = peak[MAIN]
    return Found(
        figures={
            "ratio": limit_us / main.cpu_us,
            "one": one.cpu_us,
            "p99": half.p99_ms,
            "roles": costs[SIZES[-1]] / costs[SIZES[0]],
        },
        details={
            "do-nothing POST, µs of processor": peak[NOTHING].cpu_us,
            "RSA-2048 verify, µs of processor": verify.cpu * 1e6,
            "P-256 sign, µs of processor": sign.cpu * 1e6,
            "limit, µs of processor": limit_us,
            **{f"{roles:,} Roles, µs of processor": cost for roles, cost in costs.items()},
            "limit, exchanges/s": limit_rate,
            "1,000 Roles, exchanges/s": main.rate,
            "1,000 Roles, exchanges/s / limit": main.rate / limit_rate,
            "one at a time p50, ms": one.p50_ms,
            "full load p50, ms": main.p50_ms,
            "full load p99, ms": main.p99_ms,
            "half of peak p50, ms": half.p50_ms,
            "half of peak p99, ms": half.p99_ms,
        },
        costs=costs,
    )
