"""
People's sessions in SQLite, in the same file as the tokens that their sign-ins spent.

For one machine. A transaction writes the session with its tags, so a session never lacks one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from federation.errors import Refusal
from federation.state.sessions import OF_ONE_TAG
from federation.state.sqlite import SqliteStore

_SWEEP_SECONDS = 30.0
_SWEPT_AT_ONCE = 1000
_TABLES = (
    """CREATE TABLE IF NOT EXISTS kept (
         key TEXT PRIMARY KEY, value TEXT NOT NULL, until REAL NOT NULL, ends REAL NOT NULL
       ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS kept_until ON kept (until)",
    """CREATE TABLE IF NOT EXISTS tagged (
         tag TEXT NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (tag, number)
       ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS tagged_key ON tagged (key)",
)


class SqliteSessions(SqliteStore):
    """A session store in the SQLite file of its base."""

    _prepares = (*SqliteStore._prepares, *_TABLES)

    async def put(
        self, key: str, value: str, until: float, tags: Sequence[str] = (), ends: float = 0.0
    ) -> None:
        """Keep *value*."""
        row = key, value, until, max(until, ends)
        await self._do(partial(_put, row, tuple(tags)))

    async def get(self, key: str, until: float = 0.0) -> str | None:
        """Return the value, and keep it longer."""
        return await self._do(partial(_get, key, until, self._clock()))

    async def replace(self, key: str, value: str, until: float) -> bool:
        """Replace the value if it is there."""
        return await self._do(partial(_replace, key, value, until, self._clock()))

    async def hold(self, key: str, until: float) -> bool:
        """Return True for the first caller."""
        return await self._do(partial(_hold, key, until, self._clock()))

    async def delete(self, key: str) -> bool:
        """Delete the value."""
        return await self._do(partial(_delete, key, self._clock()))

    async def delete_tagged(self, tag: str) -> int:
        """Delete what carries *tag*."""
        return await self._do(partial(_delete_tagged, tag, self._clock()))

    async def run(self) -> None:
        """Do what the base does, and delete what expired, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(super().run())
            both.create_task(self._sweep_kept())

    async def _sweep_kept(self) -> None:
        while True:
            with suppress(Refusal):
                await self._do(partial(_sweep, self._clock()))
            await asyncio.sleep(_SWEEP_SECONDS)


def _put(
    row: tuple[str, str, float, float], tags: tuple[str, ...], connection: sqlite3.Connection
) -> None:
    key = row[0]
    _drop(connection, [key])
    connection.execute("INSERT INTO kept VALUES (?, ?, ?, ?)", row)
    for tag in tags:
        newest = "SELECT coalesce(max(number), 0) FROM tagged WHERE tag = ?"
        number = connection.execute(newest, (tag,)).fetchone()[0] + 1
        connection.execute("INSERT INTO tagged VALUES (?, ?, ?)", (tag, number, key))
        older = "SELECT key FROM tagged WHERE tag = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
        _drop(connection, [name for (name,) in connection.execute(older, (tag, OF_ONE_TAG))])


def _get(key: str, until: float, now: float, connection: sqlite3.Connection) -> str | None:
    query = "SELECT value, until, ends FROM kept WHERE key = ? AND until > ?"
    found = connection.execute(query, (key, now)).fetchone()
    if found is None:
        return None
    value, before, ends = found
    if (later := min(until, ends)) > before:
        connection.execute("UPDATE kept SET until = ? WHERE key = ?", (later, key))
    return str(value)


def _replace(
    key: str, value: str, until: float, now: float, connection: sqlite3.Connection
) -> bool:
    update = "UPDATE kept SET value = ?, until = min(?, ends) WHERE key = ? AND until > ?"
    return connection.execute(update, (value, until, key, now)).rowcount == 1


def _hold(key: str, until: float, now: float, connection: sqlite3.Connection) -> bool:
    connection.execute("DELETE FROM kept WHERE key = ? AND until <= ?", (key, now))
    insert = "INSERT INTO kept VALUES (?, '', ?, ?) ON CONFLICT (key) DO NOTHING"
    return connection.execute(insert, (key, until, until)).rowcount == 1


def _delete(key: str, now: float, connection: sqlite3.Connection) -> bool:
    live = "SELECT 1 FROM kept WHERE key = ? AND until > ?"
    was_there = connection.execute(live, (key, now)).fetchone() is not None
    _drop(connection, [key])
    return was_there


def _delete_tagged(tag: str, now: float, connection: sqlite3.Connection) -> int:
    query = "SELECT key FROM tagged WHERE tag = ?"
    keys = [key for (key,) in connection.execute(query, (tag,))]
    return sum([_delete(key, now, connection) for key in keys])


def _sweep(now: float, connection: sqlite3.Connection) -> None:
    query = "SELECT key FROM kept WHERE until <= ? LIMIT ?"
    _drop(connection, [key for (key,) in connection.execute(query, (now, _SWEPT_AT_ONCE))])


def _drop(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    for key in keys:
        connection.execute("DELETE FROM kept WHERE key = ?", (key,))
        connection.execute("DELETE FROM tagged WHERE key = ?", (key,))
