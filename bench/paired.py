"""
Compare the processor time of two servers that do the same work in one run.

Both servers run at the same time on one core, and take turns round by round. The order changes
each round, so that a slow moment of the machine, or a warm cache, favours neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

from bench.servers import cpu_seconds
from tests.harness.load import CONNECTIONS, measure
from tests.harness.process import Server

Requests = Callable[[int], Sequence[bytes]]
"""Makes so many requests, which no server has seen before."""


class Side(NamedTuple):
    """One of two servers, and the requests for it."""

    server: Server
    requests: Requests


class Pair(NamedTuple):
    """Microseconds of processor per request of both sides, and how they compare."""

    first_us: float
    second_us: float
    ratio: float
    """The second's time divided by the first's: the median of the rounds."""


async def compared(
    first: Side, second: Side, *, rounds: int, count: int, connections: int = CONNECTIONS
) -> Pair:
    """Send *count* requests to each side in each round, and return the medians."""
    sides = (first, second)
    for side in sides:
        await measure(side.server.port, side.requests(count), connections=connections)
    costs = []
    for number in range(rounds):
        took = [0.0, 0.0]
        for place in (0, 1) if number % 2 else (1, 0):
            took[place] = await _cost_us(sides[place], count, connections)
        costs.append(took)
    one, two = map(median, zip(*costs, strict=True))
    return Pair(one, two, median(after / before for before, after in costs))


async def _cost_us(side: Side, count: int, connections: int) -> float:
    requests = side.requests(count)
    before = cpu_seconds(side.server)
    await measure(side.server.port, requests, connections=connections)
    return 1e6 * (cpu_seconds(side.server) - before) / count
