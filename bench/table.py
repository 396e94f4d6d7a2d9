"""
The table of results: each figure, its target, and the value that a run found.

Each part of a run returns its values under the names of the rows. A row without a value was not
measured: it neither holds nor fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

BAR = 44


@dataclass(frozen=True, slots=True)
class Row:
    """One figure and its target."""

    name: str
    title: str
    target: float
    unit: str = ""
    at_least: bool = False

    def holds(self, value: float | None) -> bool | None:
        """True if *value* reaches the target; None if there is no value."""
        if value is None or math.isnan(value):
            return None
        return value >= self.target if self.at_least else value <= self.target

    @property
    def goal(self) -> str:
        """The target in words."""
        return f"{self.target:g}{self.unit} or {'more' if self.at_least else 'less'}"


ROWS = (
    Row("ratio", "limit / exchange, processor time", 0.40, at_least=True),
    Row("one", "one exchange at a time, processor time", 450, " µs"),
    Row("p99", "p99 at half of peak", 10, " ms"),
    Row("roles", "exchange, 10,000 Roles / 10", 1.2),
    Row("claims", "exchange, claims kept / none kept", 1.03),
    Row("reload_p99", "p99 while 10,000 documents are reloaded", 15, " ms"),
    Row("reload_memory", "  memory after that", 150, " MiB"),
    Row("deciding", "deciding, 100 Policies x 20 statements", 25, " µs"),
    Row("deciding_anywhere", "  with 1 in 10 for namespaces by pattern", 25, " µs"),
    Row("deciding_variables", "  with 1 in 10 for namespaces by a claim", 25, " µs"),
    Row("gateway", "gateway: through the broker / straight", 0.50, at_least=True),
    Row("gateway_peer", "gateway / oauth2-proxy, processor time", 0.50),
    Row("gateway_added", "gateway: added p50", 1, " ms"),
    Row("workers", "two workers / one, on two cores", 1.6, at_least=True),
    Row("memory", "memory, 10,000 Roles, 100,000 exchanges", 150, " MiB"),
    Row("memory_flat", "  of which came in the second half", 3, " MiB"),
    Row("start", "start to ready, 1,000 documents", 1.5, " s"),
    Row("large_ready", "start to ready, 100,000 documents", 10, " s"),
    Row("large_check", "`check` of 100,000 documents", 10, " s"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """The results of one part of a run."""

    figures: Mapping[str, float]
    """The values of rows, by name."""
    details: Mapping[str, float]
    """The measurements behind them, by title and unit."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Notes on rows, by name."""
    costs: Mapping[int, float] = field(default_factory=dict)
    """Microseconds of processor per exchange, by the number of Roles."""


def document(found: Mapping[str, Found], machine: Mapping[str, object]) -> dict[str, object]:
    """All results as JSON; what was not measured is null."""
    return {
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": dict(machine),
        "table": [
            {
                "name": row.name,
                "figure": row.title.strip(),
                "value": _plain(figure),
                "target": row.target,
                "bound": "at least" if row.at_least else "at most",
                "unit": row.unit.strip(),
                "held": row.holds(figure),
                "note": note,
            }
            for row, figure, note in _filled(found)
        ],
        "roles": [
            {"roles": roles, "exchange_us": _plain(cost)} for roles, cost in _costs(found).items()
        ],
        "details": {
            part: {title: _plain(value) for title, value in one.details.items()}
            for part, one in found.items()
        },
    }


def shown(found: Mapping[str, Found], python: str = "") -> str:
    """All results as text: the details, the plot, and last the table, which says the *python*."""
    lines = []
    for part, one in found.items():
        lines += [part]
        lines += [f"  {title:<50}{value:>12,.2f}" for title, value in one.details.items()]
        lines += [""]
    if costs := _costs(found):
        lines += [*plot(costs), ""]
    lines += [f"{python:<42}{'today':>12}   to reach"]
    lines += [_line(row, figure, note) for row, figure, note in _filled(found)]
    return "\n".join(lines)


def plot(costs: Mapping[int, float]) -> list[str]:
    """The cost of an exchange by the number of Roles, as bars that begin at zero."""
    longest = max(costs.values())
    return [
        "what an exchange costs, by the number of Roles",
        *(
            f"{roles:>8,} |{'#' * round(BAR * cost / longest):<{BAR}} {cost:,.0f} µs"
            for roles, cost in costs.items()
        ),
    ]


def _line(row: Row, figure: float | None, note: str) -> str:
    held = row.holds(figure)
    today = "" if held is None else f"{figure:,.2f}{row.unit}"
    verdict = "not measured" if held is None else "held" if held else "not yet"
    return f"{row.title:<42}{today:>12}   {row.goal:<17}{verdict}{note and f', {note}'}"


def _filled(found: Mapping[str, Found]) -> Iterator[tuple[Row, float | None, str]]:
    figures = {name: value for one in found.values() for name, value in one.figures.items()}
    notes = {name: note for one in found.values() for name, note in one.notes.items()}
    for row in ROWS:
        yield row, figures.get(row.name), notes.get(row.name, "")


def _costs(found: Mapping[str, Found]) -> dict[int, float]:
    return {roles: cost for one in found.values() for roles, cost in one.costs.items()}


def _plain(value: float | None) -> float | None:
    """*value*, or None if it is not a number: JSON has no NaN."""
    return None if value is None or math.isnan(value) else value
