"""Measure the start of a broker with 100,000 documents, and `federation check` of them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench import jobs
from bench.progress import say
from bench.servers import Place, await_ready, broker, resident_mib
from bench.table import Found
from tests.harness.process import ROOT

DOCUMENTS, IN_A_FILE = 100_000, 10_000
NOT_LONG = "only with --long"


def measured(place: Place) -> Found:
    """Measure one start and one check; without `--long`, nothing."""
    if not place.long:
        return Found({}, {}, {"large_ready": NOT_LONG, "large_check": NOT_LONG})
    documents = _written(place.folder / "documents")
    with broker(place.folder / "large", documents, place.server_core) as server:
        ready = await_ready(server)
        say(f"ready after {ready:.1f} s")
        held = resident_mib(server)
    return Found(
        figures={"large_ready": ready, "large_check": _check(documents)},
        details={"memory when ready, MiB": held},
    )


def _written(folder: Path) -> Path:
    """Write the documents into files of *folder*, since one file holds 16 MiB at most."""
    folder.mkdir()
    lines = jobs.documents(DOCUMENTS - 2).split("\n---\n")  # and an issuer and a Policy
    for number, start in enumerate(range(0, len(lines), IN_A_FILE)):
        text = "\n---\n".join(lines[start : start + IN_A_FILE])
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    return folder


def _check(documents: Path) -> float:
    """The seconds that `federation check` takes."""
    began = time.monotonic()
    words = [sys.executable, "-m", "federation", "check", str(documents)]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)  # noqa: S603  our own words
    if done.returncode:
        raise SystemExit("The documents have problems.")
    return time.monotonic() - began
