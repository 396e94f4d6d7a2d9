"""A real redis-server for tests, with the options that a test needs."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from federation.state.redis_scripts import EPOCH
from tests.harness.process import free_port


@contextmanager
def redis_server(folder: Path, **options: str | int) -> Iterator[int]:
    """Run a Redis that forgets everything when it ends, and yield its port."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {"port": port, "bind": "127.0.0.1", "save": "", "dir": folder, **options}
    words = [
        word for name, value in settings.items() for word in (f"--{name}", *str(value).split(" "))
    ]
    process = subprocess.Popen([found, *words], stdout=subprocess.DEVNULL)  # noqa: S603  ours
    try:
        deadline = time.monotonic() + 20
        while ask_redis(port, "PING") != "+PONG":
            assert time.monotonic() < deadline, "Redis does not answer"
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


def ask_redis(port: int, command: str) -> str:
    """The answer of Redis to *command*, empty if it is down."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536).decode().strip()
    except OSError:
        return ""


def empty_redis(port: int) -> None:
    """Remove all keys, and begin an epoch long ago, as in a Redis that has been in use."""
    ask_redis(port, "FLUSHALL")
    assert ask_redis(port, f"SET {EPOCH} first:0.0") == "+OK"
