"""
What `federation test` prints about a run, in each of its forms.

Names and claims may be a stranger's, so each line is printable, and none is a CI runner's command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as Xml

import click

from federation.cli.annotations import annotation, problem_annotation
from federation.cli.documents import problem_as_json
from federation.documents.schema import RULE_TEST
from federation.errors import Problem
from federation.policy.rule_coverage import Coverage
from federation.policy.rule_tests import Cause, Difference, Result
from federation.text import counted, no_command, no_command_in_json, no_command_within, printable

_KINDS = {"Role": "Roles", "condition": "conditions", "statement": "statements"}


@dataclass(frozen=True, slots=True)
class Run:
    """The results of the tests that ran, and the problems of those that could not."""

    results: tuple[Result, ...]
    problems: tuple[Problem, ...]
    coverage: Coverage | None = None
    began: bool = True
    """False if the documents have errors: *problems* are theirs, and no test ran."""

    @property
    def failed(self) -> tuple[Result, ...]:
        """The results of the tests that did not pass."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        """True if every test ran and passed."""
        return not self.problems and not self.failed


def as_text(run: Run) -> str:
    """Return the report for a person: what failed, and why."""
    return "\n".join(
        [
            *(no_command(str(problem)) for problem in run.problems),
            *(line for result in run.results for line in _told(result)),
            *_coverage(run),
            _summary(run),
        ]
    )


def as_json(run: Run) -> str:
    """Return the report for a program."""
    report: dict[str, object] = {
        "passed": run.passed,
        "tests": [_test(result) for result in run.results],
        "problems": [problem_as_json(problem) for problem in run.problems],
    }
    if run.coverage is not None:
        report["coverage"] = _coverage_as_json(run.coverage)
    return no_command_in_json(json.dumps(report, indent=2))


def as_junit(run: Run) -> str:
    """Return the report as the XML that CI systems show as a test report."""
    numbers = {
        "tests": str(len(run.results) + len(run.problems)),
        "failures": str(len(run.failed)),
        "errors": str(len(run.problems)),
    }
    suite = Xml.Element("testsuite", {"name": "federation test", **numbers})
    for result in run.results:
        case = _case(suite, result.test.name, result.test.origin.path, result.test.origin.line)
        if not result.passed:
            text = "\n".join(_differences(result))
            failure = Xml.SubElement(case, "failure", {"message": _message(result)})
            failure.text = text
    for problem in run.problems:
        name = problem.name or problem.kind or problem.path
        case = _case(suite, name, problem.path, problem.line, problem.kind or "documents")
        Xml.SubElement(case, "error", {"message": printable(str(problem))})
    suites = Xml.Element("testsuites", numbers)
    suites.append(suite)
    Xml.indent(suites)
    written = Xml.tostring(suites, encoding="unicode")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + no_command_within(written)


def as_github(run: Run) -> str:
    """Return the report with annotations at the tests that failed, or that tell nothing."""
    lines = [*map(problem_annotation, run.problems)]
    for result in run.results:
        origin, title = result.test.origin, f"{RULE_TEST}/{result.test.name}"
        if not result.passed:
            text = "\n".join(_differences(result)).strip()
            lines.append(annotation("error", origin.path, origin.line, title, text))
        elif result.note:
            lines.append(annotation("warning", origin.path, origin.line, title, result.note))
    return "\n".join([*lines, *_coverage(run), _summary(run)])


FORMS: Mapping[str, Callable[[Run], str]] = {
    "text": as_text,
    "json": as_json,
    "junit": as_junit,
    "github": as_github,
}


def _told(result: Result) -> Iterator[str]:
    """Yield the lines about a test that failed, or that passed in a way that tells nothing."""
    origin = result.test.origin
    where = printable(f"{origin.path}:{origin.line}")
    name = click.style(result.test.name, bold=True)
    if not result.passed:
        yield f"{click.style('FAIL', fg='red')}  {name}  {no_command_within(where)}"
        yield from map(no_command, _differences(result))
        yield ""
    elif result.note:
        yield no_command(f"note: {result.test.name} ({where}): {result.note}")


def _differences(result: Result) -> Iterator[str]:
    for difference in result.differences:
        yield f"  {printable(difference.field)}"
        yield f"    expected  {printable(difference.expected)}"
        yield f"    got       {printable(difference.got)}"
        for cause in difference.causes:
            yield from _cause(cause)


def _cause(cause: Cause) -> Iterator[str]:
    yield f"      {printable(cause.sentence)}"
    if cause.expected or cause.got:
        yield f"        expected  {printable(cause.expected)}"
        yield f"        got       {printable(cause.got)}"


def _message(result: Result) -> str:
    return printable(
        "; ".join(f"{d.field}: expected {d.expected}, got {d.got}" for d in result.differences)
    )


def _summary(run: Run) -> str:
    if not run.began:
        return "the documents have errors, so no rule test ran"
    passed = len(run.results) - len(run.failed)
    numbers = ((passed, "passed"), (len(run.failed), "failed"))
    counts = [f"{number} {what}" for number, what in numbers if number]
    if run.problems:
        counts.append(f"{counted(len(run.problems), 'problem')} in tests")
    return f"{counted(len(run.results), 'rule test')}: {', '.join(counts)}"


def _coverage(run: Run) -> Iterator[str]:
    if run.coverage is None:
        return
    kind = ""
    for rule in sorted(run.coverage.undecided(), key=lambda rule: list(_KINDS).index(rule.kind)):
        if rule.kind != kind:
            kind = rule.kind
            yield f"{_KINDS[kind]} that no test decided:"
        where = f"{rule.path}:{rule.line}"
        yield no_command(f"  {where}  {rule.name}")
    counts = run.coverage.counts().items()
    parts = ", ".join(f"{done} of {total} {_KINDS[kind]}" for kind, (done, total) in counts)
    yield f"coverage {run.coverage.percent} %: {parts}"


def _coverage_as_json(coverage: Coverage) -> dict[str, object]:
    return {
        "percent": coverage.percent,
        **{
            _KINDS[kind].lower(): {"decided": done, "total": total}
            for kind, (done, total) in coverage.counts().items()
        },
        "undecided": [
            {"kind": rule.kind, "name": rule.name, "path": rule.path, "line": rule.line}
            for rule in coverage.undecided()
        ],
    }


def _test(result: Result) -> dict[str, object]:
    refusal = result.outcome.refusal
    return {
        "name": result.test.name,
        "path": result.test.origin.path,
        "line": result.test.origin.line,
        "passed": result.passed,
        "refusal": refusal.reason if refusal else None,
        "roles": sorted(result.outcome.roles),
        "policies": sorted(result.outcome.policies),
        "shadow_roles": sorted(result.outcome.shadow_roles),
        "access": [decision.as_json() for decision in result.decisions],
        "differences": [_difference(difference) for difference in result.differences],
        "note": result.note or None,
    }


def _difference(difference: Difference) -> dict[str, object]:
    return {
        "field": difference.field,
        "expected": difference.expected,
        "got": difference.got,
        "causes": [
            {"sentence": cause.sentence, "expected": cause.expected, "got": cause.got}
            for cause in difference.causes
        ],
    }


def _case(
    suite: Xml.Element, name: str, path: str, line: int, kind: str = RULE_TEST
) -> Xml.Element:
    place = {"file": printable(path), "line": str(line)}
    given = {"name": printable(name), "classname": printable(kind), **place}
    return Xml.SubElement(suite, "testcase", given)
