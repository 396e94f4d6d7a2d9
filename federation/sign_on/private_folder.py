"""
A folder of small JSON files that only their owner can read: 0700, each file 0600.

The files hold tokens. So a folder or file that belongs to somebody else, that others can read or
write, or that is a link, is refused with the command that mends it. A file is replaced whole, and
the replacement is on disk before `write` returns: a crash leaves the old file or the new one.

Locks are files of their own: a lock on the file itself would be lost when that is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from federation import ownership
from federation.client import ClientError
from federation.jose.strict_json import loads_object

_FILE_BYTES = 256 * 1024
_LOCK_SECONDS = 120.0
_NOTICE_SECONDS = 2.0
_POLL_SECONDS = 0.05
_OTHERS = 0o077
_OTHERS_WRITE = 0o022


class Damaged(ClientError):
    """A file that is there and cannot be read as what it should be."""


class PrivateFolder:
    """The folder at *path*, made when the first file is written. Every method raises ClientError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> Mapping[str, object] | None:
        """Return the object in the file *name*, None if there is no such file."""
        try:
            with self._opened() as folder:
                handle = os.open(name, os.O_RDONLY | _SAFELY, dir_fd=folder)
                with os.fdopen(handle, "rb") as file:
                    self._require_private(handle, name)
                    content = file.read(_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(name, error) from error
        try:
            if len(content) > _FILE_BYTES:
                raise ValueError("it is larger than 256 KiB")
            return loads_object(content)
        except ValueError as error:
            raise self.damaged(name) from error

    def write(self, name: str, value: Mapping[str, object]) -> None:
        """Replace the file *name*. Hold its lock, so that nobody else replaces it meanwhile."""
        # A name that is always the same: a kill leaves one such file at most, and no heap of them.
        new = f"{name}.new"
        try:
            with self._opened(make=True) as folder:
                with suppress(FileNotFoundError):
                    os.unlink(new, dir_fd=folder)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFELY
                handle = os.open(new, flags, 0o600, dir_fd=folder)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(value, file, indent=1)
                    file.flush()
                    os.fsync(handle)
                os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)  # the rename itself
        except OSError as error:
            raise self._unusable(name, error) from error

    def remove(self, name: str) -> bool:
        """Remove the file *name* and what a killed `write` left of it. False if there was none."""
        found = False
        try:
            with self._opened() as folder:
                for each in (name, f"{name}.new"):
                    with suppress(FileNotFoundError):
                        os.unlink(each, dir_fd=folder)
                        found = True
                os.fsync(folder)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(name, error) from error
        return found

    def names(self) -> list[str]:
        """Return the names of all JSON files, sorted."""
        try:
            with self._opened() as folder:
                found = os.listdir(folder)  # noqa: PTH208  a descriptor is no path
                return sorted(name for name in found if name.endswith(".json"))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unusable("", error) from error

    @contextmanager
    def locked(self, name: str, tell: Callable[[str], None] = lambda _line: None) -> Iterator[int]:
        """
        Keep every other process out of a block with the lock *name*, and yield its descriptor.

        The lock ends with the last process that has the descriptor, however it ends. *tell* gets a
        line if the wait is long.
        """
        try:
            with self._opened(make=True) as folder:
                flags = os.O_RDWR | os.O_CREAT | _SAFELY
                handle = os.open(f"{name}.lock", flags, 0o600, dir_fd=folder)
        except OSError as error:
            raise self._unusable(f"{name}.lock", error) from error
        try:
            self._require_private(handle, f"{name}.lock")
            self._lock(handle, tell)
            yield handle
        finally:
            os.close(handle)

    def _lock(self, handle: int, tell: Callable[[str], None]) -> None:
        began, told = time.monotonic(), False
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            waited = time.monotonic() - began
            if waited > _LOCK_SECONDS:
                raise ClientError(
                    f"Another federation has used {self.path} for {_LOCK_SECONDS:.0f} seconds.",
                    "Look for a federation process that hangs, and end it. Then try again.",
                )
            if waited > _NOTICE_SECONDS and not told:
                tell("Waiting for another federation that renews this session.")
                told = True
            time.sleep(_POLL_SECONDS)

    def damaged(self, name: str) -> Damaged:
        """Return the error for a file that cannot be read as what it should be."""
        place = self.path / name
        return Damaged(
            f"{place} is damaged.",
            f"Remove it and sign in again: rm {_word(place)}",
        )

    @contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        """
        Yield a descriptor of the folder. All files are opened relative to it, so a folder that is
        put in its place meanwhile is not used.
        """
        if make:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _SAFELY)
        try:
            self._require_trusted_parent()
            found = os.fstat(handle)
            self._require_owner(found, self.path)
            if found.st_mode & _OTHERS_WRITE:
                raise self._open_to_others(self.path, "write to", "700")
            yield handle
        finally:
            os.close(handle)

    def _require_trusted_parent(self) -> None:
        try:
            ownership.check_folder(self.path.parent)
        except ownership.NotTrusted as refused:
            raise ClientError(f"{refused.problem}.", f"To mend it, {refused.remedy}") from refused

    def _require_private(self, handle: int, name: str) -> None:
        found = os.fstat(handle)
        place = self.path / name
        if not stat.S_ISREG(found.st_mode):
            raise ClientError(f"{place} is not a regular file.", "Move it away.")
        self._require_owner(found, place)
        if found.st_mode & _OTHERS:
            raise self._open_to_others(place, "read or write", "600")

    def _require_owner(self, found: os.stat_result, place: Path) -> None:
        # Root may read everything, but what root writes here would lock the owner out.
        if found.st_uid != os.geteuid():
            raise ClientError(
                f"{place} belongs to uid {found.st_uid}, but this runs as uid {os.geteuid()}.",
                f"Run this as uid {found.st_uid}, or run as root:"
                f" chown -R {os.geteuid()} {_word(place)}",
            )

    def _open_to_others(self, place: Path, what: str, mode: str) -> ClientError:
        return ClientError(
            f"Others can {what} {place}.",
            f"Close it, and sign in again if somebody may have used it:"
            f" chmod {mode} {_word(place)}",
        )

    def _unusable(self, name: str, error: OSError) -> ClientError:
        place = self.path / name if name else self.path
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and self.path.exists():
            return ClientError(f"{place} is a link, which is not followed.", "Move it away.")
        return ClientError(
            f"{place} cannot be used: {error.strerror}.",
            "Tokens are kept there. Check the folder, its owner, and the room on the disk.",
        )


_SAFELY = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would keep `open` waiting


def _word(place: Path) -> str:
    return shlex.quote(str(place))
