"""
A real redis-server for tests, with the options that a test needs.

The variable `REDIS_SERVER` names another program that speaks the same protocol, such as Valkey's.
"""

from __future__ import annotations

import os
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
    found = shutil.which(os.environ.get("REDIS_SERVER", "redis-server"))
    if found is None:
        pytest.skip("redis-server is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {"port": port, "bind": "127.0.0.1", "save": "", "dir": folder, **options}
    words = [
        word for name, value in settings.items() for word in (f"--{name}", *str(value).split(" "))
    ]
    log = folder / "redis.log"
    with log.open("w") as output:
        process = subprocess.Popen([found, *words], stdout=output, stderr=output)  # noqa: S603  ours
    try:
        deadline = time.monotonic() + 20
        while ask_redis(port, "PING") != "+PONG":
            assert process.poll() is None, f"Redis ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"Redis does not answer:\n{log.read_text()}"
            time.sleep(0.02)
        yield port
    finally:
        process.kill()
        process.wait()


@contextmanager
def redis_cluster(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a cluster of two nodes, of which the first has every slot, and yield their ports."""
    # By default the nodes talk on `port + 10000`. The system gives such ports to outgoing
    # connections, and a node whose port is taken ends at once.
    buses = free_port(), free_port()
    nodes: list[dict[str, str | int]] = [
        {"cluster-enabled": "yes", "cluster-node-timeout": 2000, "cluster-port": bus}
        for bus in buses
    ]
    with (
        redis_server(folder / "owner", **nodes[0]) as owner,
        redis_server(folder / "other", **nodes[1]) as other,
    ):
        assert ask_redis(owner, "CLUSTER ADDSLOTSRANGE 0 16383") == "+OK"
        assert ask_redis(other, f"CLUSTER MEET 127.0.0.1 {owner} {buses[0]}") == "+OK"
        deadline = time.monotonic() + 20
        while not all(
            "cluster_state:ok" in ask_redis(node, "CLUSTER INFO") for node in (owner, other)
        ):
            assert time.monotonic() < deadline, "the cluster does not form"
            time.sleep(0.05)
        yield owner, other


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
