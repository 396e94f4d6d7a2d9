"""
Several processes that share one port, and a parent that keeps their number.

A worker that ends is started again. When the parent is asked to stop, every worker finishes
what it began; when the parent dies without a word, they stop by themselves and free the port.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, MutableMapping, MutableSequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

import structlog

from federation.server.shutdown import let_nobody_begin

__all__ = ["Share", "supervise"]

_CONTEXT = multiprocessing.get_context("spawn")

_RESTART_SECONDS = 1.0
_STOP_SECONDS = 30.0

_NOBODY = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's share of the port."""

    listener: socket.socket
    connections: MutableSequence[int]
    """How many each worker has, seen by all of them."""
    place: int
    """Which of these is its own."""


Work = Callable[[Share], None]


def supervise(
    work: Work,
    count: int,
    listener: socket.socket,
    *,
    pids: MutableMapping[str, int],
    ended: Callable[[int], None],
) -> None:
    """
    *count* processes run *work*, which must be picklable, until SIGTERM or SIGINT.

    *pids* always has those that live, by their places. *ended* is told the pid of each that
    ended, before another takes its place.
    """
    log = structlog.get_logger("federation.server.workers")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(listener, stop))
    connections = _counts(count)
    shares = [Share(listener, connections, place) for place in range(count)]
    workers = [_start(work, share) for share in shares]
    pids.update({str(place): worker.pid or 0 for place, worker in enumerate(workers)})
    while not stop.is_set():
        wait([worker.sentinel for worker in workers], timeout=0.5)
        for place, worker in enumerate(workers):
            if not worker.is_alive() and not stop.is_set():
                log.error("a worker ended; starting another", pid=worker.pid, exit=worker.exitcode)
                connections[place] = _NOBODY
                ended(pids.pop(str(place)))
                time.sleep(_RESTART_SECONDS)
                workers[place] = _start(work, shares[place])
                pids[str(place)] = workers[place].pid or 0
    listener.close()  # else connections would still be taken here, and answered by nobody
    _stop(workers)


def _end(listener: socket.socket, stop: threading.Event) -> None:
    let_nobody_begin(listener)
    stop.set()


def _counts(count: int) -> MutableSequence[int]:
    """A number for each worker; one that is not there has many, so that nobody waits for it."""
    counts: MutableSequence[int] = [_NOBODY] * count
    with suppress(OSError):  # without memory to share, each worker sees its own number alone
        counts = _CONTEXT.RawArray("i", counts)
    return counts


def _start(work: Work, share: Share) -> SpawnProcess:
    process = _CONTEXT.Process(target=_run, args=(work, share))
    process.start()
    return process


def _run(work: Work, share: Share) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(share)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _stop(workers: list[SpawnProcess]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.is_alive():
            worker.kill()
