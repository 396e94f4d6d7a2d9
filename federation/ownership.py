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
_IN_A_POD = (
    "in a pod, give its volume to a group of the pod by fsGroup (OpenShift chooses user and group"
    " itself: leave runAsUser and fsGroup out)"
)


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
    """A file or folder that the broker must not or cannot use, and what mends it."""

    def __init__(
        self, problem: str, command: str = "", *, as_root: bool = True, advice: str = ""
    ) -> None:
        how = "run as root" if as_root and os.geteuid() != ROOT_UID else "run"
        self.problem = problem
        self.remedy = "; ".join(
            [*([f"{how}: {command}"] if command else []), *filter(None, [advice])]
        )
        super().__init__(f"{problem}; {self.remedy}")


def check_state(state: Path, account: Account | None = None) -> None:
    """
    Check the folder *state*, and what the broker has in it. What does not exist yet is fine.

    Raises: NotTrusted.
    """
    account = account or Account.current()
    try:
        if not state.exists():
            _check_can_be_made(state, account)
        elif state.is_dir():
            for path in _entries(state):
                with suppress(FileNotFoundError):  # dropped since the listing
                    _check_entry(path, state, account)
        else:
            raise NotTrusted(f"{state} is not a folder", advice="name a folder, or remove the file")
    except PermissionError as error:
        raise NotTrusted(
            f"uid {account.uid} may not look at {error.filename}",
            advice="let this user through the folders above it (chmod o+x), or name another folder",
        ) from error


def _check_entry(path: Path, state: Path, account: Account) -> None:
    chown = _chown(state, account)
    _check_owner(path, account, chown, advice=_IN_A_POD)
    _check_not_writable_by_others(path)
    if _read_only(path):
        # A disk that came back read-only is passing trouble, like a full one: the broker starts,
        # and is not ready until it can write. In a folder that was never used, no volume is there.
        if _used(state):
            return
        raise NotTrusted(
            f"{path} is on a read-only file system",
            advice="mount a volume there that can be written, or name a folder on one",
        )
    if not _usable(path):
        problem = f"uid {account.uid} cannot read and write {path}"
        raise NotTrusted(problem, chown, advice=_IN_A_POD)


def check_folder(folder: Path, account: Account | None = None) -> None:
    """
    Check that only the broker's user, root, and the group of a volume can write to *folder*.

    Raises: NotTrusted, OSError.
    """
    account = account or Account.current()
    _check_owner(folder, account, _chown(folder, account))
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


def fault(error: OSError) -> str:
    """Return what *error* of using a file means and what to do, in one sentence."""
    path = error.filename or "the folder"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return f"uid {os.geteuid()} may not use {path}; run this as its owner or as root"
    if error.errno == errno.EROFS:
        return f"{path} is on a read-only file system; name a folder that can be written"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"there is no space left for {path}; make room on its disk"
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return f"a part of {path} is not a folder; name another folder"
    return f"{path}: {error.strerror}" if error.strerror else str(error)


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
    return _for_a_group(folder, account) and folder.st_uid in {ROOT_UID, account.uid}


def _for_a_group(folder: os.stat_result, account: Account) -> bool:
    needed = stat.S_ISGID | stat.S_IWGRP
    shared = folder.st_mode & (needed | stat.S_IWOTH) == needed
    return shared and folder.st_gid in account.groups


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


def _used(state: Path) -> bool:
    """Return whether a broker has put something into the folder *state*."""
    return any(path != state for path in _entries(state))


def _check_can_be_made(folder: Path, account: Account) -> None:
    parent = folder.absolute().parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not parent.is_dir():
        raise NotTrusted(
            f"{folder} cannot be made, because {parent} is not a folder",
            advice="name another folder",
        )
    if _read_only(parent):
        raise NotTrusted(
            f"{folder} cannot be made, because {parent} is on a read-only file system",
            advice="mount a volume there that can be written, or name a folder on one",
        )
    if not _usable(parent):
        command = f"install -d -m 700 -o {account.uid} {_word(folder)}"
        problem = f"uid {account.uid} cannot make {folder}"
        raise NotTrusted(problem, command, advice="in a pod or container, mount a volume there")


def _check_owner(path: Path, account: Account, chown: str, advice: str = "") -> None:
    # A link of somebody else's could be moved to another file at any time.
    _check_owner_of(path.lstat(), path, account, chown, advice)
    _check_owner_of(path.stat(), path, account, chown, advice)


def _check_owner_of(
    found: os.stat_result, path: Path, account: Account, chown: str, advice: str = ""
) -> None:
    if found.st_uid in {account.uid, ROOT_UID} or _of_a_volume(found, path, account):
        return
    problem = f"{path} belongs to uid {found.st_uid}, but this runs as uid {account.uid}"
    raise NotTrusted(problem, chown, advice=advice)


def _of_a_volume(found: os.stat_result, path: Path, account: Account) -> bool:
    """
    Return whether *path* is in a volume that Kubernetes shares by `fsGroup` with *account*.

    Its folder may belong to the user of an earlier pod, if that folder is in such a volume itself.
    """
    around = path.absolute().parent
    folder = around.stat()
    if found.st_gid != folder.st_gid or not _for_a_group(folder, account):
        return False
    return folder.st_uid in {ROOT_UID, account.uid} or _of_a_volume(folder, around, account)


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
    return os.access(path, wanted, effective_ids=effective)


def _read_only(path: Path) -> bool:
    """Return whether no owner could write here, so that another owner would not help."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _chown(folder: Path, account: Account) -> str:
    return f"chown -R {account.uid} {_word(folder)}"


def _owned(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid()


def _word(path: Path) -> str:
    return shlex.quote(str(path))
