"""
A store in Redis, shared by all replicas.

Redis can lose its data: by a restart without persistence, by a flush or by the promotion of a
replica that had not received everything. Two rules follow.

- Each claim checks an epoch, a random id in Redis. If it is missing or another one, Redis lost its
  data and would accept every spent token a second time. A new epoch begins, and tokens that were
  issued before it are refused. This also holds for a Redis that was empty from the beginning,
  which cannot be told from one that was emptied.
- Revoked tokens are kept in memory by every replica. A replica reads only what is new. It notices
  when the entry that it read last is gone, then reads everything again, and writes back what Redis
  lacks.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

from federation.errors import Refusal
from federation.providers.table import LEEWAY
from federation.state import ONE_BY_ONE, Observe, timed
from federation.state.expiring import KEPT_LONGER_SECONDS, ExpiringSet, Freshness
from federation.state.redis_scripts import (
    CLAIM,
    DELETE_EXPIRED,
    EPOCH,
    READ,
    REVOKE,
    REVOKED,
    REVOKED_OF,
    SPENT,
    START_EPOCH,
    UNDO,
    UNTIL,
    WRITE_BACK,
)
from federation.state.redis_server import RedisServer, Unusable, unavailable
from federation.state.sharing import SharedRun

Item = TypeVar("Item")

_EPOCH = re.compile(r"[0-9A-Za-z]+:[0-9.e+]+")

_POLL_SECONDS = 0.25
_INSPECT_SECONDS = 5.0
_CLAIMS_KEPT = 8192
_PROBE_SECONDS = 10.0
_READ_AT_ONCE = 1000
"""Entries in one answer. A thousand hold Redis and the event loop for about a millisecond each."""
_WRITTEN_AT_ONCE = 500
_WRITES_A_POLL = 5
_WRITE_PAUSE_SECONDS = 0.05


class RedisStore:
    """
    Keeps spent and revoked tokens in the Redis at *url*.

    *memory* is a file with the last epoch that this replica knew, so that a replica that was down
    while Redis went back to older data notices it. A claim counts only when *replicas* replicas of
    Redis have it.
    """

    def __init__(
        self,
        url: str,
        clock: Callable[[], float],
        memory: Path,
        observe: Observe | None = None,
        *,
        replicas: int = 0,
    ) -> None:
        self._server = RedisServer(url, replicas)
        self._clock = clock
        self._memory = memory
        self._observe = observe
        self._epoch = _remembered(memory)
        self._inspected: str | None = None
        """The reason why Redis cannot be used, empty if it can; None before the first inspection."""
        self._inspect = SharedRun(self._inspect_server)
        self._claims: dict[str, str] = {}
        """Claims of this replica that it may still have to give back."""
        self._undo: dict[str, str] = {}
        """Claims to give back as soon as Redis answers, each with its key."""
        self._revoked = ExpiringSet()
        self._fresh = Freshness()
        self._look = SharedRun(self._read_new)
        self._last, self._last_number = "", "0"
        """The entry that was read last, and its number."""
        self._unread: dict[str, None] = {}
        """Entries that this replica knows and has not read from Redis."""

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*. Return True for the first caller of all replicas."""
        kept_ms = max(1, int((until - self._clock() + KEPT_LONGER_SECONDS) * 1000))
        with timed(self._observe, "spend"):
            return await self._spend(key, kept_ms, issued)

    async def restore(self, key: str) -> None:
        """Give *key* back now, or as soon as Redis answers."""
        with timed(self._observe, "restore"):
            await self._restore(key)

    async def revoke(self, jti: str, until: float, parent: str = "") -> str:
        """Remember that *jti* was revoked. Other replicas know within a second."""
        expires = str(math.ceil(until))
        kept_ms = max(1, int((until - self._clock() + KEPT_LONGER_SECONDS) * 1000))
        keys = (REVOKED, UNTIL, REVOKED_OF + parent)
        with timed(self._observe, "revoke"):
            answer = await self._server.run(REVOKE, keys, jti, expires, parent, ONE_BY_ONE, kept_ms)
        ended = str(answer)
        self._revoked.add(ended, int(expires), self._clock())
        self._unread[f"{expires} {ended}"] = None
        return ended

    async def revoked(self, jti: str) -> bool:
        """Return whether *jti* was revoked."""
        if jti not in self._revoked and self._fresh.stale():
            await self._look()
        return jti in self._revoked

    async def check(self) -> str:
        """Claim a key and give it back."""
        key = f"probe:{secrets.token_hex(8)}"
        await self._spend(key, int(_PROBE_SECONDS * 1000), math.inf)
        await self._restore(key)
        refused_until = self._lost_at() + LEEWAY.total_seconds()
        if self._clock() < refused_until:
            return f"Redis had no data; tokens issued before {_written(refused_until)} are refused"
        return ""

    async def unusable(self) -> str:
        """Return why Redis cannot be used, empty if it can be. Raises: Refusal if it is away."""
        await self._inspect()
        return self._inspected or ""

    async def run(self) -> None:
        """Poll for revoked tokens, undo claims that are due and inspect Redis, until cancelled."""
        this = asyncio.current_task()
        inspected = -math.inf
        # Before Python 3.12 `wait_for`, which the client uses, can swallow a cancellation
        # (gh-86296). The shutdown would then wait for this task for ever.
        while this is None or not this.cancelling():
            with suppress(Refusal):
                if time.monotonic() - inspected > _INSPECT_SECONDS:
                    await self._inspect()
                    await self._delete_expired()
                    inspected = time.monotonic()
                await self._look()
                await self._undo_claims()
                await self._write_back()
            await asyncio.sleep(_POLL_SECONDS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._look.aclose()
        await self._inspect.aclose()
        await self._server.aclose()

    async def _spend(self, key: str, kept_ms: int, issued: float) -> bool:
        if self._inspected is None:
            await self._inspect()
        if self._inspected:
            raise unavailable(self._inspected)
        if self._undo:  # else a job that tries again would be told that its token was used
            await self._undo_claims(key)
        for _ in range(2):
            if self._epoch and issued - LEEWAY.total_seconds() < self._lost_at():
                raise unavailable("it had no data after this token was issued")
            answer = await self._claim(key, kept_ms)
            if answer != -1:
                return answer == 1
            await self._learn_epoch()
        raise unavailable("it loses its memory again and again")

    async def _claim(self, key: str, kept_ms: int) -> int:
        """Run `CLAIM`. If it may have been made in vain, mark it to be undone."""
        claim, answer = secrets.token_hex(8), None
        keys = (EPOCH, SPENT + key)
        try:
            answer = int(
                await self._server.run_acknowledged(CLAIM, keys, self._epoch, kept_ms, claim)
            )
        finally:
            if answer is None:
                _keep(self._undo, claim, key)
        if answer == 1:
            _keep(self._claims, key, claim)
        return answer

    async def _restore(self, key: str) -> None:
        if claim := self._claims.pop(key, None):
            _keep(self._undo, claim, key)
        await self._undo_claims()

    async def _undo_claims(self, key: str | None = None) -> None:
        """Give back the claims that are due, those of *key* alone if there is one."""
        due = [each for each in self._undo.items() if key in {None, each[1]}]
        for claim, of in due:
            await self._server.run(UNDO, (SPENT + of,), claim)
            self._undo.pop(claim, None)

    def _lost_at(self) -> float:
        """Return when Redis was last found without its data."""
        return _lost_at(self._epoch)

    async def _learn_epoch(self) -> None:
        """Adopt the epoch of Redis, or start a new one if it has none or an older one."""
        known = self._epoch
        there = await self._start_epoch("", known)
        # An epoch before the known one means that Redis went back to older data.
        while known and there != known and _lost_at(there) <= _lost_at(known):
            there = await self._start_epoch(there, known)
        self._epoch = there
        try:
            self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._memory.write_text(self._epoch, "ascii")
        except OSError as error:
            # A replica that forgets the epoch would not notice older data after its next start.
            raise unavailable(f"{self._memory} cannot be written: {error.strerror}") from error

    async def _start_epoch(self, instead: str, known: str) -> str:
        """Start an epoch if Redis has *instead*. Return the one in force."""
        found = await self._server.run(START_EPOCH, (EPOCH,), instead, self._new_epoch(known))
        if not _EPOCH.fullmatch(str(found)):
            raise unavailable(f"its key {EPOCH} holds what no broker wrote; delete that key")
        return str(found)

    def _new_epoch(self, known: str) -> str:
        # Later than the known one also if this clock is behind that of the replica that began it.
        lost_at = max(self._clock(), math.nextafter(_lost_at(known), math.inf))
        return f"{secrets.token_hex(8)}:{lost_at!r}"

    async def _inspect_server(self) -> None:
        try:
            await self._server.inspect()
            self._inspected = ""
        except Unusable as unusable:
            self._inspected = str(unusable)

    async def _read_new(self) -> None:
        """Read what was revoked since the last look, in pieces."""
        while True:
            began = time.monotonic()
            known, number, packed = await self._server.run(
                READ, (REVOKED,), self._last, self._last_number, _READ_AT_ONCE
            )
            if not known:
                await self._start_again()
                continue
            entries: list[str] = json.loads(packed)
            self._learn(entries)
            if entries:
                self._last, self._last_number = entries[-1], number
            if len(entries) < _READ_AT_ONCE:
                self._fresh.seen(began)
                return
            await asyncio.sleep(0)  # requests go first

    def _learn(self, entries: Iterable[str]) -> None:
        now = self._clock()
        for entry in entries:
            until, _, jti = entry.partition(" ")
            self._revoked.add(jti, int(until), now)
            self._unread.pop(entry, None)

    async def _start_again(self) -> None:
        """Prepare to read everything again, and to write back what is not found."""
        known = self._revoked.items()
        # Each replica has its own order. Together they then write back different entries, and each
        # leaves out what it has meanwhile read.
        random.shuffle(known)
        for piece in _pieces(known, _READ_AT_ONCE):
            self._unread.update((f"{until:.0f} {jti}", None) for jti, until in piece)
            await asyncio.sleep(0)
        self._last, self._last_number = "", "0"

    async def _write_back(self) -> None:
        """Write some of the entries that Redis does not have. They are read with the next look."""
        some = list(islice(self._unread, _WRITTEN_AT_ONCE * _WRITES_A_POLL))
        for piece in _pieces(some, _WRITTEN_AT_ONCE):
            await self._server.run(WRITE_BACK, (REVOKED, UNTIL), KEPT_LONGER_SECONDS, *piece)
            for entry in piece:
                self._unread.pop(entry, None)
            await asyncio.sleep(_WRITE_PAUSE_SECONDS)

    async def _delete_expired(self) -> None:
        await self._server.run(DELETE_EXPIRED, (REVOKED, UNTIL), KEPT_LONGER_SECONDS, _READ_AT_ONCE)


def _remembered(memory: Path) -> str:
    """The epoch in the file *memory*; empty, as for a new replica, if it holds none."""
    try:
        epoch = memory.read_text("ascii") if memory.exists() else ""
    except ValueError:
        return ""
    return epoch if _EPOCH.fullmatch(epoch) else ""


def _keep(claims: dict[str, str], name: str, value: str) -> None:
    """Add to *claims*, and forget the oldest ones that are too many: their tokens stay used."""
    claims[name] = value
    while len(claims) > _CLAIMS_KEPT:
        del claims[next(iter(claims))]


def _lost_at(epoch: str) -> float:
    return float(epoch.partition(":")[2] or 0)


def _pieces(values: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
