"""
Workers for tests of the supervisor. A process that runs one imports this module and no more.

They write down what they get and do, since they share nothing with the test but a folder.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from pathlib import Path

from federation.server.workers import ParentLine
from federation.sources.files import Adopted


def write(folder: Path, number: int, *lines: str) -> None:
    """Add *lines* to what worker *number* said of itself."""
    with (folder / str(number)).open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def said(folder: Path, number: int = 0) -> list[str]:
    """The lines of worker *number*."""
    path = folder / str(number)
    return path.read_text().splitlines() if path.exists() else []


def adopt(folder: Path, number: int, line: ParentLine) -> None:
    """Hand over what the test left for worker *number*: `adopt-<number>-<when it was read>`."""
    for path in folder.glob(f"adopt-{number}-*"):
        line.adopted(Adopted(path.read_bytes(), float(path.name.rpartition("-")[2])))
        path.unlink()
        write(folder, number, "adopted")


def faithful(folder: Path, number: int, _listener: socket.socket, line: ParentLine) -> None:
    """A worker that writes down what it gets."""

    async def serve() -> None:
        line.on_reload(lambda: write(folder, number, "reload"))
        write(folder, number, f"given {line.take_last_good()!r}")
        line.serves()
        while True:
            adopt(folder, number, line)
            await asyncio.sleep(0.02)

    asyncio.run(serve())


def failing(folder: Path, number: int, _listener: socket.socket, line: ParentLine) -> None:
    """A worker that serves as long as `broken` is not there. Else it fails while it starts."""
    write(folder, number, f"start {time.monotonic()}")
    if not (folder / "broken").exists():
        line.serves()
        time.sleep(60)
    sys.exit(3)
