"""Counting the events that still wait for the webhook, without reading a line twice."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from federation.audit.read import chunks
from federation.audit.segments import LINE_BYTES, Stored, cursor_of, header_of, parsed, stored


@dataclass(frozen=True, slots=True)
class Waiting:
    """The undelivered events."""

    events: int
    segment_bytes: int
    """The size of all segments with such an event. None of them may be dropped."""
    oldest: float | None
    """The time of the oldest, in seconds since the epoch."""


class _Counted(NamedTuple):
    start: int
    end: int
    lines: int


class Backlog:
    """Counts the undelivered events of the journal at *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counted: dict[Path, _Counted] = {}

    def measure(self) -> Waiting:
        """Return the undelivered events. Raises: OSError."""
        held, times = 0, []
        kept: dict[Path, _Counted] = {}
        for segment in stored(self._folder):
            with suppress(FileNotFoundError):  # dropped since the listing
                if (start := undelivered_from(segment)) is not None:
                    counted = kept[segment.path] = self._count(segment, start)
                    held += segment.size
                    if counted.lines:
                        times.append(_time_at(segment.path, start))
        self._counted = kept
        events = sum(counted.lines for counted in kept.values())
        return Waiting(events, held, min((time for time in times if time), default=None))

    def _count(self, segment: Stored, start: int) -> _Counted:
        """Count the lines from *start*. Read only what was written or delivered since."""
        known = self._counted.get(segment.path)
        if known is None or not known.start <= start <= known.end <= segment.size:
            known = _Counted(start, start, 0)
        delivered = _lines(segment.path, known.start, start)
        new = _lines(segment.path, known.end, segment.size)
        return _Counted(start, segment.size, known.lines - delivered + new)


def undelivered_from(segment: Stored) -> int | None:
    """Return the byte from which *segment* must be delivered, None if nothing is left."""
    header = header_of(segment.path)
    if header is None or not header.deliver:
        return None
    start = max(cursor_of(segment.path), header.line_bytes)
    return start if start < segment.size else None


def _lines(path: Path, start: int, end: int) -> int:
    return sum(chunk.count(b"\n") for chunk in chunks(path, start, end))


def _time_at(path: Path, offset: int) -> float | None:
    with path.open("rb") as file:
        file.seek(offset)
        line = file.readline(LINE_BYTES)
    with suppress(ValueError):
        match parsed(line):
            case {"time": str(time)}:
                return datetime.fromisoformat(time).timestamp()
    return None
