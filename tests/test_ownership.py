"""The broker trusts files of its user and of root, and those of volumes that Kubernetes made."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from federation import ownership
from federation.ownership import (
    Account,
    NotTrusted,
    check_file,
    check_folder,
    check_state,
    keeper_of,
    read_key,
    shared_by_group,
)

ME = os.geteuid()
STRANGER = 4242
BROKER = 65532


def found(mode: int, uid: int = BROKER, gid: int = BROKER) -> os.stat_result:
    """What `stat` says about a file or folder."""
    return os.stat_result((mode, 0, 0, 1, uid, gid, 0, 0, 0, 0))


def of_somebody_else(path: Path) -> Account:
    """A user to whom *path* belongs to somebody else."""
    if ME == ownership.ROOT_UID:
        os.chown(path, STRANGER, STRANGER)
        return Account.current()
    return Account(ME + 1)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder as the broker makes it."""
    folder = tmp_path / "state"
    for name in ("audit", "signing-keys"):
        (folder / name).mkdir(parents=True, mode=0o700)
    for name in ("state.db", "audit/1.jsonl", "signing-keys/1.key.pem", "signing-keys/current"):
        (folder / name).write_text("x")
        (folder / name).chmod(0o600)
    folder.chmod(0o700)
    return folder


def test_a_state_that_this_user_made_is_trusted(state: Path) -> None:
    check_state(state)


def test_a_state_that_does_not_exist_yet_is_fine(tmp_path: Path) -> None:
    check_state(tmp_path / "not" / "yet")


@pytest.mark.parametrize(
    "name", ["", "audit", "audit/1.jsonl", "signing-keys", "signing-keys/current", "state.db"]
)
def test_a_state_of_somebody_else_is_refused_with_the_command_that_mends_it(
    state: Path, name: str
) -> None:
    me = of_somebody_else(state / name)
    with pytest.raises(NotTrusted) as caught:
        check_state(state, me)
    assert f"chown -R {me.uid} {state}" in str(caught.value)
    assert "belongs to uid" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_state_of_somebody_else_has_advice_for_pods_too(state: Path) -> None:
    with pytest.raises(NotTrusted) as caught:
        check_state(state, of_somebody_else(state))
    assert "fsGroup" in caught.value.remedy
    assert "OpenShift" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "told"),
    [("", "is not a folder; name a folder"), ("inside", "cannot be made, because")],
)
def test_a_file_in_place_of_the_state_is_told(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "state").write_text("x")
    with pytest.raises(NotTrusted, match=told) as caught:
        check_state(tmp_path / "state" / name)
    assert "chown" not in str(caught.value)


def test_a_read_only_file_system_is_told_before_the_first_request(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _path: ReadOnly)
    unused = state / "unused"
    unused.mkdir(mode=0o700)
    for path in (unused, state / "not-yet"):
        with pytest.raises(NotTrusted, match="read-only file system") as caught:
            check_state(path)
        assert "chown" not in str(caught.value), "no owner could write here"
    check_state(state)  # it was used before: a disk came back read-only, which may pass


@pytest.mark.skipif(ME != ownership.ROOT_UID, reason="only root can become another user")
@pytest.mark.parametrize(
    ("mode", "name", "told"),
    [
        (0o755, "state", "cannot make"),
        (0o700, "state", "may not look at"),
        (0o755, "", "cannot read and write"),
        (0o700, "", "cannot read and write"),
    ],
)
def test_the_random_user_of_a_platform_is_told_what_it_lacks(
    mode: int, name: str, told: str
) -> None:
    """OpenShift runs a pod as a user that no image knows, in the group 0."""
    script = (
        "import os, sys, pathlib; from federation.ownership import check_state\n"
        "os.setgroups([]); os.setgid(0); os.setuid(1000660000)\n"
        "check_state(pathlib.Path(sys.argv[1]))"
    )
    # Not in `tmp_path`: its parents are closed to other users.
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        folder = Path(made, "folder")
        folder.mkdir()
        folder.chmod(mode)
        words = [sys.executable, "-c", script, str(folder / name)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  ours
    said = done.stderr.splitlines()[-1]
    assert told in said
    assert "1000660000" in said
    assert "[Errno" not in said


def test_files_of_others_beside_the_state_are_no_matter(state: Path) -> None:
    (state / "lost+found").mkdir()
    if ME == ownership.ROOT_UID:
        os.chown(state / "lost+found", STRANGER, STRANGER)
    check_state(state)


@pytest.mark.parametrize("name", ["", "audit", "audit/1.jsonl", "state.db"])
def test_a_state_that_every_user_can_write_to_is_refused(state: Path, name: str) -> None:
    (state / name).chmod((state / name).stat().st_mode | stat.S_IWOTH)
    with pytest.raises(NotTrusted, match="chmod o-w"):
        check_state(state)


def test_a_group_may_write_to_the_state(state: Path) -> None:
    for path in (state, *state.rglob("*")):
        path.chmod(0o2770 if path.is_dir() else 0o660)
    check_state(state)
    read_key(state / "signing-keys" / "1.key.pem")


def test_an_empty_dir_that_is_mounted_open_to_all_is_trusted(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kubernetes makes an emptyDir root's with mode 0777, and Docker a tmpfs with 1777.
    state.chmod(0o1777)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == state)
    check_state(state)


@pytest.mark.skipif(ME != ownership.ROOT_UID, reason="only root can give files away")
def test_a_volume_keeps_the_files_of_an_earlier_pods_user(state: Path) -> None:
    group = os.getegid()
    for path in (state, *state.rglob("*")):
        os.chown(path, STRANGER, group)
        path.chmod(0o2770 if path.is_dir() else 0o660)
    os.chown(state, ownership.ROOT_UID, group)  # which does not make its folders root's
    state.chmod(0o2770)
    me = Account(BROKER, frozenset([group]))
    check_state(state, me)
    read_key(state / "signing-keys" / "1.key.pem", me)
    with pytest.raises(NotTrusted, match="belongs to uid 4242"):
        check_state(state, Account(BROKER, frozenset([BROKER])))


@pytest.mark.skipif(ME != ownership.ROOT_UID, reason="only root can give files away")
@pytest.mark.parametrize("mode", [0o770, 0o2750, 0o2777])
def test_a_strangers_folder_in_a_volume_is_the_groups_or_not_trusted(
    state: Path, mode: int
) -> None:
    group = os.getegid()
    for path in (state, *state.rglob("*")):
        os.chown(path, STRANGER, group)
        path.chmod(0o2770 if path.is_dir() else 0o660)
    os.chown(state, ownership.ROOT_UID, group)
    (state / "audit").chmod(mode)
    (state / "audit" / "2.jsonl").touch(0o600)
    os.chown(state / "audit" / "2.jsonl", STRANGER, group)
    with pytest.raises(NotTrusted):
        check_state(state, Account(BROKER, frozenset([group])))


SHARED = {
    "fsGroup": (found(0o42775, uid=0), True),
    "fsGroup, made by this user": (found(0o42770), True),
    "a group without setgid": (found(0o40775, uid=0), False),
    "setgid that the group cannot write to": (found(0o42755, uid=0), False),
    "open to all": (found(0o42777, uid=0), False),
    "somebody else's": (found(0o42775, uid=STRANGER), False),
    "another group's": (found(0o42775, uid=0, gid=STRANGER), False),
}


@pytest.mark.parametrize(("folder", "shared"), SHARED.values(), ids=SHARED)
def test_only_a_group_volume_of_root_or_of_this_user_is_shared(
    folder: os.stat_result, shared: bool
) -> None:
    assert shared_by_group(folder, Account(BROKER, frozenset([BROKER]))) is shared


PRIVATE, VOLUME = found(0o40755, uid=0, gid=0), found(0o42775, uid=0)
KEYS = {
    "0600": (found(0o600), PRIVATE, False, False),
    "0400": (found(0o400), PRIVATE, False, False),
    "0640": (found(0o640), PRIVATE, False, True),
    "0660": (found(0o660), PRIVATE, False, True),
    "0604": (found(0o604), PRIVATE, False, True),
    "0602": (found(0o602), PRIVATE, False, True),
    "0644, mounted, but not by root": (found(0o644), PRIVATE, True, True),
    "root's 0640, for a service": (found(0o640, uid=0), PRIVATE, False, False),
    "root's 0660": (found(0o660, uid=0), PRIVATE, False, True),
    "root's 0644": (found(0o644, uid=0), PRIVATE, False, True),
    "a Secret of Kubernetes, 0644": (found(0o644, uid=0, gid=0), PRIVATE, True, False),
    "a Secret of Docker, 0444": (found(0o444, uid=0, gid=0), PRIVATE, True, False),
    "a Secret with fsGroup, 0440": (found(0o440, uid=0), PRIVATE, True, False),
    "a Secret that all can write": (found(0o666, uid=0), PRIVATE, True, True),
    "a volume with fsGroup, 0660": (found(0o660), VOLUME, False, False),
    "a volume with fsGroup, root's 0660": (found(0o660, uid=0), VOLUME, False, False),
    "a volume with fsGroup, 0664": (found(0o664), VOLUME, False, True),
    "a group's folder, another group's file": (found(0o660, gid=5), VOLUME, False, True),
}


@pytest.mark.parametrize(("key", "around", "mounted", "exposed"), KEYS.values(), ids=KEYS)
def test_a_key_that_others_can_read_or_write_is_exposed(
    key: os.stat_result, around: os.stat_result, mounted: bool, exposed: bool
) -> None:
    assert ownership._exposed(key, around, mounted=mounted) is exposed


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o602])
def test_an_exposed_key_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    key = tmp_path / "the key.pem"
    key.write_text("secret")
    if ME == ownership.ROOT_UID:
        os.chown(key, STRANGER, STRANGER)
        me = Account(STRANGER)
    else:
        me = Account.current()
    key.chmod(mode)
    with pytest.raises(NotTrusted) as caught:
        read_key(key, me)
    assert f"chmod 600 '{key}'" in str(caught.value)
    assert "secret" not in str(caught.value)
    key.chmod(0o600)
    assert read_key(key, me) == b"secret"


@pytest.mark.parametrize("check", [check_file, read_key])
def test_a_file_or_key_of_somebody_else_is_refused(
    tmp_path: Path, check: Callable[[Path, Account], object]
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o600)
    me = of_somebody_else(path)
    with pytest.raises(NotTrusted, match=f"chown {me.uid} {path}"):
        check(path, me)


@pytest.mark.skipif(ME != ownership.ROOT_UID, reason="only root can give files away")
def test_a_link_of_somebody_else_is_refused_whatever_it_leads_to(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("x")
    path.chmod(0o600)
    link.symlink_to(path)
    assert read_key(link) == b"x"
    os.lchown(link, STRANGER, STRANGER)
    with pytest.raises(NotTrusted, match="link"):
        read_key(link)


def test_a_key_that_is_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "key", 0o600)
    with pytest.raises(OSError, match="not a regular file"):
        read_key(tmp_path / "key")


def test_a_folder_that_only_its_owner_can_write_to_is_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_folder(tmp_path)


@pytest.mark.skipif(ME != ownership.ROOT_UID, reason="only root can give files away")
@pytest.mark.parametrize(
    ("written", "uid"), [(["state.db", "audit"], 1), (["audit"], 2), ([], 3)], ids=str
)
def test_the_state_belongs_to_whom_the_broker_wrote_it_as(
    tmp_path: Path, written: list[str], uid: int
) -> None:
    os.chown(tmp_path, 3, 3)
    for name, owner in (("state.db", 1), ("audit", 2)):
        if name in written:
            (tmp_path / name).touch()
            os.chown(tmp_path / name, owner, owner)
    assert keeper_of(tmp_path) == Account(uid, frozenset([uid]))


def test_a_state_of_which_nothing_is_known_belongs_to_whoever_asks(tmp_path: Path) -> None:
    assert keeper_of(tmp_path / "not-yet").uid == ME
