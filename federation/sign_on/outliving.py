"""
Work that goes on when the command that began it is killed.

A refresh token is often good for one use. A command that was killed after it had sent one, and
before it had written down the next, would end the session. So that work is done by a process of
its own, in a session of its own: Ctrl-C, a closed terminal and `kill -9` of the command do not
reach it. It holds the command's lock, by its descriptor, until it has finished.

The process says on its standard output, one JSON object a line, what the command passes on. It has
no other output, so a program that waits for the command's output does not wait for this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress

from federation.client import ClientError

_START = (
    "import json, runpy, sys;"
    "sys.path[:] = json.loads(sys.argv[1]);"
    "sys.argv[:] = sys.argv[2:];"
    "runpy.run_module(sys.argv[0], run_name='__main__')"
)


def run_outliving(
    module: str, words: Sequence[str], lock: int, tell: Callable[[str], None]
) -> None:
    """
    Run *module* as a program with *words*, and wait for its end. It keeps the descriptor *lock*.

    Raises: ClientError that the program told of, or if it failed in another way.
    """
    # -P and the path of this process: no module of the current folder comes in between.
    command = [sys.executable, "-P", "-c", _START, json.dumps(sys.path), module, *words]
    failure: ClientError | None = None
    with subprocess.Popen(  # noqa: S603  our own words
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(lock,),
        start_new_session=True,
    ) as process:
        for line in process.stdout or ():
            match json.loads(line):
                case {"told": str(told)}:
                    tell(told)
                case {"problem": str(problem), "advice": str(advice)}:
                    failure = ClientError(problem, advice)
    if failure is not None:
        raise failure
    if process.returncode != 0:
        raise ClientError(
            f"The session could not be renewed: the program ended with {process.returncode}.",
            "Try again. If it fails again, sign in again: federation login",
        )


def tell(line: str) -> None:
    """In the program: have the command tell *line*, if it still lives."""
    _say({"told": line})


def report(work: Callable[[], None]) -> int:
    """
    In the program: do *work*, and return the exit code. The command raises its ClientError.

    What else is printed or logged meanwhile goes to standard error, not between the lines.
    """
    try:
        with redirect_stdout(sys.stderr):
            work()
    except ClientError as error:
        _say({"problem": error.problem, "advice": error.advice})
        return 1
    return 0


def _say(value: dict[str, str]) -> None:
    with suppress(OSError):  # the command was killed, so nobody listens
        print(json.dumps(value), file=sys.__stdout__, flush=True)
