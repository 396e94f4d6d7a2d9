"""
Writes the status of objects, and Events of refusals, while this process is the leader.

Only differences are written: a leader that starts compares what it reads with what it would write.
Writes are few at once and few in a second, so that neither the API server nor the exchanges of
this process feel a change of ten thousand objects, and the Lease is renewed beside them. Whatever
goes wrong here delays statuses and nothing else: reading and deciding do not depend on it.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import structlog

from federation.documents.schema import API_VERSION, PLURALS
from federation.sources.kubernetes.backoff import backoff_seconds
from federation.sources.kubernetes.connection import Connection, Trouble
from federation.sources.kubernetes.events import API as EVENTS_API
from federation.sources.kubernetes.events import event
from federation.sources.kubernetes.lease import Election
from federation.sources.kubernetes.ledger import Ledger, Write
from federation.sources.kubernetes.source import Snapshot
from federation.sources.slices import Slices
from federation.text import printable

MANAGER = "federation"
"""The field manager of everything in a status that is ours."""

_AT_ONCE = 4
_WRITES_PER_SECOND = 20.0
_EVENTS_PER_SECOND = 1.0
_EVENTS_BURST = 25.0
_REQUEST_SECONDS = 5.0
_BATCH = 10
_ROUND_SECONDS = 0.5
"""A batch in each round makes the writes of a second."""
_LONGEST_PAUSE_SECONDS = 30.0
_LOG_LINES_PER_SECOND = 0.1
_LOG_LINES_BURST = 3.0
_HOST_CHARS = 63
_NAME_CHARS = 253
_PROBLEM_CHARS = 400
_NOT_THE_OBJECTS_FAULT = frozenset({0, 401, 403, 408, 429, 502, 503, 504})


def unique_identity() -> str:
    """A name for this process that no other one has, which begins with the machine's name."""
    return f"{printable(socket.gethostname(), _HOST_CHARS)}_{secrets.token_hex(8)}"


class Allowance:
    """A token bucket: *per_second* uses, of which *burst* may be saved up."""

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float, most: int = 1) -> int:
        """Use up to *most* at *now*, and return how many."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        taken = min(most, int(self._left))
        self._left -= taken
        return taken


@dataclass(slots=True)
class Counts:
    """The writes so far, for metrics."""

    written: int = 0
    failed: int = 0
    events: int = 0
    events_dropped: int = 0


class StatusWriter:
    """
    Writes statuses of what *snapshot* returns.

    It connects as *connection* does, and by itself: neither waits for the other's requests, and the
    Lease is given up when the other is closed already. *next_snapshot* returns when there is
    another snapshot than the one it is given. *identity* must be another in every process.
    """

    def __init__(
        self,
        connection: Connection,
        snapshot: Callable[[], Snapshot],
        next_snapshot: Callable[[Snapshot], Awaitable[object]],
        *,
        identity: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.counts = Counts()
        self._connection = connection = replace(connection)
        self._snapshot = snapshot
        self._next_snapshot = next_snapshot
        self._clock = clock
        self._wall_clock = wall_clock
        self._identity = identity or unique_identity()
        self._election = Election(connection, self._identity, clock=clock, wall_clock=wall_clock)
        self._ledger = Ledger()
        self._writes = Allowance(_WRITES_PER_SECOND, _WRITES_PER_SECOND, clock())
        self._events = Allowance(_EVENTS_PER_SECOND, _EVENTS_BURST, clock())
        self._not_before = clock()
        """No status is written earlier, after trouble that is not one object's."""
        self._failures = 0
        self._log_lines = Allowance(_LOG_LINES_PER_SECOND, _LOG_LINES_BURST, clock())
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._log = structlog.get_logger("federation.kubernetes")

    @property
    def leading(self) -> bool:
        """True if this process writes the statuses."""
        return self._election.leading

    async def run(self) -> None:
        """Write what is due until cancelled; then let another replica take over at once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._election.run())
                tasks.create_task(self._write_all())
        finally:
            await self._election.release()
            await self._connection.aclose()

    async def _write_all(self) -> None:
        while True:
            await self._election.until_leading()
            began = self._clock()
            snapshot = self._snapshot()
            # Ten thousand objects take a third of a second, which no exchange should wait for: the
            # ledger works in a thread, and in slices.
            due = await asyncio.to_thread(self._due_of, snapshot, began, self._wall_clock())
            await asyncio.gather(*(self._write(each) for each in due))
            await asyncio.sleep(max(began + _ROUND_SECONDS - self._clock(), 0.05))
            await self._until_due_or_changed(snapshot)

    def _due_of(self, snapshot: Snapshot, now: float, date: datetime) -> list[Write]:
        """Look at *snapshot*, and return what is due at *now* and allowed."""
        slices = Slices()
        self._ledger.look(snapshot, now, date, slices)
        if now < self._not_before:
            return []
        # After trouble, one request at a time asks whether it is over.
        most = self._writes.take(now, 1 if self._failures else _BATCH)
        return self._ledger.due(now, date, most, slices)

    async def _until_due_or_changed(self, snapshot: Snapshot) -> None:
        due = await asyncio.to_thread(self._ledger.next_due, Slices())
        waits = None if due is None else max(due, self._not_before) - self._clock()
        if waits is None or waits > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(waits):
                    await self._next_snapshot(snapshot)

    async def _write(self, write: Write) -> None:
        try:
            async with self._slots:
                if not self.leading:
                    return
                await self._apply(write)
        except Trouble as trouble:
            self._failed(write, trouble)
            return
        self._succeeded(write)
        if write.event:
            await self._tell(write)

    async def _apply(self, write: Write) -> None:
        """
        Write a status, unless the object is not the one that was read. Raises: Trouble.

        It may have changed, or another one may have its name, or another leader may have written
        its status, for example while this process was stopped.
        """
        found = write.found
        folder = (
            f"/apis/{API_VERSION}/namespaces/{self._connection.namespace}/{PLURALS[found.kind]}"
        )
        body = {
            "apiVersion": API_VERSION,
            "kind": found.kind,
            "metadata": {
                "name": found.name,
                "namespace": self._connection.namespace,
                "resourceVersion": found.resource_version,
            },
            "status": write.status,
        }
        await self._request(
            "PATCH",
            f"{folder}/{quote(found.name, safe='')}/status",
            body,
            params={"fieldManager": MANAGER, "force": "true"},
            content_type="application/apply-patch+yaml",
        )

    def _succeeded(self, write: Write) -> None:
        self.counts.written += 1
        self._ledger.wrote(write, self._clock())
        if self._failures:
            self._failures = 0
            self._log.info("statuses can be written again")

    def _failed(self, write: Write, trouble: Trouble) -> None:
        """Note that *write* failed: put it off, or all of them if the object is not to blame."""
        now = self._clock()
        if trouble.status == 409:
            self._ledger.conflicted(write, now)
            return
        self.counts.failed += 1
        if trouble.status not in _NOT_THE_OBJECTS_FAULT:
            self._ledger.wrote(write, now)
            self._log_refused(write, trouble)
            return
        self._ledger.postpone(write, now)
        self._failures += 1
        if self._failures == 1:
            self._log.warning("statuses cannot be written; trying again", problem=_shown(trouble))
        spread = random.random()  # noqa: S311
        pause = backoff_seconds(self._failures, 1.0, _LONGEST_PAUSE_SECONDS, spread)
        asked = min(trouble.retry_after_seconds or 0.0, _LONGEST_PAUSE_SECONDS)
        self._not_before = now + max(pause, asked)

    def _log_refused(self, write: Write, trouble: Trouble) -> None:
        # An object that is gone is no news: the next snapshot lacks it.
        if trouble.status == 404 and write.found.key not in self._snapshot().objects:
            return
        if self._log_lines.take(self._clock()):
            self._log.warning(
                "the status of an object cannot be written; trying again later",
                kind=write.found.kind,
                name=printable(write.found.name, _NAME_CHARS),
                problem=_shown(trouble),
            )

    async def _tell(self, write: Write) -> None:
        """Create an Event of *write*, or drop it."""
        self._ledger.told(write, self._clock())
        if not self._events.take(self._clock()):
            self.counts.events_dropped += 1
            return
        namespace = self._connection.namespace
        body = event(
            write.found,
            write.verdict,
            namespace=namespace,
            instance=self._identity,
            unique=secrets.token_hex(8),
            now=self._wall_clock(),
        )
        try:
            await self._request("POST", f"/apis/{EVENTS_API}/namespaces/{namespace}/events", body)
        except Trouble as trouble:
            self.counts.events_dropped += 1
            if self._log_lines.take(self._clock()):
                self._log.warning(
                    "an Event cannot be created; the status has its text", problem=_shown(trouble)
                )
        else:
            self.counts.events += 1

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """Send a request, for less time than another replica waits for the Lease. Raises: Trouble."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await self._connection.request(
                    method, path, params=params, body=body, content_type=content_type
                )
        except TimeoutError:
            raise Trouble(f"no answer within {_REQUEST_SECONDS:g} s") from None


def _shown(trouble: Trouble) -> str:
    return printable(str(trouble), _PROBLEM_CHARS)
