"""
The durable journal: an event is on disk before anybody hears of what it tells.

Events that arrive while the disk is at work share the next write and the next fsync. What
could not be made durable is refused to every caller that waited for it, and nothing more is
written to that segment: the next attempt opens another, so that no half of a line ever spoils
a whole one. The journal is bounded; what a webhook is still owed is never dropped for room.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from federation.audit.backlog import Backlog, owing
from federation.audit.event import Event
from federation.audit.segments import (
    LINE_BYTES,
    Lock,
    Segment,
    Stored,
    Sync,
    drop,
    fresh_process,
    stored,
    sync_folder,
    tidy,
)
from federation.batching import Batcher
from federation.errors import Reason, Refusal
from federation.jose.strict_json import dumps_ascii

__all__ = ["FileJournal", "Owed", "Status"]

_SEGMENT_BYTES = 64 * 1024 * 1024
_SEGMENTS = 8
_LOOK_SECONDS = 1.0
_PROBE_BYTES = 4096
_SEAL_BYTES = 77
_LOCK_TRIES = 5
_ALARM = 0.8

fdatasync: Sync = os.fdatasync if sys.platform == "linux" else os.fsync


@dataclass(frozen=True, slots=True)
class Status:
    """How the journal is. Figures are of the whole directory, so every worker tells the same."""

    bytes_used: int
    bytes_allowed: int
    bytes_left: int
    """How much can be recorded before the journal or its disk is full."""
    undelivered_events: int
    oldest_undelivered_seconds: float
    problem: str | None
    """Why nothing can be recorded at the moment."""

    @property
    def nearly_full(self) -> bool:
        """Whether less than a fifth is left."""
        return self.bytes_left < self.bytes_allowed * (1 - _ALARM)


@dataclass(frozen=True, slots=True)
class Owed:
    """A segment of this process, to be delivered up to *end*."""

    path: Path
    end: int
    closed: bool


class FileJournal:
    """
    Segments in *folder*, *size_bytes* of them at most, shared by all *workers* of a machine.

    With *deliver* every event is owed to a webhook. `recorded` is set whenever there is more.
    """

    def __init__(
        self,
        folder: Path,
        size_bytes: int,
        *,
        deliver: bool = False,
        workers: int = 1,
        clock: Callable[[], float] = time.time,
        sync: Sync = fdatasync,
    ) -> None:
        self.folder = folder
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
        self._ends: dict[Path, int] = {}
        self._used = 0
        self._used_known_until = 0.0
        self._backlog = Backlog(folder)
        self._problem: str | None = None
        self._status: Status | None = None
        self._closed = False
        self._log = structlog.get_logger("federation.audit")

    def check(self) -> None:
        """
        Nothing kept the last event from being recorded, or it was mended since.

        Raises: Refusal with `audit_unavailable`.
        """
        if self._problem is not None:
            raise _unavailable(self._problem)

    async def record(self, event: Event) -> None:
        """
        *event* is on disk.

        Raises: Refusal with `audit_unavailable`.
        """
        content = dumps_ascii(event.as_json())
        if len(content) + _SEAL_BYTES > LINE_BYTES:
            raise _unavailable("the event is larger than 1 MiB")
        await self._submit(content)
        self.recorded.set()

    def owed(self) -> list[Owed]:
        """The segments of this process that a webhook is still owed, in order."""
        current = self._segment
        return [
            Owed(path, end, current is None or path != current.path)
            for path, end in list(self._ends.items())
        ]

    def delivered(self, path: Path) -> None:
        """Nothing of the closed segment at *path* is owed any more."""
        self._ends.pop(path, None)

    def status(self) -> Status:
        """How the journal is, or was within the last seconds."""
        if self._status is None:
            self._status = self._look()
        return self._status

    async def run(self) -> None:
        """The status stays fresh, and what failed is tried again, until cancelled."""
        await asyncio.to_thread(self._tidy)
        await self._probe()
        alarmed = False
        while True:
            self._status = await asyncio.to_thread(self._look)
            if self._status.nearly_full and not alarmed:
                self._log.warning("audit journal nearly full", **_figures(self._status))
            alarmed = self._status.nearly_full
            await asyncio.sleep(_LOOK_SECONDS)
            if self._problem:
                await self._probe()

    async def aclose(self) -> None:
        """Everything recorded is on disk, and the files are closed."""
        self._closed = True
        await self._lines.aclose()
        if self._segment:
            self._segment.close()
            self._segment = None
        if self._lock:
            self._lock.release()
            self._lock = None

    async def _submit(self, content: bytes) -> None:
        if self._closed:
            raise _unavailable("the broker is stopping")
        try:
            await self._lines.submit(content)
        except OSError as error:
            raise _unavailable(error.strerror or str(error)) from error

    async def _probe(self) -> None:
        """Whether anything can be recorded is known."""
        before = self._problem
        try:
            await self._submit(b"")
        except Refusal as refusal:
            if before is None:
                self._log.error("audit journal cannot be written", **refusal.evidence)
        else:
            if before is not None:
                self._log.info("audit journal can be written again")

    # What follows runs in the journal's own thread.

    def _append(self, contents: Sequence[bytes]) -> Sequence[None]:
        """All of *contents* are on disk, or none is acknowledged."""
        lines = [content for content in contents if content]
        need = sum(map(len, lines)) + _SEAL_BYTES * len(lines) or _PROBE_BYTES
        try:
            segment = self._ready(need)
            if lines:
                self._write(segment, lines)
        except OSError as error:
            self._problem = error.strerror or str(error)
            raise
        self._problem = None
        return [None] * len(contents)

    def _write(self, segment: Segment, lines: Sequence[bytes]) -> None:
        start = segment.end
        try:
            segment.append(lines)
        except OSError:
            self._retire(segment.abandon)
            raise
        self._used += segment.end - start
        if self._deliver:
            self._ends[segment.path] = segment.end

    def _ready(self, need: int) -> Segment:
        """The segment to append to, with room for *need* bytes."""
        if self._lock is None or not self._lock.holds():
            self._lock = self._own_lock()
        self._make_room(need)
        segment = self._segment
        if segment and not segment.intact():
            self._log.error("an audit segment was changed from outside", segment=segment.path.name)
            self._retire(segment.leave)
        elif segment and segment.end >= self._segment_bytes:
            self._retire(segment.close)
        if self._segment is None:
            self._segment = Segment.create(
                self.folder,
                self.process,
                deliver=self._deliver,
                follows=self._before,
                sync=self._sync,
            )
            self._used += self._segment.end
        return self._segment

    def _retire(self, end: Callable[[], None]) -> None:
        """The segment is written to no more; *end* says how it ends."""
        segment, self._segment = self._segment, None
        if segment and segment.events:
            self._before = segment
        end()

    def _own_lock(self) -> Lock:
        if not self.folder.is_dir():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self.folder.parent)
        for _ in range(_LOCK_TRIES):  # another process may tidy it away once
            if lock := Lock.take(self.folder, self.process):
                return lock
        raise OSError(errno.EAGAIN, "the journal's lock cannot be taken")

    def _make_room(self, need: int) -> None:
        """
        *need* more bytes are within the bound; oldest segments went for it where they may.

        Raises: OSError.
        """
        now = time.monotonic()
        if now < self._used_known_until and self._used + need <= self._size:
            return
        segments = stored(self.folder)
        self._used = sum(segment.size for segment in segments)
        self._used_known_until = now + _LOOK_SECONDS
        for segment in segments:
            if self._used + need <= self._size:
                return
            if self._dropped(segment):
                self._used -= segment.size
        if self._used + need > self._size:
            raise OSError(
                errno.EDQUOT, "the journal is full of events that the webhook has not taken"
            )

    def _dropped(self, segment: Stored) -> bool:
        """Whether *segment* was one that may go, and went."""
        if self._deliver and owing(segment) is not None:
            return False
        if not segment.latest:
            drop(segment.path)
            return True
        # A process that lives appends to its latest segment.
        lock = Lock.take(self.folder, segment.process)
        if lock is None:
            return False
        drop(segment.path)
        lock.release()
        return True

    # What follows runs in any thread, one at a time.

    def _tidy(self) -> None:
        try:
            tidy(self.folder)
        except OSError as error:
            self._log.debug("audit folder not tidied", error=str(error))

    def _look(self) -> Status:
        try:
            used = sum(segment.size for segment in stored(self.folder))
            waiting = self._backlog.measure()
            held = waiting.segment_bytes if self._deliver else 0
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
        )


def _disk_room(folder: Path, growth: int) -> int:
    """What the disk leaves to a journal that may still grow by *growth* bytes."""
    while not folder.exists():
        folder = folder.parent
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    return free if free < growth else sys.maxsize


def _figures(status: Status) -> dict[str, object]:
    return {
        "bytes_used": status.bytes_used,
        "bytes_allowed": status.bytes_allowed,
        "bytes_left": status.bytes_left,
        "undelivered_events": status.undelivered_events,
    }


def _unavailable(why: str) -> Refusal:
    return Refusal(Reason.AUDIT_UNAVAILABLE, evidence={"journal": why})
