"""
Which files and folders of this machine the broker trusts, by their owner and mode.

Whoever can write to the state folder can plant a signing key, and whoever can read a key can sign
tokens. So state, keys and passwords must belong to the user that the broker runs as, or to root,
who could do all of this anyway. Every refusal names the command that mends it.

Three kinds of mount look unsafe and are not, so they are accepted:

- A volume with `fsGroup`: Kubernetes gives its folders to a group of the pod and makes every file
  readable and writable for that group. Files may belong to the user of an earlier pod.
- A mounted Secret: it is root's, and readable for everybody within the container alone.
- An `emptyDir`: it is root's, and writable for everybody within the pod alone.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT_UID = 0
STATE_FILES = ("state.db", "state.db-wal", "state.db-shm", "shared-state-epoch")
STATE_FOLDERS = ("audit", "audit/outsiders", "signing-keys")
_KEY_BYTES = 64 * 1024
_READABLE_BY_OTHERS = 0o044
_WRITABLE_BY_OTHERS = 0o022


@dataclass(frozen=True, slots=True)
class Account:
    """A user, with the groups that it is in."""

    uid: int
    groups: frozenset[int] = frozenset()

    @classmethod
    def current(cls) -> Account:
        """Return the user that this process runs as."""
        return cls(os.geteuid(), frozenset((os.getegid(), *os.getgroups())))


class NotTrusted(ValueError):
    """A file or folder that the broker must not use, and the command that mends it."""

    def __init__(self, problem: str, command: str, *, as_root: bool = True) -> None:
        how = "run as root" if as_root and os.geteuid() != ROOT_UID else "run"
        super().__init__(f"{problem}; {how}: {command}")
        self.problem = problem
        self.remedy = f"{how}: {command}"


def check_state(state: Path, account: Account | None = None) -> None:
    """
    Check the folder *state*, and what the broker has in it. What does not exist yet is fine.

    Raises: NotTrusted.
    """
    account = account or Account.current()
    if not state.exists():
        _check_can_be_made(state, account)
    elif state.is_dir():
        chown = f"chown -R {account.uid} {_word(state)}"
        for path in _entries(state):
            with suppress(FileNotFoundError):  # dropped since the listing
                _check_owner(path, account, chown)
                _check_not_writable_by_others(path)
                if not _usable(path):
                    raise NotTrusted(f"uid {account.uid} cannot read and write {path}", chown)


def check_folder(folder: Path, account: Account | None = None) -> None:
    """
    Check that only the broker's user, root, and the group of a volume can write to *folder*.

    Raises: NotTrusted, OSError.
    """
    account = account or Account.current()
    chown = f"chown -R {account.uid} {_word(folder)}"
    _check_owner(folder, account, chown)
    _check_not_writable_by_others(folder)


def check_file(path: Path, account: Account | None = None) -> None:
    """
    Check that nobody but the broker's user and root can replace what the file *path* says.

    Raises: NotTrusted, OSError.
    """
    account = account or Account.current()
    _check_owner(path, account, f"chown {account.uid} {_word(path)}")
    _check_not_writable_by_others(path)


def read_key(path: Path, account: Account | None = None) -> bytes:
    """
    Return the private key in the file *path*, which nobody else may read or write.

    Raises: NotTrusted, OSError.
    """
    account = account or Account.current()
    _check_owner(path, account, f"chown {account.uid} {_word(path)}")
    # O_NONBLOCK: opening a pipe would otherwise wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        _check_owner_of(found, path, account, f"chown {account.uid} {_word(path)}")
        around = (path.resolve() if path.is_symlink() else path).parent.stat()
        if _exposed(found, around, mounted=_mounted(path)):
            problem = f"others can read or write the key {path}"
            raise NotTrusted(problem, f"chmod 600 {_word(path)}", as_root=not _owned(found))
        return file.read(_KEY_BYTES)


def keeper_of(state: Path) -> Account:
    """
    Return the user that the broker with this *state* runs as.

    What the broker wrote says it best, since the folder may be root's and made by Kubernetes.
    Without either it is the user of this process.
    """
    for path in (state / "state.db", state / "audit", state):
        with suppress(OSError):
            found = path.lstat() if path != state else path.stat()
            if path != state or found.st_uid != ROOT_UID:
                return Account(found.st_uid, frozenset([found.st_gid]))
    return Account.current()


def shared_by_group(folder: os.stat_result, account: Account) -> bool:
    """
    Return whether *folder* is a volume that Kubernetes shares by `fsGroup` with *account*.

    New files in it get its group, so a file's group shows that a member of the group made it.
    """
    needed = stat.S_ISGID | stat.S_IWGRP
    return (
        folder.st_mode & (needed | stat.S_IWOTH) == needed
        and folder.st_uid in {ROOT_UID, account.uid}
        and folder.st_gid in account.groups
    )


def _entries(state: Path) -> Iterable[Path]:
    """The folder *state*, and the files and folders of the broker in it."""
    yield state
    for name in STATE_FILES:
        path = state / name
        if path.exists():
            yield path
    for name in STATE_FOLDERS:
        folder = state / name
        if folder.is_dir():
            yield folder
            with os.scandir(folder) as entries:
                yield from (Path(entry.path) for entry in entries if not entry.is_dir())


def _check_can_be_made(folder: Path, account: Account) -> None:
    parent = folder.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if parent.is_dir() and not _usable(parent):
        command = f"install -d -m 700 -o {account.uid} {_word(folder)}"
        raise NotTrusted(f"uid {account.uid} cannot make {folder}", command)


def _check_owner(path: Path, account: Account, chown: str) -> None:
    # A link of somebody else's could be moved to another file at any time.
    _check_owner_of(path.lstat(), path, account, chown)
    _check_owner_of(path.stat(), path, account, chown)


def _check_owner_of(found: os.stat_result, path: Path, account: Account, chown: str) -> None:
    if found.st_uid in {account.uid, ROOT_UID} or _of_a_volume(found, path, account):
        return
    problem = f"{path} belongs to uid {found.st_uid}, but this runs as uid {account.uid}"
    raise NotTrusted(problem, chown)


def _of_a_volume(found: os.stat_result, path: Path, account: Account) -> bool:
    folder = path.absolute().parent.stat()
    return shared_by_group(folder, account) and found.st_gid == folder.st_gid


def _check_not_writable_by_others(path: Path) -> None:
    found = path.stat()
    if found.st_mode & stat.S_IWOTH:
        # Whoever can reach an emptyDir, which is mounted so, is in the pod.
        if stat.S_ISDIR(found.st_mode) and os.path.ismount(path.resolve()):
            return
        problem = f"every user of this machine can write to {path}"
        raise NotTrusted(problem, f"chmod o-w {_word(path)}", as_root=not _owned(found))


def _exposed(found: os.stat_result, around: os.stat_result, *, mounted: bool) -> bool:
    """
    Return whether users other than the owner of a key can read or write it.

    *around* is the folder that it is in. *mounted* is True for a mounted Secret.
    """
    open_to = found.st_mode & (_READABLE_BY_OTHERS | _WRITABLE_BY_OTHERS)
    if found.st_uid == ROOT_UID:
        open_to &= ~stat.S_IRGRP  # how root hands a key to a service
        if mounted:
            open_to &= ~stat.S_IROTH
    # A group that can write to the folder can replace every file in it, whatever its mode.
    if around.st_mode & stat.S_IWGRP and around.st_gid == found.st_gid:
        open_to &= ~(stat.S_IRGRP | stat.S_IWGRP)
    return open_to != 0


def _mounted(path: Path) -> bool:
    """Return whether *path* is mounted by itself, or with its folder, as a Secret is."""
    folder = path.parent.resolve()
    return os.path.ismount(path) or (folder != folder.parent and os.path.ismount(folder))


def _usable(path: Path) -> bool:
    """Return whether this process can read and write *path*, as far as its mode says."""
    wanted = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    effective = os.access in os.supports_effective_ids
    if os.access(path, wanted, effective_ids=effective):
        return True
    # No owner could write here, so another owner would not help.
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _owned(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid()


def _word(path: Path) -> str:
    return shlex.quote(str(path))
