"""Break the audit webhook: it is down, slow, refuses, hangs up, or has a wrong certificate."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

from faults.outcome import Outcome, Run, until
from faults.processes import Broker, running
from faults.trail import broken_promises, recorded_by_process
from tests.harness.certificates import Authority
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load
from tests.harness.process import free_port
from tests.harness.webhook_receiver import (
    Behaviour,
    Receiver,
    answer,
    cut,
    hang_up,
    receiving,
    slow,
)


async def webhook_down(run: Run) -> Outcome:
    """
    The webhook refuses connections for a while, and a worker is killed meanwhile.

    Every recorded event is delivered afterwards, at least once, in the order of its process.
    """
    outcome, port, taken = Outcome(), free_port(), list[str]()
    async with CiIssuer().serving() as issuer:
        url = f"http://127.0.0.1:{port}/events"
        broker = Broker(run.folder, issuer.documents(), "--workers", "2", "--audit-webhook", url)
        load = Load([broker.port], issuer.token, pause_seconds=0.05)
        async with running(broker):
            with receiving(port) as receiver:
                await load.for_seconds(1.0)
            taken += receiver.event_ids
            async with load.running():
                await asyncio.sleep(run.of(2, 20))
                with suppress(ProcessLookupError):
                    os.kill(random.choice(broker.workers()), signal.SIGKILL)  # noqa: S311
                await asyncio.sleep(run.of(3, 120))
            with receiving(port) as receiver:
                seconds = await _delivered(broker, taken, receiver, 90)
                wrong = _judged(broker, [*taken, *receiver.event_ids], seconds)
        outcome.tried(wrong + broken_promises(load.sent, broker))
    outcome.saw(_told(broker, [*taken, *receiver.event_ids], seconds))
    return outcome


async def webhook_failing(run: Run) -> Outcome:
    """
    The webhook is slow, answers 500 or 429, hangs up, or closes in the middle of its answer.

    Every event is delivered in the end, in the order of its process.
    """
    outcome, faults = Outcome(), _failures(run)
    async with CiIssuer().serving() as issuer:
        for name, behaviours in faults.items():
            with receiving() as receiver:
                receiver.next = behaviours(receiver)
                place = run.folder / name.replace(" ", "-")
                broker = Broker(place, issuer.documents(), "--audit-webhook", receiver.url)
                load = Load([broker.port], issuer.token, pause_seconds=0.05)
                async with running(broker):
                    await load.for_seconds(1.0)
                    seconds = await _delivered(broker, [], receiver, 60)
                    wrong = _judged(broker, receiver.event_ids, seconds)
                wrong += ["it was never so"] if receiver.next else []
                laws = broken_promises(load.sent, broker)
                outcome.tried(f"{name}: {why}" for why in (wrong + laws)[:1])
                outcome.saw(f"{name}: {_told(broker, receiver.event_ids, seconds)}")
    return outcome


def _failures(run: Run) -> dict[str, Callable[[Receiver], list[Behaviour]]]:
    """The answers to the next deliveries."""
    times = run.of(2, 4)
    return {
        "500": lambda _: [answer(500)] * times,
        "429": lambda _: [answer(429, Retry_After="1")] * times,
        "hang up": lambda _: [hang_up] * times,
        "cut": lambda _: [cut] * times,
        "slow": lambda receiver: [_late(receiver)] * 2,
        "too slow": lambda _: [slow(16.0)] * (times - 1),
    }


def _late(receiver: Receiver) -> Behaviour:
    """Take a delivery, but answer it late."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(2.0)
        receiver.taken.append(receiver.seen[-1])
        answer(204)(handler)

    return behave


async def webhook_certificate(run: Run) -> Outcome:
    """
    The webhook's certificate is from an authority that the broker does not trust for it.

    Nothing is delivered to it. Every event is delivered once it has a certificate from the right
    authority.
    """
    outcome, port = Outcome(), free_port()
    right, other = Authority(run.folder / "right"), Authority(run.folder / "other")
    async with CiIssuer().serving() as issuer:
        url = f"https://127.0.0.1:{port}/events"
        flags = ("--audit-webhook", url, "--audit-webhook-ca", str(right.certificate))
        broker = Broker(run.folder / "broker", issuer.documents(), *flags)
        load = Load([broker.port], issuer.token, pause_seconds=0.05)
        async with running(broker):
            with receiving(port, other.server()) as false:
                await load.for_seconds(run.of(2, 20))
            with receiving(port, right.server()) as true:
                seconds = await _delivered(broker, [], true, 60)
                wrong = _judged(broker, true.event_ids, seconds)
        wrong += [f"{len(false.seen)} deliveries to the wrong one"] if false.seen else []
        outcome.tried(wrong + broken_promises(load.sent, broker))
    outcome.saw(_told(broker, true.event_ids, seconds))
    return outcome


async def _delivered(
    broker: Broker, before: Sequence[str], receiver: Receiver, seconds: float
) -> float | None:
    """Wait until every recorded event was delivered, and return after how many seconds."""

    async def all_of_it() -> bool:
        owed = {str(e["event_id"]) for own in recorded_by_process(broker.state) for e in own}
        return owed <= {*before, *receiver.event_ids}

    return await until(all_of_it, seconds)


def _judged(broker: Broker, taken: Sequence[str], seconds: float | None) -> list[str]:
    """The errors in the deliveries: events that are missing, or out of order."""
    wrong = []
    if seconds is None:
        owed = {str(e["event_id"]) for own in recorded_by_process(broker.state) for e in own}
        wrong.append(f"{len(owed - set(taken))} of {len(owed)} events were never delivered")
    first = {event: place for place, event in reversed(list(enumerate(taken)))}
    for own in recorded_by_process(broker.state):
        places = [first[str(e["event_id"])] for e in own if e["event_id"] in first]
        if places != sorted(places):
            wrong.append("events of one process were delivered out of order")
    return wrong


def _told(broker: Broker, taken: Sequence[str], seconds: float | None) -> str:
    events = sum(map(len, recorded_by_process(broker.state)))
    after = "never all" if seconds is None else f"all after {seconds:.1f} s"
    return f"{events} events, {len(taken) - len(set(taken))} twice, {after}"
