"""
Soak: half of the peak rate for minutes, while the broker's memory and descriptors are watched.

The load comes in stretches of a few seconds. During each, another process signs the tokens of
the next one with ES256, so that neither broker nor client waits for signatures.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from faults.outcome import Outcome
from faults.processes import Broker, running
from federation.demo.jobs import claims_of
from tests.harness.broker import AUDIENCE
from tests.harness.issuer import CiIssuer
from tests.harness.load import Measure, exchange_request, measure

_PEAK_REQUESTS = 1500
_STRETCH_SECONDS = 5.0
_WARM_STRETCHES = 2
_MIB = 1024 * 1024
_GROWTH_BYTES = 16 * _MIB
_GROWTH_FILES = 8


async def soak(minutes: float) -> bool:
    """Soak a broker and print the figures. True if its memory and descriptors stayed flat."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        async with CiIssuer("ES256").serving() as issuer:
            broker = Broker(Path(folder), issuer.documents())
            async with running(broker):
                await _soaked(broker, issuer, minutes, outcome)
            outcome.judge(broker.unexpected_errors())
    for line in (*outcome.measured, *(f"BROKEN: {why}" for why in outcome.wrong)):
        print(line, flush=True)
    return not outcome.wrong


async def _soaked(broker: Broker, issuer: CiIssuer, minutes: float, outcome: Outcome) -> None:
    key = issuer.issuer().keys[0]
    pem = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with ProcessPoolExecutor(1, get_context("spawn"), os.nice, (10,)) as signer:

        async def requests(number: int) -> list[bytes]:
            work = partial(_requests, issuer.iss(), str(key.kid), pem, number)
            return await asyncio.get_running_loop().run_in_executor(signer, work)

        await measure(broker.port, await requests(300))
        peak = await measure(broker.port, await requests(_PEAK_REQUESTS))
        rate = peak.rate / 2
        outcome.saw(f"peak {peak.rate:.0f}/s, soaking at {rate:.0f}/s for {minutes:g} minutes")
        count, looks = int(rate * _STRETCH_SECONDS), [_memory_and_files(broker)]
        measures: list[Measure] = []
        stretch = await requests(count)
        deadline = time.monotonic() + minutes * 60
        while time.monotonic() < deadline:
            signing = asyncio.create_task(requests(count))
            measures.append(await measure(broker.port, stretch, rate))
            stretch = await signing
            looks.append(_memory_and_files(broker))
    warm = looks[min(_WARM_STRETCHES, len(looks) - 1)]
    grown = [end - start for start, end in zip(warm, looks[-1], strict=True)]
    outcome.tried([f"memory grew by {grown[0] / _MIB:.1f} MiB"] if grown[0] > _GROWTH_BYTES else [])
    outcome.judge([f"{grown[1]} more descriptors"] if grown[1] > _GROWTH_FILES else [])
    sent = count * len(measures)
    outcome.saw(f"{sent} exchanges, all granted, {median(m.rate for m in measures):.0f}/s")
    outcome.saw(
        f"pid {broker.pid}: RSS {warm[0] / _MIB:.1f} → {looks[-1][0] / _MIB:.1f} MiB"
        f" (most {max(look[0] for look in looks) / _MIB:.1f}),"
        f" descriptors {warm[1]} → {looks[-1][1]} (most {max(look[1] for look in looks)})"
    )
    outcome.saw(
        f"p50 {median(m.p50_ms for m in measures):.1f} ms, p99 {median(m.p99_ms for m in measures):.1f} ms,"
        f" worst p99 of a stretch {max(m.p99_ms for m in measures):.1f} ms"
    )


def _memory_and_files(broker: Broker) -> tuple[int, int]:
    return broker.resident_bytes(), broker.open_files()


def _requests(iss: str, kid: str, pem: bytes, count: int) -> list[bytes]:
    """So many exchange requests of fresh tokens, for keep-alive connections."""
    return [exchange_request(_token(iss, kid, pem)) for _ in range(count)]


def _token(iss: str, kid: str, pem: bytes) -> str:
    claims = claims_of("github", "main", iss=iss, audience=AUDIENCE, now=time.time())
    return jwt.encode(claims, pem, "ES256", {"kid": kid})
