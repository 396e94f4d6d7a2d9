"""The demo, as somebody runs it who has just installed the program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path


def test_one_job_is_admitted_and_one_refused_and_nothing_is_left(tmp_path: Path) -> None:
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    done = subprocess.run(
        [sys.executable, "-m", "federation", "demo"],
        cwd=tmp_path,
        env={**environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "admitted" in done.stdout
    assert "refused" in done.stdout
    assert "No policies found for subject" in done.stdout
    assert "All as it should be." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # Neither a token nor anything that a next run could trip over stays behind.
    assert not re.search(r"eyJ[A-Za-z0-9_-]{20,}\.", done.stdout + done.stderr)
    assert list(tmp_path.iterdir()) == []
