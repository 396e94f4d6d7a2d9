"""Sentences for the errors of SQLite and of the disk under it, each with its cause and remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from federation.ownership import fault

_PRIMARY = 0xFF
"""The part of an extended error code that says its kind (sqlite.org/rescode.html)."""

_SENTENCES: Mapping[int, str] = MappingProxyType(
    {
        sqlite3.SQLITE_BUSY: "{path} is locked by another process for too long; it is tried again",
        sqlite3.SQLITE_LOCKED: "{path} is locked by another process for too long; it is tried again",
        sqlite3.SQLITE_READONLY: (
            "{path} cannot be written: check the owner and mode of the state folder, and that its"
            " volume is not read-only"
        ),
        sqlite3.SQLITE_PERM: "{path} may not be used: check the owner and mode of the state folder",
        sqlite3.SQLITE_CANTOPEN: (
            "{path} cannot be opened: check that the state folder exists, its owner and its mode"
        ),
        sqlite3.SQLITE_IOERR: "{path} cannot be read or written: check the disk of the state folder",
        sqlite3.SQLITE_FULL: "there is no space left for {path}; make room on its disk",
        sqlite3.SQLITE_CORRUPT: (
            "{path} is damaged: stop every worker, move it away and start again; tokens that were"
            " spent or revoked before can then be used again until they expire"
        ),
        sqlite3.SQLITE_NOTADB: (
            "{path} is no database of SQLite: stop every worker, move it away and start again"
        ),
    }
)


def told(error: sqlite3.Error | OSError, path: Path) -> str:
    """Return one sentence with the cause of *error* of the database *path*, and what to do."""
    if isinstance(error, OSError):
        return fault(error)
    kind = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    sentence = _SENTENCES.get(kind)
    return sentence.format(path=path) if sentence else f"{path} cannot be used ({error})"
