"""
The readiness of every process, with all details, for the metrics port.

Every process reports its readiness every few seconds. A single process keeps the report in memory;
a worker writes it to a file, which its supervisor reads. Callers of the metrics port may read names
of Roles, paths and errors, which callers of the public port may not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OLD_SECONDS = 15.0
"""A process that said nothing for so long is not ready."""
_DEAD_SECONDS = 30.0
_ORDER = ("ok", "degraded", "unavailable")


@dataclass(frozen=True, slots=True)
class Said:
    """One process's report of its readiness, and its time on the machine's monotonic clock."""

    at: float
    report: Mapping[str, Any]


Reports = Callable[[], Mapping[str, Said | None]]
"""Returns the last report of each process, by its number; None if it has not reported yet."""


def write_report(folder: Path, worker: int, report: Mapping[str, Any]) -> None:
    """Replace the report of *worker* in *folder*. One that cannot be written is lost."""
    path = _path(folder, worker)
    beside = path.with_suffix(".new")
    # The folder goes with its parent. A worker without reports counts as unavailable soon.
    with suppress(OSError):
        beside.write_text(json.dumps({"at": time.monotonic(), "report": report}), "utf-8")
        beside.replace(path)


def remove_report(folder: Path, worker: int) -> None:
    """Forget what *worker* said, because it ended."""
    _path(folder, worker).unlink(missing_ok=True)


def read_reports(folder: Path, workers: int) -> Mapping[str, Said | None]:
    """Return the reports of *workers* in *folder*."""
    return {str(number): _read(_path(folder, number)) for number in range(workers)}


def readiness(reports: Mapping[str, Said | None]) -> tuple[int, Mapping[str, Any]]:
    """Return the status and the body of `/readyz`: the only process's report, or those of all."""
    now = time.monotonic()
    told = {number: _told(said, now) for number, said in reports.items()}
    worst = max((_ORDER.index(str(each["status"])) for each in told.values()), default=2)
    status = 503 if _ORDER[worst] == "unavailable" else 200
    if len(told) == 1:
        return status, next(iter(told.values()))
    return status, {"status": _ORDER[worst], "workers": told}


def liveness(reports: Mapping[str, Said | None]) -> tuple[int, Mapping[str, Any]]:
    """Return the status and the body of `/livez`: 503 if a process has stopped saying anything."""
    now = time.monotonic()
    if any(said is not None and now - said.at > _DEAD_SECONDS for said in reports.values()):
        return 503, {"status": "unavailable"}
    return 200, {"status": "ok"}


def _told(said: Said | None, now: float) -> Mapping[str, Any]:
    if said is None:
        return {"status": "unavailable", "unavailable": ["it has not reported yet"]}
    if now - said.at > _OLD_SECONDS:
        silent = f"it has not reported for {now - said.at:.0f} s"
        return {**said.report, "status": "unavailable", "unavailable": [silent]}
    return said.report


def _read(path: Path) -> Said | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        return Said(float(found["at"]), found["report"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(folder: Path, worker: int) -> Path:
    return folder / f"readiness-{worker}.json"
