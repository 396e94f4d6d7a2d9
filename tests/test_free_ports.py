"""The ports that tests give to their servers."""

from __future__ import annotations

import subprocess
import sys

from tests.harness.process import ROOT


def test_no_port_is_given_twice() -> None:
    # In a process of its own, since its ports stay taken until it ends.
    asks = "from tests.harness.process import free_port; print(*{free_port() for _ in range(500)})"
    ports = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-c", asks], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(ports) == 500
