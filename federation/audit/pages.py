"""
Pages of the trail, the newest event first, for people who look at it while it grows.

The events of all workers, those that are owed and those of outsiders, are merged by time. A cursor
says how far each segment was read, so no page repeats or leaves out an event because others came
meanwhile. Only segments of living processes grow, and a cursor names all of these. Of the others it
names those that were begun and not finished. The rest need no mention: the merge takes the newest
event first, so a segment was begun if its newest event is no older than the oldest that was taken.

A page reads a few MiB at most, so it may hold fewer events than were asked for, and even none.
"""

from __future__ import annotations

import base64
import heapq
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from federation.audit.backwards import Backwards, Place
from federation.audit.read import StoredEvent, ends
from federation.audit.segments import Lock, parts, stored

_SCANNED_BYTES = 4 * 1024 * 1024
"""Bytes of the journal that one page reads at most."""
_PAGE_BYTES = 1024 * 1024
"""Bytes that the events of one page take in the journal, apart from the last event."""
_SEARCHED_BYTES = 64 * 1024 * 1024
"""Bytes of the journal that are searched for one event."""
_SEARCH_STEP = 1024 * 1024
_CURSOR_CHARS = 16 * 1024
_SEGMENTS = 500


class Page(NamedTuple):
    """Some events, and the cursor of the page after them, None after the oldest event."""

    events: list[StoredEvent]
    next: str | None


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position up to which the trail of one replica was read."""

    trail: str
    """The id of the replica's trail: a cursor is refused in the trail of another replica."""
    reached: Place | None = None
    """The last place in the order of reading. None at the beginning."""
    positions: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """By segment: the byte before which it is still to be read."""

    @property
    def text(self) -> str:
        """The cursor as a caller gets it."""
        written = json.dumps([self.trail, self.reached, dict(self.positions)])
        return base64.urlsafe_b64encode(written.encode()).decode().rstrip("=")

    @classmethod
    def of(cls, text: str, trail: str) -> Cursor:
        """
        Read what `text` wrote.

        Raises: ValueError if it is not a cursor of *trail*.
        """
        if len(text) > _CURSOR_CHARS or not text.isascii():
            raise ValueError("not a cursor")
        written = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        try:
            match json.loads(written):
                case [str(given), [int(age), str(segment)], dict(positions)]:
                    pass
                case _:
                    raise ValueError("not a cursor")
        except RecursionError as error:
            raise ValueError("not a cursor") from error
        if given != trail:
            raise ValueError("a cursor of another replica")
        right = all(type(position) is int and position >= 0 for position in positions.values())
        if len(positions) > _SEGMENTS or not right:
            raise ValueError("not a cursor")
        return cls(given, Place(age, segment), positions)


def page(folder: Path, cursor: Cursor, limit: int, wanted: Callable[[StoredEvent], bool]) -> Page:
    """
    Return at most *limit* events of the journal in *folder*, after *cursor*, that are *wanted*.

    It reads files, so it belongs into a thread. Raises: OSError.
    """
    segments = _segments(folder)
    heap = _heap(_unread(segments, cursor))
    begun = set(cursor.positions)
    reached = cursor.reached
    found: list[StoredEvent] = []
    scanned = size = 0
    while heap and len(found) < limit and scanned < _SCANNED_BYTES and size < _PAGE_BYTES:
        place, segment = heapq.heappop(heap)
        event, taken = segment.take()
        begun.add(segment.id)
        reached = place if reached is None else max(reached, place)
        scanned += taken
        if wanted(event):
            found.append(event)
            size += taken
        if (later := _peeked(segment)) is not None:
            heapq.heappush(heap, (later, segment))
    if not heap:
        return Page(found, None)
    unfinished = {segment.id: segment.position for _, segment in heap if segment.id in begun}
    # A segment that was opened since the first page must not get into the cursor.
    known = {s.id for s in segments} if cursor.reached is None else cursor.positions.keys()
    growing = (each for each in segments if each.id in known and each.latest and _lives(each))
    living = {each.id: each.position for each in growing}
    return Page(found, Cursor(cursor.trail, reached, living | unfinished).text)


def find(folder: Path, event_id: str) -> StoredEvent | None:
    """
    Return the event *event_id*, None if the newest 64 MiB of the journal in *folder* lack it.

    It reads files, so it belongs into a thread. Raises: OSError.
    """
    return next(search(folder, "event_id", event_id, _SEARCHED_BYTES), None)


def search(
    folder: Path, member: str, value: str, most_bytes: float = math.inf
) -> Iterator[StoredEvent]:
    """
    Yield the events whose *member* is *value*, about the newest first.

    At most *most_bytes* of the journal in *folder* are read. Raises: OSError.
    """
    needle = f'"{member}":'.encode() + json.dumps(value).encode()
    heap = _heap(_segments(folder))
    while heap and most_bytes > 0:
        _, segment = heapq.heappop(heap)
        try:
            events, read = segment.search(needle, _SEARCH_STEP)
        except FileNotFoundError:  # dropped since the listing
            continue
        # A caller can write the same text into a claim, but not where the member stands.
        yield from (event for event in events if event.get(member) == value)
        most_bytes -= read
        if (later := _peeked(segment)) is not None:
            heapq.heappush(heap, (later, segment))


def _segments(folder: Path) -> list[Backwards]:
    """Return the segments of both parts of the journal, each up to where it was acknowledged."""
    found = []
    for number, part in enumerate(parts(folder)):
        listed = stored(part)
        end_of = ends(listed)
        found += [Backwards(segment, number, end_of[segment.path]) for segment in listed]
    return found


def _unread(segments: Sequence[Backwards], cursor: Cursor) -> Iterator[Backwards]:
    """Yield the *segments* that are still to be read after *cursor*, each from its place there."""
    # A process appends to its last segment, so one that is newer than what the cursor knows was
    # opened since.
    known: dict[str, str] = {}
    for segment in segments:
        if segment.id in cursor.positions:
            known[segment.process] = max(segment.name, known.get(segment.process, ""))
    for segment in segments:
        position = cursor.positions.get(segment.id)
        if position is not None:
            segment.start_at(position)
            yield segment
        elif cursor.reached is None:
            yield segment
        elif segment.name <= known.get(segment.process, segment.name):
            newest = _peeked(segment)
            if newest is not None and newest > cursor.reached:
                yield segment


def _heap(segments: Iterable[Backwards]) -> list[tuple[Place, Backwards]]:
    heap = [(place, each) for each in segments if (place := _peeked(each)) is not None]
    heapq.heapify(heap)
    return heap


def _peeked(segment: Backwards) -> Place | None:
    with suppress(FileNotFoundError):  # dropped since the listing
        return segment.peek()
    return None


def _lives(segment: Backwards) -> bool:
    """Return whether the process that appends to *segment* is alive."""
    return Lock.held(segment.folder, segment.process)
