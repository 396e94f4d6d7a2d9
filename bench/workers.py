"""
Two workers beside one, on two cores that they share with the client.

Nothing is kept to a core here: the client takes its part of the two, as any caller on the machine
would, and is one that takes little. There are 32 connections in both cases, so that each of two
workers has the sixteen that one has elsewhere. How they fall to the two is the system's choice,
and is told too: where one of them has all, two are no faster than one.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from statistics import median
from typing import NamedTuple

from bench import jobs
from bench.load import CONNECTIONS, push
from bench.progress import say
from bench.servers import Place, Server, broker
from bench.table import Found

ROUNDS, REQUESTS, WARM_UP = 5, 2000, 300


def measured(place: Place) -> Found:
    """The rate of two workers in rates of one, each the median of its rounds."""
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
            server.await_idle()
        rounds = _rounds(servers[1], servers[2])
    one, two, share, busy = map(median, zip(*rounds, strict=True))
    return Found(
        figures={"workers": two / one},
        details={
            "one worker, exchanges/s": one,
            "two workers, exchanges/s": two,
            "the busier worker's part of the work": share,
            "cores that the two kept busy": busy,
        },
    )


class Round(NamedTuple):
    """Rates of one worker and of two, and what of the work and of the cores the two had."""

    one: float
    two: float
    share: float
    """How much of the work the busier of the two did."""
    busy: float
    """How many cores the two kept busy."""


def _rounds(one: Server, two: Server) -> list[Round]:
    warm_up = list(jobs.requests(WARM_UP))
    for server in (one, two):
        push(server.port, warm_up)
    rounds = []
    for number in range(ROUNDS):
        fresh = list(jobs.requests(REQUESTS))
        alone = push(one.port, fresh, 2 * CONNECTIONS)
        before = two.cpu_seconds_each()
        both = push(two.port, fresh, 2 * CONNECTIONS)
        took = [end - start for start, end in zip(before, two.cpu_seconds_each(), strict=True)]
        share = max(took) / sum(took) if took else math.nan
        busy = sum(took) * both / REQUESTS if took else math.nan
        rounds.append(Round(alone, both, share, busy))
        say(
            f"round {number + 1} of {ROUNDS}: one worker {alone:,.0f} a second,"
            f" two {both:,.0f}, the busier did {share:.0%},"
            f" {busy:.2f} cores busy"
        )
    return rounds
