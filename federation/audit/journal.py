"""
The durable audit journal: an event is on disk before its answer leaves.

Concurrent events share one write and one fsync. If that fails, every caller of the batch is
refused and the segment is closed: the next attempt opens another, so half a line never spoils a
whole one. The journal's size is bounded. Events that a webhook must still get are never dropped.
Closed segments are sealed in the background.

Anybody can cause events of some kinds, as many as they like. These are not owed: they have a part
of the size, where they displace only each other, and no request fails because one was lost.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from federation.audit.backlog import Backlog, undelivered_from
from federation.audit.event import Event
from federation.audit.read import ends
from federation.audit.seals import LOCK_SECONDS, Seals, Sign, closed_as_found
from federation.audit.segments import (
    LINE_BYTES,
    Closed,
    Lock,
    Segment,
    Stored,
    Sync,
    cut,
    drop,
    fresh_process,
    remove_stale_locks,
    stored,
    sync_folder,
)
from federation.batching import Batcher
from federation.errors import Reason, Refusal
from federation.jose.strict_json import dumps_ascii

_SEGMENT_BYTES = 64 * 1024 * 1024
_SEGMENTS = 8
_LOOK_SECONDS = 1.0
_PROBE_BYTES = 4096
_LOCK_TRIES = 5
_EVENTS_WAIT_SECONDS = 0.05
"""Time that events wait for the lock of the seals. Background work waits longer."""
_ALARM = 0.8
_STUCK_SECONDS = 5.0
"""A write that takes longer is a problem. A disk that is busy takes a fraction of a second."""

fdatasync: Sync = os.fdatasync if sys.platform == "linux" else os.fsync


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the journal. Figures are of the whole directory, so all workers agree."""

    bytes_used: int
    bytes_allowed: int
    bytes_left: int
    """The bytes that can be recorded before the journal or its disk is full."""
    undelivered_events: int
    oldest_undelivered_seconds: float
    problem: str | None
    """The reason why no event can be recorded at the moment."""
    sealing_problem: str | None = None
    """The reason why closed segments cannot be sealed. Events are recorded all the same."""

    @property
    def nearly_full(self) -> bool:
        """True if less than a fifth is left."""
        return self.bytes_left < self.bytes_allowed * (1 - _ALARM)


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A segment of this process that must be delivered up to *end*."""

    path: Path
    end: int
    closed: bool


class FileJournal:
    """
    Appends events to segments in *folder*, at most *size_bytes*, shared by all *workers*.

    *sign* signs the seals of closed segments. With *deliver*, every event must be delivered to a
    webhook. With *owed* false, those that found no room before their delivery are dropped.
    `recorded` is set whenever there is a new event.
    """

    def __init__(
        self,
        folder: Path,
        size_bytes: int,
        *,
        sign: Sign,
        deliver: bool = False,
        owed: bool = True,
        workers: int = 1,
        clock: Callable[[], float] = time.time,
        sync: Sync = fdatasync,
    ) -> None:
        self.folder = folder
        self.owed = owed
        self.process = fresh_process()
        self.recorded = asyncio.Event()
        self._size = size_bytes
        self._segment_bytes = min(_SEGMENT_BYTES, size_bytes // (_SEGMENTS * workers))
        self._deliver = deliver
        self._clock = clock
        self._sync = sync
        self._lines: Batcher[bytes, None] = Batcher(self._append, "audit")
        self._lock: Lock | None = None
        self._segment: Segment | None = None
        self._before: Segment | None = None
        self._undelivered: dict[Path, Undelivered] = {}
        self._used = 0
        self._used_known_until = 0.0
        self._backlog = Backlog(folder)
        self._seals = Seals(folder, sign, sync)
        self._unsealed: dict[str, Closed] = {}
        """The closed segments of this process without a seal, by name."""
        self._uncut: set[str] = set()
        """The names of those that may still end with lines that were not acknowledged."""
        self._unrecorded: set[str] = set()
        """The names of segments that were dropped while seals could not be written."""
        self._problem: str | None = None
        self._began: float | None = None
        """When the write in progress began, on the monotonic clock."""
        self._sealing_problem: str | None = None
        self._status: Status | None = None
        self._closed = False
        self._log = structlog.get_logger("federation.audit")

    def check(self) -> None:
        """Raise a Refusal with `audit_unavailable` unless the last attempt to record succeeded."""
        if self._problem is not None:
            raise _unavailable(self._problem)

    async def record(self, event: Event) -> None:
        """Write *event* to disk. Raises: Refusal with `audit_unavailable`."""
        content = dumps_ascii(event.as_json())
        if len(content) >= LINE_BYTES:
            raise _unavailable("the event is larger than 1 MiB")
        await self._submit(content)
        self.recorded.set()

    def undelivered(self) -> list[Undelivered]:
        """Return the segments of this process that are not wholly delivered, in order."""
        return list(self._undelivered.values())

    def delivered(self, path: Path) -> None:
        """Forget the closed segment at *path*, because all of it was delivered."""
        self._undelivered.pop(path, None)

    def status(self) -> Status:
        """Return the status as it was within the last seconds."""
        if self._status is None:
            self._status = self._look()
        if self._status.problem is None and (stuck := self._stuck()):
            return replace(self._status, problem=stuck)
        return self._status

    def _stuck(self) -> str | None:
        """Return that the disk does not answer, if it has not for so long: exchanges wait for it."""
        began = self._began
        seconds = time.monotonic() - began if began is not None else 0.0
        return (
            f"the disk has not answered for {seconds:.0f} s" if seconds > _STUCK_SECONDS else None
        )

    async def run(self) -> None:
        """Seal segments, refresh the status and retry what failed, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._keep_recording())
            both.create_task(self._keep_sealing())

    async def aclose(self) -> None:
        """Wait until every event is on disk, then close and seal the files."""
        self._closed = True
        await self._lines.aclose()
        if self._segment:
            self._retire(self._segment.close)
        await asyncio.to_thread(self._try_to_seal, self._seal_own)
        if self._lock:
            self._lock.release()
            self._lock = None

    def seal_left_by(self, process: str) -> None:
        """Seal what the dead *process*, whose lock the caller holds, left. Raises: OSError."""
        own = [segment for segment in stored(self.folder) if segment.process == process]
        end_of = ends(own)
        self._seals.refresh()
        for path in [each.path for each in own if each.path.name not in self._seals.sealed]:
            if path.name in self._seals.dropped:
                drop(path)
            elif (closed := closed_as_found(path, end_of[path])).events:
                self._seals.add_closed(closed)
            else:
                drop(path)

    async def _keep_recording(self) -> None:
        with suppress(OSError):  # tidying is not worth an alarm
            await asyncio.to_thread(remove_stale_locks, self.folder)
        await self._probe()
        alarmed = False
        while True:
            status = self._status = await asyncio.to_thread(self._look)
            if status.nearly_full and not alarmed:
                self._log.warning(
                    "audit journal nearly full",
                    bytes_used=status.bytes_used,
                    bytes_allowed=status.bytes_allowed,
                    bytes_left=status.bytes_left,
                    undelivered_events=status.undelivered_events,
                )
            alarmed = status.nearly_full
            await asyncio.sleep(_LOOK_SECONDS)
            if self._problem:
                await self._probe()

    async def _keep_sealing(self) -> None:
        while True:
            await asyncio.to_thread(self._try_to_seal, self._seal_all)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _submit(self, content: bytes) -> None:
        if self._closed:
            raise _unavailable("the broker is stopping")
        try:
            await self._lines.submit(content)
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error

    async def _probe(self) -> None:
        """Find out whether anything can be recorded, by opening a segment."""
        before = self._problem
        try:
            await self._submit(b"")
        except Refusal as refusal:
            if before is None:
                self._log.error("audit journal cannot be written", **refusal.evidence)
        else:
            if before is not None:
                self._log.info("audit journal can be written again")

    # The following methods run in the journal's own thread.

    def _append(self, contents: Sequence[bytes]) -> Sequence[None]:
        """Write all of *contents* to disk, or acknowledge none."""
        lines = [content for content in contents if content]
        need = sum(map(len, lines)) + len(lines) or _PROBE_BYTES
        self._began = time.monotonic()
        try:
            segment = self._ready(need)
            if lines:
                self._write(segment, lines)
        except OSError as error:
            self._problem = error.strerror or str(error)
            raise
        finally:
            self._began = None
        self._problem = None
        return [None] * len(contents)

    def _write(self, segment: Segment, lines: Sequence[bytes]) -> None:
        start = segment.end
        try:
            segment.append(lines)
        except OSError:
            if not segment.cut() and segment.events:  # else it is deleted
                self._uncut.add(segment.path.name)
            self._retire(segment.close)
            raise
        self._used += segment.end - start
        if self._deliver:
            self._undelivered[segment.path] = Undelivered(segment.path, segment.end, closed=False)

    def _ready(self, need: int) -> Segment:
        """Return the segment to append to, with room for *need* bytes."""
        if self._lock and not self._lock.holds():  # somebody removed the file
            self._lock.release()
            self._lock = None
        if self._lock is None:
            self._lock = self._own_lock()
        self._make_room(need)
        segment = self._segment
        if segment and not segment.intact():
            self._log.error("an audit segment was changed from outside", segment=segment.path.name)
            self._retire(segment.leave)
        elif segment and segment.end >= self._segment_bytes:
            self._retire(segment.close)
        if self._segment is None:
            with suppress(OSError):  # a seal that cannot be read must not stop events
                self._seals.refresh()  # the header names the newest seal
            self._segment = Segment.create(
                self.folder,
                self.process,
                deliver=self._deliver,
                follows=self._before,
                newest_seal=self._seals.newest,
                sync=self._sync,
            )
            self._used += self._segment.end
        return self._segment

    def _retire(self, close: Callable[[], None]) -> None:
        """Write no more to the segment. *close* closes its file."""
        segment, self._segment = self._segment, None
        if segment and segment.path in self._undelivered:
            self._undelivered[segment.path] = Undelivered(segment.path, segment.end, closed=True)
        if segment and segment.events:
            self._before = segment
            self._unsealed[segment.path.name] = segment.closed()
        close()

    def _own_lock(self) -> Lock:
        for folder in (self.folder.parent, self.folder):  # `parents` would make open ones
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(folder.parent)
        for _ in range(_LOCK_TRIES):  # another process may remove a new lock file once
            if lock := Lock.take(self.folder, self.process):
                return lock
        raise OSError(errno.EAGAIN, "the journal's lock cannot be taken")

    def _make_room(self, need: int) -> None:
        """Drop the oldest segments, if they may go, until *need* more bytes fit."""
        now = time.monotonic()
        if now < self._used_known_until and self._used + need <= self._size:
            return
        segments = stored(self.folder)
        self._used = sum(segment.size for segment in segments)
        self._used_known_until = now + _LOOK_SECONDS
        if self._used + need <= self._size:
            return
        self._try_to_seal(partial(self._seal_own, _EVENTS_WAIT_SECONDS))  # else nothing may go
        with suppress(OSError):
            self._seals.refresh()
        for segment in segments:
            if self._dropped(segment):
                self._used -= segment.size
            if self._used + need <= self._size:
                return
        raise OSError(errno.EDQUOT, "the journal is full of events that the webhook has not taken")

    def _dropped(self, segment: Stored) -> bool:
        """Drop *segment* and return True, if it may go."""
        if self.owed and self._deliver and undelivered_from(segment) is not None:
            return False
        if not segment.latest:
            return self._drop(segment)
        if lock := Lock.take(self.folder, segment.process):
            with lock:
                return self._drop(segment)
        return False  # a living process appends to its latest segment

    def _drop(self, segment: Stored) -> bool:
        """
        Delete *segment* after a seal says so: what is missing without one was removed.

        A segment that still lacks its seal stays, or its seal might be made after it is gone.
        While seals cannot be written, segments go all the same: recording events comes first.
        """
        name = segment.path.name
        # A process that was killed may have sealed the drop of a segment and not deleted it.
        settled = name in self._seals.sealed or name in self._seals.dropped
        unsealed = not settled and segment.path.exists()
        if unsealed and not self._sealing_problem:
            return False
        try:
            self._seals.add_dropped(name, _EVENTS_WAIT_SECONDS)
        except OSError:
            self._unrecorded.add(name)
        self._unsealed.pop(name, None)
        self._undelivered.pop(segment.path, None)
        drop(segment.path)
        return True

    # The following methods run in any thread.

    def _try_to_seal(self, work: Callable[[], None]) -> None:
        """Run *work*. Log and show a failure; the next try comes within a second."""
        before, problem = self._sealing_problem, None
        try:
            work()
        except OSError as error:
            problem = error.strerror or str(error)
        self._sealing_problem = problem
        if problem and not before:
            self._log.error("audit segments cannot be sealed; trying again", error=problem)
        elif before and not problem:
            self._log.info("audit segments can be sealed again")

    def _seal_own(self, wait_seconds: float = LOCK_SECONDS) -> None:
        # Another thread of this process may do the same at the same time.
        for name, closed in list(self._unsealed.items()):
            if name in self._uncut and self._before and self._before.path.name == name:
                # A segment after it would say where it ends. There is none with an event, and an
                # empty one is deleted.
                cut(self.folder / name, closed.bytes, self._sync)
            self._seals.add_closed(closed, wait_seconds)
            self._unsealed.pop(name, None)
            self._uncut.discard(name)
        for name in list(self._unrecorded):
            self._seals.add_dropped(name, wait_seconds)
            self._unrecorded.discard(name)

    def _seal_all(self) -> None:
        """Seal the closed segments of this process and of dead ones."""
        self._seal_own()
        self._seals.refresh()
        segments = stored(self.folder)
        unsealed = {each.process for each in segments if each.path.name not in self._seals.sealed}
        for process in sorted(unsealed - {self.process}):
            if lock := Lock.take(self.folder, process):
                with lock:
                    self.seal_left_by(process)

    def _look(self) -> Status:
        try:
            used = sum(segment.size for segment in stored(self.folder))
            waiting = self._backlog.measure()
            held = waiting.segment_bytes if self._deliver and self.owed else 0
            left = max(0, min(self._size - held, _disk_room(self.folder, self._size - used)))
        except OSError as error:
            return Status(0, self._size, 0, 0, 0.0, self._problem or str(error))
        oldest = self._clock() - waiting.oldest if waiting.oldest else 0.0
        return Status(
            bytes_used=used,
            bytes_allowed=self._size,
            bytes_left=left,
            undelivered_events=waiting.events if self._deliver else 0,
            oldest_undelivered_seconds=max(0.0, oldest) if self._deliver else 0.0,
            problem=self._problem,
            sealing_problem=self._sealing_problem,
        )


def _disk_room(folder: Path, growth: int) -> int:
    """Return how much the disk leaves to a journal that may still grow by *growth* bytes."""
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    return free if free < growth else sys.maxsize


def _unavailable(why: str) -> Refusal:
    return Refusal(Reason.AUDIT_UNAVAILABLE, evidence={"journal": why})
