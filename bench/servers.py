"""Servers in processes of their own, the cores that all are kept to, and what each costs."""

from __future__ import annotations

import http.client
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.jobs import BROKER_URL

START_SECONDS = 120
IDLE_SECONDS, IDLE_SHARE = 0.5, 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run happens: its folder, on a disk, and the cores of the servers and the client."""

    folder: Path
    server_core: int | None = None
    client_core: int | None = None
    long: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens: its port, its process, and when that was started."""

    port: int
    pid: int
    began: float

    def cpu_seconds(self) -> float:
        """Processor time it has taken with its children, NaN where the system does not say."""
        return sum(self.cpu_seconds_each()) or math.nan

    def cpu_seconds_each(self) -> list[float]:
        """The same of each process, its own first; empty where the system does not say."""
        try:
            return [_on_cpu(pid) for pid in (self.pid, *_children(self.pid))]
        except OSError:
            return []

    def resident_mib(self) -> float:
        """Memory it holds, without its children, NaN where the system does not say."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        except OSError:
            return math.nan
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1024**2

    def await_ready(self) -> float:
        """Seconds from its start until `/readyz` said 200."""
        while time.monotonic() < self.began + START_SECONDS:
            if _status(self.port, "/readyz") == 200:
                return time.monotonic() - self.began
            time.sleep(0.01)
        raise SystemExit("A broker did not become ready.")

    def await_idle(self) -> None:
        """All its processes are up and have nothing to do."""
        self.await_ready()
        before = self.cpu_seconds()
        for _ in range(int(START_SECONDS / IDLE_SECONDS)):
            time.sleep(IDLE_SECONDS)
            now = self.cpu_seconds()
            if math.isnan(now) or now - before < IDLE_SHARE * IDLE_SECONDS:
                return
            before = now


def cores() -> tuple[int, int] | None:
    """A core for the servers and one for the client, None where there is no choice."""
    if sys.platform == "linux" and len(ours := sorted(os.sched_getaffinity(0))) > 1:
        return ours[-1], ours[0]
    return None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What runs or starts within is on *core*."""
    if sys.platform != "linux" or core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def broker(folder: Path, documents: str, core: int | None, *flags: str) -> Iterator[Server]:
    """
    A broker with *documents* and *flags*, everything on.

    Spent tokens and the journal lie in *folder*, metrics have their port, and the log is a file.
    """
    folder.mkdir()
    written = folder / "documents.yaml"
    written.write_text(documents, "utf-8")
    paths = ["--documents", str(written), "--state", str(folder / "state")]
    options = f"--issuer-url {BROKER_URL} --port 0 --metrics-port 0 --log-format json".split()
    command = ["federation", "serve", *paths, *options, *flags]
    with running(command, folder / "log", core) as server:
        yield server


@contextmanager
def running(module: list[str], log: Path, core: int | None) -> Iterator[Server]:
    """The server that *module* is, once it says in its *log* that it listens."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    with log.open("wb") as output, on_core(core):
        command = [sys.executable, "-m", *module]
        began = time.monotonic()
        process = subprocess.Popen(command, stderr=output, env=environ)  # noqa: S603  our own words
    try:
        yield Server(_port(process, log), process.pid, began)
    finally:
        process.terminate()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            if '"listening"' in line and line.endswith("}"):
                return int(json.loads(line)["port"])
        time.sleep(0.02)
    raise SystemExit(f"A server did not start:\n{log.read_text('utf-8')[-2000:]}")


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in listed.split()]


def _on_cpu(pid: int) -> float:
    # In nanoseconds and by thread; what `stat` has is counted in hundredths of a second.
    threads = Path(f"/proc/{pid}/task").iterdir()
    return (
        sum(int((thread / "schedstat").read_text("ascii").split()[0]) for thread in threads) / 1e9
    )
