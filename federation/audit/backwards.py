"""
Reads one segment of the journal from its end to its beginning, a part at a time.

A segment may be 64 MiB, and a reader usually wants its last lines. Half a line that a write in
progress, or a killed process, left at the end is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import NamedTuple

from federation.audit.read import StoredEvent
from federation.audit.segments import LINE_BYTES, Stored, parsed

_FIRST_CHUNK = 4 * 1024
_LAST_CHUNK = 256 * 1024
_DIGITS = 20


class Place(NamedTuple):
    """The place of an event in the order of reading: that of a newer event is less."""

    age: int
    """Minus the digits of the event's time. 0 if it has no readable time."""
    segment: str
    """The id of its segment, so that no two segments have one place."""


class Backwards:
    """The events of one segment, the newest first, from the byte *end*."""

    def __init__(self, segment: Stored, part: int, end: int) -> None:
        self.process = segment.process
        self.name = segment.path.name
        self.latest = segment.latest
        # Opaque, since it is shown to callers: the name has a process id, and a random part that
        # nobody can guess.
        self.id = hashlib.sha256(f"{part}/{self.name}".encode()).hexdigest()[:12]
        self.folder = segment.path.parent
        self._path = segment.path
        self._chunk = _FIRST_CHUNK
        self._buffer = b""
        self._start = end
        """Offset of the buffer in the file."""
        self._stop = 0
        """Number of bytes of the buffer that are still to be read."""
        self._aligned = False
        self._next: tuple[Place, StoredEvent, int] | None = None

    def start_at(self, end: int) -> None:
        """Go on from the byte *end*, where an earlier reader stopped."""
        self._buffer, self._start, self._stop = b"", min(end, self._start + self._stop), 0
        self._next, self._aligned = None, False

    @property
    def position(self) -> int:
        """The byte before which everything is still to be read, the event of `peek` included."""
        return self._next[2] if self._next else self._start + self._stop

    def peek(self) -> Place | None:
        """Return the place of the next event, None if there is none left. Raises: OSError."""
        while self._next is None:
            line = self._line()
            if line is None:
                return None
            if event := _event(line):
                self._next = _place(event, self.id), event, self._start + self._stop + len(line)
        return self._next[0]

    def take(self) -> tuple[StoredEvent, int]:
        """Return the event that `peek` found, and the bytes that it took in the segment."""
        assert self._next is not None  # noqa: S101  the caller has peeked
        _, event, before = self._next
        self._next = None
        return event, before - self._start - self._stop

    def search(self, needle: bytes, most_bytes: int) -> tuple[list[StoredEvent], int]:
        """Read up to *most_bytes*. Return the events whose line holds *needle*, and what was read."""
        found, first = [], self.position
        if self._next is not None:
            event, _ = self.take()
            if needle in json.dumps(event, separators=(",", ":")).encode():
                found.append(event)
        while first - self.position < most_bytes and (line := self._line()) is not None:
            if needle in line and (event_found := _event(line)):
                found.append(event_found)
        return found, first - self.position

    def _line(self) -> bytes | None:
        """Return the line before the last one that was returned. None before the first event."""
        if not self._aligned:
            self._drop_half_a_line()
        while True:
            begins = self._buffer.rfind(b"\n", 0, max(0, self._stop - 1)) + 1
            if begins:
                line = self._buffer[begins : self._stop]
                self._stop = begins
                return line
            if not self._start or self._stop > LINE_BYTES:
                self._start = self._stop = 0  # what is left is the header, or no line at all
                return None
            self._read()

    def _drop_half_a_line(self) -> None:
        self._aligned = True
        while not (stop := self._buffer.rfind(b"\n", 0, self._stop) + 1):
            if not self._start or self._stop > LINE_BYTES:
                self._start = self._stop = 0
                return
            self._read()
        self._stop = stop

    def _read(self) -> None:
        """Read what is before the buffer, each time more."""
        step = min(self._chunk, self._start)
        self._chunk = min(4 * self._chunk, _LAST_CHUNK)
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, step, self._start - step)
        finally:
            os.close(descriptor)
        if len(data) < step:  # it was cut since, so nothing in the buffer can be trusted
            self._buffer, self._start, self._stop = b"", 0, 0
            return
        self._buffer = data + self._buffer[: self._stop]
        self._start -= step
        self._stop += step


def _event(line: bytes) -> StoredEvent | None:
    try:
        event = parsed(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event_id" in event else None


def _place(event: StoredEvent, segment: str) -> Place:
    digits = "".join(filter(str.isdecimal, str(event.get("time"))[:40]))
    return Place(-int(digits) if digits.isascii() and len(digits) == _DIGITS else 0, segment)
