"""
Documents in files, read at start and again whenever they change.

A set is adopted whole or not at all. Changes are found by looking, not by being told: one
`stat` a file and round sees what notifications miss, such as the swapped symlink of a mounted
ConfigMap, a replaced directory or a network file system. A set is read once it has stood still
for one round, so that half-written files are rarely read and never matter.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from federation.documents.assemble import DOCUMENTS, Assembled, assemble
from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.parse import FILE_BYTES, Parsed, parse
from federation.errors import DocumentsRefused, Problem, Severity

__all__ = ["FileSource", "load"]

_SUFFIXES = (".yaml", ".yml", ".json")
_FILES = 10_000
_ENTRIES = 100_000
_ALL_BYTES = 256 * 1024 * 1024
_RESTLESS_ROUNDS = 3
"""After so many rounds a set that never stands still is read as it is."""


def load(paths: Sequence[Path]) -> Assembled:
    """
    The documents in *paths*, all of them or none.

    A directory is read with all below it: `*.yaml`, `*.yml` and `*.json`, names that begin with
    a dot aside. A file that is named itself is read whatever its name.
    """
    return _read(_look(paths))


class FileSource:
    """
    Files as a source of documents.

    Raises: DocumentsRefused where the first set cannot be adopted.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        clock: Callable[[], float] = time.time,
        interval_seconds: float = 0.4,
        on_change: Callable[[Assembled], None] | None = None,
    ) -> None:
        self._paths = tuple(paths)
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._on_change = on_change
        self._seen, first = _load_at_rest(self._paths)
        if first.catalog is None:
            raise DocumentsRefused(_errors(first))
        self._catalog = first.catalog
        self._problems: tuple[Problem, ...] = ()
        self.read_at = clock()
        """When the last set was read, whether or not it was adopted."""

    def current(self) -> Catalog:
        """The last set that was adopted."""
        return self._catalog

    def problems(self) -> tuple[Problem, ...]:
        """The errors of the last set, if it was not adopted."""
        return self._problems

    async def watch(self) -> None:
        """
        Keep the catalog as the files are, until cancelled.

        An `OSError`, whatever its cause, costs a round and no more.
        """
        changed: _Sight | None = None
        rounds = 0
        while True:
            await asyncio.sleep(self._interval_seconds)
            try:
                sight = await asyncio.to_thread(_look, self._paths)
                if sight.prints == self._seen.prints:
                    changed, rounds = None, 0
                    continue
                rounds += 1
                at_rest = changed is not None and changed.prints == sight.prints
                if at_rest or rounds >= _RESTLESS_ROUNDS:
                    changed, rounds = None, 0
                    await self._reload()
                else:
                    changed = sight
            except OSError:
                continue

    async def _reload(self) -> None:
        seen, assembled = await asyncio.to_thread(_load_at_rest, self._paths)
        self._seen = seen
        self.read_at = self._clock()
        if assembled.catalog is None:
            self._problems = _errors(assembled)
        else:
            self._catalog, self._problems = assembled.catalog, ()
        if self._on_change is not None:
            self._on_change(assembled)


_Print = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, and when content and inode last changed, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    label: str
    """The path below the directory that was named: the same wherever that directory is."""
    print: _Print


@dataclass(slots=True)
class _Sight:
    """Which files there are and how they look from outside, at one moment."""

    files: list[_File] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    entries: int = 0
    known: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of every file and directory seen, so that each is read once."""

    @property
    def prints(self) -> tuple[object, ...]:
        """What differs as soon as a file came, went or changed."""
        return (*(file.print for file in self.files), *self.problems)

    def is_new(self, found: os.stat_result) -> bool:
        """Whether this file or directory is seen for the first time; from now on it is not."""
        identity = (found.st_dev, found.st_ino)
        new = identity not in self.known
        self.known.add(identity)
        return new


def _look(paths: Sequence[Path]) -> _Sight:
    """What there is to read at *paths*."""
    sight = _Sight()
    for path in paths:
        try:
            found = path.stat()
        except (OSError, ValueError) as error:
            sight.problems.append(_unreadable(str(path), error))
            continue
        if stat.S_ISDIR(found.st_mode):
            _look_into(path, found, sight)
        elif sight.is_new(found):
            _note(sight, str(path), path.name, found)
    return sight


def _look_into(root: Path, found: os.stat_result, sight: _Sight) -> None:
    """Note every file below *root*, in the order of their paths; symlinks are followed."""
    waiting = [(str(root), "", found)]
    while waiting:
        path, label, found = waiting.pop()
        if stat.S_ISDIR(found.st_mode):
            if sight.is_new(found):
                waiting += reversed(_members(path, label, sight))
        elif sight.is_new(found):
            _note(sight, path, label, found)
        if sight.entries > _ENTRIES or len(sight.files) > _FILES:
            sight.problems.append(
                _problem(str(root), f"holds more than {_FILES:,} files or {_ENTRIES:,} entries")
            )
            return


def _members(path: str, label: str, sight: _Sight) -> list[tuple[str, str, os.stat_result]]:
    """The directories and documents in a directory, sorted by name."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        sight.problems.append(_unreadable(path, error))
        return []
    sight.entries += len(names)
    members: list[tuple[str, str, os.stat_result]] = []
    for entry in names:
        if entry.name.startswith("."):
            continue
        try:
            found = entry.stat()
        except OSError as error:
            # A symlink to nowhere may have meant documents, so it is not passed over.
            sight.problems.append(_unreadable(entry.path, error))
            continue
        if stat.S_ISDIR(found.st_mode) or entry.name.endswith(_SUFFIXES):
            members.append((entry.path, f"{label}/{entry.name}", found))
    return members


def _note(sight: _Sight, path: str, label: str, found: os.stat_result) -> None:
    prints = (
        path,
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
    sight.files.append(_File(path, label, prints))


def _load_at_rest(paths: Sequence[Path]) -> tuple[_Sight, Assembled]:
    """
    A set, read again where it changed in the meantime, and how its files looked before.

    A set that never rests is returned as it was read; it then differs from what comes next.
    """
    before = _look(paths)
    for _ in range(_RESTLESS_ROUNDS - 1):
        assembled = _read(before)
        after = _look(paths)
        if after.prints == before.prints:
            return before, assembled
        before = after
    return before, _read(before)


def _read(sight: _Sight) -> Assembled:
    digest = hashlib.sha256()
    unseen = Parsed(problems=tuple(sight.problems))
    return assemble([unseen, *_parsed(sight.files, digest)], digest.hexdigest())


def _parsed(files: Sequence[_File], digest: hashlib._Hash) -> Iterator[Parsed]:
    size, found = 0, 0
    places: dict[tuple[str | int, ...], tuple[str | int, ...]] = {}
    for file in files:
        try:
            data = _content(file.path)
        except (OSError, ValueError) as error:
            yield Parsed(problems=(_unreadable(file.path, error),))
            continue
        for part in (file.label.encode("utf-8", "surrogateescape"), data):
            digest.update(len(part).to_bytes(8, "big") + part)
        parsed = parse(file.path, data, places)
        yield parsed
        size, found = size + len(data), found + parsed.found
        if size > _ALL_BYTES or found > DOCUMENTS:
            limit = f"{_ALL_BYTES // 1024**2} MiB or {DOCUMENTS:,} documents in all"
            yield Parsed(problems=(_problem(file.path, f"makes more than {limit}"),))
            return


def _content(path: str) -> bytes:
    """
    What is in a regular file, as far as the limit and one byte more.

    Raises: OSError where it cannot be read, or is a device, a pipe or a directory.
    """
    # Opening a pipe would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return file.read(FILE_BYTES + 1)


def _unreadable(path: str, error: OSError | ValueError) -> Problem:
    reason = error.strerror if isinstance(error, OSError) else None
    return _problem(path, f"cannot be read: {reason or 'not a path'}")


def _problem(path: str, message: str) -> Problem:
    return Problem(path, 0, Code.FILE_UNREADABLE.value, Severity.ERROR, message)


def _errors(assembled: Assembled) -> tuple[Problem, ...]:
    return tuple(p for p in assembled.problems if p.severity is Severity.ERROR)
