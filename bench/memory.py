"""Measure the memory of one worker with 10,000 Roles, before and after many exchanges."""

from __future__ import annotations

import uvloop

from bench import jobs
from bench.progress import say
from bench.servers import Place, await_ready, broker, on_core, resident_mib
from bench.table import Found
from tests.harness.load import measure
from tests.harness.process import Server

ROLES = 10_000
STEPS = 10
EXCHANGES, MANY_EXCHANGES = 10_000, 100_000
AT_ONCE = 1000
"""The tokens that are signed and sent before the next ones are signed, so that none expires."""


def measured(place: Place) -> Found:
    """Measure the memory before the exchanges, halfway and at the end."""
    count = MANY_EXCHANGES if place.long else EXCHANGES
    with broker(place.folder / "memory", jobs.documents(ROLES), place.server_core) as server:
        await_ready(server)
        with on_core(place.client_core):
            held = uvloop.run(_held(server, count))
    note = "" if place.long else f"after {EXCHANGES:,}; --long for {MANY_EXCHANGES:,}"
    return Found(
        figures={"memory": held[-1], "memory_flat": held[-1] - held[STEPS // 2]},
        details={
            f"after {count * step // STEPS:,} exchanges, MiB": held[step]
            for step in range(STEPS + 1)
        },
        notes={"memory": note, "memory_flat": note},
    )


async def _held(server: Server, count: int) -> list[float]:
    held = [resident_mib(server)]
    for step in range(STEPS):
        for _ in range(count // STEPS // AT_ONCE):
            await measure(server.port, list(jobs.requests(AT_ONCE)))
        held.append(resident_mib(server))
        say(f"{count * (step + 1) // STEPS:,} of {count:,} exchanges: {held[-1]:,.1f} MiB")
    return held
