"""
Run programs as processes of their own: start, signal, kill, restart, and look at their cost.

`Process` writes the program's output to a file. `Server` is a program that logs a JSON line
`{"event": "listening", "port": …}` when it accepts connections, as the broker does.
"""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
_STOP_SECONDS = 40.0
_PORTS = (20_000, 32_000)

Given = TypeVar("Given")


class Process:
    """A program that can be started, killed, and started again; its output is in `log`."""

    start_seconds = 120.0
    """The time that it may take to start."""
    root = ROOT
    """The checkout whose code it runs."""

    def __init__(
        self, command: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.command = list(command)
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self.began = 0.0
        """When it was last started, on the monotonic clock."""
        self._environ = environ or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process that was started last."""
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll() if self._process else 0

    def start(self) -> None:
        """Start it, and wait until it is up."""
        self.spawn()
        self.await_up()

    def spawn(self) -> None:
        """Start it, with the environment of this process but for settings of the broker."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("FEDERATION_")}
        self._log_start = self.log.stat().st_size
        with self.log.open("ab") as output:
            self.began = time.monotonic()
            self._process = subprocess.Popen(  # noqa: S603  our own words
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.root,
                env={**environ, **self._environ},
            )

    def await_up(self) -> None:
        """Wait until `is_up`. Raises: RuntimeError with the end of its log if it never is."""
        if not until(self._is_up_or_ended, self.start_seconds) or self.exit_code is not None:
            self.kill()
            raise RuntimeError(f"{self.command} did not start:\n{self.output()[-2000:]}")

    def _is_up_or_ended(self) -> bool:
        return self.exit_code is not None or self.is_up()

    def is_up(self) -> bool:
        """True if it is ready. Each kind of program defines when."""
        raise NotImplementedError

    def output(self) -> str:
        """Its output since it was last started."""
        return self.log.read_bytes()[self._log_start :].decode("utf-8", "replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self, seconds: float = _STOP_SECONDS) -> int | None:
        """Wait for its end, and return the exit code; None if it still runs."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.exit_code

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self.exit_code is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int | None:
        """Return its exit code after SIGTERM, or after SIGKILL if it does not end."""
        if self.exit_code is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            if self.ended() is None:
                self.kill()
        return self.exit_code

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it inside the `with` block."""
        try:
            self.start()
            yield
        finally:
            self.stop()

    def children(self) -> list[int]:
        """The ids of its child processes."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [int(child) for child in listed.split()]

    def resident_bytes(self) -> int:
        """Its memory, without its children's."""
        pages = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """The number of its open descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def cpu_seconds(self) -> list[float]:
        """The processor time of the process and of each child, its own first."""
        return [_cpu_seconds(pid) for pid in (self.pid, *self.children())]


def _cpu_seconds(pid: int) -> float:
    # In nanoseconds and by thread: `stat` counts in hundredths of a second.
    threads = Path(f"/proc/{pid}/task").iterdir()
    return (
        sum(int((thread / "schedstat").read_text("ascii").split()[0]) for thread in threads) / 1e9
    )


class Server(Process):
    """A program that answers HTTP on a loopback port, and logs which."""

    def __init__(
        self, module: Sequence[str], folder: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        super().__init__([sys.executable, "-m", *module], folder, environ)
        self.listening: Mapping[str, Any] = {}
        """The line that it logged when it began to listen."""

    @property
    def port(self) -> int:
        """The port at which it listens."""
        return int(self.listening["port"])

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"

    def is_up(self) -> bool:
        """True once it has logged that it listens."""
        for line in self.output().splitlines():
            if '"listening"' in line and line.endswith("}"):
                self.listening = json.loads(line)
                return True
        return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of the answer to a GET; 0 if there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def status(self, path: str) -> int:
        """Status of the answer to a GET; 0 if there is none."""
        return self.get(path)[0]

    def connect(self) -> socket.socket:
        """A connection to it."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until *holds*. False if it does not within *seconds*."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    """
    A free port that the system gives to no outgoing connection, so that it stays free.

    Each port is given out once while this process lives, even before anything listens at it. So
    tests may run beside each other, as `pytest -n` and several checkouts do.
    """
    for _ in range(100):
        port = secrets.choice(range(*_PORTS))
        if port in _given() or not _reserved(port):
            continue
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _given().add(port)
            return port
    raise RuntimeError("no free port was found")


def _reserved(port: int) -> bool:
    """True if no other process has *port*. The system ends the reservation with this process."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _given() -> set[int]:
    """The ports that this process was given: a process can lock again what it has locked."""
    return set()


@cache
def _reservations() -> int:
    """
    A descriptor of the file whose byte at each port's number is locked by the process that has it.

    It stays open, because a process that closes any descriptor of a file loses its locks on it.
    """
    file = Path(tempfile.gettempdir(), f"federation-test-ports-{os.getuid()}")
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextmanager
def in_thread(
    enter: Callable[[], AbstractAsyncContextManager[Given]],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Iterator[Given]:
    """Enter an asynchronous context manager in a thread with an event loop of its own."""
    given: list[Given] = []
    up, down = threading.Event(), threading.Event()

    async def stay() -> None:
        async with enter() as value:
            given.append(value)
            up.set()
            await asyncio.to_thread(down.wait)

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(stay())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert up.wait(30), "it did not start"
        yield given[0]
    finally:
        down.set()
        thread.join()
