"""
The journal's segment files: their lines, headers, delivery cursors and locks.

A segment is a file of JSON lines that one process appends to. Its first line is a header. The
header names the segment before it of the same process and the byte where that one ended: bytes
beyond it were never acknowledged. A process holds a lock file while it lives, so that others
can tell which segments belong to a dead process.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

LINE_BYTES = 1024 * 1024
"""No line is longer."""

OUTSIDERS = "outsiders"
"""
The folder within the journal's folder that holds the events of outsiders.

It has seals of its own. In one chain with others, seals of dropped segments would pile up as long
as an older segment of the others stays, and anybody could make as many as they like.
"""

_NAME = re.compile(r"\d{20}-(?P<process>\d+-[0-9a-f]{16})\.jsonl")
_LOCK = re.compile(r"(?P<process>\d+-[0-9a-f]{16})\.lock")

Sync = Callable[[int], None]


# Reading segments


def parts(folder: Path) -> tuple[Path, Path]:
    """Return the folder of a journal, and that of its events of outsiders, which may not exist."""
    return folder, folder / OUTSIDERS


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a segment."""

    deliver: bool
    """True if its events must be delivered to a webhook."""
    follows: str | None
    """The name of the segment before it of the same process."""
    follows_bytes: int
    newest_seal: int
    """The number of the newest seal when the segment was opened."""
    line_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment on disk."""

    path: Path
    process: str
    size: int
    latest: bool
    """True if it is the last segment of its process. Only that one may still grow."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A segment that nothing more is written to, as its seal describes it."""

    segment: str
    bytes: int
    events: int
    sha256: str
    adopted: bool
    """True if another process sealed it, because its own ended without doing so."""


def stored(folder: Path) -> list[Stored]:
    """
    Return the segments in *folder*, the oldest first.

    Anything but a regular file is none: to open a pipe would wait for a writer.
    """
    found: list[tuple[Path, str, int]] = []
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    for path in paths:
        if match := _NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):  # dropped since the listing
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    found.append((path, match["process"], status.st_size))
    last = {process: path for path, process, _ in found}
    return [Stored(path, process, size, last[process] == path) for path, process, size in found]


def by_process(segments: Sequence[Stored]) -> list[list[Stored]]:
    """Group *segments* by process, in the order given."""
    groups: dict[str, list[Stored]] = {}
    for segment in segments:
        groups.setdefault(segment.process, []).append(segment)
    return list(groups.values())


def header_of(path: Path) -> Header | None:
    """Return the header of *path*, None if the segment was dropped or has no whole header."""
    try:
        with path.open("rb") as file:
            return parse_header(file.readline(LINE_BYTES))
    except (FileNotFoundError, ValueError):
        return None


def parsed(line: bytes) -> object:
    """Parse *line* as JSON. Raises: ValueError, also if it is nested too deeply for the parser."""
    try:
        return json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def parse_header(line: bytes) -> Header:
    """Parse *line* as a header. Raises: ValueError."""
    if not line.endswith(b"\n"):
        raise ValueError("the header is incomplete")
    match parsed(line):
        case {
            "journal": 1,
            "deliver": bool(deliver),
            "follows": None | {"segment": str(), "bytes": int()} as follows,
            "newest_seal": int(newest),
        }:
            before = follows or {"segment": None, "bytes": 0}
            return Header(deliver, before["segment"], before["bytes"], newest, len(line))
        case _:
            raise ValueError("not a header of an audit journal")


# Delivery cursors


def cursor_of(path: Path) -> int:
    """Return the byte up to which the segment at *path* was delivered."""
    try:
        return int(_cursor(path).read_bytes()[:20])
    except (OSError, ValueError):
        return 0  # deliver twice rather than not at all


def set_cursor(path: Path, offset: int) -> None:
    """Store that the segment at *path* was delivered up to *offset*. Raises: OSError."""
    cursor = _cursor(path)
    draft = cursor.with_suffix(".draft")
    draft.touch(0o600)
    draft.write_bytes(b"%d\n" % offset)
    draft.replace(cursor)


def drop(path: Path) -> None:
    """Delete the segment at *path* and its cursor."""
    path.unlink(missing_ok=True)
    _cursor(path).unlink(missing_ok=True)


def _cursor(path: Path) -> Path:
    return path.with_suffix(".cursor")


# Writing a segment


def fresh_process() -> str:
    """Return a name for this process that no other process ever has."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"


class Segment:
    """The segment that this process appends to."""

    def __init__(self, path: Path, descriptor: int, opened_ns: int, sync: Sync) -> None:
        self.path = path
        self.opened_ns = opened_ns
        self.end = 0
        """The end of the last line that is known to be on disk."""
        self.events = 0
        self._digest = hashlib.sha256()
        self._descriptor = descriptor
        self._sync = sync

    @classmethod
    def create(
        cls,
        folder: Path,
        process: str,
        *,
        deliver: bool,
        follows: Segment | None,
        newest_seal: int,
        sync: Sync,
    ) -> Segment:
        """Create a segment on disk and write its header, or raise OSError and leave nothing."""
        # Names must sort in the order of creation, even if the clock is set back.
        opened_ns = max(time.time_ns(), follows.opened_ns + 1 if follows else 0)
        path = folder / f"{opened_ns:020d}-{process}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        segment = cls(path, os.open(path, flags, 0o600), opened_ns, sync)
        header = {
            "journal": 1,
            "process": process,
            "opened": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "deliver": deliver,
            "follows": follows and {"segment": follows.path.name, "bytes": follows.end},
            "newest_seal": newest_seal,
        }
        try:
            segment._write(json.dumps(header, separators=(",", ":")).encode() + b"\n")
            sync_folder(folder)
        except OSError:
            segment.abandon()
            raise
        return segment

    def append(self, contents: Sequence[bytes]) -> None:
        """Write *contents* as lines and sync them. After an OSError, abandon the segment."""
        self._write(b"".join(content + b"\n" for content in contents))
        self.events += len(contents)

    def closed(self) -> Closed:
        """
        Describe the segment for its seal.

        The digest is of what was written, not of what the file holds now, so that a change made
        before the segment was closed is found as well.
        """
        digest = self._digest.hexdigest()
        return Closed(self.path.name, self.end, self.events, digest, adopted=False)

    def intact(self) -> bool:
        """Return whether the file still exists and has the size that this process gave it."""
        found = os.fstat(self._descriptor)
        return found.st_nlink > 0 and found.st_size == self.end

    def abandon(self) -> None:
        """Cut off what was not acknowledged, if possible, and close the file."""
        self.cut()
        self.close()

    def cut(self) -> bool:
        """Cut off what was not acknowledged. Return whether that was possible."""
        try:
            os.ftruncate(self._descriptor, self.end)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Close the file, and delete it if it has no event."""
        self.leave()
        if not self.events:
            with suppress(OSError):
                drop(self.path)

    def leave(self) -> None:
        """Close the file and leave it as it is."""
        os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._sync(self._descriptor)
        self._digest.update(data)
        self.end += len(data)


def cut(path: Path, end: int, sync: Sync) -> None:
    """Cut off what the closed segment at *path* has after the byte *end*. Raises: OSError."""
    with suppress(FileNotFoundError):  # dropped meanwhile
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, end)
            sync(descriptor)
        finally:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Sync the names in *folder* to disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Locks


class Lock:
    """A lock file that this process holds. The system releases it however the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path, name: str) -> Lock | None:
        """Take the lock *name*, usually of a process. Return None if somebody holds it."""
        path = folder / f"{name}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return None
            raise
        lock = cls(path, descriptor)
        # The last holder may have removed the file between the two calls.
        if lock.holds():
            return lock
        os.close(descriptor)
        return None

    @staticmethod
    def held(folder: Path, name: str) -> bool:
        """Return whether somebody holds the lock *name*, without changing anything on disk."""
        try:
            descriptor = os.open(folder / f"{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def holds(self) -> bool:
        """Return whether the lock file is still the one that others would take."""
        with suppress(FileNotFoundError):
            return self._path.stat().st_ino == os.fstat(self._descriptor).st_ino
        return False

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Remove the lock file and let go of the lock."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def remove_stale_locks(folder: Path) -> None:
    """Remove the lock files of dead processes that left no segment. Raises: OSError."""
    known = {segment.process for segment in stored(folder)}
    for path in folder.iterdir():
        match = _LOCK.fullmatch(path.name)
        process = match and match["process"]
        if process and process not in known and (lock := Lock.take(folder, process)):
            lock.release()
