"""Kill workers and brokers, and stop one with SIGTERM."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress

from faults.outcome import Outcome, Run, until
from faults.processes import Broker, running, start
from faults.trail import broken_promises, digest, recorded
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, Sent, exchange, granted

_WORKERS = 2


async def worker_killed(run: Run) -> Outcome:
    """
    Workers are killed at random moments, while two clients send each token at once.

    Every answered exchange is in the audit trail, no token is granted twice, and the killed
    worker is replaced.
    """
    outcome, times = Outcome(), run.of(8, 50)
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents(), "--workers", str(_WORKERS))
        load = Load([broker.port], issuer.token, twice=True)

        async def all_are_there() -> bool:
            return len(broker.workers()) == _WORKERS

        async with running(broker), load.running():
            for _ in range(times):
                wrong = [] if await until(all_are_there, 20) else ["a worker was not replaced"]
                await asyncio.sleep(random.uniform(0.0, 1.5))  # noqa: S311  a moment
                with suppress(ProcessLookupError):
                    os.kill(random.choice(broker.workers()), signal.SIGKILL)  # noqa: S311
                outcome.tried(wrong)
            await asyncio.sleep(2)
    _judge(outcome, load.sent, broker)
    return outcome


async def broker_killed(run: Run) -> Outcome:
    """
    The whole broker is killed at a random moment, and started again on the same state.

    Every answered exchange is in the audit trail, and no token is granted twice, not even after
    the restart.
    """
    outcome = Outcome()
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents())
        load = Load([broker.port], issuer.token, twice=True)
        try:
            for _ in range(run.of(3, 10)):
                await start(broker)
                async with load.running():
                    await asyncio.sleep(random.uniform(0.3, 1.5))  # noqa: S311  a moment
                    await asyncio.to_thread(broker.kill)
                outcome.tried()
            await start(broker)
            again = [await exchange(broker.port, each.token) for each in granted(load.sent)[-50:]]
            load.sent += again
            outcome.judge(
                f"a replay got {each.answer}" for each in again if each.reason != "already_used"
            )
        finally:
            await asyncio.to_thread(broker.stop)
    _judge(outcome, load.sent, broker)
    return outcome


def _judge(outcome: Outcome, sent: list[Sent], broker: Broker) -> None:
    """Judge all that was sent together: nothing shows which of several kills broke a promise."""
    outcome.judge(broken_promises(sent, broker))
    cut = sum(1 for each in sent if each.broken)
    answered = {each.token for each in granted(sent)}
    silent = {
        str(event["token_sha256"])
        for event in recorded(broker.state)
        if event["response_code"] == 200
    } - {digest(token) for token in answered}
    outcome.saw(
        f"{len(answered)} granted, {cut} requests cut off, {len(silent)} grants that no client received"
    )


async def sigterm(run: Run) -> Outcome:
    """
    The broker gets SIGTERM under load, with one worker or two.

    Every request gets a whole answer, also one that is still being sent. If its connection was
    never accepted, its token is not spent. The broker ends well within its grace period.
    """
    outcome, slowest, never = Outcome(), 0.0, 0
    async with CiIssuer().serving() as issuer:
        for number in range(run.of(4, 20)):
            flags = ("--workers", "2") if number % 2 else ()
            broker = Broker(run.folder / str(number), issuer.documents(), *flags)
            load = Load([broker.port], issuer.token, clients=8, pause_seconds=0.0)
            try:
                await start(broker)
                async with load.running():
                    await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311  a moment
                    slow = [asyncio.create_task(each) for each in _in_the_middle(broker, issuer)]
                    await asyncio.sleep(0.05)
                    began = time.monotonic()
                    broker.send(signal.SIGTERM)
                    code = await asyncio.to_thread(broker.ended)
                    slowest = max(slowest, time.monotonic() - began)
                accepted = await asyncio.gather(*slow)
                sent = [*load.sent, *accepted]
            finally:
                await asyncio.to_thread(broker.stop)
            never += sum(1 for each in sent if each.broken == "reset")
            wrong = [f"an accepted one was {each.broken}" for each in accepted if each.broken]
            outcome.tried((wrong + _dropped(sent, broker, code))[:3])
    outcome.saw(f"stopped within {slowest:.1f} s, {never} connections never accepted")
    return outcome


def _dropped(sent: list[Sent], broker: Broker, code: int | None) -> list[str]:
    wrong = broken_promises(sent, broker)
    if code != 0:
        wrong.append(f"the broker ended with {code}")
    known = {str(event["token_sha256"]) for event in recorded(broker.state)}
    for each in sent:
        if each.broken in {"cut", "timeout"}:
            wrong.append(f"an answer was {each.broken}")
        elif each.broken == "reset" and digest(each.token) in known:
            wrong.append("a request was worked on and not answered")
        elif each.status not in {None, 200}:
            wrong.append(f"a request got {each.answer}")
    return wrong


def _in_the_middle(broker: Broker, issuer: CiIssuer) -> Iterator[Coroutine[None, None, Sent]]:
    """Requests of clients that have sent nothing, half a head or half a body, and pause."""
    for byte in (0, 40, 300):
        for seconds in (0.1, 0.2, 0.4):
            yield exchange(broker.port, issuer.token(), pause_at=byte, pause_seconds=seconds)
