"""Fill the disk of the state, and make it read-only."""

from __future__ import annotations

import asyncio
import time

from faults.disk import Disk, Limit, small_disk, tmpfs
from faults.outcome import Outcome, Run, until
from faults.processes import Broker, running
from faults.trail import broken_promises
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, exchange, summary

_UNAVAILABLE = {"audit_unavailable", "state_unavailable"}
_MIB = 8


async def disk_full(run: Run) -> Outcome:
    """
    The disk is full, again and again: that of the state alone, or that of the log too.

    Exchanges are a 503, none is granted without its event, and `/readyz` is a 503. Once there is
    room, exchanges are granted again, also with tokens that got a 503.
    """
    outcome = Outcome()
    state = run.folder / "broker" / "state"
    async with CiIssuer().serving() as issuer, small_disk(state, _MIB) as small:
        broker = Broker(run.folder / "broker", issuer.documents())
        load = Load([broker.port], issuer.token)
        back: list[float] = []
        kinds: list[Disk] = [small, Limit()]
        async with running(broker):
            for number in range(run.of(2, 8)):
                disk = kinds[number % 2]
                async with load.running():
                    await asyncio.sleep(0.5)
                    disk.fill(broker.pid)
                    wrong = await _unavailable(broker, load)
                    disk.free(broker.pid)
                    freed = time.monotonic()
                    wrong += await _taken_again(broker, load)
                    back.append(time.monotonic() - freed)
                outcome.tried(wrong)
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(
        f"{kinds[0].kind}, {kinds[1].kind}; {summary(load.sent)}; back within {max(back):.1f} s"
    )
    return outcome


async def read_only(run: Run) -> Outcome:
    """
    The state directory is read-only when the broker starts, and later while it runs.

    The broker starts all the same, answers 503, grants nothing, and grants again once it can
    write.
    """
    outcome = Outcome()
    state = run.folder / "broker" / "state"
    async with CiIssuer().serving() as issuer, tmpfs(state, _MIB) as disk:
        broker = Broker(run.folder / "broker", issuer.documents())
        load = Load([broker.port], issuer.token)
        async with running(broker):  # to create the signing key
            await load.for_seconds(0.5)
        for _ in range(run.of(1, 3)):
            await disk.read_only(yes=True)
            async with running(broker), load.running():
                wrong = await _unavailable(broker, load)
                await disk.read_only(yes=False)
                outcome.tried(wrong + await _taken_again(broker, load))
            async with running(broker), load.running():
                async with tmpfs(state, _MIB, read_only=True):
                    wrong = await _unavailable(broker, load)
                outcome.tried(wrong + await _taken_again(broker, load))
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(summary(load.sent))
    return outcome


async def _unavailable(broker: Broker, load: Load) -> list[str]:
    """Wait until every exchange is a 503, and see that it stays so."""

    async def says_so() -> bool:
        return any(sent.status == 503 for sent in load.sent[-4:])

    if await until(says_so, 5) is None:
        return [f"no 503 came: {summary(load.sent[-20:])}"]
    await asyncio.sleep(0.5)
    before = len(load.sent)
    await asyncio.sleep(1.5)
    wrong = [
        f"got {sent.answer}"
        for sent in load.sent[before:]
        if sent.status != 503 or sent.reason not in _UNAVAILABLE
    ]
    if await broker.readiness() != 503:
        wrong.append("/readyz does not say so")
    return wrong[:3]


async def _taken_again(broker: Broker, load: Load) -> list[str]:
    """Wait until exchanges are granted again, also with the tokens that got a 503."""

    async def grants() -> bool:
        return load.sent[-1].status == 200

    if await until(grants, 10) is None:
        return [f"nothing is granted any more: {summary(load.sent[-20:])}"]
    settled = {sent.token for sent in load.sent if sent.status != 503}
    waiting = list(dict.fromkeys(sent.token for sent in load.sent if sent.status == 503))
    wrong = []
    for token in [token for token in waiting if token not in settled][-40:]:
        again = await exchange(broker.port, token)
        load.sent.append(again)
        if again.status != 200:
            wrong.append(f"after a 503 the same token got {again.answer}")

    async def ready() -> bool:
        return await broker.readiness() == 200

    if await until(ready, 10) is None:
        wrong.append("/readyz does not recover")
    return wrong[:3]
