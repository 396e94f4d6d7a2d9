"""
`make faults`: inject each fault into real processes under load, and print which promises held.

`python -m faults [--short] [--at-once N] [NAME…]`, or `python -m faults soak --minutes N`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faults import (
    bodies,
    clock,
    connections,
    files,
    issuers,
    killing,
    shared,
    soak,
    storage,
    strangers,
    upstream,
    webhook,
)
from faults.outcome import Fault, NotTried, Outcome, Run

FAULTS: Mapping[str, Fault] = {
    fault.__name__: fault
    for fault in (
        killing.worker_killed,
        killing.broker_killed,
        killing.sigterm,
        storage.disk_full,
        storage.read_only,
        shared.redis_stopped,
        shared.redis_frozen,
        shared.redis_restarted_empty,
        shared.redis_slow,
        shared.redis_cut_off,
        shared.replicas_racing,
        webhook.webhook_down,
        webhook.webhook_failing,
        webhook.webhook_certificate,
        issuers.issuer_down,
        issuers.issuer_slow,
        issuers.issuer_rotating,
        issuers.issuer_garbage,
        clock.clock_stepped,
        files.documents_bad,
        files.documents_half_written,
        files.documents_swapped,
        files.documents_bad_workers_killed,
        upstream.upstream_dying,
        bodies.bodies_held,
        connections.unread_answers,
        connections.pipelining,
        connections.half_heads,
        strangers.trail_flooded,
    )
}
_SECONDS = {True: 150.0, False: 900.0}


@dataclass(frozen=True, slots=True)
class Row:
    """One fault in the table."""

    name: str
    outcome: Outcome
    not_tried: str
    seconds: float

    @property
    def held(self) -> bool:
        """True if it was tried, and every promise held each time."""
        return bool(self.outcome.tries) and not self.outcome.wrong


async def run_all(names: Sequence[str], *, short: bool, at_once: int) -> list[Row]:
    """Inject the faults *names*, *at_once* at a time, and return their rows in that order."""
    free = asyncio.Semaphore(at_once)

    async def one(name: str) -> Row:
        async with free:
            row = await _tried(name, short=short)
            print(_line(row), file=sys.stderr, flush=True)
            return row

    return list(await asyncio.gather(*map(one, names)))


async def _tried(name: str, *, short: bool) -> Row:
    began, not_tried, outcome = time.monotonic(), "", Outcome()
    with tempfile.TemporaryDirectory(prefix=f"fault-{name}-", ignore_cleanup_errors=True) as folder:
        try:
            async with asyncio.timeout(_SECONDS[short]):
                outcome = await FAULTS[name](Run(Path(folder), short=short))
        except NotTried as why:
            not_tried = str(why)
        except Exception as error:  # whatever it is, the other faults are still tried
            outcome.tried([f"{type(error).__name__}: {error}"])
    return Row(name, outcome, not_tried, time.monotonic() - began)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    lines = [_line(row) for row in rows]
    tried = [row for row in rows if not row.not_tried]
    good = sum(row.held for row in tried)
    return "\n".join(
        [
            f"{'fault':<30}{'tries':>6}{'held':>6}   measured",
            *lines,
            f"{good} of {len(tried)} faults held; {len(rows) - len(tried)} not tried",
        ]
    )


def _line(row: Row) -> str:
    if row.not_tried:
        return f"{row.name:<30}{'-':>6}{'-':>6}   not tried: {row.not_tried}"
    outcome = row.outcome
    told = "; ".join([*outcome.measured, f"took {row.seconds:.0f} s"])
    wrong = "".join(f"\n{'':<12}BROKEN: {why}" for why in list(dict.fromkeys(outcome.wrong))[:8])
    return f"{row.name:<30}{outcome.tries:>6}{outcome.held:>6}   {told}{wrong}"


def main() -> None:
    """Run the faults that the command line names. Exit with 1 if a promise did not hold."""
    asked = _arguments()
    if asked.names == ["soak"]:
        sys.exit(0 if asyncio.run(soak.soak(asked.minutes)) else 1)
    names = asked.names or list(FAULTS)
    if unknown := set(names) - set(FAULTS):
        sys.exit(
            f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}, soak"
        )
    rows = asyncio.run(run_all(names, short=asked.short, at_once=asked.at_once))
    print("\n" + table(rows))
    sys.exit(0 if all(row.held or row.not_tried for row in rows) else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults to inject, or soak")
    parser.add_argument("--short", action="store_true", help="fewer tries, shorter outages")
    parser.add_argument("--at-once", type=int, default=1, help="how many faults at the same time")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to soak")
    return parser.parse_args()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        os.umask(0o077)
        main()
