"""Step the clock of a running broker."""

from __future__ import annotations

from pathlib import Path

from faults.outcome import NotTried, Outcome, Run
from faults.processes import Broker, running
from faults.trail import broken_promises
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, Sent, exchange, granted, summary

_STEPS_SECONDS = (600, 0, -600, 0, 600, -600, 0)


async def clock_stepped(run: Run) -> Outcome:
    """
    The clock of the broker steps ten minutes ahead and back, and so does that of its issuer.

    No token is granted twice, no process ends, and tokens that are valid by the broker's clock
    are granted.
    """
    outcome, step = Outcome(), run.folder / "clock"
    step.write_text("+0\n")
    environ = {
        "LD_PRELOAD": str(_library()),
        "FAKETIME_TIMESTAMP_FILE": str(step),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder / "broker", issuer.documents(), environ=environ)
        load = Load([broker.port], issuer.token)
        async with running(broker):
            pid = broker.pid
            await load.for_seconds(0.5)
            for number, seconds in enumerate(_STEPS_SECONDS * run.of(1, 5)):
                step.write_text(f"{seconds:+d}\n")
                # Tokens dated by our clock are now wrong by ten minutes for the broker; tokens
                # dated by its own clock are right.
                strange = await load.for_seconds(0.5)
                issuer.ahead_seconds = seconds
                # The first time, wait until the broker has deleted what looks expired to it.
                right = await load.for_seconds(0.5 if run.short or number else 33.0)
                issuer.ahead_seconds = 0
                old = granted(load.sent)
                replayed = [
                    await exchange(broker.port, sent.token) for sent in old[:: 1 + len(old) // 40]
                ]
                load.sent += replayed
                outcome.tried(_wrong(seconds, strange, right, replayed)[:1])
            if (broker.pid, broker.exit_code) != (pid, None):
                outcome.judge(["the broker ended"])
            outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(summary(load.sent))
    return outcome


def _wrong(seconds: int, strange: list[Sent], right: list[Sent], replayed: list[Sent]) -> list[str]:
    expected = {600: "expired", -600: "not_yet_valid", 0: ""}[seconds]
    wrong = [f"{seconds:+d} s: got {s.answer}" for s in strange if s.reason != expected]
    wrong += [
        f"{seconds:+d} s: with the same clock, got {s.answer}" for s in right if s.status != 200
    ]
    wrong += [f"{seconds:+d} s: a replay was granted" for s in granted(replayed)]
    return wrong


def _library() -> Path:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise NotTried("libfaketime is not installed")
    return found[0]
