"""
Audit events for tests, and a process that records them until it is killed.

`python -m tests.harness.journal_writer FOLDER [--webhook URL] [--file-bytes N] [--size N]` prints the
id of each event as soon as it is recorded.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from federation.audit.delivery import Delivery
from federation.audit.event import Actor, Event, Standing, Trail
from federation.audit.journal import FileJournal
from federation.audit.read import ends, events
from federation.audit.seals import SEAL_TYPE
from federation.audit.segments import stored
from federation.audit.verify import JournalCheck, check_journal
from federation.audit.webhook import Webhook
from federation.errors import Refusal
from federation.jose.jwk import parse_key_set
from federation.logs import configure_logs
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import SigningKey

ROOT = Path(__file__).parents[2]
SIZE = 64 * 1024 * 1024
CALLERS = 16
SEALING_KEY = SigningKey.of(ec.derive_private_key(5, ec.SECP256R1()))
"""The same in each process."""
SEAL_KEYS = parse_key_set({"keys": [SEALING_KEY.jwk]})


def sign(payload: Mapping[str, object]) -> str:
    """A seal with *payload*, signed as the broker signs it."""
    return sign_jws(payload, SEALING_KEY, SEAL_TYPE)


def examine(folder: Path) -> JournalCheck:
    """Check the journal at *folder* against seals that `sign` signed."""
    return check_journal(folder, SEAL_KEYS)


def event(number: int = 0, **facts: object) -> Event:
    """An event of a granted exchange, with *facts* changed."""
    trail = Trail(
        request_id=f"request-{number}",
        method="POST",
        path="/oauth/token",
        started=1_800_000_000.0 + number,
        standing=Standing.ADMITTED,
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


async def _record(folder: Path, webhook: str | None, file_bytes: int | None, size: int) -> None:
    journal = FileJournal(folder, size, sign=sign, deliver=webhook is not None)
    running = asyncio.create_task(journal.run())
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

    await asyncio.gather(*map(caller, range(CALLERS)), running, *([delivering] if webhook else []))


if __name__ == "__main__":
    options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    configure_logs("json", quiet=True)
    limit = options.get("--file-bytes")
    asyncio.run(
        _record(
            Path(sys.argv[1]),
            options.get("--webhook"),
            int(limit) if limit else None,
            int(options.get("--size", SIZE)),
        )
    )
