"""
Checking a journal against its seals, with nothing but the broker's public keys.

A closed segment is whole if an authentic seal has its SHA-256, and the seals form one chain
without a gap. An open segment has no seal yet, so only its form can be checked.
"""

from __future__ import annotations

import errno
import hashlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from federation.audit.read import chunks, ends, lines
from federation.audit.seals import (
    SEAL_TYPE,
    Seal,
    parse_seal,
    read_seal,
    seal_digest,
    seal_files,
)
from federation.audit.segments import (
    LINE_BYTES,
    Closed,
    Header,
    Lock,
    Stored,
    parse_header,
    stored,
)
from federation.errors import Refusal
from federation.jose import jws
from federation.jose.jwk import KeySet
from federation.text import quoted

_TRIES = 20
_HALF_A_LINE = (
    "ends within a line, which was never acknowledged: a process was killed, or is writing"
)


@dataclass(frozen=True, slots=True)
class SegmentFinding:
    """Something to know about one file of the journal."""

    path: Path
    message: str
    broken: bool
    """True if it shows tampering or damage. If not, it is normal after a crash or a drop."""
    line: int = 0
    """0 if it is not of one line."""

    @property
    def place(self) -> str:
        """The path, with the line if there is one."""
        return f"{self.path}:{self.line}" if self.line else str(self.path)

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(slots=True)
class JournalCheck:
    """The result of a check."""

    segments: int = 0
    events: int = 0
    findings: list[SegmentFinding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True if nothing shows tampering or damage."""
        return not any(finding.broken for finding in self.findings)

    def broken(self, path: Path, message: str, line: int = 0) -> None:
        """Add a finding that shows tampering or damage."""
        self.findings.append(SegmentFinding(path, message, True, line))

    def note(self, path: Path, message: str, line: int = 0) -> None:
        """Add a finding that does not."""
        self.findings.append(SegmentFinding(path, message, False, line))


def check_journal(folder: Path, keys: KeySet) -> JournalCheck:
    """Check every segment and seal in *folder*. *keys* are the broker's public keys."""
    check = JournalCheck()
    segments = stored(folder)
    end_of = ends(segments)
    seals = _authentic_seals(folder, keys, check)
    sealed = {seal.closed.segment: seal.closed for seal in seals if seal.closed}
    dropped = {seal.dropped for seal in seals if seal.dropped}
    for name, closed in sealed.items():
        path = folder / name
        try:
            _check_closed(path, closed, end_of.get(path, path.stat().st_size), check)
        except FileNotFoundError:
            if name not in dropped:
                _check_missing(path, keys, check)
    newest = max(seal_files(folder), default=0)
    for segment in segments:
        header = _check_header(segment, check)
        if header and segment.path.name not in sealed:
            _check_unsealed(segment, end_of[segment.path], check)
        if header and header.newest_seal > newest:
            check.broken(
                segment.path,
                f"was opened after seal {header.newest_seal}, but the newest seal here is"
                f" {newest}: the newest seals were removed",
            )
    check.segments = len(segments)
    check.findings.sort(key=lambda finding: (finding.path, finding.line))
    return check


def _authentic_seals(folder: Path, keys: KeySet, check: JournalCheck) -> list[Seal]:
    """Return the seals that verify, the newest first, and report what is wrong with others."""
    texts = _seal_texts(folder)
    seals: list[Seal] = []
    for number in sorted(texts, reverse=True):
        if seals and number < seals[0].first:
            break  # the newest seal says that these do not matter any more
        path, text = texts[number]
        try:
            seal = _verified(text, number, keys)
        except ValueError as error:
            check.broken(path, str(error))
            continue
        seals.append(seal)
        before = max((n for n in texts if n < number), default=0)
        if number > seals[0].first and before != number - 1:
            check.broken(path, f"follows seal {number - 1}, which is missing: it was removed")
        elif number > seals[0].first and seal.previous != seal_digest(texts[before][1]):
            check.broken(path, f"does not follow seal {before}: one of the two was replaced")
    return seals


def _seal_texts(folder: Path) -> dict[int, tuple[Path, bytes]]:
    """Read all seals, again from the start if the broker removes an old one meanwhile."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            return {n: (path, read_seal(path)) for n, path in seal_files(folder).items()}
    raise OSError(errno.EAGAIN, f"the seals in {folder} do not stay the same; try again")


def _verified(text: bytes, number: int, keys: KeySet) -> Seal:
    """Return seal *number* if its signature verifies; else raise ValueError with the reason."""
    try:
        token = jws.parse(text.decode("ascii"))
    except (Refusal, ValueError):
        raise ValueError("is not a signed seal") from None
    header, kid = token.header, token.header.get("kid")
    if header.get("typ") != SEAL_TYPE or header.get("alg") != "ES256" or "crit" in header:
        raise ValueError("is not a signed seal: its header has another type or algorithm")
    key = keys.find(kid, "ES256") if isinstance(kid, str) else None
    if key is None:
        raise ValueError(
            f"is signed by a key that is not in the JWKS, kid {quoted(str(kid))}:"
            " it was forged, or give the JWKS of that time with --jwks"
        )
    if not key.verifies("ES256", token.signing_input, token.signature):
        raise ValueError("has a signature that does not verify: it was changed or forged")
    seal = parse_seal(token.claims)
    if seal.number != number:
        raise ValueError(f"is seal {seal.number} under another number")
    return seal


def _check_missing(path: Path, keys: KeySet, check: JournalCheck) -> None:
    """Report a sealed segment that is gone, unless a seal says that it was dropped for room."""
    # Read the seals again: the broker may have dropped the segment during this check.
    now = _authentic_seals(path.parent, keys, JournalCheck())
    if not any(seal.dropped == path.name for seal in now) and not path.exists():
        check.broken(path, "was removed: it has a seal, and no seal says that it was dropped")


def _check_closed(path: Path, closed: Closed, end: int, check: JournalCheck) -> None:
    """Compare a segment with its seal. *end* is where readers stop."""
    size = path.stat().st_size  # it may have grown and been sealed since the listing
    if size < closed.bytes:
        check.broken(path, f"was cut: {size} of {closed.bytes} sealed bytes are there")
    elif _sha256(path, closed.bytes) != closed.sha256:
        check.broken(path, "was changed: it has another SHA-256 than its seal")
    elif end < closed.bytes:
        check.broken(
            path,
            f"has events that readers leave out: another segment says that it ends at byte {end},"
            f" and its seal says {closed.bytes}",
        )
    elif size > closed.bytes:
        if end <= closed.bytes:
            check.note(path, f"what comes after byte {end} was never acknowledged")
        elif _half_a_line(path, closed.bytes):
            check.note(path, _HALF_A_LINE)
        else:
            check.broken(path, f"has lines after byte {closed.bytes}, where it was sealed")
    check.events += closed.events
    if closed.adopted:
        check.note(
            path, "was sealed after its process had ended; changes before that cannot be shown"
        )


def _check_header(segment: Stored, check: JournalCheck) -> Header | None:
    try:
        with segment.path.open("rb") as file:
            line = file.readline(LINE_BYTES)
    except FileNotFoundError:
        return None  # dropped since the listing
    if len(line) == segment.size < LINE_BYTES and not line.endswith(b"\n"):
        check.note(segment.path, _HALF_A_LINE, 1)
        return None
    try:
        return parse_header(line)
    except ValueError as error:
        check.broken(segment.path, f"its first line was changed: {error}", 1)
        return None


def _check_unsealed(segment: Stored, end: int, check: JournalCheck) -> None:
    """Check the form of a segment that has no seal. *end* is where readers stop."""
    if Lock.held(segment.path.parent, segment.process):
        check.note(
            segment.path, f"{'open' if segment.latest else 'closed'}, not sealed yet by its process"
        )
    else:
        check.note(
            segment.path,
            "not sealed: its process was killed, or its seal was removed; a running broker seals it",
        )
    read, number = 0, 0
    for number, line in enumerate(lines(segment.path, 0, end), 1):
        read = line.end
        try:
            line.content()
            check.events += number > 1
        except ValueError as error:
            check.broken(segment.path, f"changed: {error}", number)
    if read < end == segment.size:
        check.note(segment.path, _HALF_A_LINE, number + 1)
    elif end < segment.size:
        check.note(segment.path, "what comes after this line was never acknowledged", number)


def _half_a_line(path: Path, start: int) -> bool:
    with path.open("rb") as file:
        file.seek(start)
        rest = file.read(LINE_BYTES)
    return len(rest) < LINE_BYTES and b"\n" not in rest


def _sha256(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    for chunk in chunks(path, 0, size):
        digest.update(chunk)
    return digest.hexdigest()
