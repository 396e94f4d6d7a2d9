"""
A supervisor: a parent process that keeps a fixed number of workers running.

The workers accept from one listening socket. A worker that ends is replaced after a pause, which
grows while starts fail. When no worker is left and none can be started, the supervisor ends. On
SIGTERM or SIGINT every worker shuts down gracefully. If the parent is killed, the workers notice
it and shut down too, so that the port is free for the next start.

Each worker has a line to its parent, one of a pair of sockets. A worker says on it that it serves,
and hands over each set of documents that it adopted. A worker that replaces another one gets the
newest of them. The sets are files without a name, in memory: nobody else can write to them, and
they are gone with the processes.

Why this is not uvicorn's supervisor: docs/decisions/0008-own-supervisor.md. Why the parent keeps
the documents: docs/decisions/0015-last-good-documents.md.
"""

from __future__ import annotations

import asyncio
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import BinaryIO

import structlog

from federation.sources.files import Adopted

# A forked child would inherit threads' locks and open files; a spawned one starts clean.
_CONTEXT = multiprocessing.get_context("spawn")

_POLL_SECONDS = 0.5
_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_STARTS = 4
"""If every worker has failed to start so often in a row, none is left."""
_STOP_SECONDS = 30.0

_MESSAGE_BYTES = 64
_START, _RELOAD = b"start", b"reload"
_SERVES, _ADOPTED = b"serves", b"adopted"


class NoWorkerLeft(Exception):
    """No worker serves, and none can be started."""


class ParentLine:
    """A worker's line to its parent."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        _, files, *_ = socket.recv_fds(end, _MESSAGE_BYTES, 1)
        self._last_good = _read(files[0]) if files else None

    def take_last_good(self) -> bytes | None:
        """Return the text of the documents that some worker adopted last. It is given once."""
        text, self._last_good = self._last_good, None
        return text

    def serves(self) -> None:
        """Tell the parent that this worker accepts connections."""
        self._send(_SERVES)

    def adopted(self, adopted: Adopted) -> None:
        """Hand over the set of documents that this worker adopted."""
        message = b"%b %r" % (_ADOPTED, adopted.read_at)
        try:
            with _nameless_file() as file:
                file.write(adopted.text)
                file.flush()
                self._send(message, file.fileno())
        except OSError:
            self._send(message)  # no memory for it: the parent must not keep an older set

    def on_reload(self, reload: Callable[[], None]) -> None:
        """Call *reload* whenever the parent is told to reload. It needs a running event loop."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                message = self._end.recv(_MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if message == _RELOAD:
                reload()
            elif not message:  # the parent is gone, and this worker will be too
                loop.remove_reader(self._end)

        loop.add_reader(self._end, read)

    def _send(self, message: bytes, *files: int) -> None:
        with suppress(OSError):  # the parent is gone
            socket.send_fds(self._end, [message], files)


Work = Callable[[int, socket.socket, ParentLine], None]
"""The main function of a worker: its number, the listener, and its line. Picklable."""


@dataclass(slots=True)
class _Worker:
    """A worker: the process that runs, or the time of its next start."""

    number: int
    process: SpawnProcess | None = None
    line: socket.socket | None = None
    serves: bool = False
    failed_starts: int = 0
    """The starts in a row after which it did not serve."""
    start_at: float = 0.0

    @property
    def waited_for(self) -> list[int | socket.socket]:
        """The objects that become ready when the process sends a message or ends."""
        return [self.process.sentinel, self.line] if self.process and self.line else []


class Supervisor:
    """
    Keeps *count* workers running.

    *adopted* is the set of documents that the parent itself read. *serving* is called once, when
    the first worker accepts connections.
    """

    def __init__(
        self,
        work: Work,
        count: int,
        adopted: Adopted | None = None,
        *,
        serving: Callable[[], None] = lambda: None,
    ) -> None:
        self._work = work
        self._serving = serving
        self.ended: Callable[[int], None] = lambda _number: None
        """Called with the number of each worker that ended."""
        self._workers = [_Worker(number) for number in range(count)]
        self._adopted: BinaryIO | None = None
        """The file of the newest set of documents, None if there is none."""
        self._adopted_at = -math.inf
        self._served = self._stopping = self._reloading = False
        self._log = structlog.get_logger("federation.server.workers")
        if adopted:
            self._adopted, self._adopted_at = _nameless_file(), adopted.read_at
            self._adopted.write(adopted.text)
            self._adopted.flush()

    def pids(self) -> dict[str, int]:
        """The process ids, by the worker's number, with the supervisor's own as `parent`."""
        running = {str(each.number): each.process for each in self._workers if each.process}
        return {"parent": os.getpid(), **{name: p.pid or 0 for name, p in running.items()}}

    def serving(self) -> tuple[int, int]:
        """The number of workers that accept connections, and the number that should."""
        return sum(worker.serves for worker in self._workers), len(self._workers)

    def run(self, listener: socket.socket) -> None:
        """
        Run the workers until SIGTERM or SIGINT, then until all of them have shut down.

        Raises: NoWorkerLeft.
        """
        for caught in (signal.SIGTERM, signal.SIGINT):
            signal.signal(caught, self._stop)
        signal.signal(signal.SIGHUP, self._ask_to_reload)
        try:
            while not self._stopping:
                self._start_those_due(listener)
                wait(
                    [each for worker in self._workers for each in worker.waited_for], _POLL_SECONDS
                )
                for worker in self._workers:
                    self._attend(worker)
                self._pass_reload_on()
                if all(worker.failed_starts >= _STARTS for worker in self._workers):
                    raise NoWorkerLeft
        finally:
            # While this copy is open, connections are queued that no worker would accept.
            listener.close()
            self._stop_workers()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _ask_to_reload(self, _signal: int, _frame: FrameType | None) -> None:
        self._reloading = True

    def _start_those_due(self, listener: socket.socket) -> None:
        for worker in self._workers:
            if worker.process is None and time.monotonic() >= worker.start_at:
                try:
                    self._start(worker, listener)
                except OSError as error:  # no memory, or too many processes
                    self._log.error("a worker cannot be started", error=str(error))
                    self._has_ended(worker)

    def _start(self, worker: _Worker, listener: socket.socket) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs:
            arguments = (self._work, worker.number, listener, theirs)
            process = _CONTEXT.Process(target=_run_worker, args=arguments)
            worker.line = ours
            process.start()
        worker.process = process
        files = [self._adopted.fileno()] if self._adopted else []
        socket.send_fds(ours, [_START], files)
        ours.setblocking(False)  # a worker that does not read must not hold the others up

    def _attend(self, worker: _Worker) -> None:
        """Take what *worker* said, and note it if it ended."""
        if worker.process is None:
            return
        ended = not worker.process.is_alive()  # asked first: it may have said something at last
        self._hear(worker)
        if ended and not self._stopping:
            pid, code = worker.process.pid, worker.process.exitcode
            pause = self._has_ended(worker)
            self._log.error(
                "a worker ended; starting another", pid=pid, exit=code, pause_seconds=pause
            )
            self.ended(worker.number)

    def _has_ended(self, worker: _Worker) -> float:
        """Plan the next start of *worker*, and return the seconds until then."""
        worker.failed_starts = 0 if worker.serves else worker.failed_starts + 1
        # A worker that fails at once would otherwise keep a core busy with starts.
        pause = _PAUSE_SECONDS * 2.0 ** max(0, worker.failed_starts - 1)
        pause = min(_LONGEST_PAUSE_SECONDS, pause)
        if worker.line:
            worker.line.close()
        worker.process, worker.line, worker.serves = None, None, False
        worker.start_at = time.monotonic() + pause
        return pause

    def _hear(self, worker: _Worker) -> None:
        """Take all that *worker* said."""
        with suppress(OSError):  # BlockingIOError: that was all
            while worker.line:
                message, files, *_ = socket.recv_fds(worker.line, _MESSAGE_BYTES, 1)
                what, _, value = message.partition(b" ")
                if what == _SERVES:
                    worker.serves, worker.failed_starts = True, 0
                elif what == _ADOPTED:
                    self._keep(float(value), *files)
        if worker.serves and not self._served:
            self._served = True
            self._serving()

    def _keep(self, read_at: float, file: int | None = None) -> None:
        """Keep the set of documents in *file*, unless a later one is known."""
        known, sent = self._adopted, os.fdopen(file, "rb") if file is not None else None
        later = read_at >= self._adopted_at
        if later:
            self._adopted, self._adopted_at = sent, read_at
        if old := known if later else sent:
            old.close()

    def _pass_reload_on(self) -> None:
        if self._reloading:
            self._reloading = False
            for worker in self._workers:
                if worker.line:
                    with suppress(OSError):  # BlockingIOError: it has not read the last ones yet
                        worker.line.send(_RELOAD)

    def _stop_workers(self) -> None:
        running = [worker.process for worker in self._workers if worker.process]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _STOP_SECONDS
        for process in running:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
        for worker in self._workers:
            if worker.line:
                worker.line.close()
        if self._adopted:
            self._adopted.close()


def _run_worker(work: Work, number: int, listener: socket.socket, line: socket.socket) -> None:
    # A terminal that closes tells all of its processes. The parent passes it on as a reload.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    work(number, listener, ParentLine(line))


def _stop_with_parent() -> None:
    """Shut this worker down once its parent is gone, for whatever reason it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _nameless_file() -> BinaryIO:
    """A new file without a name, in memory where the system has that."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("federation-documents"), "w+b")
    else:  # noqa: RET505  mypy calls a statement after the `if` unreachable
        return tempfile.TemporaryFile()


def _read(file: int) -> bytes:
    """The content of *file*, which is then closed. Others may read it at the same time."""
    with os.fdopen(file, "rb"):
        return os.pread(file, os.fstat(file).st_size, 0)
