"""Tests of the Dockerfile: its user, its contents and its health check."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Instruction(NamedTuple):
    name: str
    value: str


def instructions(dockerfile: str) -> list[Instruction]:
    """Return every instruction without comments, with continued lines joined."""
    kept = "\n".join(line for line in dockerfile.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n", " ", kept)
    lines = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [Instruction(name.upper(), " ".join(value.split())) for name, value in lines]


ALL = instructions((ROOT / "Dockerfile").read_text("utf-8"))
STAGES = [place for place, instruction in enumerate(ALL) if instruction.name == "FROM"]
FINAL = ALL[STAGES[-1] :]


def values(name: str) -> list[str]:
    """Return the values of the instruction *name* in the final stage."""
    return [instruction.value for instruction in FINAL if instruction.name == name]


def environment() -> dict[str, str]:
    pairs = (word.partition("=") for value in values("ENV") for word in shlex.split(value))
    return {name: value for name, _, value in pairs}


def test_the_final_user_is_an_unprivileged_number() -> None:
    user, _, group = values("USER")[-1].partition(":")
    assert user.isdecimal()
    assert group.isdecimal()
    assert int(user) > 0
    assert int(group) > 0


def test_no_instruction_writes_the_image_as_that_user() -> None:
    names = [instruction.name for instruction in FINAL]
    after = names[names.index("USER") :]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_the_wheel_is_built_in_a_stage_of_its_own() -> None:
    assert len(STAGES) == 2
    assert values("COPY") == ["--from=build /opt/federation /opt/federation"]


def test_base_images_are_slim_and_pinned_by_tag_or_digest() -> None:
    images = [i.value.split()[0] for i in ALL if i.name == "FROM"]
    assert all(re.fullmatch(r"python:3\.\d+-slim\S*(@sha256:[0-9a-f]{64})?", i) for i in images)
    assert len(set(images)) == 1


def pip_commands() -> list[list[str]]:
    """The words of each command of pip in the Dockerfile, after `pip`."""
    commands = [c for i in ALL if i.name == "RUN" for c in i.value.split(" && ")]
    split = [shlex.split(command) for command in commands]
    return [words[words.index("pip") + 1 :] for words in split if "pip" in words]


def test_nothing_is_installed_but_wheels_whose_hashes_are_written_down() -> None:
    """An index that was taken over can neither change a file nor have code run in the build."""
    lists, own = [], []
    for words in (words for words in pip_commands() if "install" in words):
        if "--no-index" in words:
            own.append(words)
        else:
            assert {"--require-hashes", "--only-binary=:all:"} <= set(words)
            lists.append(words[-1])
    assert lists == ["deploy/image/build-requirements.txt", "deploy/image/requirements.txt"]
    assert [Path(words[-1]).suffix for words in own] == [".whl"]


def test_the_wheel_is_built_with_the_tools_of_the_list() -> None:
    (build,) = (words for words in pip_commands() if "wheel" in words)
    assert {"--no-build-isolation", "--no-deps"} <= set(build)


def test_the_image_is_complete_with_what_is_in_the_list() -> None:
    assert pip_commands()[-1][-1] == "check"


def test_pip_leaves_no_cache_behind() -> None:
    assert all("--no-cache-dir" in words for words in pip_commands())


def test_state_and_home_are_in_the_volume() -> None:
    (volume,) = values("VOLUME")
    environ = environment()
    assert environ["FEDERATION_STATE"] == environ["HOME"] == volume
    assert environ["PYTHONDONTWRITEBYTECODE"] == "1"
    assert any(volume in run and "--owner=65532" in run for run in values("RUN"))


def test_the_health_check_asks_livez_with_python() -> None:
    (check,) = values("HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[:2] == ["python", "-c"]
    assert "/livez" in command[2]
    compile(command[2], "HEALTHCHECK", "exec")
    assert not re.search(r"curl|wget", check)


def test_the_broker_is_the_entrypoint_and_serves() -> None:
    assert [json.loads(value) for value in values("ENTRYPOINT")] == [["federation"]]
    assert [json.loads(value) for value in values("CMD")] == [["serve"]]
    assert values("EXPOSE") == [environment()["FEDERATION_PORT"]]


def test_no_secret_is_in_the_image() -> None:
    named = [*environment(), *(i.value for i in ALL if i.name == "ARG")]
    assert not [n for n in named if re.search(r"(?i)secret|token|passw|_key", n)]
    assert not any(i.name == "ADD" for i in ALL)


def test_the_builder_has_the_pages_that_the_wheel_takes_along() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    pages = targets["targets"]["wheel"].get("force-include", {})
    copied = {w for i in ALL[: STAGES[-1]] if i.name == "COPY" for w in i.value.split()[:-1]}
    assert set(pages) <= copied


def test_only_what_the_wheel_is_made_of_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        word.removeprefix("./")
        for i in ALL[: STAGES[-1]]
        if i.name == "COPY"
        for word in i.value.split()[:-1]
    }
    assert let_in == copied
