"""
The files of the journal: what a line is, what a segment is, and whose it is.

A segment is a file of JSON lines that one process alone appends to. Its first line is a header
that says which segment of the same process it follows, and where that one ended: whatever lies
beyond that end was never acknowledged. Each line ends with a chain, SHA-256 over the chain of
the line before and this line's own text, so that a line that was changed or taken out is found.
A process holds a lock as long as it lives, so that others know whose segments are left behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

__all__ = [
    "LINE_BYTES",
    "Header",
    "Lock",
    "Segment",
    "Stored",
    "Sync",
    "by_process",
    "chain_after",
    "cursor_of",
    "drop",
    "fresh_process",
    "header_of",
    "parse_header",
    "set_cursor",
    "stored",
    "sync_folder",
    "tidy",
    "unsealed",
]

LINE_BYTES = 1024 * 1024
"""No line is longer."""

_NAME = re.compile(r"\d{20}-(?P<process>\d+-[0-9a-f]{16})\.jsonl")
_LOCK = re.compile(r"(?P<process>\d+-[0-9a-f]{16})\.lock")
_SEAL = re.compile(rb',"chain":"([0-9a-f]{64})"\}\Z')
_VERSION = 1

Sync = Callable[[int], None]


# A line


def sealed(content: bytes, chain: str) -> tuple[bytes, str]:
    """The line for *content*, a JSON object, after *chain*; and the chain after it."""
    after = chain_after(chain, content)
    return b'%s,"chain":"%s"}\n' % (content[:-1], after.encode("ascii")), after


def unsealed(line: bytes) -> tuple[bytes, str]:
    """
    The content and the chain of *line*.

    Raises: ValueError where it is no line of a journal.
    """
    seal = _SEAL.search(line.removesuffix(b"\n"))
    if seal is None or not line.startswith(b"{"):
        raise ValueError("not a line of an audit journal")
    return line[: seal.start()] + b"}", seal[1].decode("ascii")


def chain_after(chain: str, content: bytes) -> str:
    """The chain of a line with *content* that comes after *chain*."""
    return hashlib.sha256(chain.encode("ascii") + content).hexdigest()


# A segment that is read


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line of a segment says."""

    process: str
    deliver: bool
    """Whether its events are owed to a webhook."""
    follows: str | None
    """The name of the segment before it."""
    follows_bytes: int
    follows_chain: str
    line_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A segment on disk."""

    path: Path
    process: str
    size: int
    latest: bool
    """Whether it is its process's last; only that one may still grow."""


def stored(folder: Path) -> list[Stored]:
    """The segments in *folder*, oldest first."""
    found: list[tuple[Path, str, int]] = []
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    for path in paths:
        if match := _NAME.fullmatch(path.name):
            with suppress(FileNotFoundError):  # it may have been dropped meanwhile
                found.append((path, match["process"], path.stat().st_size))
    last = {process: path for path, process, _ in found}
    return [Stored(path, process, size, last[process] == path) for path, process, size in found]


def by_process(segments: Sequence[Stored]) -> list[list[Stored]]:
    """*segments* in groups, one a process, in the order given."""
    groups: dict[str, list[Stored]] = {}
    for segment in segments:
        groups.setdefault(segment.process, []).append(segment)
    return list(groups.values())


def header_of(path: Path) -> Header:
    """
    What the segment at *path* says of itself.

    Raises: OSError; ValueError where its first line is no header.
    """
    with path.open("rb") as file:
        return parse_header(file.readline(LINE_BYTES))


def parse_header(line: bytes) -> Header:
    """
    The header that *line* is.

    Raises: ValueError.
    """
    if not line.endswith(b"\n"):
        raise ValueError("the header is incomplete")
    match json.loads(unsealed(line)[0]):
        case {
            "journal": 1,
            "process": str(process),
            "deliver": bool(deliver),
            "follows": None | {"segment": str(), "bytes": int(), "chain": str()} as follows,
        }:
            before = follows or {"segment": None, "bytes": 0, "chain": ""}
            return Header(
                process, deliver, before["segment"], before["bytes"], before["chain"], len(line)
            )
        case _:
            raise ValueError("not a header of an audit journal")


# How far a segment has been delivered


def cursor_of(path: Path) -> int:
    """Up to which byte the segment at *path* was delivered."""
    try:
        return int(_cursor(path).read_bytes()[:20])
    except (OSError, ValueError):
        return 0  # delivered twice rather than not at all


def set_cursor(path: Path, offset: int) -> None:
    """
    The segment at *path* is known to be delivered up to *offset*.

    Raises: OSError.
    """
    cursor = _cursor(path)
    draft = cursor.with_suffix(".draft")
    draft.write_bytes(b"%d\n" % offset)
    draft.replace(cursor)


def drop(path: Path) -> None:
    """The segment at *path* is no more."""
    path.unlink(missing_ok=True)
    _cursor(path).unlink(missing_ok=True)


def _cursor(path: Path) -> Path:
    return path.with_suffix(".cursor")


# A segment that is written


def fresh_process() -> str:
    """A name for this process that no other ever has."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"


class Segment:
    """The segment that this process appends to."""

    def __init__(self, path: Path, descriptor: int, opened_ns: int, sync: Sync) -> None:
        self.path = path
        self.opened_ns = opened_ns
        self.end = 0
        """Where the last line ends that is known to be on disk."""
        self.chain = ""
        self.events = 0
        self._descriptor = descriptor
        self._sync = sync

    @classmethod
    def create(
        cls, folder: Path, process: str, *, deliver: bool, follows: Segment | None, sync: Sync
    ) -> Segment:
        """
        A new segment on disk, with its header.

        Raises: OSError, and then there is none.
        """
        # Names of one process must sort as they were made, even where the clock is set back.
        opened_ns = max(time.time_ns(), follows.opened_ns + 1 if follows else 0)
        path = folder / f"{opened_ns:020d}-{process}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        segment = cls(path, os.open(path, flags, 0o600), opened_ns, sync)
        try:
            segment._begin(process, deliver=deliver, follows=follows)
            sync_folder(folder)
        except OSError:
            segment.abandon()
            raise
        return segment

    def append(self, contents: Iterable[bytes]) -> None:
        """
        A line for each of *contents* is on disk.

        Raises: OSError; the segment must then be abandoned.
        """
        chain, lines = self.chain, []
        for content in contents:
            line, chain = sealed(content, chain)
            lines.append(line)
        self._write(b"".join(lines))
        self.chain = chain
        self.events += len(lines)

    def intact(self) -> bool:
        """Whether the file is where it was and as it was left."""
        found = os.fstat(self._descriptor)
        return found.st_nlink > 0 and found.st_size == self.end

    def abandon(self) -> None:
        """Nothing more is written here, and what was not acknowledged is cut off if possible."""
        with suppress(OSError):
            os.ftruncate(self._descriptor, self.end)
        self.close()

    def close(self) -> None:
        """The file is closed, and gone if it has no event."""
        self.leave()
        if not self.events:
            with suppress(OSError):
                drop(self.path)

    def leave(self) -> None:
        """The file is closed and stays as it is."""
        os.close(self._descriptor)

    def _begin(self, process: str, *, deliver: bool, follows: Segment | None) -> None:
        header = {
            "journal": _VERSION,
            "process": process,
            "opened": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "deliver": deliver,
            "follows": follows
            and {"segment": follows.path.name, "bytes": follows.end, "chain": follows.chain},
        }
        before = follows.chain if follows else ""
        line, self.chain = sealed(json.dumps(header, separators=(",", ":")).encode(), before)
        self._write(line)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._sync(self._descriptor)
        self.end += len(data)


def sync_folder(folder: Path) -> None:
    """The names in *folder* are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Whose segments


class Lock:
    """A process's name, held; the system lets go when the holder ends, however it ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, folder: Path, process: str) -> Lock | None:
        """
        The lock of *process*; None where somebody holds it.

        Raises: OSError.
        """
        path = folder / f"{process}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                return None
            raise
        lock = cls(path, descriptor)
        # The file may have been removed by the last holder between the two calls.
        if lock.holds():
            return lock
        os.close(descriptor)
        return None

    def holds(self) -> bool:
        """Whether it is still this file that others ask for."""
        with suppress(FileNotFoundError):
            return self._path.stat().st_ino == os.fstat(self._descriptor).st_ino
        return False

    def release(self) -> None:
        """Anybody may take it."""
        with suppress(OSError):
            self._path.unlink()
        os.close(self._descriptor)


def tidy(folder: Path) -> None:
    """
    What dead processes left behind without an event in it is gone.

    Raises: OSError.
    """
    segments = stored(folder)
    for own in by_process(segments):
        if len(own) == 1 and _empty(own[0]) and (lock := Lock.take(folder, own[0].process)):
            if _empty(own[0]):
                drop(own[0].path)
            lock.release()
    known = {segment.process for segment in segments}
    for path in folder.iterdir():
        match = _LOCK.fullmatch(path.name)
        if (
            match
            and match["process"] not in known
            and (lock := Lock.take(folder, match["process"]))
        ):
            lock.release()


def _empty(segment: Stored) -> bool:
    """Whether no complete line follows the header."""
    try:
        with segment.path.open("rb") as file:
            file.readline(LINE_BYTES)
            return not file.readline(LINE_BYTES).endswith(b"\n")
    except FileNotFoundError:
        return False
