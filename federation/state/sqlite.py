"""
A store in one SQLite file, shared by all workers of a machine.

Claims that arrive while a transaction is at work share the next one. The file is in WAL mode,
so a claim that was answered outlives the process, however it ends; a power cut may take those
of the last seconds. Revoked tokens are few and asked for often, so each process holds them in
memory and looks for new ones several times a second; where it could not look for a second, it
says so rather than guess.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from federation.batching import Batcher
from federation.errors import Reason, Refusal
from federation.state.expiring import KEPT_LONGER_SECONDS, ExpiringSet, Freshness

__all__ = ["SqliteStore"]

Result = TypeVar("Result")
Step = Callable[[sqlite3.Connection], Result]

_LOOK_SECONDS = 0.25
_CHECKPOINT_SECONDS = 1.0
_SWEEP_SECONDS = 600.0
_SLICES = 256
_BUSY_SECONDS = 2.0
_RETRY_SECONDS = 0.01
_TOGETHER = 32
_PREPARE = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    # In pages. Checkpoints have a thread of their own; this is for when they do not keep up.
    "PRAGMA wal_autocheckpoint = 10000",
    "CREATE TABLE IF NOT EXISTS spent (key TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "DROP INDEX IF EXISTS spent_until",  # of an older version; each claim had to write to it
    """CREATE TABLE IF NOT EXISTS revoked (
         seq INTEGER PRIMARY KEY AUTOINCREMENT, jti TEXT UNIQUE NOT NULL, until REAL NOT NULL)""",
)


@dataclass(frozen=True, slots=True)
class _Claim:
    """A step: *key* is spent, and True for the caller that spent it."""

    key: str
    until: float

    def __call__(self, connection: sqlite3.Connection) -> bool:
        made = connection.execute(
            "INSERT INTO spent (key, until) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
            (self.key, self.until),
        )
        return made.rowcount == 1


class SqliteStore:
    """
    Spent and revoked tokens in the file *path*, made where there is none.

    What expired leaves within *sweep_seconds*. It is looked for slice by slice, since an index
    by time would cost each claim more than the search costs all of them.
    """

    def __init__(
        self, path: Path, clock: Callable[[], float], *, sweep_seconds: float = _SWEEP_SECONDS
    ) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._steps: Batcher[Step[object], object] = Batcher(self._transaction, "state")
        self._revoked = ExpiringSet()
        self._fresh = Freshness()
        self._seen = 0
        self._slice_seconds = sweep_seconds / _SLICES
        self._slice_due = time.monotonic()
        # Processes that live for a short time must not all begin with the same one.
        self._slice = secrets.randbelow(_SLICES)

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*; True for the first caller, of all processes."""

        return await self._do(_Claim(key, until))

    async def restore(self, key: str) -> None:
        """Give *key* back."""
        await self._do(
            lambda connection: connection.execute("DELETE FROM spent WHERE key = ?", (key,))
        )

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that *jti* was ended; here at once, in other processes within a second."""
        await self._do(
            lambda connection: connection.execute(
                "INSERT INTO revoked (jti, until) VALUES (?, ?) ON CONFLICT (jti) DO NOTHING",
                (jti, until),
            )
        )
        self._revoked.add(jti, until, self._clock())

    async def revoked(self, jti: str) -> bool:
        """Whether *jti* was ended."""
        if jti in self._revoked:
            return True
        if self._fresh.stale():
            await self._look()
        return jti in self._revoked

    async def run(self) -> None:
        """
        Until cancelled: the view of revoked tokens stays fresh, old rows leave, and what was
        written is on disk within seconds.
        """
        async with asyncio.TaskGroup() as both:
            both.create_task(self._stay_fresh())
            both.create_task(self._reach_the_disk())

    async def aclose(self) -> None:
        """Everything asked for is done, and the file is closed."""
        await self._steps.aclose()
        if self._connection is not None:
            self._connection.close()

    async def _stay_fresh(self) -> None:
        while True:
            with suppress(Refusal):
                await self._look()
                await self._sweep()
            await asyncio.sleep(_LOOK_SECONDS)

    async def _reach_the_disk(self) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT_SECONDS)
            await asyncio.to_thread(self._checkpoint)

    async def _look(self) -> None:
        """Whatever was revoked before now, by whichever process, is known here."""
        began = time.monotonic()
        seen = self._seen

        def new(connection: sqlite3.Connection) -> list[tuple[int, str, float]]:
            return connection.execute(
                "SELECT seq, jti, until FROM revoked WHERE seq > ? ORDER BY seq", (seen,)
            ).fetchall()

        for seq, jti, until in await self._do(new):
            self._revoked.add(jti, until, self._clock())
            self._seen = max(self._seen, seq)
        self._fresh.seen(began)

    async def _sweep(self) -> None:
        """Whatever expired is gone from the slices that are due."""
        for _ in range(_SLICES):
            if time.monotonic() < self._slice_due:
                return
            self._slice_due = max(self._slice_due, time.monotonic() - 1) + self._slice_seconds
            self._slice = (self._slice + 1) % _SLICES
            await self._do(partial(_sweep, self._slice, self._clock() - KEPT_LONGER_SECONDS))

    async def _do(self, step: Step[Result]) -> Result:
        try:
            return await self._steps.submit(step)  # type: ignore[return-value]  # a batch mixes steps
        except (sqlite3.Error, OSError) as error:
            raise Refusal(Reason.STATE_UNAVAILABLE, evidence={"store": str(error)}) from error

    def _transaction(self, steps: Sequence[Step[object]]) -> Sequence[object]:
        """Every step, in one transaction: all of them or none. Runs in the store's thread."""
        connection = self._connection = self._connection or self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = _claimed_together(connection, steps) or [step(connection) for step in steps]
            connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.close()
            self._connection = None
            raise
        return results

    def _checkpoint(self) -> None:
        """
        What the WAL holds is on disk and in the file, as far as nobody is in the way.

        Were it done after a transaction, as SQLite does it, the claims in it would wait for it.
        """
        existing = f"{self._path.absolute().as_uri()}?mode=rw"  # none is made
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(existing, uri=True, timeout=0)) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                connection = self._prepared()
            except sqlite3.OperationalError as error:
                # While another process makes the file, or its WAL, SQLite fails without waiting.
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                self._seen = 0  # it may be another file than before
                return connection

    def _prepared(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for statement in _PREPARE:
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _sweep(number: int, before: float, connection: sqlite3.Connection) -> None:
    """Tokens that expired *before* are gone: the spent ones of slice *number*, revoked ones all."""
    # Keys are hexadecimal digests; whatever else there is falls to the first slice or the last.
    first = f"{number:02x}" if number else ""
    end = f"{number + 1:02x}" if number + 1 < _SLICES else "\U0010ffff"
    connection.execute(
        "DELETE FROM spent WHERE key >= ? AND key < ? AND until < ?", (first, end, before)
    )
    connection.execute("DELETE FROM revoked WHERE until < ?", (before,))


def _claimed_together(
    connection: sqlite3.Connection, steps: Sequence[Step[object]]
) -> Sequence[object]:
    """
    The answers to *steps* where all are claims of different keys that are new; else nothing.

    Two statements for all of them: each one hands Python's lock over and takes it back.
    """
    claims = [step for step in steps if isinstance(step, _Claim)]
    keys = [claim.key for claim in claims]
    if len(claims) < len(steps) or len(set(keys)) < len(keys) or len(keys) > _TOGETHER:
        return ()
    places = ",".join("?" * len(keys))
    known = connection.execute(f"SELECT 1 FROM spent WHERE key IN ({places}) LIMIT 1", keys)  # noqa: S608  only question marks
    if known.fetchone():
        return ()
    rows = [value for claim in claims for value in (claim.key, claim.until)]
    places = ",".join(["(?,?)"] * len(keys))
    connection.execute(f"INSERT INTO spent (key, until) VALUES {places}", rows)  # noqa: S608  the same
    return [True] * len(keys)
