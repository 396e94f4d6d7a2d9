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

A process that replaces another one can be given the last good set, for the case that the files
have errors.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias, TypeVar, TypeVarTuple

from federation.documents.assemble import DOCUMENTS, Assembled, Before, assemble
from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.convert import Shared
from federation.documents.parse import FILE_BYTES, Parsed, parse, passed_over
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.rules.lint import LintedRoles
from federation.errors import DocumentsRefused, Problem, Severity
from federation.sources.slices import PROMPT_SECONDS, Slices, collected_young, uncollected

_SUFFIXES = (".yaml", ".yml", ".json")
_FILES = 10_000
_ENTRIES = 100_000
_ALL_BYTES = 256 * 1024 * 1024
_MAX_CHANGING_ROUNDS = 3
"""A set that keeps changing is read after this many rounds anyway."""
_IN_FLIGHT_SECONDS = 0.25
"""After this time, most requests that began with the old catalog have ended."""

A = TypeVarTuple("A")
T = TypeVar("T")


def load(paths: Sequence[Path]) -> Assembled:
    """
    Read the documents in *paths* as one set.

    A directory is read recursively: `*.yaml`, `*.yml` and `*.json`, without names that begin
    with a dot, and without the files that Kustomize, Helm and others keep beside documents. A path
    that is a file is read whatever its name.

    A path may itself be a link only if it stays below the folder that it is in, or for a relative
    path below the current folder: in a checkout of somebody else's, it can lead anywhere.
    """
    with uncollected():
        return _Reading().of(_followed(paths)).assembled


def contents(paths: Sequence[Path]) -> tuple[list[tuple[str, bytes]], list[Problem]]:
    """Return the path and the content of each file that `load` reads, and what cannot be read."""
    listing = _followed(paths)
    found, problems = list[tuple[str, bytes]](), list(listing.problems)
    for content in map(_content, listing.files):
        if isinstance(content, Problem):
            problems.append(content)
        elif not content.owner:
            found.append((content.path, content.data))
    return found, problems


def _followed(paths: Sequence[Path]) -> _Listing:
    listing = _Listing()
    return _scan([path for path in paths if not _leads_away(path, listing)], listing)


@dataclass(frozen=True, slots=True)
class Adopted:
    """The text of a set that was adopted, for a process that replaces this one."""

    text: bytes = field(repr=False)
    read_at: float
    """When it was read, on the monotonic clock of the machine. Of two sets the later one counts."""


class FileSource:
    """
    A source of documents in files. The operator chose *paths*, so they may be links.

    *on_adopt* is called with each set that is read and adopted. If the first set has errors,
    *last_good* is served: the text of a set that another process adopted. *refuse* returns errors
    that only the set's user can see.

    Raises: DocumentsRefused if the first set has errors, and there is no last good one.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        clock: Callable[[], float] = time.time,
        interval_seconds: float = 0.4,
        on_change: Callable[[Assembled], None] | None = None,
        on_adopt: Callable[[Adopted], None] | None = None,
        refuse: Callable[[Catalog], Sequence[Problem]] = lambda _catalog: (),
        last_good: bytes | None = None,
    ) -> None:
        self._paths = tuple(paths)
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._on_change = on_change
        self._on_adopt = on_adopt
        self._refuse = refuse
        self._reload_asked = asyncio.Event()
        # One thread for all reading: the C library keeps freed memory for each thread by itself.
        self._thread = ThreadPoolExecutor(1, "documents")
        self._ended = False
        with uncollected():
            self._seen, first = _load_unchanged(self._paths, _Known(), keep=self._hands_over)
        self._catalog, self._problems = self._first(first, last_good)
        self._known = first.known(self._catalog)
        self.passed_over = first.assembled.passed_over
        """A sentence about each file of the last set that is another program's."""
        self.read_at = clock()
        """The time when a set was last read, adopted or not."""

    def current(self) -> Catalog:
        """Return the catalog of the last set that was adopted."""
        return self._catalog

    def problems(self) -> tuple[Problem, ...]:
        """Return the errors of the last set, or nothing if it was adopted."""
        return self._problems

    def reload(self) -> None:
        """Make `watch` read the files now, changed or not."""
        self._reload_asked.set()

    async def watch(self) -> None:
        """
        Reload the catalog when the files change, until cancelled.

        After an `OSError` the next round tries again.
        """
        self._ended = False
        try:
            await self._watch()
        finally:
            self._ended = True

    async def _watch(self) -> None:
        changed: _Listing | None = None
        rounds = 0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._reload_asked.wait(), self._interval_seconds)
            try:
                if self._reload_asked.is_set():
                    self._reload_asked.clear()
                    await self._reload()
                    continue
                listing = await self._in_thread(_scan, self._paths)
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
        seen, read = await self._in_thread(self._read_in_slices)
        assembled = self._judged(read)
        before: list[_Known | Catalog] = [self._known, self._catalog]
        self._known = read.known(self._catalog)
        self._seen = seen
        self.passed_over = assembled.passed_over
        self.read_at = self._clock()
        if assembled.catalog is None:
            self._problems = _errors(assembled)
        else:
            self._catalog, self._problems = assembled.catalog, ()
        if self._on_change is not None:
            self._on_change(assembled)
        if assembled.catalog is not None:
            await self._in_thread(self._hand_over, read)
        del read, assembled
        # A request that began before has the old catalog, and the last one to have it frees it.
        await asyncio.sleep(_IN_FLIGHT_SECONDS)
        await self._in_thread(_let_go, before)

    async def _in_thread(self, work: Callable[[*A], T], *arguments: *A) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, *arguments)

    def _read_in_slices(self) -> tuple[_Listing, _Read]:
        """Read the files, in slices between which requests are answered."""
        with collected_young():
            slices, keep = Slices(prompt_seconds=PROMPT_SECONDS), self._hands_over

            def pause() -> None:
                # The process does not end before its threads do.
                if self._ended:
                    raise _EndedError
                slices()

            return _load_unchanged(self._paths, self._known, pause, keep=keep)

    @property
    def _hands_over(self) -> bool:
        return self._on_adopt is not None

    def _first(self, read: _Read, last_good: bytes | None) -> tuple[Catalog, tuple[Problem, ...]]:
        """The catalog to begin with, and the errors of the files if it is not theirs."""
        assembled = self._judged(read)
        if assembled.catalog is not None:
            self._hand_over(read)
            return assembled.catalog, ()
        problems = _errors(assembled)
        kept = self._judged(_from_text(last_good)).catalog if last_good is not None else None
        if kept is None:
            raise DocumentsRefused(problems)
        return kept, problems

    def _judged(self, read: _Read) -> Assembled:
        assembled = read.assembled
        refused = self._refuse(assembled.catalog) if assembled.catalog else ()
        if not refused:
            return assembled
        return replace(
            assembled, catalog=None, problems=tuple(sorted((*assembled.problems, *refused)))
        )

    def _hand_over(self, read: _Read) -> None:
        if self._on_adopt is not None:
            self._on_adopt(Adopted(_as_text(read.files), read.at))


class _EndedError(Exception):
    """Ends a reload in its thread after the broker was told to stop."""


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


@dataclass(frozen=True, slots=True)
class _FileText:
    path: str
    label: str
    data: bytes = field(repr=False)

    @property
    def owner(self) -> str:
        """The other program whose file it is, found in a directory; empty if it is none's."""
        # The label of a file that was named by itself has no slash, and such a file is read.
        return passed_over(self.path, self.data) if self.label.startswith("/") else ""


@dataclass(frozen=True, slots=True)
class _Read:
    """A set that was read at the monotonic time *at*."""

    assembled: Assembled
    files: tuple[_FileText, ...]
    at: float
    contents: Mapping[str, _Content]
    """By path."""

    def known(self, catalog: Catalog) -> _Known:
        """Return what the next reading can use, beside the *catalog* that is in force."""
        linted = self.assembled.linted or LintedRoles()
        return _Known(self.contents, Before(self.assembled.catalog or catalog, linted))


_Content: TypeAlias = tuple[bytes, Parsed]
"""The digest of a file, and what is in it."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the set that was read last, so that the next one takes less time."""

    files: Mapping[str, _Content] = field(default_factory=dict)
    """By path."""
    before: Before | None = field(default_factory=Before)


_NOTHING = _Known(before=None)
"""For a set that is read once: nothing is known, and nothing is remembered."""


def _load_unchanged(
    paths: Sequence[Path],
    known: _Known = _NOTHING,
    pause: Pause = go_on,
    *,
    keep: bool = False,
) -> tuple[_Listing, _Read]:
    """
    Read a set, and read it again if files changed during the read.

    Returns the files as they were before the read, too. A set that keeps changing is returned as
    it was read last; the files then differ from it, so the next round reloads it. With *keep*, the
    text of the files is kept too.
    """
    before = _scan(paths)
    for _ in range(_MAX_CHANGING_ROUNDS - 1):
        read = _Reading(known, pause, keep).of(before)
        after = _scan(paths)
        if after.prints == before.prints:
            return before, read
        before = after
    return before, _Reading(known, pause, keep).of(before)


@dataclass(slots=True)
class _Reading:
    """One reading of a set, file by file."""

    known: _Known = _NOTHING
    pause: Pause = go_on
    keep: bool = False
    """True if somebody asks for the text of the files."""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    texts: list[_FileText] = field(default_factory=list)
    contents: dict[str, _Content] = field(default_factory=dict)
    shared: Shared = field(default_factory=Shared)

    def of(self, listing: _Listing) -> _Read:
        """Read the files of *listing*."""
        at = time.monotonic()
        unseen = Parsed(problems=tuple(listing.problems))
        files = map(_content, paced(listing.files, self.pause))
        return self.assembled(files, listing.paths, at, unseen)

    def assembled(
        self,
        files: Iterable[_FileText | Problem],
        places: Sequence[str],
        at: float,
        *parsed: Parsed,
    ) -> _Read:
        """Parse *files* one by one, and assemble them with what was *parsed* before."""
        whole = [*parsed, *self._parsed(files)]
        digest = self.digest.hexdigest()
        assembled = assemble(whole, digest, places, self.known.before, self.pause)
        return _Read(assembled, tuple(self.texts), at, self.contents)

    def _parsed(self, files: Iterable[_FileText | Problem]) -> Iterator[Parsed]:
        size, found = 0, 0
        for file in files:
            if isinstance(file, Problem):
                yield Parsed(problems=(file,))
                continue
            if self.keep:
                self.texts.append(file)
            for part in (file.label.encode("utf-8", "surrogateescape"), file.data):
                self.digest.update(len(part).to_bytes(8, "big"))
                self.digest.update(part)
            if owner := file.owner:
                yield Parsed(passed_over=(f"{file.path} is a file of {owner}; passed over",))
                continue
            parsed = self._parsed_anew(file)
            yield parsed
            size, found = size + len(file.data), found + parsed.found
            if size > _ALL_BYTES or found > DOCUMENTS:
                limit = f"{_ALL_BYTES // 1024**2} MiB or {DOCUMENTS:,} documents in all"
                yield Parsed(problems=(_problem(file.path, f"makes more than {limit}"),))
                return

    def _parsed_anew(self, file: _FileText) -> Parsed:
        """Return what is in *file*, which is parsed as far as it changed."""
        self.pause()
        digest = hashlib.sha256(file.data).digest()
        self.pause()
        known, parsed = self.known.files.get(file.path, (b"", Parsed()))
        if known != digest:
            parsed = parse(
                file.path, file.data, self.shared, known=parsed.remembered, pause=self.pause
            )
        self.contents[file.path] = digest, parsed
        return parsed


def _as_text(files: Sequence[_FileText]) -> bytes:
    """
    Return *files*, of a set without errors, as a line of JSON that lists them, and their contents.

    The contents are copied as they are: no request could be answered while they become JSON.
    """
    listed = [[file.path, file.label, len(file.data)] for file in files]
    return b"".join((json.dumps(listed).encode(), b"\n", *(file.data for file in files)))


def _from_text(text: bytes) -> _Read:
    """Return the set that `_as_text` wrote."""
    listed, _, contents = text.partition(b"\n")
    files, start = list[_FileText](), 0
    for path, label, size in json.loads(listed):
        files.append(_FileText(path, label, contents[start : start + size]))
        start += size
    return _Reading(_Known()).assembled(files, (), time.monotonic())


def _content(file: _File) -> _FileText | Problem:
    try:
        return _FileText(file.path, file.label, _read_file(file))
    except (OSError, ValueError) as error:
        return _unreadable(file.path, error)


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


def _let_go(held: list[_Known | Catalog]) -> None:
    """
    Free what was *held*, in slices: to free thousands of documents at once takes too long.

    The interpreter frees all of them in one step otherwise, and no request is answered meanwhile.
    """
    slices = Slices(prompt_seconds=PROMPT_SECONDS)
    parts = [part for each in held for part in paced(_parts(each), slices)]
    held.clear()
    while parts:
        parts.pop()
        slices()


def _parts(held: _Known | Catalog) -> Iterator[object]:
    """Yield everything in *held* of which there is one for each document."""
    if isinstance(held, Catalog):
        yield from held.parts()
        return
    for _, parsed in held.files.values():
        yield from parsed.documents
        yield from parsed.remembered.values()
    if held.before is not None:
        yield from held.before.linted.parts()


def _errors(assembled: Assembled) -> tuple[Problem, ...]:
    return tuple(p for p in assembled.problems if p.severity is Severity.ERROR)
