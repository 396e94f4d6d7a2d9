"""
Audit events for tests, and a process that records them until it is killed.

`python -m tests.harness.journal_writer FOLDER [--webhook URL] [--file-bytes N]` prints the id of each
event as soon as it is recorded.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from federation.audit.delivery import Delivery, Webhook
from federation.audit.event import Actor, Event, Trail
from federation.audit.journal import FileJournal
from federation.audit.read import ends, events
from federation.audit.segments import stored
from federation.errors import Refusal
from federation.logs import configure_logs

ROOT = Path(__file__).parents[2]
SIZE = 64 * 1024 * 1024
CALLERS = 16


def event(number: int = 0, **facts: object) -> Event:
    """An event of a granted exchange, with *facts* changed."""
    trail = Trail(
        request_id=f"request-{number}",
        method="POST",
        path="/oauth/token",
        started=1_800_000_000.0 + number,
        actor=Actor("fed:repo:octo-org/octo-repo", "https://gateway.example.com", "https://iss"),
        roles=("deployer",),
        policies=("deploy",),
        token_sha256="ab" * 32,
    )
    for name, fact in facts.items():
        setattr(trail, name, fact)
    return trail.event(200)


def recorded(folder: Path) -> list[str]:
    """The ids of the events in the journal at *folder*, in order."""
    segments = stored(folder)
    counted = ends(segments)
    return [
        str(found["event_id"])
        for segment in segments
        for _, found in events(segment.path, 0, counted[segment.path])
    ]


@contextmanager
def recorder(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the process inside the `with` block, then kill it."""
    process = subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-m", "tests.harness.journal_writer", str(folder), *arguments],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


async def _record(folder: Path, webhook: str | None, file_bytes: int | None) -> None:
    journal = FileJournal(folder, SIZE, deliver=webhook is not None)
    if webhook:
        delivering = asyncio.create_task(Delivery(journal, Webhook(webhook)).run())
    if file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, resource.RLIM_INFINITY))

    async def caller(number: int) -> None:
        while True:
            one = event(number)
            try:
                await journal.record(one)
            except Refusal as refusal:
                print("refused", refusal.evidence["journal"], flush=True)  # noqa: T201  its output
            else:
                print(one.event_id, flush=True)  # noqa: T201  its output

    await asyncio.gather(*map(caller, range(CALLERS)), *([delivering] if webhook else []))


if __name__ == "__main__":
    options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    configure_logs("json", quiet=True)
    limit = options.get("--file-bytes")
    asyncio.run(_record(Path(sys.argv[1]), options.get("--webhook"), limit and int(limit)))  # type: ignore[arg-type]
