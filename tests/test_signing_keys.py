"""The folder of signing keys: made once, rotated without loss, readable by its owner alone."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from federation.tokens.signing_keys import KeyFolder, SigningKey


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def folder(state: Path) -> KeyFolder:
    return KeyFolder.under(state)


def statuses(folder: KeyFolder) -> Sequence[str]:
    return [entry.status for entry in folder.list()]


def later(**passed: float) -> datetime:
    return datetime.now(UTC) + timedelta(**passed)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_first_start_makes_one_key_that_signs(folder: KeyFolder) -> None:
    keys = folder.ensure()
    assert len(keys.keys) == 1
    assert statuses(folder) == ["signs"]


def test_the_next_start_finds_the_same_key(folder: KeyFolder) -> None:
    assert folder.ensure().signs.kid == folder.ensure().signs.kid


def test_an_empty_folder_lists_nothing(folder: KeyFolder) -> None:
    assert folder.list() == []


def test_a_generated_key_is_published_and_does_not_sign(folder: KeyFolder) -> None:
    first = folder.ensure().signs
    made = folder.generate()
    keys = folder.load()
    assert keys.signs.kid == first.kid
    assert {key.kid for key in keys.keys} == {first.kid, made.kid}
    assert statuses(folder) == ["signs", "next"]


def test_rotation_lets_the_next_key_sign_and_keeps_the_old_one_published(folder: KeyFolder) -> None:
    first = folder.ensure().signs
    made = folder.generate()
    key, dropped = folder.rotate(later())
    assert key.kid == made.kid
    assert dropped == []
    assert [k.kid for k in folder.load().keys] == [made.kid, first.kid]
    assert statuses(folder) == ["retired", "signs"]


def test_a_key_that_cannot_be_written_leaves_no_file_with_a_private_key(
    folder: KeyFolder, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ensure()
    before = sorted(path for path in state.rglob("*") if path.is_file())

    def disk_is_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for call in ("fsync", "replace", "link", "rename"):
        monkeypatch.setattr(os, call, disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        folder.generate()
    assert sorted(path for path in state.rglob("*") if path.is_file()) == before


def test_rotation_without_a_next_key_makes_one(folder: KeyFolder) -> None:
    first = folder.ensure().signs
    key, _ = folder.rotate(later())
    assert key.kid != first.kid
    assert folder.load().signs.kid == key.kid


def test_rotation_in_an_empty_folder_makes_the_first_key(folder: KeyFolder) -> None:
    key, dropped = folder.rotate(later())
    assert folder.load().signs.kid == key.kid
    assert dropped == []


def test_rotation_takes_the_oldest_of_several_next_keys(folder: KeyFolder) -> None:
    folder.ensure()
    second, third = folder.generate(), folder.generate()
    assert folder.rotate(later())[0].kid == second.kid
    assert folder.rotate(later())[0].kid == third.kid


def test_a_retired_key_stays_while_a_token_of_it_can_be_alive(folder: KeyFolder) -> None:
    folder.ensure()
    folder.rotate(later())
    folder.rotate(later(hours=23.9))
    assert statuses(folder) == ["retired", "retired", "signs"]


def test_a_retired_key_goes_once_no_token_of_it_can_be_alive(folder: KeyFolder) -> None:
    first = folder.ensure().signs
    second, _ = folder.rotate(later())
    third, dropped = folder.rotate(later(hours=24.1))
    assert [key.kid for key in dropped] == [first.kid]
    assert {key.kid for key in folder.load().keys} == {second.kid, third.kid}


def test_a_broker_that_follows_a_little_late_loses_no_token(folder: KeyFolder) -> None:
    # A running broker notices a rotation after two seconds and signs with the old key meanwhile.
    folder.ensure()
    folder.rotate(later())
    _, dropped = folder.rotate(later(hours=24, seconds=3))
    assert dropped == []


def test_keys_and_folder_are_for_their_owner_alone(state: Path, folder: KeyFolder) -> None:
    old = os.umask(0)
    try:
        folder.ensure()
        folder.rotate(later())
    finally:
        os.umask(old)
    assert mode(state / "signing-keys") == 0o700
    assert {mode(path) for path in (state / "signing-keys").iterdir()} == {0o600}


def test_the_fingerprint_changes_with_every_change_and_with_nothing_else(folder: KeyFolder) -> None:
    folder.ensure()
    prints = [folder.fingerprint()]
    assert folder.fingerprint() == prints[0]
    folder.generate()
    prints.append(folder.fingerprint())
    folder.rotate(later())
    prints.append(folder.fingerprint())
    assert len(set(prints)) == 3


def test_a_crash_between_key_and_current_is_repaired_by_the_next_start(
    state: Path, folder: KeyFolder
) -> None:
    folder.ensure()
    (state / "signing-keys" / "current").unlink()
    assert folder.ensure().signs.kid == folder.load().signs.kid
    assert statuses(folder).count("signs") == 1


def test_a_crash_while_a_key_was_written_leaves_nothing_that_counts(
    state: Path, folder: KeyFolder
) -> None:
    first = folder.ensure().signs
    (state / "signing-keys" / ".0badc0de-half").write_bytes(b"-----BEGIN PRIV")
    assert [key.kid for key in folder.load().keys] == [first.kid]


def test_a_missing_current_key_is_reported(state: Path, folder: KeyFolder) -> None:
    folder.ensure()
    folder.generate()
    (state / "signing-keys" / "current").write_text("gone")
    with pytest.raises(ValueError, match="names a key that is not in"):
        folder.load()


def test_a_missing_current_key_that_was_the_only_one_is_reported(
    state: Path, folder: KeyFolder
) -> None:
    folder.ensure()
    next((state / "signing-keys").glob("*.pem")).unlink()
    with pytest.raises(ValueError, match="key"):
        folder.load()


def test_a_broken_key_file_is_named_and_not_quoted(state: Path, folder: KeyFolder) -> None:
    folder.ensure()
    broken = state / "signing-keys" / "1.broken.pem"
    broken.write_bytes(b"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n")
    with pytest.raises(ValueError, match=r"1\.broken\.pem") as caught:
        folder.load()
    assert "SECRET" not in str(caught.value)


def test_other_files_in_the_folder_are_ignored(state: Path, folder: KeyFolder) -> None:
    first = folder.ensure().signs
    (state / "signing-keys" / "mine.pem").write_bytes(SigningKey.generate().pem())
    (state / "signing-keys" / "README").write_text("do not touch")
    assert [key.kid for key in folder.load().keys] == [first.kid]


_FIRST_START = """
import sys
from pathlib import Path
from federation.tokens.signing_keys import KeyFolder
sys.stdin.readline()
keys = KeyFolder.under(Path(sys.argv[1])).ensure()
print(keys.signs.kid, len(keys.keys))
"""


def test_processes_that_start_first_at_the_same_moment_sign_alike(tmp_path: Path) -> None:
    for turn in range(3):
        state = tmp_path / str(turn)
        processes = [
            subprocess.Popen(  # noqa: S603  our own program
                [sys.executable, "-c", _FIRST_START, str(state)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=30)[0].strip() for process in processes]
        assert len(set(told)) == 1, told
        assert KeyFolder.under(state).load().signs.kid == told[0].split()[0]
        assert told[0].split()[1] == "1", "exactly one key was made"


def test_threads_that_start_first_at_the_same_moment_sign_alike(tmp_path: Path) -> None:
    for turn in range(10):
        with ThreadPoolExecutor(4) as threads:
            ensured = [
                threads.submit(KeyFolder.under(tmp_path / str(turn)).ensure) for _ in range(4)
            ]
        assert len({future.result().signs.kid for future in ensured}) == 1
