"""
The metrics endpoint: `GET /metrics` on a port of its own, for one process or for several workers.

The same port answers `/livez` and `/readyz`, with all details.

Several workers count in memory-mapped files of one directory, and prometheus_client's multiprocess
collector adds them up. The files are named after the worker's number. A worker that replaces
another one opens its files and continues its totals, so restarts lose no count and add no file.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from federation.server.http_limits import http_config
from federation.server.readiness import Reports, liveness, readiness

_JSON = b"application/json"
_CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_CONNECTIONS = 100
_STOP_SECONDS = 1

_PREFIX = "federation-metrics-"
_UNLOCKED_PREFIX = "federation-new-metrics-"
_ABANDONED_SECONDS = 60.0
"""A directory that is younger may belong to a broker that has not locked it yet."""


class WorkerFiles:
    """The directory of the workers' files, and what they counted together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._collector = MultiProcessCollector(None, str(path))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """The metrics of all workers."""
        metrics: Iterable[Metric] = self._collector.collect()  # type: ignore[no-untyped-call]
        return metrics

    def ended(self, worker: int) -> None:
        """Remove the gauges of *worker*, which ended. Its counters and histograms stay."""
        mark_process_dead(worker, str(self.path))  # type: ignore[no-untyped-call]


@contextmanager
def worker_files(fallback: Path) -> Iterator[WorkerFiles]:
    """
    A new directory for the workers' files, which is removed at the end.

    It lies in memory where possible, else in *fallback*: a write to a memory-mapped file on a full
    disk kills the process.
    """
    memory = Path("/dev/shm")  # noqa: S108  a new directory within it, for this user alone
    parent = memory if memory.is_dir() and os.access(memory, os.W_OK | os.X_OK) else fallback
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_abandoned(parent)
    path = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX, dir=parent))
    try:
        with _locked(path):
            # With its last name it has been locked, so that one without a lock is abandoned.
            path = path.rename(parent / path.name.replace(_UNLOCKED_PREFIX, _PREFIX))
            yield WorkerFiles(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def remove_if_abandoned(path: Path) -> None:
    """Remove the directory *path* if the broker that made it was killed."""
    # A living broker holds the lock of its directory, which raises an OSError here.
    with suppress(OSError), _locked(path):
        shutil.rmtree(path, ignore_errors=True)


def count_in_files_of(worker: int) -> None:
    """
    Make each metric that this process creates from now on count in the files of *worker*.

    `PROMETHEUS_MULTIPROC_DIR` must name their directory.
    """
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


@contextmanager
def metrics_server(
    listener: socket.socket, registry: CollectorRegistry, reports: Reports
) -> Iterator[None]:
    """
    Answer `GET /metrics` on *listener* in a thread of its own, until the end of the block.

    `/livez` and `/readyz` say what is in *reports*. Prometheus is answered even while the broker's
    own event loop is blocked.
    """
    config = http_config(_metrics_app(registry, reports), _CONNECTIONS, _STOP_SECONDS)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    run = partial(server.run, sockets=[listener])
    thread = threading.Thread(target=run, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def exposition(
    collect: Callable[[], Iterable[Metric]],
    pids: Callable[[], Mapping[str, int]],
    workers: Callable[[], tuple[int, int]] = lambda: (1, 1),
) -> CollectorRegistry:
    """
    A registry of the metrics from *collect*, and of the `process_*` metrics of *pids*.

    *workers* returns how many processes answer requests, and how many should.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Exposition(collect, pids, workers))
    return registry


def _metrics_app(registry: CollectorRegistry, reports: Reports) -> Callable[..., Awaitable[None]]:
    """An ASGI application: metrics in Prometheus' text format, and health in JSON."""

    async def answer(scope: Mapping[str, Any], _receive: Any, send: Any) -> None:
        status, kind, body = 200, _CONTENT_TYPE, b""
        match scope["method"], scope["path"]:
            case "GET", "/metrics":
                body = generate_latest(registry)
            case "GET", "/livez" | "/readyz" as path:
                status, told = (liveness if path == "/livez" else readiness)(reports())
                kind, body = _JSON, json.dumps(told).encode()
            case "GET", _:
                status = 404
            case _:
                status = 501
        headers = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return answer


class _Exposition(Collector):
    def __init__(
        self,
        metrics: Callable[[], Iterable[Metric]],
        pids: Callable[[], Mapping[str, int]],
        workers: Callable[[], tuple[int, int]],
    ) -> None:
        self._metrics = metrics
        self._pids = pids
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        """The broker's metrics, and memory, processor time and open files of its processes."""
        for metric in self._metrics():
            # NaN stands for a gauge of something that is gone, since prometheus_client cannot
            # remove one while several processes count. `_created` is known of one process only.
            metric.samples = [
                sample
                for sample in metric.samples
                if not isnan(sample.value) and not sample.name.endswith("_created")
            ]
            yield metric
        merged: dict[str, Metric] = {}
        for name, pid in self._pids().items():
            for metric in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                samples = [s._replace(labels={**s.labels, "process": name}) for s in metric.samples]
                metric.samples = []
                merged.setdefault(metric.name, metric).samples += samples
        yield from merged.values()
        workers = GaugeMetricFamily(
            "federation_workers", "Processes that answer requests, or should.", labels=["state"]
        )
        for state, number in zip(("serving", "configured"), self._workers(), strict=True):
            workers.add_metric([state], number)
        yield workers


def _remove_abandoned(parent: Path) -> None:
    """Remove the directories of brokers that were killed."""
    for path in [*parent.glob(f"{_PREFIX}*"), *parent.glob(f"{_UNLOCKED_PREFIX}*")]:
        with suppress(OSError):
            found = path.lstat()
            old = time.time() - found.st_mtime > _ABANDONED_SECONDS
            if found.st_uid == os.getuid() and (old or not path.name.startswith(_UNLOCKED_PREFIX)):
                remove_if_abandoned(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """
    Lock *folder*; the system unlocks it should this process die.

    Raises: OSError if another process holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
