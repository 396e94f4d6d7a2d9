"""
Decides which statuses are due, so that the writer of statuses writes each difference once.

Nothing is due for an object whose status says what it should. A status that somebody else broke is
written again, but each time that the same text has to be written again takes twice as long as the
time before: two writers that overwrite each other, or an API server that drops writes, cost a few
requests and then one in ten minutes. An object that changes all the time gets one write a second.
Objects take turns, the longest waiting first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nsmallest
from types import MappingProxyType
from typing import TypeAlias

from federation.documents.kubernetes.unite import ApiObject, Key, Verdict
from federation.documents.pauses import Pause, go_on, paced
from federation.sources.kubernetes.events import is_told
from federation.sources.kubernetes.source import Snapshot
from federation.sources.kubernetes.status import Status, desired_status

CHANGE_SECONDS = 1.0
"""The least time between two writes of one object."""
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 600.0
EVENT_SECONDS = 30.0
"""The least time between two Events of one object."""

_Said: TypeAlias = tuple[str, int, Verdict]
"""The inputs of a status: uid, generation and Verdict. Its times do not count as a difference."""
_NO_STATUS: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Write:
    """A status that is due."""

    found: ApiObject
    verdict: Verdict
    status: Status = field(repr=False)
    event: bool
    """True if an Event follows once it is written."""


@dataclass(slots=True)
class _Entry:
    """The writes of one object's status."""

    said: _Said
    seen: Status = field(repr=False)
    differs: bool
    waits_since: float = 0.0
    written: _Said | None = None
    written_at: float = float("-inf")
    pause_seconds: float = FIRST_PAUSE_SECONDS
    told: _Said | None = None
    told_at: float = float("-inf")

    def due_at(self) -> float:
        again = self.said == self.written
        return self.written_at + (self.pause_seconds if again else CHANGE_SECONDS)


@dataclass(slots=True)
class Ledger:
    """The writes that were made and that are due. Times are of the monotonic clock, dates aside."""

    _entries: dict[Key, _Entry] = field(default_factory=dict)
    _snapshot: Snapshot = field(default_factory=Snapshot)

    def look(self, snapshot: Snapshot, now: float, date: datetime, pause: Pause = go_on) -> None:
        """Note what changed in *snapshot*. It costs little for objects that are as they were."""
        if snapshot is self._snapshot:
            return
        self._snapshot = snapshot
        for key, found in paced(snapshot.objects.items(), pause):
            verdict = snapshot.united.verdicts.get(key)
            if verdict is not None:
                status = snapshot.statuses.get(key, _NO_STATUS)
                self._note(found, verdict, status, now, date)
        for key in self._entries.keys() - snapshot.objects.keys():
            del self._entries[key]

    def due(self, now: float, date: datetime, most: int, pause: Pause = go_on) -> list[Write]:
        """Return the *most* writes that are due at *now* and wait longest."""
        ready = (
            (entry.waits_since, key)
            for key, entry in paced(self._entries.items(), pause)
            if entry.differs and entry.due_at() <= now
        )
        turns = [key for _, key in nsmallest(most, ready)]
        return [write for key in turns if (write := self._write(key, now, date))]

    def next_due(self, pause: Pause = go_on) -> float | None:
        """Return the time of the next write, None if there is none unless something changes."""
        entries = paced(self._entries.values(), pause)
        return min((entry.due_at() for entry in entries if entry.differs), default=None)

    def wrote(self, write: Write, now: float) -> None:
        """Note that the API server answered *write* at *now*, whatever it said."""
        entry = self._entries.get(write.found.key)
        if entry is None:
            return
        said = _said(write.found, write.verdict)
        if said == entry.written:
            calm = now - entry.written_at > 2 * LONGEST_PAUSE_SECONDS
            longer = min(2 * entry.pause_seconds, LONGEST_PAUSE_SECONDS)
            entry.pause_seconds = FIRST_PAUSE_SECONDS if calm else longer
        else:
            entry.pause_seconds = FIRST_PAUSE_SECONDS
        entry.written, entry.written_at, entry.waits_since = said, now, now

    def conflicted(self, write: Write, now: float) -> None:
        """Note at *now* that the object changed meanwhile. Its new version is seen soon."""
        entry = self._entries.get(write.found.key)
        if entry is not None:
            entry.written, entry.written_at, entry.waits_since = None, now, now

    def postpone(self, write: Write, now: float) -> None:
        """Note that *write* failed at *now* for a reason that is not the object's."""
        entry = self._entries.get(write.found.key)
        if entry is not None:
            entry.waits_since = now

    def told(self, write: Write, now: float) -> None:
        """Note that an Event told of *write*."""
        entry = self._entries.get(write.found.key)
        if entry is not None:
            entry.told, entry.told_at = _said(write.found, write.verdict), now

    def _note(
        self, found: ApiObject, verdict: Verdict, status: Status, now: float, date: datetime
    ) -> None:
        entry, said = self._entries.get(found.key), _said(found, verdict)
        if entry is not None and entry.seen is status and entry.said == said:
            return
        differs = desired_status(found, verdict, status, date) is not None
        if entry is None:
            self._entries[found.key] = _Entry(said, status, differs, waits_since=now)
            return
        if differs and not entry.differs:
            entry.waits_since = now
        entry.said, entry.seen, entry.differs = said, status, differs

    def _write(self, key: Key, now: float, date: datetime) -> Write | None:
        entry, found = self._entries[key], self._snapshot.objects[key]
        verdict = entry.said[2]
        status = desired_status(found, verdict, entry.seen, date)
        if status is None:
            return None
        news = is_told(verdict) and entry.said != entry.told
        return Write(found, verdict, status, news and now - entry.told_at >= EVENT_SECONDS)


def _said(found: ApiObject, verdict: Verdict) -> _Said:
    return found.uid, found.generation, verdict
