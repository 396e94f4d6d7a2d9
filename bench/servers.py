"""Servers in processes of their own, and the cores that they and the client are kept to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.jobs import BROKER_URL

START_SECONDS = 120


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
def broker(folder: Path, documents: str, core: int | None, *flags: str) -> Iterator[int]:
    """The port of a broker with *documents* and *flags*, all else as it comes."""
    folder.mkdir()
    written = folder / "documents.yaml"
    written.write_text(documents, "utf-8")
    options = f"--documents {written} --state {folder}/state --issuer-url {BROKER_URL} --port 0"
    with running(["federation", "serve", *options.split(), *flags], folder / "log", core) as port:
        yield port


@contextmanager
def running(module: list[str], log: Path, core: int | None) -> Iterator[int]:
    """The port of the server that *module* is, once it says in its *log* that it listens."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    with log.open("wb") as output, on_core(core):
        command = [sys.executable, "-m", *module]
        process = subprocess.Popen(command, stderr=output, env=environ)  # noqa: S603  our own words
    try:
        yield _port(process, log)
    finally:
        process.terminate()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text("utf-8").splitlines():
            if '"listening"' in line:
                return int(json.loads(line)["port"])
        time.sleep(0.05)
    raise SystemExit(f"A server did not start:\n{log.read_text('utf-8')[-2000:]}")
