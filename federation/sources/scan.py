"""
Finds the files of documents in the given paths, and reads them.

Links are followed within the given paths only, which covers the `..data` links of a mounted
ConfigMap. A link that leads elsewhere could make a message show another program's secret, so it
is a problem, and what it leads to is not read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from federation.documents.codes import Code
from federation.documents.parse import FILE_BYTES, passed_over
from federation.errors import Problem, Severity

_SUFFIXES = (".yaml", ".yml", ".json")
_FILES = 10_000
_ENTRIES = 100_000

_Print = tuple[str, int, int, int, int, int]
"""Path, device, inode, size, mtime and ctime in nanoseconds."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that was found. *print* shows whether it changed."""

    path: str
    label: str
    """The path relative to the configured directory. The digest does not depend on its place."""
    print: _Print


@dataclass(slots=True)
class Listing:
    """The files at one moment, with the metadata that shows a change."""

    files: list[File] = field(default_factory=list)
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


@dataclass(frozen=True, slots=True)
class FileText:
    """The content of a file."""

    path: str
    label: str
    data: bytes = field(repr=False)

    @property
    def owner(self) -> str:
        """The other program whose file it is, found in a directory; empty if it is none's."""
        # The label of a file that was named by itself has no slash, and such a file is read.
        return passed_over(self.path, self.data) if self.label.startswith("/") else ""


def followed(paths: Sequence[Path]) -> Listing:
    """List the files at *paths*, of which none may be a link that leads away from where it is."""
    listing = Listing()
    return scan([path for path in paths if not _leads_away(path, listing)], listing)


def scan(paths: Sequence[Path], listing: Listing | None = None) -> Listing:
    """List the files at *paths*, which may be links, in *listing* if given."""
    listing = listing or Listing()
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


def text_of(file: File) -> FileText | Problem:
    """Read *file*, or return why it cannot be read."""
    try:
        return FileText(file.path, file.label, _read_file(file))
    except (OSError, ValueError) as error:
        return _unreadable(file.path, error)


def file_problem(path: str, message: str, hint: str = "") -> Problem:
    """Return the error that the file at *path* cannot be used."""
    return Problem(path, 0, Code.FILE_UNREADABLE.value, Severity.ERROR, message, hint=hint)


def _leads_away(path: Path, listing: Listing) -> bool:
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


def _scan_directory(root: Path, found: os.stat_result, listing: Listing) -> None:
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
                file_problem(str(root), f"holds more than {_FILES:,} files or {_ENTRIES:,} entries")
            )
            return


def _members(path: str, label: str, listing: Listing) -> list[tuple[str, str, os.stat_result]]:
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


def _record(listing: Listing, path: str, label: str, found: os.stat_result) -> None:
    times = found.st_mtime_ns, found.st_ctime_ns
    prints = (path, found.st_dev, found.st_ino, found.st_size, *times)
    listing.files.append(File(path, label, prints))


def _read_file(file: File) -> bytes:
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
    return file_problem(path, f"cannot be read: {reason or 'not a path'}")


def _led_away(path: str) -> Problem:
    message = "is a link that leads out of the given folder; it is not followed"
    return file_problem(
        path, message, "put the file itself there, or name the folder that it is in"
    )
