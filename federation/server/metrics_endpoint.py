"""
Metrics on a port of their own, of one process or of several.

Several processes count in memory-mapped files of one directory, which are added up when
Prometheus asks. It lies in memory where it can: a page of a file on a full disk would kill the
process that writes to it. A process that ended keeps its share of the totals, and of nothing
else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import isnan
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

__all__ = ["Exposition", "Processes", "SharedCounts"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_SECONDS = 5.0
_AT_ONCE = 8
_POLL_SECONDS = 0.1
_PREFIX = "federation-metrics-"
_ABANDONED_SECONDS = 60.0
_ENDED = "ended"


class SharedCounts:
    """
    A fresh directory in which processes count, and what they counted in all.

    Each of them must have its path in `PROMETHEUS_MULTIPROC_DIR` before it begins.
    """

    def __init__(self, fallback: Path) -> None:
        memory = Path("/dev/shm")  # noqa: S108  a fresh directory within, of this user alone
        parent = memory if memory.is_dir() and os.access(memory, os.W_OK | os.X_OK) else fallback
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _clear(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = _held(self.path)
        self._files = threading.Lock()
        self._collector = MultiProcessCollector(None, str(self.path))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """All metrics of all processes."""
        with self._files:
            return list(self._collector.collect())  # type: ignore[no-untyped-call]

    def ended(self, pid: int) -> None:
        """The process *pid* is no more: its totals are kept, in one file for all that ended."""
        with self._files:
            mark_process_dead(pid, str(self.path))  # type: ignore[no-untyped-call]
            for path in self.path.glob(f"*_{pid}.db"):
                kind = path.name.partition("_")[0]
                _add(path, self.path / f"{kind}_{_ENDED}.db")
                path.unlink()

    def close(self) -> None:
        """The directory is gone."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


class Processes(Collector):
    """Memory, processor time and open files of the processes that *pids* names."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        """`process_*`, with the name of each process as label."""
        merged: dict[str, Metric] = {}
        for name, pid in self._pids().items():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                known = merged.setdefault(metric.name, metric)
                samples = [s._replace(labels={**s.labels, "process": name}) for s in metric.samples]
                known.samples = samples if known is metric else [*known.samples, *samples]
        return merged.values()


class _Told(Collector):
    """What *collect* finds, less what has no value and what only one process alone can tell."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """The metrics, each with the samples that are told."""
        for metric in self._collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if not isnan(sample.value) and not sample.name.endswith("_created")
            ]
            yield metric


class Exposition:
    """
    `GET /metrics` on *listener*, in threads of its own, from `start` to `stop`.

    It answers even where the broker itself is stuck.
    """

    def __init__(
        self,
        listener: socket.socket,
        counts: Callable[[], Iterable[Metric]],
        pids: Callable[[], Mapping[str, int]],
    ) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Told(counts))
        self._registry.register(Processes(pids))
        self._server = _Server(listener, self.text)
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it is."""
        port: int = self._server.socket.getsockname()[1]
        return port

    def text(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        return generate_latest(self._registry)

    def start(self) -> None:
        """From now on it answers."""
        serve = partial(self._server.serve_forever, _POLL_SECONDS)
        self._thread = threading.Thread(target=serve, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """It answers no more, and the port is free."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, text: Callable[[], bytes]) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.text = text
        self._room = threading.BoundedSemaphore(_AT_ONCE)

    def process_request(self, request: object, client_address: object) -> None:
        """Answer in a thread, unless there are too many."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Answer; then there is room for another."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._room.release()

    def handle_error(self, *_whose: object) -> None:
        """Whoever asked is gone; that is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Answer with the metrics, or that there is nothing else here."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = self.server.text()
        self.send_response(200)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        """What it is made with is nobody's business."""
        return "federation"

    def log_message(self, *_what: object) -> None:
        """Scrapes are not logged."""


def _add(source: Path, target: Path) -> None:
    """What is counted in the file *source* is counted in *target* too."""
    total = MmapedDict(str(target))  # type: ignore[no-untyped-call]
    for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
        known, _ = total.read_value(key)  # type: ignore[no-untyped-call]
        total.write_value(key, known + value, 0.0)  # type: ignore[no-untyped-call]
    total.close()  # type: ignore[no-untyped-call]


def _held(folder: Path) -> int:
    """A descriptor of *folder*, locked for as long as this process lives."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _clear(parent: Path) -> None:
    """What processes left behind that were killed is gone."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < _ABANDONED_SECONDS:
                continue
            os.close(_held(folder))
            shutil.rmtree(folder, ignore_errors=True)
