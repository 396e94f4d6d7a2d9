"""
Seals: signed statements about closed segments, in one chain for the whole journal.

A seal is a compact JWS (RFC 7515) in a file `<number>.seal` beside the segments. It says that a
segment was closed with a certain SHA-256, or that a sealed segment was dropped for room. Each
seal holds the SHA-256 of the seal before it, so one that is changed, removed or moved breaks
the chain. Workers take turns under a lock. Seals are read here without checking signatures;
`federation.audit.verify` checks them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock as ThreadLock

from federation.audit.read import lines
from federation.audit.segments import Closed, Lock, Sync, sync_folder
from federation.errors import Refusal
from federation.jose import jws

SEAL_TYPE = "audit-seal+jwt"
"""The `typ` of a seal (RFC 8725, section 3.11). No verifier of access tokens accepts it."""

Sign = Callable[[Mapping[str, object]], str]
"""Signs a payload as a compact JWS of type `SEAL_TYPE`, with the key that signs now."""

_NAME = re.compile(r"([0-9]{12})\.seal")
_NAME_FORMAT = "{:012d}.seal"
_LAST_NUMBER = 10**12 - 1
_LOCK = "seals"
LOCK_SECONDS = 5.0
"""Time that background work waits for the lock of the seals."""

_RETRY_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Seal:
    """The statement in a seal."""

    number: int
    previous: str
    """The digest of the seal before it, empty for the first."""
    first: int
    """The number of the oldest seal that still mattered when this one was made."""
    closed: Closed | None
    dropped: str | None
    """The name of a segment that was dropped for room."""


def parse_seal(payload: Mapping[str, object]) -> Seal:
    """Parse the payload of a seal. Raises: ValueError."""
    match payload:
        case {"number": int(number), "previous": str(previous), "first": int(first), **rest}:
            pass
        case _:
            raise ValueError("not a seal of an audit journal")
    match rest:
        case {"dropped": str(dropped)}:
            return Seal(number, previous, first, None, dropped)
        case {
            "closed": {
                "segment": str(segment),
                "bytes": int(size),
                "events": int(events),
                "sha256": str(sha256),
                "adopted": bool(adopted),
            }
        }:
            closed = Closed(segment, size, events, sha256, adopted)
            return Seal(number, previous, first, closed, None)
        case _:
            raise ValueError("not a seal of an audit journal")


def seal_files(folder: Path) -> dict[int, Path]:
    """Return the files of all seals in *folder* by number, in order."""
    try:
        matches = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    except FileNotFoundError:
        return {}
    found = {int(match[1]): folder / match[0] for match in matches if match}
    return dict(sorted(found.items()))


def read_seal(path: Path) -> bytes:
    """
    Return the text of the seal at *path*, cut where it is longer than any seal can be.

    Anything but a regular file reads as empty, and so as no seal: a pipe would wait for a writer.
    Raises: OSError.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return b""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(jws.MAX_TOKEN_BYTES + 1)


def seal_digest(text: bytes) -> str:
    """Return the digest by which the next seal names the seal with this *text*."""
    return hashlib.sha256(text).hexdigest()


def closed_as_found(path: Path, end: int) -> Closed:
    """Describe the segment at *path*, up to *end*, as it is on disk. Raises: OSError."""
    digest, size, whole_lines = hashlib.sha256(), 0, 0
    for line in lines(path, 0, end):
        digest.update(line.text)
        size, whole_lines = line.end, whole_lines + 1
    events = max(0, whole_lines - 1)  # the header is no event
    return Closed(path.name, size, events, digest.hexdigest(), adopted=True)


class Seals:
    """Writes seals in *folder*, and knows which segments have one. Any thread may use it."""

    def __init__(self, folder: Path, sign: Sign, sync: Sync) -> None:
        self._folder = folder
        self._sign = sign
        self._sync = sync
        self._mutex = ThreadLock()
        self._numbers: set[int] = set()
        self._digest = ""
        self.newest = 0
        """The number of the newest seal known here."""
        self.sealed: dict[str, int] = {}
        """The segments that have a seal and were not dropped, with the seal's number."""
        self.dropped: set[str] = set()
        """The segments that were dropped, here or as a seal says."""

    def refresh(self) -> None:
        """Read the seals that other processes wrote. Raises: OSError."""
        with self._mutex:
            self._read()

    def add_closed(self, closed: Closed, wait_seconds: float = LOCK_SECONDS) -> None:
        """Seal a closed segment, unless it has a seal or was dropped. Raises: OSError."""
        with self._alone(wait_seconds):
            if closed.segment not in self.sealed and closed.segment not in self.dropped:
                self._write(closed=asdict(closed))

    def add_dropped(self, segment: str, wait_seconds: float = LOCK_SECONDS) -> None:
        """Record that a sealed *segment* will be deleted to make room. Raises: OSError."""
        self.dropped.add(segment)  # a thread that waits to seal it must not do so any more
        with self._alone(wait_seconds):
            if segment in self.sealed:
                self._write(dropped=segment)

    @contextmanager
    def _alone(self, wait_seconds: float) -> Iterator[None]:
        """Keep other threads and processes from writing seals, and read theirs first."""
        deadline = time.monotonic() + wait_seconds
        while (lock := Lock.take(self._folder, _LOCK)) is None:
            if time.monotonic() > deadline:
                raise OSError(errno.EAGAIN, "another process holds the lock of the seals")
            time.sleep(_RETRY_SECONDS)
        with lock, self._mutex:
            self._read()
            yield

    def _read(self) -> None:
        for number, path in seal_files(self._folder).items():
            if number not in self._numbers:
                with suppress(FileNotFoundError):  # removed since the listing
                    self._note(number, read_seal(path))

    def _note(self, number: int, text: bytes) -> None:
        self._numbers.add(number)
        # The newest number is never forgotten: if somebody removes the newest seals while the
        # broker runs, the next one leaves a gap that `verify` finds.
        if number > self.newest:
            self.newest, self._digest = number, seal_digest(text)
        try:
            seal = parse_seal(jws.parse(text.decode("ascii")).claims)
        except (Refusal, ValueError):
            return  # `verify` reports it; the chain goes on after it
        if seal.closed:
            self.sealed[seal.closed.segment] = number
        if seal.dropped:
            self.sealed.pop(seal.dropped, None)
            self.dropped.add(seal.dropped)

    def _write(self, **statement: object) -> None:
        number = self.newest + 1
        if number > _LAST_NUMBER:
            raise OSError(errno.EOVERFLOW, "a seal has the last number; was it planted?")
        kept = [n for name, n in self.sealed.items() if name != statement.get("dropped")]
        payload = {
            "number": number,
            "previous": self._digest,
            "first": min(kept, default=number),
            "time": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            **statement,
        }
        text = self._sign(payload).encode("ascii")
        draft = self._folder / "seal.draft"
        draft.touch(0o600)
        with draft.open("wb") as file:
            file.write(text)
            file.flush()
            self._sync(file.fileno())
        draft.replace(self._folder / _NAME_FORMAT.format(number))
        sync_folder(self._folder)
        self._note(number, text)
        self._remove_before(min(kept, default=number))

    def _remove_before(self, first: int) -> None:
        """Remove the seals that are only about dropped segments, so that seals do not pile up."""
        for number in [n for n in self._numbers if n < first]:
            (self._folder / _NAME_FORMAT.format(number)).unlink(missing_ok=True)
            self._numbers.remove(number)
