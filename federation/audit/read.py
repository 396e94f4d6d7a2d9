"""
Reading the journal: batches for a webhook, the last events, what is new, and whether it is whole.

The half of a line that a killed process leaves at the end of its segment was never
acknowledged, and neither was what lies beyond the end that the next segment names. Readers
leave both out; `examine` tells of them, and of what was changed or taken out.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from federation.audit.segments import (
    LINE_BYTES,
    Header,
    Stored,
    by_process,
    chain_after,
    header_of,
    parse_header,
    stored,
    unsealed,
)

__all__ = [
    "BATCH_BYTES",
    "BATCH_EVENTS",
    "Batch",
    "Event",
    "Finding",
    "Line",
    "News",
    "Report",
    "batch_of",
    "ends",
    "events",
    "examine",
    "last",
    "lines",
]

BATCH_EVENTS = 100
BATCH_BYTES = 512 * 1024

_TAIL_CHUNK = 64 * 1024


# Lines


@dataclass(frozen=True, slots=True)
class Line:
    """A whole line of a segment."""

    text: bytes
    start: int

    @property
    def end(self) -> int:
        """Where the next line begins."""
        return self.start + len(self.text)

    def content(self) -> bytes:
        """
        The event as it was recorded, one JSON object.

        Raises: ValueError.
        """
        content = unsealed(self.text)[0]
        if not isinstance(json.loads(content), dict):
            raise ValueError("not an object")  # noqa: TRY004  one kind of error for bad input
        return content


def lines(path: Path, start: int, end: int) -> Iterator[Line]:
    """The whole lines of *path* between two bytes; one that is longer than any may be is cut."""
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (text := file.readline(min(LINE_BYTES, end - start))):
            if not text.endswith(b"\n") and len(text) < LINE_BYTES:
                return
            yield Line(text, start)
            start += len(text)


def ends(segments: Sequence[Stored]) -> dict[Path, int]:
    """
    Up to which byte each of *segments* counts: as far as its successor says, or all of it.

    Raises: OSError.
    """
    counted = {segment.path.name: segment for segment in segments}
    found = {segment.path: segment.size for segment in segments}
    for segment in segments:
        header = _header(segment.path)
        if header and header.follows in counted:
            before = counted[header.follows]
            found[before.path] = min(before.size, header.follows_bytes)
    return found


def _header(path: Path) -> Header | None:
    try:
        return header_of(path)
    except (FileNotFoundError, ValueError):
        return None


# For a webhook


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that are delivered together, from one segment."""

    path: Path
    start: int
    end: int
    contents: tuple[bytes, ...]
    unreadable: int
    """Lines in between that hold no event any more."""

    @property
    def body(self) -> bytes:
        """The events as a JSON array."""
        return b"[" + b",".join(self.contents) + b"]"

    @property
    def delivery_id(self) -> str:
        """The same for the same events, however often they are tried."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.path.name}:{self.start}:{self.end}"))


def batch_of(path: Path, start: int, end: int) -> Batch | None:
    """
    The next events of *path* from *start* on, at least one; None where there are none.

    Raises: OSError.
    """
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


# For people


Event = dict[str, object]


def events(path: Path, start: int, end: int) -> Iterator[tuple[Line, Event]]:
    """The events of the segment *path* between two bytes, each with its line. Raises: OSError."""
    for line in lines(path, start, end):
        if line.start:  # the first line is the header
            try:
                event: Event = json.loads(line.content())
            except ValueError:
                continue
            yield line, event


def last(folder: Path, count: int) -> list[Event]:
    """
    The last *count* events of the journal at *folder*, by their time.

    Raises: OSError.
    """
    segments = stored(folder)
    counted = ends(segments)
    found: list[Event] = []
    for own in by_process(segments):
        lacking = count
        for segment in reversed(own):
            if lacking <= 0:
                break
            latest = _last_of(segment.path, counted[segment.path], lacking)
            found += latest
            lacking -= len(latest)
    found.sort(key=_time)
    return found[-count:] if count else []


class News:
    """What is recorded in *folder* from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = {segment.path: segment.size for segment in stored(folder)}

    def read(self) -> list[Event]:
        """
        The events that are new since the last time, by their time.

        Raises: OSError.
        """
        new: list[Event] = []
        seen: dict[Path, int] = {}
        for segment in stored(self._folder):
            seen[segment.path] = start = self._seen.get(segment.path, 0)
            for line, event in events(segment.path, start, segment.size):
                new.append(event)
                seen[segment.path] = line.end
        self._seen = seen
        return sorted(new, key=_time)


def _last_of(path: Path, end: int, count: int) -> list[Event]:
    """The last events of one segment, read from its end."""
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


def _time(event: Event) -> str:
    return str(event.get("time", ""))


# For whoever doubts


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about a segment."""

    path: Path
    line: int
    message: str
    broken: bool
    """Whether something was changed or taken out; else it is what a crash leaves."""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(slots=True)
class Report:
    """What was examined and found."""

    segments: int = 0
    events: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing was changed or taken out."""
        return not any(finding.broken for finding in self.findings)


def examine(folder: Path) -> Report:
    """
    Whether every line of the journal at *folder* follows the one before it.

    Raises: OSError.
    """
    report = Report()
    segments = stored(folder)
    counted = ends(segments)
    for own in by_process(segments):
        read = [_read(segment, counted[segment.path], report) for segment in own]
        _first(read[0], report)
        for before, after in pairwise(read):
            _follows(before, after, report)
    report.findings.sort(key=lambda finding: (finding.path, finding.line))
    return report


@dataclass(slots=True)
class _Read:
    """One segment, read to where its successor says that it ended."""

    path: Path
    size: int
    header: Header | None = None
    end: int = 0
    line: int = 0
    chain: str = ""


def _read(segment: Stored, end: int, report: Report) -> _Read:
    """*segment* up to *end*, with a finding for each line that does not follow the one before."""
    read = _Read(segment.path, segment.size)
    report.segments += 1
    for number, line in enumerate(lines(segment.path, 0, end), 1):
        try:
            content, claimed = unsealed(line.text)
            if number == 1:
                read.header = parse_header(line.text)
                read.chain = read.header.follows_chain
            if chain_after(read.chain, content) != claimed:
                report.findings.append(_changed(segment.path, number))
            read.chain = claimed
            report.events += number > 1
        except ValueError as error:
            report.findings.append(_changed(segment.path, number, f": {error}"))
        read.end, read.line = line.end, number
    if read.end < end == segment.size:
        message = (
            "ends within a line, which was never acknowledged: a process was killed, or is writing"
        )
        report.findings.append(Finding(segment.path, read.line + 1, message, broken=False))
    return read


def _changed(path: Path, number: int, why: str = "") -> Finding:
    return Finding(path, number, f"changed, or the line before was taken out{why}", broken=True)


def _first(read: _Read, report: Report) -> None:
    if read.header and read.header.follows:
        message = f"follows {read.header.follows}, which was dropped for room, or removed"
        report.findings.append(Finding(read.path, 1, message, broken=False))


def _follows(before: _Read, after: _Read, report: Report) -> None:
    """*after* says where *before* ended, and both must agree."""
    if after.header is None:
        return
    if after.header.follows != before.path.name:
        message = f"follows {after.header.follows}, which is not there"
        report.findings.append(Finding(after.path, 1, message, broken=True))
    elif (before.end, before.chain) != (after.header.follows_bytes, after.header.follows_chain):
        message = f"ends otherwise than {after.path.name} says: lines were changed or taken out"
        report.findings.append(Finding(before.path, before.line, message, broken=True))
    elif before.end < before.size:
        message = "what comes after this line was never acknowledged"
        report.findings.append(Finding(before.path, before.line, message, broken=False))
