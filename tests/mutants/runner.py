"""
Runs the fast tests on each mutant of a module, several at a time.

No mutant is written to disk. Each runs in a fork of this process, in which an import hook compiles
the mutant's source in place of the module's file. The libraries are imported before the fork,
because that takes most of the time.
"""

from __future__ import annotations

import gc
import importlib
import importlib.machinery
import importlib.util
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import CodeType, ModuleType

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutants.modules import Module
from tests.mutants.mutations import Mutant

_LIBRARIES = (
    "cachetools",
    "cryptography.x509",
    "httptools",
    "httpx2",
    "jwt",
    "prometheus_client",
    "pydantic",
    "starlette.applications",
    "structlog",
    "uvicorn",
    "yaml",
)
_OPTIONS = (
    *("-x", "-qq", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not e2e"),
    # Rewriting assertions for better messages, and a plugin that nobody uses, take half a second.
    *("--assert=plain", "-p", "no:anyio"),
)
_MEMORY_BYTES = 4 * 1024**3
_CPU_SECONDS = 600
"""The end of a mutant that loops for ever, if nobody is left to end it sooner."""
_LEAST_SECONDS = 20


class TestsDoNotPass(Exception):
    """The tests fail, or there are none, although nothing was changed."""


class Outcome(Enum):
    """The end of a run of tests."""

    KILLED = "a test failed, or the module could not be imported"
    LATE = "the time ran out: it never ends, or the machine had too much else to do"
    SURVIVED = "every test passed"


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one mutant."""

    mutant: Mutant
    outcome: Outcome


def run(module: Module, mutants: Sequence[Mutant], jobs: int) -> Iterator[Result]:
    """
    The outcome for each of *mutants*, as it becomes known.

    Raises: TestsDoNotPass.
    """
    for library in _LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    limit = _seconds_unchanged(module) * 5 + _LEAST_SECONDS
    waiting = list(reversed(mutants))
    running: dict[int, tuple[Mutant, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                mutant = waiting.pop()
                running[_start(module, mutant.source)] = mutant, time.monotonic() + limit
            for child, (mutant, ends) in list(running.items()):
                outcome = _outcome(child, time.monotonic() > ends)
                if outcome is not None:
                    del running[child]
                    yield Result(mutant, outcome)
            time.sleep(0.005)
    finally:
        for child in running:
            _kill(child)


def _seconds_unchanged(module: Module) -> float:
    """The time that the tests take on the module as it is."""
    started = time.monotonic()
    _, status = os.waitpid(_start(module, module.path.read_text("utf-8")), 0)
    if os.waitstatus_to_exitcode(status) != 0:
        tests = " ".join(module.test_paths)
        raise TestsDoNotPass(f"{module.name} as it is does not pass: pytest {tests}")
    return time.monotonic() - started


def _outcome(child: int, late: bool) -> Outcome | None:
    """How *child* ended, None if it still runs and may."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0 and not late:
        return None
    if pid == 0:
        _kill(child)
        return Outcome.LATE
    code = os.waitstatus_to_exitcode(status)
    if code in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise TestsDoNotPass(f"pytest ended with {code}")
    return Outcome.SURVIVED if code == 0 else Outcome.KILLED


def _kill(child: int) -> None:
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:  # it has no process group of its own yet
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _start(module: Module, source: str) -> int:
    """The process in which the tests run on *source* in place of the module's file."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = _in_child(module, source)
    finally:
        os._exit(code)  # whatever the mutant did


def _in_child(module: Module, source: str) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()  # so that what a test started can be ended with it
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.meta_path.insert(0, _Finder(module, source))
    # The same examples for every mutant, and no search for a smaller one: a score must not
    # depend on luck, or on the load of the machine.
    settings.register_profile(
        "mutants",
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")
    # One file after the other: most mutants fail in the first, and the rest is not even collected.
    for path in module.test_paths:
        code = pytest.main([*_OPTIONS, f"--rootdir={module.root}", path])
        if code:
            return int(code)
    return 0


class _Finder:
    """Finds one module, whose code is that of a mutant."""

    def __init__(self, module: Module, source: str) -> None:
        self._module, self._source = module, source

    def find_spec(
        self, name: str, _path: object = None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._module.dotted:
            return None
        path = str(self._module.path)
        loader = _Loader(name, path, self._source)
        return importlib.util.spec_from_file_location(name, path, loader=loader)


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, _name: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)
