"""
The real processes that faults are injected into: brokers and Redis.

A fault runs in one event loop with its issuer and its load, so it starts and stops processes in
other threads.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from faults.outcome import NotTried
from tests.harness.broker import AUDIENCE, Served
from tests.harness.process import Process, free_port

AnyProcess = TypeVar("AnyProcess", bound=Process)


class Broker(Served):
    """A broker whose port stays the same when it is started again."""

    def __init__(
        self,
        folder: Path,
        documents: str | Path,
        *flags: str,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        # The load comes from one address, and its replays are meant to fail.
        limits = {"FEDERATION_FAILED_EXCHANGES": "0"}
        super().__init__(
            folder,
            documents,
            *("--issuer-url", AUDIENCE, *flags),
            port=free_port(),
            environ=limits | dict(environ or {}),
        )

    async def readiness(self) -> int:
        """The status of `/readyz`."""
        return await asyncio.to_thread(self.status, "/readyz")


@asynccontextmanager
async def running(process: AnyProcess) -> AsyncIterator[AnyProcess]:
    """Run *process* inside the `with` block."""
    try:
        await start(process)
        yield process
    finally:
        await asyncio.to_thread(process.stop)


async def start(process: Process) -> None:
    """Start *process*, and wait until it is up."""
    await asyncio.to_thread(process.start)


class Redis(Process):
    """Debian's redis-server. Unless it is *lasting*, it forgets everything when it ends."""

    def __init__(self, folder: Path, *, lasting: bool = False) -> None:
        found = shutil.which("redis-server")
        if found is None:
            raise NotTried("redis-server is not installed")
        self.port = free_port()
        options = {"port": self.port, "bind": "127.0.0.1", "save": "", "dir": folder}
        options |= {"appendonly": "yes" if lasting else "no", "appendfsync": "always"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        super().__init__([found, *words], folder)

    def is_up(self) -> bool:
        """True once it answers a PING: before that it may still read its file."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64) == b"+PONG\r\n"
        except OSError:
            return False
