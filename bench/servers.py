"""Start the servers that a run measures, keep them to a processor core, and read what they cost."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.broker import AUDIENCE, Served
from tests.harness.process import ROOT, Process, Server, until

READY_SECONDS = 120
IDLE_SECONDS, IDLE_SHARE = 0.5, 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """A run's folder, which is on a disk, and the cores of the servers and of the client."""

    folder: Path
    server_core: int | None = None
    client_core: int | None = None
    long: bool = False


def cores() -> tuple[int, int] | None:
    """A core for the servers and one for the client; None if there is only one, or no choice."""
    if sys.platform == "linux" and len(ours := sorted(os.sched_getaffinity(0))) > 1:
        return ours[-1], ours[0]
    return None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Keep this thread, and the processes that it starts, to *core* inside the `with` block."""
    if sys.platform != "linux" or core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compile_code(folder: Path) -> None:
    """
    Let the programs that are started from here on find their code compiled, as in the image.

    Else each start compiles all of it again, if the environment says that Python writes none.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    words = "import federation.app, federation.cli.check, federation.cli.serve"
    subprocess.run([sys.executable, "-c", words], cwd=ROOT, check=True)  # noqa: S603  our own words


@contextmanager
def broker(
    folder: Path, documents: str | Path, core: int | None, *flags: str, root: Path = ROOT
) -> Iterator[Served]:
    """
    Run a broker of the checkout *root* with *documents* and *flags* on *core*, with everything on.

    Spent tokens and the journal are in *folder*, metrics have their port, and the log is a file.
    """
    own = ("--issuer-url", AUDIENCE, "--metrics-port", "0")
    server = Served(folder, documents, *own, *flags)
    server.root = root
    with running(server, core):
        yield server


@contextmanager
def running(server: Server, core: int | None) -> Iterator[Server]:
    """Run *server* on *core* inside the `with` block."""
    try:
        with on_core(core):
            server.spawn()
        server.await_up()
        yield server
    finally:
        server.stop()


def await_ready(server: Server) -> float:
    """Wait until the broker is ready, and return the seconds since its start."""
    if not until(lambda: server.status("/readyz") == 200, READY_SECONDS):
        raise SystemExit("A broker did not become ready.")
    return time.monotonic() - server.began


def await_idle(server: Server) -> None:
    """Wait until the broker is ready, and none of its processes has anything to do."""
    await_ready(server)
    before = cpu_seconds(server)
    for _ in range(int(READY_SECONDS / IDLE_SECONDS)):
        time.sleep(IDLE_SECONDS)
        now = cpu_seconds(server)
        if math.isnan(now) or now - before < IDLE_SHARE * IDLE_SECONDS:
            return
        before = now


def cpu_seconds(server: Process) -> float:
    """The processor time of a server and its children, NaN if the system does not say."""
    return sum(cpu_seconds_each(server)) or math.nan


def cpu_seconds_each(server: Process) -> list[float]:
    """The processor time of each process, its own first; empty if the system does not say."""
    try:
        return server.cpu_seconds()
    except OSError:
        return []


def resident_mib(server: Process) -> float:
    """The memory of a server without its children, NaN if the system does not say."""
    try:
        return server.resident_bytes() / 1024**2
    except OSError:
        return math.nan
