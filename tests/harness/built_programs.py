"""
Programs that are built for tests: kept outside of the checkout, so that each is built once.

A folder appears when everything is in it, so an interrupted build does not look like a finished one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def cache(name: str) -> Path:
    """The folder in which the programs called *name* are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "federation", name)


def skip_without(absent: Collection[str], target: str, must: str) -> None:
    """Skip the test if any is *absent*: `make TARGET` builds it. Where the variable *must* is set, fail."""
    if absent:
        reason = f"{', '.join(sorted(absent))} not found: run `make {target}`"
        if os.environ.get(must):
            pytest.fail(reason)
        pytest.skip(reason)


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes *folder* in one step, once everything is in it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as temporary:
        inside = Path(temporary, "made")
        inside.mkdir()
        yield inside
        shutil.rmtree(folder, ignore_errors=True)
        inside.rename(folder)


def run(words: list[str], folder: Path, **environ: str) -> None:
    """Run *words* in *folder* with these variables more. Raises: SystemExit if they fail."""
    done = subprocess.run(words, cwd=folder, env={**os.environ, **environ}, check=False)  # noqa: S603  our own words
    if done.returncode:
        raise SystemExit(f"{' '.join(words[:2])} failed")


def tell(text: str) -> None:
    """Write a line about the build."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
