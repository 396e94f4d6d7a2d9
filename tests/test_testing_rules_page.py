"""docs/testing-rules.md works: its files are written, its commands run, and what they print compared."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from federation.cli import main
from federation.documents.schema import REFUSALS, Expect, RuleTestSpec

PAGE = (Path(__file__).parents[1] / "docs" / "testing-rules.md").read_text("utf-8")
TUTORIAL = PAGE[PAGE.index("## From an empty folder") : PAGE.index("## In CI")]


def test_the_tutorial_from_an_empty_folder_to_the_pull_request_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed, ran = 0, "", 0
    for before, language, text in steps():
        if language == "yaml":
            path = re.findall(r"`(documents/\S+\.yaml)`", before)[-1]
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(text, "utf-8")
        elif language == "sh":
            program, *words = shlex.split(text)
            assert program == "federation"
            done = CliRunner().invoke(main, words, catch_exceptions=False)
            code, printed, ran = done.exit_code, done.output, ran + 1
        else:
            assert printed == text
            assert code == ("the exit code is 1" in before)
    assert ran == 6


def test_the_mended_role_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (role,) = (text for _, language, text in steps() if language == "yaml" and "/heads/*" in text)
    call = next(text for _, language, text in steps() if language == "sh")
    CliRunner().invoke(main, shlex.split(call)[1:], catch_exceptions=False)
    mended = "jwt:ref: [refs/heads/main, refs/heads/release-*]"
    assert f"`{mended}` is what was meant" in PAGE
    path = Path("documents/octo-org-octo-repo-main.yaml")
    path.write_text(role.replace("jwt:ref: refs/heads/*", mended), "utf-8")
    for words in (["check", "--strict", "documents"], ["test", "documents"]):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output


def steps() -> list[tuple[str, str, str]]:
    """The blocks of the tutorial, each with the prose before it and its language."""
    parts = re.split(r"^```(\w+)\n(.*?)^```$", TUTORIAL, flags=re.DOTALL | re.MULTILINE)
    return [(parts[n], parts[n + 1], parts[n + 2]) for n in range(0, len(parts) - 1, 3)]


@pytest.mark.parametrize("word", [*RuleTestSpec.names(), *Expect.names(), *REFUSALS])
def test_every_word_of_a_rule_test_is_on_the_page(word: str) -> None:
    assert f"`{word}`" in PAGE
