"""
Measure two workers against one, on two cores that they share with the client.

No process is kept to a core here: the client takes its share of both, as any caller on the
machine would, and uses little. There are 32 connections in both cases, so that each of two
workers has 16, like the one worker of the other parts. The system chooses which worker gets which
connection. The share of the busier worker is printed too: if one worker has all connections, two
are no faster than one. The processor time of an exchange is printed too: two workers that
take longer for each exchange do less than twice as many, and a rate alone does not say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from bench import jobs
from bench.progress import say
from bench.servers import Place, await_idle, broker, cpu_seconds_each
from bench.table import Found
from tests.harness.load import CONNECTIONS, measure_rate
from tests.harness.process import Server

ROUNDS, REQUESTS, WARM_UP = 5, 2000, 300


def measured(place: Place) -> Found:
    """Measure the rate of two workers against the rate of one: the medians of the rounds."""
    with ExitStack() as stack:
        servers = {}
        for workers in (1, 2):
            started = broker(
                place.folder / f"workers-{workers}",
                jobs.documents(1_000),
                None,
                "--workers",
                str(workers),
            )
            servers[workers] = stack.enter_context(started)
        for server in servers.values():
            await_idle(server)
        rounds = _rounds(servers[1], servers[2])
    one, two, share, busy, one_us, two_us = map(median, zip(*rounds, strict=True))
    return Found(
        figures={"workers": two / one},
        details={
            "one worker, exchanges/s": one,
            "two workers, exchanges/s": two,
            "the busier worker's part of the work": share,
            "cores that the two kept busy": busy,
            "one worker, µs of processor": one_us,
            "two workers, µs of processor": two_us,
        },
    )


class Round(NamedTuple):
    """The rates of one worker and of two in one round, and how the two shared the work."""

    one: float
    two: float
    share: float
    """The part of the work that the busier of the two did."""
    busy: float
    """The number of cores that the two kept busy."""
    one_us: float
    """The microseconds of processor that an exchange took with one worker."""
    two_us: float


def _rounds(one: Server, two: Server) -> list[Round]:
    warm_up = list(jobs.requests(WARM_UP))
    for server in (one, two):
        measure_rate(server.port, warm_up)
    rounds = []
    for number in range(ROUNDS):
        fresh = list(jobs.requests(REQUESTS))
        alone, took_alone = _sent(one, fresh)
        both, took = _sent(two, fresh)
        one_us, two_us = (1e6 * sum(each) / REQUESTS or math.nan for each in (took_alone, took))
        share = max(took) / sum(took) if took else math.nan
        busy = two_us * both / 1e6
        rounds.append(Round(alone, both, share, busy, one_us, two_us))
        say(
            f"round {number + 1} of {ROUNDS}: one worker {alone:,.0f} a second,"
            f" two {both:,.0f}, the busier did {share:.0%},"
            f" {busy:.2f} cores busy, an exchange takes {two_us / one_us:.2f} times the processor"
        )
    return rounds


def _sent(server: Server, requests: Sequence[bytes]) -> tuple[float, list[float]]:
    """Send *requests*. Return the rate, and the seconds of processor of each process."""
    before = cpu_seconds_each(server)
    rate = measure_rate(server.port, requests, 2 * CONNECTIONS)
    after = cpu_seconds_each(server)
    return rate, [end - start for start, end in zip(before, after, strict=True)]
