"""The real processes: brokers and Redis, each on a free loopback port, stopped by their id."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from faults.ci import AUDIENCE
from faults.outcome import NotTried, until

__all__ = ["Broker", "Redis", "free_port", "memory_and_files", "signing_key"]

_START_SECONDS = 40.0
_STOP_SECONDS = 40.0
_PORTS = (20_000, 32_000)


class Process:
    """A program that runs, may be killed, and may be started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None:
            raise RuntimeError("it was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return self._process.poll() if self._process else 0

    def send(self, number: signal.Signals) -> None:
        """The process gets a signal."""
        os.kill(self.pid, number)

    async def ended(self, seconds: float = _STOP_SECONDS) -> int | None:
        """Its exit code, once it has one."""

        async def over() -> bool:
            return self.exit_code is not None

        await until(over, seconds)
        return self.exit_code

    async def kill(self) -> None:
        """It is gone, without a word."""
        if self.exit_code is None:
            self.send(signal.SIGKILL)
            await self.ended()

    async def stop(self) -> int | None:
        """Its exit code after SIGTERM, or after SIGKILL where that did nothing."""
        if self.exit_code is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
            if await self.ended() is None:
                await self.kill()
        return self.exit_code

    def _spawn(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  our own words
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=dict(environ)
            )


class Broker(Process):
    """`federation serve` with *documents*; what it must remember is in `state`."""

    def __init__(
        self,
        folder: Path,
        documents: str | Path,
        *flags: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.state = folder / "state"
        self.documents = documents if isinstance(documents, Path) else folder / "documents"
        if isinstance(documents, str):
            self.documents.mkdir()
            (self.documents / "all.yaml").write_text(documents, "utf-8")
        self._flags = flags
        self._environ = dict(environ or {})

    async def start(self) -> None:
        """It answers."""
        options = {
            "--documents": str(self.documents),
            "--state": str(self.state),
            "--issuer-url": AUDIENCE,
            "--port": str(self.port),
            "--log-format": "json",
        }
        flags = [word for option in options.items() for word in option]
        ours = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
        # The load comes from one address, and replays are meant to fail.
        environ = {**ours, "FEDERATION_FAILED_EXCHANGES": "0", **self._environ}
        self._spawn([sys.executable, "-m", "federation", "serve", *flags, *self._flags], environ)

        async def answers() -> bool:
            if self.exit_code is not None:
                raise RuntimeError(f"the broker did not start:\n{self.log.read_text()[-2000:]}")
            return (await self.get("/livez")).status_code == 200

        if await until(answers, _START_SECONDS) is None:
            raise RuntimeError(f"the broker does not answer:\n{self.log.read_text()[-2000:]}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Broker]:
        """It is up within."""
        try:
            await self.start()
            yield self
        finally:
            await self.stop()

    async def get(self, path: str) -> httpx2.Response:
        """The answer to a GET; 599 where there is none."""
        try:
            async with httpx2.AsyncClient(timeout=10) as client:
                return await client.get(f"http://127.0.0.1:{self.port}{path}")
        except httpx2.HTTPError:
            return httpx2.Response(599)

    async def readiness(self) -> int:
        """The status of `/readyz`."""
        return (await self.get("/readyz")).status_code

    def workers(self) -> list[int]:
        """The ids of the processes that serve, where there are several."""
        found = []
        with suppress(OSError):
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
                with suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(int(pid))
        return found

    def serving_pids(self) -> list[int]:
        """The ids of the processes that serve."""
        return self.workers() or [self.pid]

    def complaints(self) -> list[str]:
        """What the log says of faults that nobody foresaw."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return [line[:300] for line in lines if "unexpected error" in line or "Traceback" in line]


class Redis(Process):
    """Debian's redis-server; without *lasting* it forgets everything when it ends."""

    def __init__(self, folder: Path, *, lasting: bool = False) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise NotTried("redis-server is not installed")
        super().__init__(folder)
        self._command = [found, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._command += ["--dir", str(folder), "--appendonly", "yes" if lasting else "no"]
        self._command += ["--appendfsync", "always"]

    async def start(self) -> None:
        """It answers, with what it kept."""
        self._spawn(self._command, os.environ)

        async def answers() -> bool:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            return answer == b"+PONG\r\n"

        if await until(answers, _START_SECONDS) is None:
            raise RuntimeError(f"Redis does not answer:\n{self.log.read_text()[-1000:]}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Redis]:
        """It is up within."""
        try:
            await self.start()
            yield self
        finally:
            await self.kill()


def signing_key(folder: Path) -> Path:
    """A key for replicas that sign alike."""
    path = folder / "signing.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    return path


def free_port() -> int:
    """A port that nobody listens at, and that no outgoing connection will be given."""
    for _ in range(100):
        port = secrets.choice(range(*_PORTS))
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no free port was found")


def memory_and_files(pid: int) -> tuple[int, int]:
    """The resident bytes and the open descriptors of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(list(Path(f"/proc/{pid}/fd").iterdir()))
