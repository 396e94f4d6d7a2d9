"""
Read documents from files, and reload them when the files change.

A set of documents is adopted as a whole or not at all. Changes are found by polling: one `stat`
for each file finds what notifications miss, such as the swapped symlink of a mounted ConfigMap, a
replaced directory, or a change on a network file system. A changed set is read once it stayed
the same for one round, so that half-written files are rarely read. If one is, it has errors or
changes again, and the next round corrects it.

A process that replaces another one can be given the last good set, for the case that the files
have errors.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from federation.documents.assemble import Assembled
from federation.documents.catalog import Catalog
from federation.documents.pauses import paced
from federation.errors import DocumentsRefused, Problem, Severity
from federation.sources.reading import (
    MAX_CHANGING_ROUNDS,
    Known,
    Read,
    Reading,
    as_text,
    from_text,
    load_unchanged,
)
from federation.sources.scan import Listing, followed, scan, text_of
from federation.sources.slices import PROMPT_SECONDS, Slices, collected_young, uncollected

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
        return Reading().of(followed(paths)).assembled


def contents(paths: Sequence[Path]) -> tuple[list[tuple[str, bytes]], list[Problem]]:
    """Return the path and the content of each file that `load` reads, and what cannot be read."""
    listing = followed(paths)
    found, problems = list[tuple[str, bytes]](), list(listing.problems)
    for text in map(text_of, listing.files):
        if isinstance(text, Problem):
            problems.append(text)
        elif not text.owner:
            found.append((text.path, text.data))
    return found, problems


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
            self._seen, first = load_unchanged(self._paths, Known(), keep=self._hands_over)
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
        changed: Listing | None = None
        rounds = 0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._reload_asked.wait(), self._interval_seconds)
            try:
                if self._reload_asked.is_set():
                    self._reload_asked.clear()
                    await self._reload()
                    continue
                listing = await self._in_thread(scan, self._paths)
                if listing.prints == self._seen.prints:
                    changed, rounds = None, 0
                    continue
                rounds += 1
                unchanged = changed is not None and changed.prints == listing.prints
                if unchanged or rounds >= MAX_CHANGING_ROUNDS:
                    changed, rounds = None, 0
                    await self._reload()
                else:
                    changed = listing
            except OSError:
                continue

    async def _reload(self) -> None:
        seen, read = await self._in_thread(self._read_in_slices)
        assembled = self._judged(read)
        before: list[Known | Catalog] = [self._known, self._catalog]
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

    def _read_in_slices(self) -> tuple[Listing, Read]:
        """Read the files, in slices between which requests are answered."""
        with collected_young():
            slices, keep = Slices(prompt_seconds=PROMPT_SECONDS), self._hands_over

            def pause() -> None:
                # The process does not end before its threads do.
                if self._ended:
                    raise _EndedError
                slices()

            return load_unchanged(self._paths, self._known, pause, keep=keep)

    @property
    def _hands_over(self) -> bool:
        return self._on_adopt is not None

    def _first(self, read: Read, last_good: bytes | None) -> tuple[Catalog, tuple[Problem, ...]]:
        """The catalog to begin with, and the errors of the files if it is not theirs."""
        assembled = self._judged(read)
        if assembled.catalog is not None:
            self._hand_over(read)
            return assembled.catalog, ()
        problems = _errors(assembled)
        kept = self._judged(from_text(last_good)).catalog if last_good is not None else None
        if kept is None:
            raise DocumentsRefused(problems)
        return kept, problems

    def _judged(self, read: Read) -> Assembled:
        assembled = read.assembled
        refused = self._refuse(assembled.catalog) if assembled.catalog else ()
        if not refused:
            return assembled
        return replace(
            assembled, catalog=None, problems=tuple(sorted((*assembled.problems, *refused)))
        )

    def _hand_over(self, read: Read) -> None:
        if self._on_adopt is not None:
            self._on_adopt(Adopted(as_text(read.files), read.at))


class _EndedError(Exception):
    """Ends a reload in its thread after the broker was told to stop."""


def _let_go(held: list[Known | Catalog]) -> None:
    """
    Free what was *held*, in slices: to free thousands of documents at once takes too long.

    The interpreter frees all of them in one step otherwise, and no request is answered meanwhile.
    """
    slices = Slices(prompt_seconds=PROMPT_SECONDS)
    parts = [part for each in held for part in paced(each.parts(), slices)]
    held.clear()
    while parts:
        parts.pop()
        slices()


def _errors(assembled: Assembled) -> tuple[Problem, ...]:
    return tuple(p for p in assembled.problems if p.severity is Severity.ERROR)
