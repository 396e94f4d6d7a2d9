"""Nothing that people copy installs `federation` from PyPI, where a stranger's project has that name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement

from federation.distribution import DISTRIBUTION, how_to_install

ROOT = Path(__file__).parents[1]
FOLDERS = (".github", "action", "deploy", "docs", "examples", "federation", "gitlab")
FILES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*"))]
    if path.suffix in {".md", ".py", ".sh", ".yml", ".yaml", ".txt", ".tpl", ".js", ".mjs"}
)
_FORBIDS = "never run `pip install federation`"
_ENDS = {"&&", "||", "|", ";", ",", "."}


def installed(text: str) -> Iterator[str]:
    """The names of the distributions that the commands in *text* install."""
    for line in text.replace(_FORBIDS, "").splitlines():
        words = re.findall(r"[^\s`'\"]+", line)
        for place, word in enumerate(words):
            following = words[place + 1 :]
            program = word.rpartition("/")[2]
            if program in {"pip", "pip3", "pipx", "tool"} and following[:1] == ["install"]:
                yield from _names(takewhile(lambda word: word not in _ENDS, following[1:]))
            elif word in {"--from", "--spec", "--with"} or program == "uvx":
                yield from _names(following[:1])
            elif program == "pipx" and following[:1] == ["run"]:
                yield from _names(following[1:2])


def _names(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        with suppress(InvalidRequirement):
            yield Requirement(word).name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_command_installs_the_strangers_project(path: Path) -> None:
    assert "federation" not in set(installed(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        "pip install federation",
        "pip install 'federation[server]'",
        "/opt/federation/bin/pip install --upgrade federation==1.0",
        "pipx install federation",
        "uv tool install federation",
        "uvx federation check",
        "pipx run federation demo",
        "uvx --from 'federation[server]' federation demo",
        "pipx run --spec federation fed",
    ],
)
def test_such_a_command_would_be_noticed(line: str) -> None:
    assert "federation" in set(installed(line))


@pytest.mark.parametrize(
    "line",
    [
        f"pip install '{DISTRIBUTION}[server]'",
        "pip install '.[server]'",
        f"uvx --from '{DISTRIBUTION}[server]' federation demo",
        f"pipx run --spec {DISTRIBUTION} federation demo",
        "helm upgrade --install federation deploy/helm/federation",
        how_to_install("server"),
    ],
)
def test_ours_is_not(line: str) -> None:
    assert "federation" not in set(installed(line))


def test_the_name_is_that_of_the_project() -> None:
    told = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'\nname = "{DISTRIBUTION}"' in told
