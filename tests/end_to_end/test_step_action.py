"""
The node part of `action/step`, run as a GitHub runner runs it: what it hands on, and its signals.

GitHub's runner sends SIGINT to the step of a job that is cancelled, and SIGTERM 7.5 seconds later.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.ci_runner import ROOT, Answer, Runner, World, jwt, world
from tests.harness.real_runners import node_program

pytestmark = pytest.mark.e2e


@pytest.fixture(name="around")
def _around() -> Iterator[World]:
    with world() as around:
        yield around


@pytest.fixture(name="runner")
def _runner(tmp_path: Path, around: World) -> Runner:
    return Runner(tmp_path, around)


def started(runner: Runner, file: str, **inputs: str) -> subprocess.Popen[str]:
    """Start `action/step/FILE` with *inputs* of the step, and nothing else of this machine."""
    given = {f"INPUT_{name.upper()}": value for name, value in inputs.items()}
    return subprocess.Popen(  # noqa: S603  our own files
        [node_program(), str(ROOT / "action" / "step" / file)],
        env={"PATH": f"{runner.tools}:{os.environ['PATH']}", **runner.github_job(), **given},
        cwd=runner.workspace,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def log_of(step: subprocess.Popen[str]) -> str:
    """Wait for *step*, and return its log."""
    return step.communicate(timeout=30)[0]


def wait_for(file: Path) -> None:
    """Wait until *file* is there."""
    ends = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_inputs_reach_the_script(runner: Runner, around: World) -> None:
    around.access_token = jwt(role=["r"], exp=1795521600)
    step = started(
        runner, "login.mjs", url=around.url, role="a\nb", export="MY_TOKEN",
        audience="https://a.test", **{"faas-cli": "true", "expect-role": "r"},
    )  # fmt: skip
    assert "Roles: r." in log_of(step)
    assert step.returncode == 0
    assert around.asked("/github/token")[0].query["audience"] == ["https://a.test"]
    assert around.asked("/oauth/token")[0].form["role"] == ["a", "b"]
    later = (runner.folder / "env").read_text()
    assert f"MY_TOKEN={around.access_token}\n" in later
    assert "OPENFAAS_CONFIG=" in later
    log = log_of(started(runner, "logout.mjs"))
    assert "is revoked" in log
    assert not list(runner.temporary.glob("federation/login.*"))


def test_a_failure_of_the_script_fails_the_step(runner: Runner) -> None:
    step = started(runner, "login.mjs")
    assert "The input url is missing" in log_of(step)
    assert step.returncode == 1


def test_a_login_that_is_cancelled_is_ended_by_the_end_of_the_job(
    runner: Runner, around: World
) -> None:
    # Were it left behind instead, its token would come after the logout had run.
    around.broker = [Answer(503), around.grant()]
    lingers = runner.linger(1)
    step = started(runner, "login.mjs", url=around.url)
    wait_for(lingers)
    step.send_signal(signal.SIGINT)
    assert "Logged in" in log_of(step)
    assert step.returncode == 0
    assert "is revoked" in log_of(started(runner, "logout.mjs"))
    assert len(around.asked("/oauth/revoke")) == 1


def test_a_login_that_takes_too_long_after_it_was_cancelled_asks_for_no_more_tokens(
    runner: Runner, around: World
) -> None:
    around.broker = [Answer(503), around.grant()]
    lingers = runner.linger(2)
    step = started(runner, "login.mjs", url=around.url)
    wait_for(lingers)
    step.send_signal(signal.SIGINT)
    step.send_signal(signal.SIGTERM)
    assert "Logged in" not in log_of(step)
    assert step.returncode == 1
    assert len(around.asked("/oauth/token")) == 1
