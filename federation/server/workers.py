"""
A supervisor: a parent process that keeps a fixed number of workers running.

The workers accept from one listening socket. A worker that ends is replaced after a pause. On
SIGTERM or SIGINT every worker shuts down gracefully. If the parent is killed, the workers notice
it and shut down too, so that the port is free for the next start.

Why this is not uvicorn's supervisor: docs/decisions/0008-own-supervisor.md.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType

import structlog

# A forked child would inherit threads' locks and open files; a spawned one starts clean.
_CONTEXT = multiprocessing.get_context("spawn")

_POLL_SECONDS = 0.5
_BACK_OFF_SECONDS = 1.0
_STOP_SECONDS = 30.0

Work = Callable[[int, socket.socket], None]
"""The main function of a worker: it gets the worker's number and the listener. Picklable."""


class Supervisor:
    """Keeps *count* workers running. *ended* gets the number of each worker that ended."""

    def __init__(self, work: Work, count: int, ended: Callable[[int], None] | None = None) -> None:
        self._work = work
        self._count = count
        self._ended = ended
        self._workers: list[SpawnProcess] = []
        self._stopping = False

    def pids(self) -> dict[str, int]:
        """The process ids, by the worker's number, with the supervisor's own as `parent`."""
        workers = {str(number): worker.pid or 0 for number, worker in enumerate(self._workers)}
        return {"parent": os.getpid(), **workers}

    def run(self, listener: socket.socket) -> None:
        """Run the workers until SIGTERM or SIGINT, then until all of them have shut down."""
        for caught in (signal.SIGTERM, signal.SIGINT):
            signal.signal(caught, self._stop)
        self._workers = [self._start(number, listener) for number in range(self._count)]
        while not self._stopping:
            wait([worker.sentinel for worker in self._workers], timeout=_POLL_SECONDS)
            for number in range(self._count):
                self._replace_if_ended(number, listener)
        # While this copy is open, connections are queued that no worker would accept.
        listener.close()
        self._stop_workers()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self, number: int, listener: socket.socket) -> SpawnProcess:
        process = _CONTEXT.Process(target=_run_worker, args=(self._work, number, listener))
        process.start()
        return process

    def _replace_if_ended(self, number: int, listener: socket.socket) -> None:
        worker = self._workers[number]
        if worker.is_alive() or self._stopping:
            return
        structlog.get_logger("federation.server.workers").error(
            "a worker ended; starting another", pid=worker.pid, exit=worker.exitcode
        )
        if self._ended is not None:
            self._ended(number)
        # Back off: a worker that fails at once would otherwise keep a core busy with starts.
        time.sleep(_BACK_OFF_SECONDS)
        if not self._stopping:
            self._workers[number] = self._start(number, listener)

    def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()


def _run_worker(work: Work, number: int, listener: socket.socket) -> None:
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    work(number, listener)


def _stop_with_parent() -> None:
    """Shut this worker down once its parent is gone, for whatever reason it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
