"""
Read documents from files, and reload them when the files change.

A set of documents is adopted as a whole or not at all. Changes are found by polling: one `stat`
for each file finds what notifications miss, such as the swapped symlink of a mounted ConfigMap, a
replaced directory, or a change on a network file system. A changed set is read once it stayed
the same for one round, so that half-written files are rarely read. If one is, it has errors or
changes again, and the next round corrects it.

Links are followed within the given paths only, which covers the `..data` links of a mounted
ConfigMap. A link that leads elsewhere could make a message show another program's secret, so it
is a problem, and what it leads to is not read.
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

    A path may itself be a link only if it stays below the folder that it is in, or for a relative
    path below the current folder: in a checkout of somebody else's, it can lead anywhere.
    """
    listing = _Listing()
    followed = [path for path in paths if not _leads_away(path, listing)]
    return _read(_scan(followed, listing))


class FileSource:
    """
    A source of documents in files. The operator chose *paths*, so they may be links.

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
    paths: list[str] = field(default_factory=list)
    """The paths that were given."""
    entries: int = 0
    roots: list[str] = field(default_factory=list)
    """The folders that links may lead into, without links."""
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


def _leads_away(path: Path, listing: _Listing) -> bool:
    """Return whether *path* is a link that leads away from where it is, after noting the problem."""
    below_here = not path.is_absolute() and ".." not in path.parts
    beside = Path() if below_here else path.absolute().parent
    away = path.name != ".." and not _within(_real(path), [_real(beside)])
    if away:
        listing.problems.append(_led_away(str(path)))
    return away


def _real(path: Path | str) -> str:
    """Return *path* without links; as it is where it is not a path at all."""
    try:
        return os.path.realpath(path)
    except ValueError:
        return str(path)


def _within(place: str, roots: Sequence[str]) -> bool:
    """Return whether *place* is one of *roots* or below one. All are without links."""
    return any(place == root or place.startswith(root.rstrip("/") + "/") for root in roots)


def _scan(paths: Sequence[Path], listing: _Listing | None = None) -> _Listing:
    """List the files at *paths*, in *listing* if given."""
    listing = listing or _Listing()
    listing.paths += map(str, paths)
    listing.roots += map(_real, paths)
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
    """Record every file below *root*, in the order of their paths. Links are followed inside."""
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
        if not stat.S_ISDIR(found.st_mode) and not entry.name.endswith(_SUFFIXES):
            continue
        if entry.is_symlink() and not _within(_real(entry.path), listing.roots):
            listing.problems.append(_led_away(entry.path))
        else:
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
    parsed = [unseen, *_parsed(listing.files, digest)]
    return assemble(parsed, digest.hexdigest(), listing.paths)


def _parsed(files: Sequence[_File], digest: hashlib._Hash) -> Iterator[Parsed]:
    size, found = 0, 0
    places: dict[tuple[str | int, ...], tuple[str | int, ...]] = {}
    for file in files:
        try:
            data = _read_file(file)
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


def _read_file(file: _File) -> bytes:
    """
    Read a regular file up to one byte more than the limit, so that a longer file is noticed.

    Raises: OSError if it cannot be read, is a device, a pipe or a directory, or is another file
    than was found: a link may have been put in its place.
    """
    # O_NONBLOCK: opening a pipe would otherwise wait for its writer.
    descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if (found.st_dev, found.st_ino) != file.print[1:3]:
            raise OSError(errno.ESTALE, "it was replaced while it was read")
        return opened.read(FILE_BYTES + 1)


def _unreadable(path: str, error: OSError | ValueError) -> Problem:
    reason = error.strerror if isinstance(error, OSError) else None
    return _problem(path, f"cannot be read: {reason or 'not a path'}")


def _led_away(path: str) -> Problem:
    message = "is a link that leads out of the given folder; it is not followed"
    return _problem(path, message, "put the file itself there, or name the folder that it is in")


def _problem(path: str, message: str, hint: str = "") -> Problem:
    return Problem(path, 0, Code.FILE_UNREADABLE.value, Severity.ERROR, message, hint=hint)


def _errors(assembled: Assembled) -> tuple[Problem, ...]:
    return tuple(p for p in assembled.problems if p.severity is Severity.ERROR)
