"""
Read documents from files, and reload them when the files change.

A set of documents is adopted as a whole or not at all. Changes are found by polling: one `stat`
for each file finds what notifications miss, such as the swapped symlink of a mounted ConfigMap, a
replaced directory, or a change on a network file system. A changed set is read once it stayed
the same for one round, so that half-written files are rarely read. If one is, it has errors or
changes again, and the next round corrects it.
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

_SUFFIXES = (".yaml", ".yml", ".json")
_FILES = 10_000
_ENTRIES = 100_000
_ALL_BYTES = 256 * 1024 * 1024
_MAX_CHANGING_ROUNDS = 3
"""A set that keeps changing is read after this many rounds anyway."""


def load(paths: Sequence[Path]) -> Assembled:
    """
    Read the documents in *paths* as one set.

    A directory is read recursively: `*.yaml`, `*.yml` and `*.json`, without names that begin
    with a dot. A path that is a file is read whatever its name.
    """
    return _read(_scan(paths))


class FileSource:
    """
    A source of documents in files.

    Raises: DocumentsRefused if the first set has errors.
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
        self._seen, first = _load_unchanged(self._paths)
        if first.catalog is None:
            raise DocumentsRefused(_errors(first))
        self._catalog = first.catalog
        self._problems: tuple[Problem, ...] = ()
        self.read_at = clock()
        """The time when a set was last read, adopted or not."""

    def current(self) -> Catalog:
        """Return the catalog of the last set that was adopted."""
        return self._catalog

    def problems(self) -> tuple[Problem, ...]:
        """Return the errors of the last set, or nothing if it was adopted."""
        return self._problems

    async def watch(self) -> None:
        """
        Reload the catalog when the files change, until cancelled.

        After an `OSError` the next round tries again.
        """
        changed: _Listing | None = None
        rounds = 0
        while True:
            await asyncio.sleep(self._interval_seconds)
            try:
                listing = await asyncio.to_thread(_scan, self._paths)
                if listing.prints == self._seen.prints:
                    changed, rounds = None, 0
                    continue
                rounds += 1
                unchanged = changed is not None and changed.prints == listing.prints
                if unchanged or rounds >= _MAX_CHANGING_ROUNDS:
                    changed, rounds = None, 0
                    await self._reload()
                else:
                    changed = listing
            except OSError:
                continue

    async def _reload(self) -> None:
        seen, assembled = await asyncio.to_thread(_load_unchanged, self._paths)
        self._seen = seen
        self.read_at = self._clock()
        if assembled.catalog is None:
            self._problems = _errors(assembled)
        else:
            self._catalog, self._problems = assembled.catalog, ()
        if self._on_change is not None:
            self._on_change(assembled)


_Print = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, mtime and ctime in nanoseconds."""


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    label: str
    """The path relative to the configured directory. The digest does not depend on its place."""
    print: _Print


@dataclass(slots=True)
class _Listing:
    """The files at one moment, with the metadata that shows a change."""

    files: list[_File] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    entries: int = 0
    known: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of every file and directory seen: each is read once, and loops end."""

    @property
    def prints(self) -> tuple[object, ...]:
        """A value that differs if a file was added, removed or changed."""
        return (*(file.print for file in self.files), *self.problems)

    def is_new(self, found: os.stat_result) -> bool:
        """Return True the first time that this file or directory is seen."""
        identity = (found.st_dev, found.st_ino)
        new = identity not in self.known
        self.known.add(identity)
        return new


def _scan(paths: Sequence[Path]) -> _Listing:
    """List the files at *paths*."""
    listing = _Listing()
    for path in paths:
        try:
            found = path.stat()
        except (OSError, ValueError) as error:
            listing.problems.append(_unreadable(str(path), error))
            continue
        if stat.S_ISDIR(found.st_mode):
            _scan_directory(path, found, listing)
        elif listing.is_new(found):
            _record(listing, str(path), path.name, found)
    return listing


def _scan_directory(root: Path, found: os.stat_result, listing: _Listing) -> None:
    """Record every file below *root*, in the order of their paths. Symlinks are followed."""
    waiting = [(str(root), "", found)]
    while waiting:
        path, label, found = waiting.pop()
        if stat.S_ISDIR(found.st_mode):
            if listing.is_new(found):
                waiting += reversed(_members(path, label, listing))
        elif listing.is_new(found):
            _record(listing, path, label, found)
        if listing.entries > _ENTRIES or len(listing.files) > _FILES:
            listing.problems.append(
                _problem(str(root), f"holds more than {_FILES:,} files or {_ENTRIES:,} entries")
            )
            return


def _members(path: str, label: str, listing: _Listing) -> list[tuple[str, str, os.stat_result]]:
    """Return the directories and documents in a directory, sorted by name."""
    try:
        with os.scandir(path) as entries:
            names = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        listing.problems.append(_unreadable(path, error))
        return []
    listing.entries += len(names)
    members: list[tuple[str, str, os.stat_result]] = []
    for entry in names:
        if entry.name.startswith("."):
            continue
        try:
            found = entry.stat()
        except OSError as error:
            # A broken symlink may have pointed to documents, so it is an error.
            listing.problems.append(_unreadable(entry.path, error))
            continue
        if stat.S_ISDIR(found.st_mode) or entry.name.endswith(_SUFFIXES):
            members.append((entry.path, f"{label}/{entry.name}", found))
    return members


def _record(listing: _Listing, path: str, label: str, found: os.stat_result) -> None:
    prints = (
        path,
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )
    listing.files.append(_File(path, label, prints))


def _load_unchanged(paths: Sequence[Path]) -> tuple[_Listing, Assembled]:
    """
    Read a set, and read it again if files changed during the read.

    Returns the files as they were before the read, too. A set that keeps changing is returned as
    it was read last; the files then differ from it, so the next round reloads it.
    """
    before = _scan(paths)
    for _ in range(_MAX_CHANGING_ROUNDS - 1):
        assembled = _read(before)
        after = _scan(paths)
        if after.prints == before.prints:
            return before, assembled
        before = after
    return before, _read(before)


def _read(listing: _Listing) -> Assembled:
    digest = hashlib.sha256()
    unseen = Parsed(problems=tuple(listing.problems))
    return assemble([unseen, *_parsed(listing.files, digest)], digest.hexdigest())


def _parsed(files: Sequence[_File], digest: hashlib._Hash) -> Iterator[Parsed]:
    size, found = 0, 0
    places: dict[tuple[str | int, ...], tuple[str | int, ...]] = {}
    for file in files:
        try:
            data = _read_file(file.path)
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


def _read_file(path: str) -> bytes:
    """
    Read a regular file up to one byte more than the limit, so that a longer file is noticed.

    Raises: OSError if it cannot be read, or is a device, a pipe or a directory.
    """
    # O_NONBLOCK: opening a pipe would otherwise wait for its writer.
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
