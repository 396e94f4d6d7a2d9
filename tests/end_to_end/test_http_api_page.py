"""
The commands of docs/http-api.md do what the page says, against a broker in front of a gateway.

So do the two logins of docs/other-ci.md, with a faas-cli that writes down what it got.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.broker import AUDIENCE
from tests.harness.gateway import Fronted, fronted
from tests.harness.process import ROOT

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs" / "http-api.md").read_text("utf-8")
COMMANDS = [
    command
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for command in re.split(r"\n(?=curl )", block.strip())
]


@pytest.fixture(scope="module", name="front")
def _front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("broker")) as up:
        up.reset()
        yield up


def run(front: Fronted, command: str, **variables: str) -> tuple[int, str]:
    environ = {"PATH": os.environ["PATH"], "BROKER": front.broker.url, **variables}
    done = subprocess.run(  # noqa: S603  the page's own words
        ["bash", "-ec", command],  # noqa: S607  the reader's shell
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda n: COMMANDS[n][:60])
def test_a_command_is_answered(front: Fronted, number: int) -> None:
    command = COMMANDS[number]
    code, answer = run(front, command, ID_TOKEN=front.broker.job(), TOKEN=front.token())
    assert code == 0, answer
    assert ("--fail-with-body" in command) == ('"error":' not in answer)


def json_of(front: Fronted, part: str, **variables: str) -> Any:
    (command,) = [each for each in COMMANDS if part in each]
    code, answer = run(front, command, **variables)
    assert code == 0, answer
    return json.loads(answer)


def test_the_answer_has_the_members_that_the_page_shows(front: Fronted) -> None:
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    answer = json_of(front, "token-type:id_token", ID_TOKEN=front.broker.job())
    assert answer.keys() == json.loads(shown).keys()


def test_the_decision_is_yes(front: Fronted) -> None:
    answer = json_of(front, "can-i", TOKEN=front.token())
    assert [each["allowed"] for each in answer["access"]] == [True]


def test_a_revoked_token_is_refused(front: Fronted) -> None:
    token = front.token()
    (revoke,) = [each for each in COMMANDS if "/oauth/revoke" in each]
    assert run(front, revoke, TOKEN=token)[0] == 0
    (use,) = [each for each in COMMANDS if "--user" in each]
    assert run(front, use, TOKEN=token)[0] == 22  # what curl says of a refusal


def test_the_program_gets_a_token(front: Fronted, tmp_path: Path) -> None:
    (text,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(text, "docs/http-api.md", "exec"), names)  # noqa: S102  the page's own words
    assert names["access_token"](front.broker.url, front.broker.job()).count(".") == 2


def login_of(title: str) -> str:
    """The last block of shell in a section of docs/other-ci.md."""
    page = (ROOT / "docs" / "other-ci.md").read_text("utf-8")
    section = page.split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks: list[str] = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return blocks[-1]


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> str:
    """A PATH with `federation`, and a faas-cli that writes its words and its input to a file."""
    programs = {
        "faas-cli": f'echo "$*" >>{tmp_path}/said; [ "$1" != login ] || cat >{tmp_path}/token',
        "federation": f'{sys.executable} -m federation "$@" --audience {AUDIENCE}',
    }
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.parametrize("title", ["With the command", "Without the command"])
def test_the_login_of_another_ci_system(
    front: Fronted, tmp_path: Path, path: str, title: str
) -> None:
    script = login_of(title).replace("https://gateway.example.com", front.broker.url)
    variables = {"PATH": path, "PYTHONPATH": str(ROOT)}
    variables |= {
        "JENKINS_URL": "https://ci.example.com/",
        "FEDERATION_ID_TOKEN": front.broker.job(),
    }
    code, said = run(front, script, ID_TOKEN=front.broker.job(), **variables)
    assert code == 0, said
    assert (tmp_path / "said").read_text().splitlines() == [
        f"login --gateway {front.broker.url} --username token --password-stdin",
        f"deploy --gateway {front.broker.url}",
    ]
    token = (tmp_path / "token").read_text()
    assert token.count(".") == 2
    (use,) = [each for each in COMMANDS if "--user" in each]
    ended = 22 if title == "With the command" else 0
    assert run(front, use, TOKEN=token)[0] == ended


def test_a_refusal_is_shown_without_the_command(front: Fronted, path: str) -> None:
    script = login_of("Without the command").replace(
        "https://gateway.example.com", front.broker.url
    )
    code, _ = run(front, f"exec 2>&1\n{script}", PATH=path, ID_TOKEN="no token")
    assert code == 1
