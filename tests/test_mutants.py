"""The tool behind `make mutants`: its mutants, its map of tests, and what it reports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mutants.__main__ import JUDGED, read_judged
from tests.mutants.modules import DECIDE_NOTHING, ROOT, TESTS, WHOLE_ROOMS, modules
from tests.mutants.mutations import mutants


def changed(source: str) -> list[str]:
    """The changed lines of every mutant of *source*."""
    return [mutant.mutated for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = a < b", ["x = a <= b", "x = a >= b"]),
        ("x = a == b", ["x = a != b"]),
        ("x = a not in b", ["x = a in b"]),
        ("x = a and b", ["x = (a or b)", "x = (b)", "x = (a)"]),
        ("x = not a", ["x = a"]),
        ("x = a if b else c", ["x = a", "x = c"]),
        ("x = 5", ["x = (6)", "x = (4)"]),
        ("x = True", ["x = False"]),
        ("x = 'text'", ["x = ''"]),
        ("x = f'text {a}'", ["x = ''"]),
        ("x = {a, b}", ["x = {b}", "x = {a}"]),
        ("x = {'a', 'b'}", ["x = {'b'}", "x = {'a'}"]),
        ("x = (a, b)", ["x = (b, )", "x = (a, )"]),
        ("x = (1, 2, 3)", ["x = (2, 3, )", "x = (1, 3, )", "x = (1, 2, )"]),
        ("x = {a: b, **c}", ["x = {**c}", "x = {a: b}"]),
        ("x = a[b:]", ["x = a[None:]"]),
        ("x = any(a)", ["x = all(a)"]),
        ("x = a.startswith(b)", ["x = a.endswith(b)"]),
        ("x = a | b", ["x = (a & b)", "x = a", "x = b"]),
        ("x = [a for a in b if c]", ["x = [a for a in b if True]"]),
        ("x = b'a b'.split()", ["x = b''.split()", "x = b'b'.split()", "x = b'a'.split()"]),
        ("if a: raise b", ["if not a: raise b", "if False: raise b", "if a: pass"]),
        ("if a == b: return_()", ["if a != b: return_()", "if a == b: pass"]),
        ("check(a)", ["pass"]),
        ("a[b] = c", ["pass"]),
        (
            "x = re.compile(r'\\A(a|b)\\.c+')",
            [
                *("x = re.compile('')", "x = re.compile('(a|b)\\\\.c+')"),
                *("x = re.compile('\\\\A(a|b).c+')", "x = re.compile('\\\\A(a|b)\\\\.c*')"),
                *("x = re.compile('\\\\A(b)\\\\.c+')", "x = re.compile('\\\\A(a|)\\\\.c+')"),
            ],
        ),
    ],
)  # fmt: skip
def test_each_kind_of_change_is_made(source: str, expected: list[str]) -> None:
    assert sorted(changed(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""A docstring."""',
        "x: Literal['a', 'b']",
        "X = Callable[[str], bool]",
        "@dataclass(frozen=True)\nclass A: pass",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "assert_never(x)",
        "if TYPE_CHECKING: import x",
        "x = zip(a, b, strict=True)",
        "__all__ = ['a', 'b']",
    ],
)
def test_what_decides_nothing_is_left_alone(source: str) -> None:
    assert changed(source) == []


def test_a_mutant_differs_in_one_place_and_says_where() -> None:
    source = "class A:\n    def f(self):\n        return 'é', 1 < 2  # why\n"
    found = mutants(source)
    assert {(mutant.where, mutant.line) for mutant in found} == {("A.f", 3)}
    assert {mutant.original for mutant in found} == {"return 'é', 1 < 2 # why"}
    assert "class A:\n    def f(self):\n        return 'é', 1 <= 2  # why\n" in [
        mutant.source for mutant in found
    ]


# A small module, whose tests have no size that is equal to the limit.
LIMIT = """
def fits(size, limit):
    return size <= limit
"""
TESTS_OF_LIMIT = """
from small.limit import fits

def test_it():
    assert fits(1, 3)
    assert not fits(4, 3)
"""
SURVIVOR = """\
  small/limit.py:3  (fits)
    - return size <= limit
    + return size < limit
"""
JUDGEMENT = """
[[equivalent]]
module = "limit"
where = "fits"
original = "return size <= limit"
mutated = "return size {sign} limit"
reason = "for this test"
"""
RUN = """
import sys
from pathlib import Path
from tests.mutants import runner
from tests.mutants.__main__ import read_judged, report
from tests.mutants.modules import Module

runner._LEAST_SECONDS = 1
runner._LIBRARIES = ()
root = Path(sys.argv[1])
sys.path.insert(0, sys.argv[1])
sys.exit(report([Module("limit", ("test_limit",), root, "small")], read_judged(root / "judged"), 2))
"""


def small_package(root: Path, judged: str, source: str, tests: str) -> list[str]:
    """The command that tests the mutants of *source* with *tests*, all written under *root*."""
    for name, text in {
        "small/limit.py": source,
        "small/__init__.py": "",
        "tests/test_limit.py": tests,
        "judged": judged,
    }.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    return [sys.executable, "-c", RUN, str(root)]


def report_on_small(
    root: Path, judged: str = "", source: str = LIMIT, tests: str = TESTS_OF_LIMIT
) -> tuple[int, str]:
    """The exit status and the output of a run over *source* with *tests* and *judged* mutants."""
    run = subprocess.run(  # noqa: S603  our own program
        small_package(root, judged, source, tests),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not run.stderr
    return run.returncode, run.stdout


def test_a_run_names_the_mutant_that_no_test_notices(tmp_path: Path) -> None:
    status, output = report_on_small(tmp_path)
    assert output.startswith(SURVIVOR + " 50.0 %  limit: 2 mutants")
    assert status == 1
    assert (tmp_path / "small/limit.py").read_text("utf-8") == LIMIT


def test_a_judged_mutant_does_not_count(tmp_path: Path) -> None:
    status, output = report_on_small(tmp_path, JUDGEMENT.format(sign="<"))
    assert "100.0 %  of 1 mutants in total" in output
    assert "+" not in output
    assert status == 0


def test_a_judgement_that_is_out_of_date_fails_the_run(tmp_path: Path) -> None:
    judged = "".join(JUDGEMENT.format(sign=sign) for sign in ("<", ">", "=="))
    status, output = report_on_small(tmp_path, judged)
    assert "100.0 %  of 1 mutants in total" in output
    assert "limit: a test notices it now; remove it:\n    + return size > limit" in output
    assert "limit: there is no such mutant any more; remove it:\n    + return size ==" in output
    assert status == 1


def test_a_mutant_that_never_ends_is_ended_and_counts_as_noticed(tmp_path: Path) -> None:
    endless = "\ndef fits(size, limit):\n    while size < limit:\n        size += limit\n"
    tests = "from small.limit import fits\n\ndef test_it(): assert fits(0, 1) is None\n"
    status, output = report_on_small(tmp_path, source=endless, tests=tests)
    assert "size += limit" not in output
    assert " noticed only by time\n" in output
    assert status == 1


def test_a_run_that_is_asked_to_stop_leaves_no_test_running(tmp_path: Path) -> None:
    started = tmp_path / "started"
    tests = f"""
import os, pathlib, time

def test_it():
    with pathlib.Path({str(started)!r}).open("a") as pids:
        print(os.getpid(), file=pids)
    if len(pathlib.Path({str(started)!r}).read_text().split()) > 1:
        time.sleep(30)  # on a mutant, and not on the module as it is
"""
    command = small_package(tmp_path, "", LIMIT, tests)
    with subprocess.Popen(command, cwd=ROOT) as run:  # noqa: S603  our own program
        until = time.monotonic() + 30
        while not started.exists() or len(started.read_text("utf-8").split()) < 3:
            assert time.monotonic() < until
            time.sleep(0.02)
        run.send_signal(signal.SIGTERM)
        assert run.wait(10) == 128 + signal.SIGTERM
    for pid in started.read_text("utf-8").split():
        assert not Path(f"/proc/{pid}").exists()


def test_a_run_whose_tests_fail_without_any_change_says_so(tmp_path: Path) -> None:
    status, output = report_on_small(tmp_path, tests=TESTS_OF_LIMIT + "    assert False\n")
    assert "limit as it is does not pass" in output
    assert status == 2


def test_every_module_and_test_of_the_map_exists() -> None:
    named = {module.name for module in modules()}
    for pattern in TESTS:
        assert any(Path(name).match(pattern) for name in named), pattern
    for module in modules():
        assert [path for path in module.test_paths if not Path(path).is_file()] == []


def test_every_module_of_the_rooms_that_decide_is_in_the_map() -> None:
    named = {module.name for module in modules()}
    paths = [path for room in WHOLE_ROOMS for path in (ROOT / "federation" / room).glob("*.py")]
    there = {
        path.relative_to(ROOT / "federation").with_suffix("").as_posix()
        for path in paths
        if path.name != "__init__.py"
    }
    assert there - named == set(DECIDE_NOTHING)


def test_every_judgement_has_a_reason_and_is_about_a_module_of_the_map() -> None:
    named = {module.name for module in modules()}
    for judged in read_judged(JUDGED):
        assert judged.module in named
        assert judged.reason.endswith(".")
