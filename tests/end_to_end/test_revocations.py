"""
A hundred thousand revocations in Redis, made while two replicas answer exchanges.

Every exchange is answered, and none takes long: while they are made, afterwards, and at a replica
that starts when they are there.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from federation.state.redis_scripts import REVOKED, UNTIL
from tests.harness.broker import AUDIENCE, Served
from tests.harness.issuer import CiIssuer
from tests.harness.load import Measure, exchange_request, measure
from tests.harness.process import in_thread
from tests.harness.redis import ask_redis, empty_redis, redis_server
from tests.harness.signing import signing_key

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

REVOCATIONS = 100_000
AT_ONCE, PAUSE_SECONDS = 100, 0.02
"""About 5,000 a second: thirty times as many as one connection of a job can make."""
RATE = 60.0
"""Exchanges a second, at each measurement; a fraction of what a replica can answer."""
MOST_P99_MS = 500.0
"""A generous limit for a shared machine. Before, every exchange was a 503."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[int]:
    with redis_server(tmp_path / "redis") as port:
        empty_redis(port)
        yield port


@pytest.fixture
def issuer() -> Iterator[CiIssuer]:
    made = CiIssuer("ES256")
    with in_thread(made.serving):
        yield made


def replica(folder: Path, redis: int, issuer: CiIssuer, key: Path) -> Served:
    return Served(
        folder,
        issuer.documents(),
        f"--issuer-url={AUDIENCE}",
        f"--signing-key={key}",
        f"--shared-state=redis://127.0.0.1:{redis}/0",
        environ={"FEDERATION_FAILED_EXCHANGES": "0"},
    )


async def exchanges(broker: Served, issuer: CiIssuer, seconds: float) -> Measure:
    """Exchange fresh tokens at `RATE` for *seconds*. Raises if an answer is not a 200."""
    tokens = [issuer.token() for _ in range(int(RATE * seconds))]
    return await measure(broker.port, [exchange_request(token) for token in tokens], RATE)


def revoke_many(redis: int) -> float:
    """
    Write the revocations as replicas do, and return the seconds that it took.

    Redis itself makes them, so that the client takes no time from the brokers.
    """
    began, expires = time.perf_counter(), math.ceil(time.time() + 900)
    for first in range(1, REVOCATIONS, AT_ONCE):
        script = (
            f"for n = {first}, {first + AT_ONCE - 1} do"
            f" local entry = '{expires} ' .. string.format('%032x', n)"
            f" redis.call('ZADD', '{REVOKED}', n, entry)"
            f" redis.call('ZADD', '{UNTIL}', {expires}, entry) end"
        )
        assert ask_redis(redis, f'EVAL "{script}" 0') == "$-1"
        time.sleep(PAUSE_SECONDS)
    return time.perf_counter() - began


def test_exchanges_are_answered_while_there_are_100_000_revocations_and_more(
    tmp_path: Path, redis: int, issuer: CiIssuer
) -> None:
    key = signing_key(tmp_path)
    one, two = (replica(tmp_path / name, redis, issuer, key) for name in ("one", "two"))
    told = []

    async def story() -> None:
        before = await asyncio.gather(*(exchanges(each, issuer, 5) for each in (one, two)))
        told.append(("before", before))
        making = asyncio.create_task(asyncio.to_thread(revoke_many, redis))
        during = []
        while not making.done():
            during += await asyncio.gather(*(exchanges(each, issuer, 3) for each in (one, two)))
        told.append((f"while they are made, in {await making:.0f} s", during))
        after = await asyncio.gather(*(exchanges(each, issuer, 5) for each in (one, two)))
        told.append(("afterwards", after))
        third = replica(tmp_path / "three", redis, issuer, key)
        with third.running():
            told.append(("at a replica that just started", [await exchanges(third, issuer, 5)]))

    with one.running(), two.running():
        asyncio.run(story())
        assert ask_redis(redis, f"ZCARD {REVOKED}") == f":{REVOCATIONS}"
        for each in (one, two):
            assert httpx2.get(f"{each.url}/readyz").json()["unavailable"] == []
            assert each.unexpected_errors() == []
    for when, measured in told:
        p50, p99 = (max(getattr(m, part) for m in measured) for part in ("p50_ms", "p99_ms"))
        sys.stdout.write(f"{when}: p50 {p50:.1f} ms, p99 {p99:.1f} ms\n")
    worst = max(each.p99_ms for _, measured in told for each in measured)
    assert worst < MOST_P99_MS, told
