"""Disks that are full or read-only: a small tmpfs if this process may mount one."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from faults.outcome import NotTried

_STEP_BYTES = 64 * 1024


class Disk(Protocol):
    """A disk that can be filled and freed."""

    kind: str

    def fill(self, pid: int) -> None:
        """Leave no free byte to the process *pid*."""

    def free(self, pid: int) -> None:
        """Make room again."""


class Tmpfs:
    """A disk of a few MiB in memory, mounted at *place*."""

    kind = "tmpfs"

    def __init__(self, place: Path) -> None:
        self.place = place
        self._ballast = place / "ballast"

    def fill(self, _pid: int) -> None:
        """Leave no free byte."""
        with self._ballast.open("ab", buffering=0) as file:
            for step in (_STEP_BYTES, 1):
                try:
                    while True:
                        file.write(b"x" * step)
                except OSError:
                    continue

    def free(self, _pid: int) -> None:
        """Make room again."""
        self._ballast.unlink()

    async def read_only(self, *, yes: bool) -> None:
        """
        Make the disk read-only, or writable again.

        Raises: NotTried if this process may not.
        """
        await _run("mount", "-o", "remount," + ("ro" if yes else "rw"), str(self.place))


class Limit:
    """A limit on the size of files, which needs no root: no write of the process succeeds."""

    kind = "RLIMIT_FSIZE"

    def fill(self, pid: int) -> None:
        """Let no file of *pid* grow."""
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        """Let files grow again."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)


@asynccontextmanager
async def tmpfs(place: Path, mib: int, *, read_only: bool = False) -> AsyncIterator[Tmpfs]:
    """
    Mount a small disk at *place* inside the `with` block. It hides what is there.

    Raises: NotTried if this process may not mount.
    """
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise NotTried("needs root, to mount a tmpfs")
    mode = "ro" if read_only else "rw"
    await _run("mkdir", "-p", str(place))
    await _run("mount", "-t", "tmpfs", "-o", f"{mode},size={mib}m,mode=700", "tmpfs", str(place))
    try:
        yield Tmpfs(place)
    finally:
        await _run("umount", "--lazy", str(place))


@asynccontextmanager
async def small_disk(place: Path, mib: int) -> AsyncIterator[Disk]:
    """A disk at *place* that can be filled, inside the `with` block."""
    async with AsyncExitStack() as stack:
        disk: Disk = Limit()
        with suppress(NotTried):
            disk = await stack.enter_async_context(tmpfs(place, mib))
        yield disk


async def _run(*command: str) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise NotTried(f"{' '.join(command[:3])}: {done.stderr.decode().strip()}")
