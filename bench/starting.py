"""Measure the time from the start of a broker with 1,000 documents until it is ready."""

from __future__ import annotations

from statistics import median

from bench import jobs
from bench.progress import say
from bench.servers import Place, await_ready, broker
from bench.table import Found

DOCUMENTS = 1_000
ROUNDS = 5


def measured(place: Place) -> Found:
    """Measure the median of a few starts, each in a new folder and on any core."""
    documents = jobs.documents(DOCUMENTS - 2, block=True)  # and an issuer and a Policy
    seconds = []
    for number in range(ROUNDS):
        with broker(place.folder / f"start-{number}", documents, None) as server:
            seconds.append(await_ready(server))
            say(f"start {number + 1} of {ROUNDS}: {seconds[-1]:.2f} s")
    return Found(
        figures={"start": median(seconds)},
        details={"the quickest start, s": min(seconds), "the slowest start, s": max(seconds)},
    )
