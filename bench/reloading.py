"""
Measure exchanges while the broker reads its 10,000 documents anew, again and again.

In one measurement every document has changed each time, in the other a single one.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from statistics import median

import uvloop

from bench import jobs
from bench.progress import say
from bench.servers import Place, await_idle, broker, on_core, resident_mib
from bench.table import Found
from tests.harness.broker import Served
from tests.harness.load import Measure, measure
from tests.harness.process import until

DOCUMENTS = 10_000
RATE = 700
SECONDS = 6
ADOPTED = b'"documents adopted"'
LONGEST_SECONDS = 60
AGAIN = 8
"""The number of reloads after which the memory is measured."""


def measured(place: Place) -> Found:
    """Measure the slowest percent of exchanges during reloads, and the memory after them."""
    text = jobs.documents(DOCUMENTS - 2)  # and an issuer and a Policy
    every, one = (re.sub(name, changed, text) for name, changed in _CHANGES)
    with broker(place.folder / "reloading", text, place.server_core) as server:
        await_idle(server)
        before = resident_mib(server)
        with on_core(place.client_core):
            quiet, _ = _during(server, [])
            all_changed, seconds = _during(server, [every, text])
            say(f"{len(seconds)} reloads of all documents: p99 {all_changed.p99_ms:.1f} ms")
            _reload(server, text)
            one_changed, seconds_of_one = _during(server, [one, text])
            say(f"{len(seconds_of_one)} reloads of one: p99 {one_changed.p99_ms:.1f} ms")
        for version in [every, text] * (AGAIN // 2):
            _reload(server, version)
        await_idle(server)
        after = resident_mib(server)
    return Found(
        figures={"reload_p99": all_changed.p99_ms, "reload_memory": after},
        details={
            "memory before, MiB": before,
            "p50 without a reload, ms": quiet.p50_ms,
            "p99 without a reload, ms": quiet.p99_ms,
            "p50 while all are read, ms": all_changed.p50_ms,
            "p99 while one has changed, ms": one_changed.p99_ms,
            "a reload of all under load, s": median(seconds),
            "a reload of one under load, s": median(seconds_of_one),
        },
        notes={"reload_p99": f"{quiet.p99_ms:.1f} ms without a reload"},
    )


_CHANGES = (
    (r'"metadata": \{"name": "(n\d+)"', r'"metadata": {"annotations": {"v": "2"}, "name": "\1"'),
    (r'"metadata": \{"name": "(n5000)"', r'"metadata": {"annotations": {"v": "2"}, "name": "\1"'),
)
"""What changes every document, and what changes one. Neither changes the number of lines."""


def _during(server: Served, versions: Sequence[str]) -> tuple[Measure, list[float]]:
    """Measure exchanges while *versions* are adopted in turns, and how long each took."""
    requests = list(jobs.requests(RATE * SECONDS))
    with _reloading(server, versions) as seconds:
        return uvloop.run(measure(server.port, requests, RATE)), seconds


@contextmanager
def _reloading(server: Served, versions: Sequence[str]) -> Iterator[list[float]]:
    """Let *server* read *versions* in turns inside the `with` block, without a rest."""
    seconds: list[float] = []
    over = threading.Event()

    def again() -> None:
        for version in cycle(versions):
            if over.is_set():
                return
            seconds.append(_reload(server, version))

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield seconds
    finally:
        over.set()
        thread.join()


def _reload(server: Served, text: str) -> float:
    """Let *server* read *text*, and return the seconds until it is adopted."""
    (server.documents / "all.yaml").write_text(text, "utf-8")
    began, start = time.monotonic(), server.log.stat().st_size
    server.send(signal.SIGHUP)

    def adopted() -> bool:
        with server.log.open("rb") as log:
            log.seek(start)
            return ADOPTED in log.read()

    if not until(adopted, LONGEST_SECONDS):
        raise SystemExit("The documents were not adopted.")
    return time.monotonic() - began
