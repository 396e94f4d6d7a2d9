"""
The state folder: rights, room on its disk, the audit journal, the signing keys, the store.

Nothing in it is made or changed but a spent token that is given back at once, as `/readyz` does it.
A file that this user made could be one that the broker's user cannot use.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from federation.app import parts
from federation.audit.journal import Status
from federation.config import Settings
from federation.doctor.finding import SPENT, Finding, evidence_of, fail, ok, warn
from federation.errors import Refusal
from federation.text import counted

_MIB = 1024 * 1024
_PROBE_BYTES = 4096


async def state_folder(settings: Settings) -> list[Finding]:
    """Say whether the broker can write to its folder."""
    return [await asyncio.to_thread(_written, settings.state)]


def _written(state: Path) -> Finding:
    folder, made = state.absolute(), ""
    while not folder.exists() and folder != folder.parent:
        folder, made = folder.parent, ", made at the first start"
    try:
        # A file without a name: whatever happens, none is left.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            os.fsync(file.fileno())
        disk = os.statvfs(folder)
    except OSError as error:
        why = error.strerror or type(error).__name__
        word = shlex.quote(str(state))
        return fail(
            "state",
            f"uid {os.geteuid()} cannot write to {folder}: {why}",
            "mount a volume there that is writable and not full, or set --state to one;"
            f" the rights: chown {os.geteuid()} {word}",
        )
    free = disk.f_bavail * disk.f_frsize // _MIB
    return ok("state", f"{state}: can be written{made}, {free:,} MiB free")


async def journal(settings: Settings) -> list[Finding]:
    """Say how much the audit journal can still take: without room, nothing is granted."""
    archive, _ = parts.journals(settings, time.time, sign=_never)
    return [_room(await asyncio.to_thread(archive.status), settings)]


def _never(_payload: object) -> str:
    raise AssertionError("the doctor signs nothing")


def _room(status: Status, settings: Settings) -> Finding:
    if status.problem:
        return fail("audit journal", status.problem, "mend the rights or the disk of the folder")
    owed = ""
    if settings.audit_webhook:
        owed = f", {counted(status.undelivered_events, 'event')} not yet delivered"
    said = f"{status.bytes_left // _MIB:,} of {status.bytes_allowed // _MIB:,} MiB left{owed}"
    advice = "free the disk, raise --audit-size, or mend the webhook that events wait for"
    if status.bytes_left <= 0:
        return fail("audit journal", said, advice)
    return warn("audit journal", said, advice) if status.nearly_full else ok("audit journal", said)


async def signing_keys(settings: Settings) -> list[Finding]:
    """Say which key signs. Raises: SettingsRefused."""
    keys = await asyncio.to_thread(parts.known_keys, settings)
    if keys is None:
        return [ok("signing keys", "none yet; the first start makes one in the state folder")]
    return [ok("signing keys", f"{counted(len(keys.keys), 'key')}, {keys.signs.kid} signs")]


async def store(settings: Settings) -> list[Finding]:
    """Spend a token and give it back, in the store of this machine."""
    if not (settings.state / "state.db").exists():
        return [ok("store", "none yet; the first start makes it in the state folder")]
    kept = parts.store(settings, time.time, lambda *_: None)
    async with aclosing(kept):
        try:
            degraded = await kept.check()
        except Refusal as refusal:
            advice = "mend the rights or the disk of the state folder"
            return [fail("store", f"state.db: {evidence_of(refusal)}", advice)]
    return [warn("store", degraded, "see --state")] if degraded else [ok("store", SPENT)]
