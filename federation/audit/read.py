"""
Reading the journal: batches for a webhook, the last events, and new events as they come.

Readers leave out what was never acknowledged: half a line that a killed process left at the end
of its segment, and the bytes beyond the end that the next segment names.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

from federation.audit.segments import (
    LINE_BYTES,
    Stored,
    by_process,
    header_of,
    parsed,
    stored,
)
from federation.jose.strict_json import loads_object

BATCH_EVENTS = 100
BATCH_BYTES = 512 * 1024

_CHUNK = 1024 * 1024
_TAIL_CHUNK = 64 * 1024

StoredEvent = dict[str, object]
"""The members of an event, as its line has them."""


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line of a segment."""

    text: bytes
    start: int

    @property
    def end(self) -> int:
        """The offset at which the next line begins."""
        return self.start + len(self.text)

    def content(self) -> bytes:
        """Return the event as it was recorded, one JSON object. Raises: ValueError."""
        self.event()
        return self.text.removesuffix(b"\n")

    def event(self) -> StoredEvent:
        """Return the members of the event. Raises: ValueError."""
        event = parsed(self.text)
        if not isinstance(event, dict):
            raise ValueError("not an object")  # noqa: TRY004  one kind of error for bad input
        return event


def lines(path: Path, start: int, end: int) -> Iterator[Line]:
    """Yield the whole lines of *path* between two bytes. Overlong lines are cut in pieces."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (text := file.readline(min(LINE_BYTES, end - start))):
            if not text.endswith(b"\n") and len(text) < LINE_BYTES:
                return
            yield Line(text, start)
            start += len(text)


def chunks(path: Path, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of *path* between two places, some at a time. Raises: OSError."""
    if start == end:
        return
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (chunk := file.read(min(_CHUNK, end - start))):
            start += len(chunk)
            yield chunk


def ends(segments: Sequence[Stored]) -> dict[Path, int]:
    """Return where each of *segments* ends: where its successor says, else at its last byte."""
    by_name = {segment.path.name: segment for segment in segments}
    found = {segment.path: segment.size for segment in segments}
    for segment in segments:
        header = header_of(segment.path)
        if header and header.follows in by_name:
            before = by_name[header.follows]
            found[before.path] = min(before.size, header.follows_bytes)
    return found


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one segment that are delivered together."""

    path: Path
    start: int
    end: int
    contents: tuple[bytes, ...]
    unreadable: int
    """The number of lines in between that cannot be read as events."""

    @property
    def body(self) -> bytes:
        """The events as a JSON array."""
        return b"[" + b",".join(self.contents) + b"]"

    @property
    def delivery_id(self) -> str:
        """An id that stays the same when the batch is tried again."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.path.name}:{self.start}:{self.end}"))


def batch_of(path: Path, start: int, end: int) -> Batch | None:
    """Return the next events of *path* between two bytes, None if there are none."""
    contents: list[bytes] = []
    unreadable, size, after = 0, 0, start
    for line in lines(path, start, end):
        if line.start:  # the first line is the header
            if contents and size + len(line.text) > BATCH_BYTES:
                break
            try:
                contents.append(line.content())
            except ValueError:
                unreadable += 1
            size += len(line.text)
        after = line.end
        if len(contents) == BATCH_EVENTS:
            break
    if not contents and not unreadable:
        return None
    return Batch(path, start, after, tuple(contents), unreadable)


def events(path: Path, start: int, end: int) -> Iterator[tuple[Line, StoredEvent]]:
    """
    Yield the events of *path* between two bytes, each with its line.

    There are none if the segment was dropped since the listing. Raises: OSError.
    """
    with suppress(FileNotFoundError):
        for line in lines(path, start, end):
            if line.start:  # the first line is the header
                try:
                    event = line.event()
                except ValueError:
                    continue
                yield line, event


def last(folder: Path, count: int) -> list[StoredEvent]:
    """Return the last *count* events of the journal at *folder*, by time. Raises: OSError."""
    segments = stored(folder)
    end_of = ends(segments)
    found: list[StoredEvent] = []
    for own in by_process(segments):
        lacking = count
        for segment in reversed(own):
            if lacking <= 0:
                break
            with suppress(FileNotFoundError):  # dropped since the listing
                latest = _last_of(segment.path, end_of[segment.path], lacking)
                found += latest
                lacking -= len(latest)
    found.sort(key=time_of)
    return found[-count:] if count else []


def in_order(folders: Iterable[Path]) -> Iterator[StoredEvent | None]:
    """
    Yield all events of the journals at *folders* by time, and None for each line that is no event.

    Events of one process stay in the order in which they were recorded. So an event of a token
    never comes before that of the exchange that granted it. Raises: OSError.
    """
    processes = [_of_process(own) for folder in folders for own in by_process(stored(folder))]
    yield from merge(*processes, key=lambda event: "" if event is None else time_of(event))


def _of_process(segments: Sequence[Stored]) -> Iterator[StoredEvent | None]:
    end_of = ends(segments)
    for segment in segments:
        with suppress(FileNotFoundError):  # dropped since the listing
            for line in lines(segment.path, 0, end_of[segment.path]):
                if line.start:  # the first line is the header
                    try:
                        yield loads_object(line.text)
                    except ValueError:
                        yield None


class News:
    """Events that are recorded in *folder* from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = {segment.path: segment.size for segment in stored(folder)}

    def read(self) -> list[StoredEvent]:
        """Return the events since the last call, by time. Raises: OSError."""
        new: list[StoredEvent] = []
        seen: dict[Path, int] = {}
        for segment in stored(self._folder):
            seen[segment.path] = start = self._seen.get(segment.path, 0)
            for line, event in events(segment.path, start, segment.size):
                new.append(event)
                seen[segment.path] = line.end
        self._seen = seen
        return sorted(new, key=time_of)


def _last_of(path: Path, end: int, count: int) -> list[StoredEvent]:
    """Return the last *count* events of one segment, read backwards from *end*."""
    start, newlines = end, 0
    with path.open("rb") as file:
        while start > 0 and newlines <= count + 1:
            step = min(_TAIL_CHUNK, start)
            start -= step
            file.seek(start)
            newlines += file.read(step).count(b"\n")
        if start:
            file.seek(start)
            start += len(file.readline())
    return [event for _, event in events(path, start, end)][-count:]


def time_of(event: StoredEvent) -> str:
    """Return the time of *event*, which sorts as text."""
    return str(event.get("time", ""))
