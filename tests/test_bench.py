"""The table and the JSON of `make bench`, without its measurements."""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import against, jobs, limit, machine
from bench.__main__ import PARTS, RESULTS, arguments
from bench.deciding import (
    CLAIMS,
    one_namespace,
    own_namespace,
    policies,
    some_by_claim,
    some_by_pattern,
)
from bench.exchanges import SIZES
from bench.paired import Pair, Side, compared
from bench.servers import running
from bench.table import ROWS, Found, Row, document, plot, shown
from federation.documents.assemble import assemble
from federation.documents.parse import parse
from federation.policy.permissions import Access, decide
from tests.harness.load import exchange_request
from tests.harness.process import Server

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "performance.md").read_text("utf-8")
ROW = {row.name: row for row in ROWS}
TARGETS = {
    "ratio": (0.40, "at least"),
    "one": (450, "at most"),
    "p99": (10, "at most"),
    "roles": (1.2, "at most"),
    "claims": (1.03, "at most"),
    "reload_p99": (15, "at most"),
    "reload_memory": (150, "at most"),
    "deciding": (25, "at most"),
    "deciding_anywhere": (25, "at most"),
    "deciding_variables": (25, "at most"),
    "gateway": (0.50, "at least"),
    "gateway_peer": (0.50, "at most"),
    "gateway_added": (1, "at most"),
    "workers": (1.6, "at least"),
    "memory": (150, "at most"),
    "memory_flat": (3, "at most"),
    "start": (1.5, "at most"),
    "large_ready": (10, "at most"),
    "large_check": (10, "at most"),
}


def found(**figures: float) -> dict[str, Found]:
    return {"some part": Found(figures, {"how it came about, µs": 2.0}, {"p99": "a note"})}


def lines_of(text: str, row: Row) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(row.title)]


def dry_run(*given: str) -> str:
    """The commands that `make bench` would run."""
    # `make test` runs this too, and would hand its own flags and level on.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    words = ["make", "--dry-run", "bench", *given]
    done = subprocess.run(  # noqa: S603  our own words
        words, cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_table_has_every_target_in_its_order() -> None:
    table = document({}, {})["table"]
    assert isinstance(table, list)
    assert {row["name"]: (row["target"], row["bound"]) for row in table} == TARGETS
    assert [row["name"] for row in table] == list(TARGETS)


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        pytest.param("ratio", 0.41, "held", id="more than the least"),
        pytest.param("ratio", 0.40, "held", id="the least itself"),
        pytest.param("ratio", 0.39, "not yet", id="less than the least"),
        pytest.param("start", 1.4, "held", id="less than the most"),
        pytest.param("start", 1.5, "held", id="the most itself"),
        pytest.param("start", 1.6, "not yet", id="more than the most"),
        pytest.param("memory", math.nan, "not measured", id="the system does not say"),
    ],
)
def test_each_row_says_whether_it_held(name: str, value: float, verdict: str) -> None:
    (line,) = lines_of(shown(found(**{name: value})), ROW[name])
    assert line.endswith(verdict)
    assert ROW[name].goal in line


def test_a_row_that_was_not_measured_neither_holds_nor_fails() -> None:
    printed = shown(found(p99=3.0))
    for row in ROWS:
        (line,) = lines_of(printed, row)
        assert line.endswith("held, a note" if row.name == "p99" else "not measured")


def test_the_json_holds_the_table_the_details_and_the_cost_by_roles() -> None:
    both = {
        "first": Found({"p99": 3.0, "memory": math.nan}, {"µs": math.nan}, {"p99": "a note"}),
        "second": Found({"ratio": 0.2}, {"other, µs": 2.0}, costs={10: 400.0, 100: 410.0}),
    }
    written = json.loads(json.dumps(document(both, {"cores": 2}), allow_nan=False))
    assert set(written) == {"taken", "machine", "table", "roles", "details"}
    assert written["machine"] == {"cores": 2}
    rows = {row["name"]: row for row in written["table"]}
    assert rows["p99"] == {
        "name": "p99",
        "figure": "p99 at half of peak",
        "value": 3.0,
        "target": 10,
        "bound": "at most",
        "unit": "ms",
        "held": True,
        "note": "a note",
    }
    assert rows["ratio"]["held"] is False
    assert rows["memory"]["value"] is rows["memory"]["held"] is rows["start"]["held"] is None
    assert written["roles"] == [
        {"roles": 10, "exchange_us": 400.0},
        {"roles": 100, "exchange_us": 410.0},
    ]
    assert written["details"] == {"first": {"µs": None}, "second": {"other, µs": 2.0}}


def test_the_table_begins_with_the_python_that_was_measured() -> None:
    table = shown(found(p99=3.0), "Python 3.11.7, not the image's 3.14").splitlines()
    (head,) = (line for line in table if line.endswith("to reach"))
    assert head.startswith("Python 3.11.7, not the image's 3.14 ")


def test_the_python_of_the_image_is_the_one_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = machine.shipped_python()
    monkeypatch.setattr(platform, "python_version", lambda: f"{shipped}.9")
    assert machine.python_line() == f"Python {shipped}.9"
    monkeypatch.setattr(platform, "python_version", lambda: f"{shipped}0.1")
    assert machine.python_line() == f"Python {shipped}0.1, not the image's {shipped}"


def test_make_bench_takes_the_python_of_the_image() -> None:
    said = dry_run("BENCH_PYTHON=/x/python", "AGAINST=../other")
    assert "/x/python -m venv .venv/bench" in said
    assert said.splitlines()[-1] == ".venv/bench/bin/python -m bench --against ../other"


def test_without_that_python_make_bench_takes_the_one_there_is() -> None:
    said = dry_run("BENCH_PYTHON=")
    assert said.splitlines()[-1].strip() == ".venv/bin/python -m bench"


def test_two_servers_are_compared_round_by_round() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [
            Side(
                stack.enter_context(running(Server(["bench.noop"], folder / name), None)),
                lambda count: [exchange_request("t")] * count,
            )
            for name in ("first", "second")
        ]
        found = asyncio.run(compared(sides[0], sides[1], rounds=3, count=40, connections=2))
    assert found.ratio > 0 or math.isnan(found.ratio)
    shown_as = " ".join(against.line("a request", Pair(200, 150, 0.75)).split())
    assert shown_as == "a request 200 µs 150 µs 0.750"


def test_the_plot_begins_at_zero() -> None:
    _, first, second = plot({10: 400.0, 100: 200.0})
    assert first.count("#") == 2 * second.count("#")
    assert second.endswith(" 200 µs")


def test_by_default_all_parts_run_and_the_results_have_their_usual_place() -> None:
    given = arguments().parse_args([])
    assert (given.long, given.only, given.json) == (False, None, RESULTS)
    assert (given.against, given.rounds) == (None, 5)


def test_options_choose_the_parts_the_long_run_and_the_file() -> None:
    words = ["--long", "--only", "memory", "--only", "start", "--json", "here.json"]
    given = arguments().parse_args(words)
    assert (given.long, given.only, given.json) == (True, ["memory", "start"], Path("here.json"))


@pytest.mark.parametrize(
    "words", ["--only nothing", "--quick", "memory", "--against docs", "--against nothing"]
)
def test_unknown_options_are_refused(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments().parse_args(words.split())
    assert ended.value.code == 2
    assert "usage: python -m bench" in capsys.readouterr().err


@pytest.mark.parametrize("block", [False, True], ids=["JSON", "block YAML"])
def test_the_documents_would_be_adopted_without_a_warning(block: bool) -> None:
    written = jobs.documents(10, block=block).encode()
    assembled = assemble([parse("documents.yaml", written)])
    assert not [str(problem) for problem in assembled.problems if problem.code != "W101"]
    assert assembled.documents == 12


@pytest.mark.parametrize("resource", [own_namespace, some_by_pattern, some_by_claim, one_namespace])
def test_the_last_statement_decides_the_access_that_is_timed(resource: object) -> None:
    assert callable(resource)
    asked = policies(resource)
    assert sum(len(policy.statements) for policy in asked) == 2000
    decision = decide(asked, Access("Function:Update", "team-99", "fn-19"), CLAIMS)
    assert (decision.allowed, decision.policy, decision.sid) == (True, "policy-99", "s19")


def test_busy_cores_are_between_none_and_all() -> None:
    busy = machine.busy_cores(0.05)
    assert math.isnan(busy) or 0 <= busy <= (os.cpu_count() or 1)


def test_the_cost_of_a_signature_has_clock_time_and_processor_time() -> None:
    for work in (limit.verification(), limit.signature()):
        cost = limit.cost(work, 0.005)
        assert 0 < cost.cpu < 0.05
        assert 0 < cost.wall < 0.5


def test_work_is_measured_ten_times_even_when_the_time_is_over() -> None:
    done: list[None] = []
    assert limit.cost(lambda: done.append(None), 0).wall > 0
    assert len(done) == 10


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_page_has_each_row_of_the_table(row: Row) -> None:
    (line,) = lines_of(PAGE, row)
    assert row.goal in line


@pytest.mark.parametrize("roles", SIZES)
def test_the_page_plots_each_number_of_roles(roles: int) -> None:
    assert f"\n{roles:>8,} |#" in PAGE


@pytest.mark.parametrize("part", PARTS)
def test_the_page_says_how_each_part_is_measured(part: str) -> None:
    assert f"| `{part}` | " in PAGE
