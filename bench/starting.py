"""How long a broker with 1,000 documents takes from its start until it is ready."""

from __future__ import annotations

from statistics import median

from bench import jobs
from bench.progress import say
from bench.servers import Place, broker
from bench.table import Found

DOCUMENTS = 1_000
ROUNDS = 5


def measured(place: Place) -> Found:
    """The median of a few starts, each with a folder of its own; nothing is kept to a core."""
    documents = jobs.documents(DOCUMENTS - 2, block=True)  # beside an issuer and a Policy
    seconds = []
    for number in range(ROUNDS):
        with broker(place.folder / f"start-{number}", documents, None) as server:
            seconds.append(server.await_ready())
            say(f"start {number + 1} of {ROUNDS}: {seconds[-1]:.2f} s")
    return Found(
        figures={"start": median(seconds)},
        details={"the quickest start, s": min(seconds), "the slowest start, s": max(seconds)},
    )
