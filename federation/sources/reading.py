"""
Reads a set of documents from its files. Of a set that was read before, only what changed is parsed.

The caller passes what is known of the last set, and a pause in which requests are answered.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from federation.documents.assemble import DOCUMENTS, Assembled, Before, assemble
from federation.documents.catalog import Catalog
from federation.documents.convert import Shared
from federation.documents.parse import Parsed, parse
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.rules.lint import LintedRoles
from federation.errors import Problem
from federation.sources.scan import FileText, Listing, file_problem, scan, text_of

_ALL_BYTES = 256 * 1024 * 1024
MAX_CHANGING_ROUNDS = 3
"""A set that keeps changing is read after this many rounds anyway."""


@dataclass(frozen=True, slots=True)
class Read:
    """A set that was read at the monotonic time *at*."""

    assembled: Assembled
    files: tuple[FileText, ...]
    at: float
    contents: Mapping[str, _Content]
    """By path."""

    def known(self, catalog: Catalog) -> Known:
        """Return what the next reading can use, beside the *catalog* that is in force."""
        linted = self.assembled.linted or LintedRoles()
        return Known(self.contents, Before(self.assembled.catalog or catalog, linted))


_Content: TypeAlias = tuple[bytes, Parsed]
"""The digest of a file, and what is in it."""


@dataclass(frozen=True, slots=True)
class Known:
    """Results of the set that was read last, reused so that the next read takes less time."""

    files: Mapping[str, _Content] = field(default_factory=dict)
    """By path."""
    before: Before | None = field(default_factory=Before)

    def parts(self) -> Iterator[object]:
        """Yield everything of which there is one for each document."""
        for _, parsed in self.files.values():
            yield from parsed.documents
            yield from parsed.remembered.values()
        if self.before is not None:
            yield from self.before.linted.parts()


_NOTHING = Known(before=None)
"""For a set that is read once: nothing is known, and nothing is remembered."""


def load_unchanged(
    paths: Sequence[Path],
    known: Known = _NOTHING,
    pause: Pause = go_on,
    *,
    keep: bool = False,
) -> tuple[Listing, Read]:
    """
    Read a set, and read it again if files changed during the read.

    Returns the files as they were before the read, too. A set that keeps changing is returned as
    it was read last; the files then differ from it, so the next round reloads it. With *keep*, the
    text of the files is kept too.
    """
    before = scan(paths)
    for _ in range(MAX_CHANGING_ROUNDS - 1):
        read = Reading(known, pause, keep).of(before)
        after = scan(paths)
        if after.prints == before.prints:
            return before, read
        before = after
    return before, Reading(known, pause, keep).of(before)


@dataclass(slots=True)
class Reading:
    """One reading of a set, file by file."""

    known: Known = _NOTHING
    pause: Pause = go_on
    keep: bool = False
    """True if somebody asks for the text of the files."""
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    texts: list[FileText] = field(default_factory=list)
    contents: dict[str, _Content] = field(default_factory=dict)
    shared: Shared = field(default_factory=Shared)

    def of(self, listing: Listing) -> Read:
        """Read the files of *listing*."""
        at = time.monotonic()
        unseen = Parsed(problems=tuple(listing.problems))
        files = map(text_of, paced(listing.files, self.pause))
        return self.assembled(files, listing.paths, at, unseen)

    def assembled(
        self,
        files: Iterable[FileText | Problem],
        places: Sequence[str],
        at: float,
        *parsed: Parsed,
    ) -> Read:
        """Parse *files* one by one, and assemble them with what was *parsed* before."""
        whole = [*parsed, *self._parsed(files)]
        digest = self.digest.hexdigest()
        assembled = assemble(whole, digest, places, self.known.before, self.pause)
        return Read(assembled, tuple(self.texts), at, self.contents)

    def _parsed(self, files: Iterable[FileText | Problem]) -> Iterator[Parsed]:
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
                yield Parsed(problems=(file_problem(file.path, f"makes more than {limit}"),))
                return

    def _parsed_anew(self, file: FileText) -> Parsed:
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


def as_text(files: Sequence[FileText]) -> bytes:
    """
    Return *files*, of a set without errors, as a line of JSON that lists them, and their contents.

    The contents are copied as they are: no request could be answered while they become JSON.
    """
    listed = [[file.path, file.label, len(file.data)] for file in files]
    return b"".join((json.dumps(listed).encode(), b"\n", *(file.data for file in files)))


def from_text(text: bytes) -> Read:
    """Return the set that `as_text` wrote."""
    listed, _, contents = text.partition(b"\n")
    files, start = list[FileText](), 0
    for path, label, size in json.loads(listed):
        files.append(FileText(path, label, contents[start : start + size]))
        start += size
    return Reading(Known()).assembled(files, (), time.monotonic())
