"""The dashboard's secrets on disk: what is taken, and what is refused without being shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.dashboard.secret_files import SecretFiles
from federation.errors import SettingsRefused


def read(path: Path) -> str:
    return SecretFiles((), path).read_client_secret()


def written(folder: Path, content: str) -> Path:
    path = folder / "client-secret"
    path.touch(0o600)
    path.write_text(content)
    return path


def test_the_line_end_is_no_part_of_the_client_secret(tmp_path: Path) -> None:
    assert read(written(tmp_path, "the-secret\n")) == "the-secret"


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "null\x00", "café", "x" * 5000])
def test_what_cannot_be_a_client_secret_is_refused_and_not_shown(
    tmp_path: Path, content: str
) -> None:
    with pytest.raises(SettingsRefused) as refused:
        read(written(tmp_path, content))
    (problem,) = refused.value.problems
    assert problem.startswith("client-secret-file: ")
    assert not content.strip() or content not in problem


def test_a_client_secret_that_others_can_read_is_refused_with_the_command(tmp_path: Path) -> None:
    path = written(tmp_path, "the-secret")
    path.chmod(0o644)
    with pytest.raises(SettingsRefused) as refused:
        read(path)
    (problem,) = refused.value.problems
    assert f"chmod 600 {path}" in problem
    assert "the-secret" not in problem


def test_a_client_secret_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsRefused, match="No such file"):
        read(tmp_path / "client-secret")
