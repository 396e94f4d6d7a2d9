"""
Run the program that prints a job's ID token, such as Buildkite's agent.

It runs without a shell, and its environment holds no ID token. It has thirty seconds. The token is
taken from its standard output alone; what it wrote to standard error is shown if it failed, without
the secrets of the environment.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import IO

from federation.client import ClientError
from federation.providers.profile import ByRequest, InVariable
from federation.providers.table import PROFILES
from federation.text import printable

_SECONDS = 30.0
_OUTPUT_BYTES = 64 * 1024
_SHOWN_CHARACTERS = 300


def find_program(name: str, environ: Mapping[str, str]) -> str | None:
    """
    The full path of the program *name*, or None.

    Only absolute folders of PATH count: through a relative one, a repository could bring a program
    of its own.
    """
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    absolute = [folder for folder in folders if Path(folder).is_absolute()]
    return shutil.which(name, path=os.pathsep.join(absolute)) if absolute else None


def printed_by(
    program: str, words: Sequence[str], environ: Mapping[str, str], seconds: float = _SECONDS
) -> str:
    """
    Return what *program* prints when it is called with *words*.

    Raises: ClientError if it cannot run, fails, takes too long or prints too much.
    """
    name = Path(program).name
    try:
        process = subprocess.Popen(  # noqa: S603  an absolute path and no shell
            [program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise ClientError(f"{name} cannot be run: {error.strerror}.") from error
    output, errors = _Reader(process.stdout), _Reader(process.stderr)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        raise ClientError(f"{name} printed no ID token within {seconds:g} seconds.") from None
    finally:
        if process.returncode is None:
            _end(process)
    printed, said = output.text(), _without_secrets(errors.text(), environ)
    if code != 0:
        raise ClientError(f"{name} printed no ID token and ended with code {code}.", said)
    if len(printed) > _OUTPUT_BYTES:
        raise ClientError(f"{name} printed more than an ID token.")
    return printed


class _Reader:
    """Reads a pipe to its end in a thread and keeps the beginning, so that no writer waits."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        assert pipe is not None  # noqa: S101  both were asked for
        self._pipe, self._kept = pipe, b""
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe:
            self._kept = self._pipe.read(_OUTPUT_BYTES + 1)
            while self._pipe.read(_OUTPUT_BYTES):
                pass

    def text(self) -> str:
        """The output, as far as it is kept."""
        self._thread.join(1.0)  # a process that got away may hold the pipe open
        return self._kept.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and all that it started; they have a session of their own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _secret_variables() -> frozenset[str]:
    """Environment variables that hold an ID token, or the right to ask for one by URL."""
    names = {"FEDERATION_TOKEN"}
    for profile in PROFILES.values():
        for source in profile.job_token.sources if profile.job_token else ():
            match source:
                case InVariable(names=variables):
                    names.update(variables)
                case ByRequest(bearer=bearer):
                    names.add(bearer)
                case _:
                    pass
    return frozenset(names)


_KEPT_FROM_PROGRAMS = _secret_variables()


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _KEPT_FROM_PROGRAMS}


_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|KEY|AUTH", re.IGNORECASE)
_LOOKS_SECRET = re.compile(r"eyJ[\w-]+(?:\.[\w-]*)*|(?i:bearer|token|basic) +\S+")


def _without_secrets(text: str, environ: Mapping[str, str]) -> str:
    """The end of *text* on one line, without values of the environment that may be secret."""
    secrets = [v for name, v in environ.items() if len(v) >= 8 and _SECRET_NAME.search(name)]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    line = printable(" ".join(_LOOKS_SECRET.sub("…", text).split()))
    return line if len(line) <= _SHOWN_CHARACTERS else f"…{line[-_SHOWN_CHARACTERS:]}"
