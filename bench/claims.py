"""Measure an exchange whose event keeps the job's claims against one whose event keeps none."""

from __future__ import annotations

import uvloop

from bench import jobs
from bench.paired import Pair, Side, compared
from bench.servers import Place, await_idle, broker, on_core
from bench.table import Found
from tests.harness.process import Server

ROUNDS, REQUESTS = 9, 500


def measured(place: Place) -> Found:
    """Measure both with the same Roles, in turns."""
    documents, core = jobs.documents(1_000), place.server_core
    with (
        broker(place.folder / "none", documents, core, "--audit-claims=none") as none,
        broker(place.folder / "ci", documents, core, "--audit-claims=ci") as ci,
    ):
        for server in (none, ci):
            await_idle(server)
        with on_core(place.client_core):
            found = uvloop.run(_measured(none, ci))
    return Found(
        figures={"claims": found.ratio},
        details={
            "no claims kept, µs of processor": found.first_us,
            "a job's claims kept, µs of processor": found.second_us,
        },
    )


async def _measured(none: Server, ci: Server) -> Pair:
    sides = [Side(server, lambda count: list(jobs.requests(count))) for server in (none, ci)]
    return await compared(*sides, rounds=ROUNDS, count=REQUESTS)
