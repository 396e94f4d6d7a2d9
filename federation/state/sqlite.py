"""
A store in one SQLite file, shared by all workers of a machine.

Claims that arrive during a transaction share the next one (group commit). The file is in WAL
mode: a claim that was answered survives `kill -9`, and a power cut can lose the claims of the
last seconds. Revoked tokens are few and read often, so each process keeps them in memory and
polls for new ones several times a second. A process that could not poll for a second refuses
to answer.

A file that is removed or replaced while processes have it open would leave each of them with its
own, and a token could be spent once in each. So every transaction compares the files on disk with
those that this process opened, and fails if they differ.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from federation.batching import Batcher
from federation.errors import Reason, Refusal
from federation.state import ONE_BY_ONE, Observe, timed
from federation.state.expiring import KEPT_LONGER_SECONDS, ExpiringSet, Freshness
from federation.state.sqlite_errors import told

Result = TypeVar("Result")
Step = Callable[[sqlite3.Connection], Result]

_Identity = tuple[int, int]
"""Device and inode of a file."""

_LOOK_SECONDS = 0.25
_CHECKPOINT_SECONDS = 1.0
_SLICES = 256
_BUSY_SECONDS = 2.0
_RETRY_SECONDS = 0.01
_READ_AT_ONCE = 1000
"""Revoked tokens in one step. A thousand hold the event loop for about a millisecond."""
_PROBE = "probe"  # no token's key: those are digests
_PREPARE = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    # Else a long statement could write a temporary file outside the state folder.
    "PRAGMA temp_store = MEMORY",
    # In pages. A thread of its own makes the checkpoints; this limit holds if it falls behind.
    "PRAGMA wal_autocheckpoint = 10000",
    "CREATE TABLE IF NOT EXISTS spent (key TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS revoked (
         seq INTEGER PRIMARY KEY AUTOINCREMENT, jti TEXT UNIQUE NOT NULL, until REAL NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS revoked_of (
         parent TEXT PRIMARY KEY, count INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID""",
)


class SqliteStore:
    """
    Keeps spent and revoked tokens in the SQLite file *path*, which it creates if needed.

    Each poll deletes the expired rows in one slice of the keys. An index by time would cost every
    claim a write, which is more than the scans cost. Keys that begin with their expiry would make
    claims cheaper, but a `jti` could then be spent once for each `exp` that its issuer signs.
    """

    _prepares: ClassVar[tuple[str, ...]] = _PREPARE
    """The statements that each connection begins with."""

    def __init__(
        self, path: Path, clock: Callable[[], float], *, observe: Observe | None = None
    ) -> None:
        self._path = path
        self._names = tuple(map(str, _files_of(path)))
        self._clock = clock
        self._observe = observe
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[_Identity | None, ...] = ()
        """The files of the connection."""
        self._first: _Identity | None = None
        """The file that this process opened first. It never goes on with another one."""
        self._steps: Batcher[Step[object], object] = Batcher(self._transaction, "state")
        self._revoked = ExpiringSet()
        self._fresh = Freshness()
        self._seen = 0

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*. Return True for the first caller of all processes."""
        return await self._do(partial(_claim, key, until), "spend")

    async def restore(self, key: str) -> None:
        """Give *key* back."""
        await self._do(partial(_execute, "DELETE FROM spent WHERE key = ?", (key,)), "restore")

    async def revoke(self, jti: str, until: float, parent: str = "") -> str:
        """Remember that *jti* was revoked. Other processes know within a second."""
        ended = await self._do(partial(_revoke, jti, until, parent), "revoke")
        self._revoked.add(ended, until, self._clock())
        return ended

    async def revoked(self, jti: str) -> bool:
        """Return whether *jti* was revoked."""
        if jti not in self._revoked and self._fresh.stale():
            await self._look()
        return jti in self._revoked

    async def check(self) -> str:
        """Claim a key and give it back, in one transaction."""
        await self._do(_claim_and_restore)
        return ""

    async def run(self) -> None:
        """Poll for revoked tokens, delete expired rows and make checkpoints, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._poll())
            both.create_task(self._checkpoints())

    async def aclose(self) -> None:
        """Finish every operation, then close the file."""
        await self._steps.aclose()
        if self._connection is not None:
            self._connection.close()

    async def _poll(self) -> None:
        # A random start: short-lived processes would otherwise always sweep the same slices.
        number = secrets.randbelow(_SLICES)
        while True:
            with suppress(Refusal):
                await self._look()
                await self._do(partial(_sweep, number, self._clock() - KEPT_LONGER_SECONDS))
                number = (number + 1) % _SLICES
            await asyncio.sleep(_LOOK_SECONDS)

    async def _checkpoints(self) -> None:
        while True:
            await asyncio.sleep(_CHECKPOINT_SECONDS)
            await asyncio.to_thread(self._checkpoint)

    async def _look(self) -> None:
        """Read the tokens that any process revoked since the last look."""
        found = None
        while found is None or len(found) == _READ_AT_ONCE:
            began = time.monotonic()
            found = await self._do(partial(_revoked_after, self._seen))
            for seq, jti, until in found:
                self._revoked.add(jti, until, self._clock())
                self._seen = max(self._seen, seq)
        self._fresh.seen(began)

    async def _do(self, step: Step[Result], operation: str | None = None) -> Result:
        """
        Run *step* in the next transaction, and time it if it is an *operation* of a caller.

        Raises: Refusal with `state_unavailable`.
        """
        with timed(self._observe if operation else None, operation or ""):
            try:
                return await self._steps.submit(step)  # type: ignore[return-value]  # a batch mixes steps
            except (sqlite3.Error, OSError) as error:
                why = told(error, self._path)
                raise Refusal(Reason.STATE_UNAVAILABLE, evidence={"store": why}) from error

    def _transaction(self, steps: Sequence[Step[object]]) -> Sequence[object]:
        """Run all *steps* in one transaction, or none of them. Runs in the store's thread."""
        connection = self._connection = self._connection or self._open()
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [step(connection) for step in steps]
            if self._files() != self._opened:
                # The connection stays: it works again if the files are put back.
                connection.execute("ROLLBACK")
                raise self._replaced()
            connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                connection.close()
            self._connection = None
            raise
        return results

    def _checkpoint(self) -> None:
        """
        Move what the WAL holds to the file, unless another connection is in the way.

        SQLite would otherwise do it after a transaction, and the claims in it would wait.
        """
        existing = f"{self._path.absolute().as_uri()}?mode=rw"  # do not create the file
        with (
            suppress(sqlite3.Error),
            closing(sqlite3.connect(existing, uri=True, timeout=0)) as connection,
        ):
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._first is None:
            _make_private(self._path)
        file = _identity(str(self._path))
        if file is None or self._first not in {None, file}:
            raise self._replaced()
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                connection = self._prepared()
            except sqlite3.OperationalError as error:
                # While another process creates the file or its WAL, SQLite fails without
                # waiting for the timeout.
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
            else:
                self._opened = self._files()
                if self._opened[0] != file:
                    connection.close()
                    raise self._replaced()
                self._first = file
                return connection

    def _files(self) -> tuple[_Identity | None, ...]:
        """Return the identity of each file of the database, as they are on disk now."""
        return tuple(map(_identity, self._names))

    def _replaced(self) -> OSError:
        return OSError(
            f"{self._path} was removed or replaced while the broker ran;"
            " put it back, or stop every worker and start again"
        )

    def _prepared(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for statement in self._prepares:
                connection.execute(statement)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _files_of(path: Path) -> tuple[Path, Path, Path]:
    """Return the database file, its write-ahead log and the index of that log."""
    return path, Path(f"{path}-wal"), Path(f"{path}-shm")


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116  asked in every transaction
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _make_private(path: Path) -> None:
    """
    Create the database file if it is missing. Its owner alone can read it afterwards.

    SQLite would create it readable for everybody, and gives its other files the same mode.
    """
    if not path.exists():
        # To open the database file itself and close it again would drop SQLite's locks on it.
        draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with suppress(FileExistsError):  # another process was first
                os.link(draft, path)
        finally:
            draft.unlink()
    for file in _files_of(path):
        # The files of a volume may belong to the user of an earlier pod.
        with suppress(FileNotFoundError, PermissionError):
            if stat.S_ISREG(file.lstat().st_mode):
                file.chmod(0o600)


def _claim(key: str, until: float, connection: sqlite3.Connection) -> bool:
    insert = "INSERT INTO spent (key, until) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
    return connection.execute(insert, (key, until)).rowcount == 1


def _revoked_after(seq: int, connection: sqlite3.Connection) -> list[tuple[int, str, float]]:
    query = "SELECT seq, jti, until FROM revoked WHERE seq > ? ORDER BY seq LIMIT ?"
    return connection.execute(query, (seq, _READ_AT_ONCE)).fetchall()


def _revoke(jti: str, until: float, parent: str, connection: sqlite3.Connection) -> str:
    """Revoke *jti*, or *parent* if too many tokens of it were revoked. Return which."""
    known = "SELECT jti FROM revoked WHERE jti IN (?, ?)"
    if found := connection.execute(known, (jti, parent)).fetchone():
        return str(found[0])
    if parent:
        count = """INSERT INTO revoked_of (parent, count, until) VALUES (?, 1, ?)
          ON CONFLICT (parent) DO UPDATE SET count = count + 1"""
        connection.execute(count, (parent, until))
        so_many = "SELECT count FROM revoked_of WHERE parent = ?"
        if connection.execute(so_many, (parent,)).fetchone()[0] > ONE_BY_ONE:
            jti = parent
    connection.execute("INSERT INTO revoked (jti, until) VALUES (?, ?)", (jti, until))
    return jti


def _claim_and_restore(connection: sqlite3.Connection) -> None:
    _claim(_PROBE, 0.0, connection)
    connection.execute("DELETE FROM spent WHERE key = ?", (_PROBE,))


def _execute(
    statement: str, values: tuple[str | float, ...], connection: sqlite3.Connection
) -> None:
    connection.execute(statement, values)


def _sweep(number: int, before: float, connection: sqlite3.Connection) -> None:
    """Delete spent tokens of slice *number*, and all revoked ones, that expired *before*."""
    # Keys are hexadecimal digests; any other key belongs to the first slice or the last.
    first = f"{number:02x}" if number else ""
    end = f"{number + 1:02x}" if number + 1 < _SLICES else "\U0010ffff"
    connection.execute(
        "DELETE FROM spent WHERE key >= ? AND key < ? AND until < ?", (first, end, before)
    )
    connection.execute("DELETE FROM revoked WHERE until < ?", (before,))
    connection.execute("DELETE FROM revoked_of WHERE until < ?", (before,))
