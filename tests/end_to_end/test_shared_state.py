"""Readiness of a broker with a real Redis: it says no whenever an exchange would be refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from federation.demo.issuer import LocalIssuer
from tests.harness.broker import Served, local_issuer, started
from tests.harness.builders import AUDIENCE
from tests.harness.process import until
from tests.harness.redis import ask_redis, empty_redis, redis_server
from tests.harness.signing import signing_key

pytestmark = pytest.mark.e2e

USER = "ACL SETUSER broker on >p ~{federation}:* +@all"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis that has been in use."""
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        empty_redis(found)
        ask_redis(found, USER)
        yield found


@contextmanager
def broker(folder: Path, port: int, issuer: LocalIssuer) -> Iterator[Served]:
    flags = (
        f"--shared-state=redis://broker:p@127.0.0.1:{port}/0",
        f"--signing-key={signing_key(folder)}",
        f"--issuer-url={AUDIENCE}",
        "--failed-exchanges=0",
    )
    with started(folder, issuer, *flags) as served:
        yield served


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


def test_it_says_no_while_an_exchange_would_be_refused_and_yes_again(
    tmp_path: Path, port: int, issuer: LocalIssuer
) -> None:
    def agree(status: int) -> Callable[[], bool]:
        return lambda: served.status("/readyz") == served.exchange().status_code == status

    breaks = {
        "ACL SETUSER broker -eval": ("ACL SETUSER broker +eval", "'eval'"),
        "ACL SETUSER broker -zadd": ("ACL SETUSER broker +zadd", "ZADD"),
        "CONFIG SET maxmemory-policy allkeys-lru": (
            "CONFIG SET maxmemory-policy noeviction",
            "allkeys-lru",
        ),
        "CONFIG SET maxmemory 1": ("CONFIG SET maxmemory 0", "it is full"),
    }
    with broker(tmp_path, port, issuer) as served:
        assert until(agree(200), 20)
        for command, (undo, told) in breaks.items():
            ask_redis(port, command)
            try:
                assert until(agree(503), 20), command
                said = json.loads(served.get("/readyz")[1])
                assert told in " ".join(said["unavailable"]), command
            finally:
                ask_redis(port, undo)
            assert until(agree(200), 20), undo
