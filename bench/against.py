"""
`python -m bench --against TREE`: compare this checkout with another one, in one run.

A broker of each checkout runs, with everything on and a gateway behind it. Both run on this
Python; the client and the gateways are this checkout's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import uvloop

from bench import jobs
from bench.gateway import pair, through
from bench.paired import Pair, Side, compared
from bench.progress import say
from bench.servers import Place, await_idle, on_core
from tests.harness.load import CONNECTIONS
from tests.harness.process import ROOT, Server

ROLES = 1_000
REQUESTS, ONE_AT_A_TIME = 500, 150
"""The requests of a round over all connections, and over a single one."""


def measured(place: Place, tree: Path, rounds: int) -> Mapping[str, Pair]:
    """Compare the processor time of requests: that of *tree* first, then ours."""
    core, other = place.server_core, place.client_core
    with (
        pair(place.folder / "theirs", core, other, roles=ROLES, root=tree) as theirs,
        pair(place.folder / "ours", core, other, roles=ROLES, root=ROOT) as ours,
    ):
        servers = theirs.broker, ours.broker
        for server in servers:
            await_idle(server)
        with on_core(place.client_core):
            return uvloop.run(_measured(servers, rounds))


async def _measured(servers: tuple[Server, Server], rounds: int) -> Mapping[str, Pair]:
    found = {}
    for title, count, connections in (
        (f"an exchange, {CONNECTIONS} connections", REQUESTS, CONNECTIONS),
        ("an exchange, one at a time", ONE_AT_A_TIME, 1),
        ("a gateway request", REQUESTS, CONNECTIONS),
    ):
        sides = [await _side(server, gateway="gateway" in title) for server in servers]
        found[title] = await compared(
            *sides, rounds=rounds, count=count, connections=connections
        )
        say(line(title, found[title]))
    return found


async def _side(server: Server, *, gateway: bool) -> Side:
    if gateway:
        request = await through(server)
        return Side(server, lambda count: [request] * count)
    return Side(server, lambda count: list(jobs.requests(count)))


def line(title: str, pair: Pair) -> str:
    """One line of the table."""
    return f"{title:<34}{pair.first_us:>9,.0f} µs{pair.second_us:>9,.0f} µs{pair.ratio:>8.3f}"
