"""Describe the machine of a run, and how busy it was with other work when the run began."""

from __future__ import annotations

import math
import os
import platform
import re
import time
from pathlib import Path

DOCKERFILE = Path(__file__).parents[1] / "Dockerfile"
LOOK_SECONDS = 1.0
IDLE, WAITING = 3, 4
"""The columns of `/proc/stat` for the time that a core was idle, or waited for a disk."""


def described() -> dict[str, object]:
    """The machine, and the number of its cores that are busy before anything is measured."""
    busy = busy_cores()
    return {
        "python": platform.python_version(),
        "shipped_python": shipped_python(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "busy_before": None if math.isnan(busy) else round(busy, 2),
    }


def shipped_python() -> str:
    """The version of Python in the image, such as `3.14`."""
    found = re.search(r"^FROM python:(\d+\.\d+)", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    assert found, "the Dockerfile names no version of Python"
    return found[1]


def python_line() -> str:
    """This Python, and the one that the image ships if it is another."""
    own, shipped = platform.python_version(), shipped_python()
    same = own.startswith(f"{shipped}.")
    return f"Python {own}" if same else f"Python {own}, not the image's {shipped}"


def busy_cores(seconds: float = LOOK_SECONDS) -> float:
    """The number of cores that are busy now, NaN if the system does not say."""
    try:
        before = _free_seconds()
        began = time.perf_counter()
        time.sleep(seconds)
        free = (_free_seconds() - before) / (time.perf_counter() - began)
    except OSError:
        return math.nan
    return max(0.0, (os.cpu_count() or 1) - free)


def _free_seconds() -> float:
    total = Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:]
    return (int(total[IDLE]) + int(total[WAITING])) / os.sysconf("SC_CLK_TCK")
