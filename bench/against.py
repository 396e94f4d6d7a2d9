"""
`python -m bench --against TREE`: compare this checkout with another one, in one run.

A broker of each checkout runs, with everything on and a gateway behind it. Both run on this
Python; the client and the gateways are this checkout's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench import jobs
from bench.gateway import pair, through
from bench.paired import Pair, Side, compared
from bench.servers import Place, await_idle, on_core
from tests.harness.load import CONNECTIONS
from tests.harness.process import Server

ROLES = 1_000
REQUESTS, ONE_AT_A_TIME = 500, 150
"""The requests of a round over all connections, and over a single one."""


class Case(NamedTuple):
    """One kind of request, and how it is sent."""

    title: str
    requests: int
    connections: int
    through_gateway: bool = False


CASES = (
    Case(f"an exchange, {CONNECTIONS} connections", REQUESTS, CONNECTIONS),
    Case("an exchange, one at a time", ONE_AT_A_TIME, 1),
    Case("a gateway request", REQUESTS, CONNECTIONS, through_gateway=True),
)


def measured(place: Place, tree: Path, rounds: int) -> None:
    """Print the processor time of each kind of request: that of *tree*, then ours."""
    core, other = place.server_core, place.client_core
    with (
        pair(place.folder / "theirs", core, other, roles=ROLES, root=tree) as theirs,
        pair(place.folder / "ours", core, other, roles=ROLES) as ours,
    ):
        brokers = theirs.broker, ours.broker
        for broker in brokers:
            await_idle(broker)
        print(f"{'':<30}{tree.name[:12]:>12}{'here':>12}   here / there", flush=True)
        with on_core(place.client_core):
            uvloop.run(_measured(brokers, rounds))


async def _measured(brokers: Sequence[Server], rounds: int) -> None:
    for case in CASES:
        theirs, ours = [await _side(broker, case.through_gateway) for broker in brokers]
        pair = await compared(
            theirs, ours, rounds=rounds, count=case.requests, connections=case.connections
        )
        print(line(case.title, pair), flush=True)


async def _side(broker: Server, through_gateway: bool) -> Side:
    if through_gateway:
        request = await through(broker)
        return Side(broker, lambda count: [request] * count)
    return Side(broker, lambda count: list(jobs.requests(count)))


def line(title: str, pair: Pair) -> str:
    """A line of the table."""
    return f"{title:<30}{pair.first_us:>9,.0f} µs{pair.second_us:>9,.0f} µs{pair.ratio:>15.3f}"
