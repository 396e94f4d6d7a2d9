"""A person at a terminal: a home folder, a browser, and the command `federation`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from federation.sign_on.sessions import Session, Sessions
from tests.harness.process import ROOT, free_port
from tests.harness.served_provider import browser

_KEPT = ("PATH", "PYTHONPATH", "LANG", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")


class Person:
    """Somebody with a home under *folder*, who runs `federation` as a process of its own."""

    def __init__(self, folder: Path, gateway: str, authority: str) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.gateway = gateway
        self.authority = authority
        self.port = free_port()
        """The port of the callback."""
        self.environ = {
            **{name: os.environ[name] for name in _KEPT if name in os.environ},
            "HOME": str(self.home),
            "BROWSER": browser(folder),
            # No module of the current folder stands in for ours.
            "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)),
        }

    @property
    def sessions(self) -> Sessions:
        """What is saved."""
        return Sessions(self.home / ".config" / "federation")

    @property
    def session(self) -> Session:
        """The session, which must be there."""
        session = self.sessions.of(self.gateway)
        assert session is not None
        return session

    @property
    def faas_cli_config(self) -> Path:
        """The file in which faas-cli finds its tokens."""
        return self.home / ".openfaas" / "config.yml"

    def saved_token(self, gateway: str = "") -> str:
        """The token that faas-cli would send to a gateway; empty if it has none."""
        if not self.faas_cli_config.exists():
            return ""
        entries: list[dict[str, Any]] = yaml.safe_load(self.faas_cli_config.read_text())["auths"]
        return next(
            (str(one["token"]) for one in entries if one["gateway"] == (gateway or self.gateway)),
            "",
        )

    def settings(self, client_id: str = "openfaas") -> list[str]:
        """The options of a first login."""
        return [
            *("--gateway", self.gateway, "--authority", self.authority),
            *("--client-id", client_id, "--port", str(self.port)),
        ]

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Run `federation` with *words*, and do not wait for it."""
        return self.start_program([sys.executable, "-m", "federation", *words], **environ)

    def start_program(self, command: Sequence[str], **environ: str) -> subprocess.Popen[str]:
        """Run any program as this person."""
        return subprocess.Popen(  # noqa: S603  our own words
            command,
            cwd=self.home,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `federation` with *words*, and wait for its end."""
        return finished(self.start(*words, **environ))

    def done(self, *words: str, **environ: str) -> str:
        """What `federation` prints for *words*. Its exit code must be 0."""
        ended = self.run(*words, **environ)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def refused(self, *words: str, code: int = 1, **environ: str) -> str:
        """What `federation` says for *words*, on standard error. Its exit code must be *code*."""
        ended = self.run(*words, **environ)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr


def finished(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait for the end of *process*."""
    with process:
        out, err = process.communicate(timeout=90)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Have *process* end with the block, whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
