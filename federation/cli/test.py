"""
`federation test`: run the rule tests beside the documents.

The functions that decide exchanges and requests decide the tests, offline: no signature, no clock.
A run without a test, or with one that expects nothing, is a failure, so that a typing mistake in a
path cannot pass for success.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import click

from federation.cli.documents import documents_of_setting
from federation.cli.terminal import colours
from federation.cli.test_report import FORMS, Run
from federation.documents.catalog import Catalog
from federation.errors import Severity
from federation.explained import outcome
from federation.policy.index import PolicySets
from federation.policy.rule_coverage import Coverage
from federation.policy.rule_tests import Names, judge
from federation.sources.files import load
from federation.sources.rule_tests import RuleTests, load_rule_tests
from federation.text import nearest, no_command, quoted


@click.command()
@click.argument(
    "paths",
    metavar="[PATH]...",
    nargs=-1,
    type=click.Path(exists=True, path_type=Path),
)
@click.option("--only", "-k", multiple=True, help="Run the tests whose name has this text.")
@click.option("--coverage", is_flag=True, help="Show the rules that no test decided.")
@click.option(
    "--coverage-fail-under",
    "least",
    type=click.IntRange(0, 100),
    metavar="PERCENT",
    help="Fail if the tests decide less than this share of the rules, in percent.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMS)),
    default="text",
    show_default=True,
    help="text for people, json for programs, junit for test reports of CI systems, github for "
    "annotations in a workflow's log.",
)
@click.pass_context
def test(  # noqa: PLR0917  click passes them by name
    context: click.Context,
    paths: tuple[Path, ...],
    only: tuple[str, ...],
    coverage: bool,
    least: int | None,
    form: str,
) -> None:
    """
    Run the rule tests in the documents at PATH.

    A PATH is a file or a directory; all of them together are one set. Without one, the setting
    documents is tested, from FEDERATION_DOCUMENTS. docs/testing-rules.md says how to write a test.
    Exits with 0 if every test passed, and with 1 if one failed or has a mistake, if there is none,
    if the coverage is too low, or if the documents have errors.
    """
    paths = paths or documents_of_setting("give a PATH or set")
    run = _run(paths, only, coverage or least is not None)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a character
    click.echo(FORMS[form](run), color=colours())
    short = run.coverage is not None and run.coverage.percent < (least or 0)
    if short:
        click.echo(f"Error: tests decide less than {least} % of the rules", err=True)
    context.exit(1 if short or not run.passed else 0)


def _chosen(loaded: RuleTests, only: Iterable[str]) -> RuleTests:
    """Return the tests whose name has one of the texts *only*; all if there is none."""
    texts = tuple(only)
    if not texts:
        return loaded
    tests = [each for each in loaded.tests if any(text in each[0].name for text in texts)]
    if not tests:
        near = nearest(texts[0], [each.name for each, _ in loaded.tests])
        hint = f"; did you mean {near}?" if near else ""
        raise click.ClickException(
            no_command(f"no rule test has {quoted(texts[0])} in its name{hint}")
        )
    return replace(loaded, tests=tests)


def _run(paths: tuple[Path, ...], only: Iterable[str], coverage: bool) -> Run:
    """Return how the chosen tests went, or what is wrong with the documents."""
    assembled, loaded = load(paths), load_rule_tests(paths)
    if assembled.catalog is None:
        errors = (each for each in assembled.problems if each.severity is Severity.ERROR)
        return Run((), tuple(errors), began=False)
    if not loaded.found:
        raise click.ClickException(
            "no rule test was found; write documents of kind RuleTest beside the others"
        )
    run = _judged(assembled.catalog, _chosen(loaded, only))
    return replace(run, coverage=_coverage(assembled.catalog, run)) if coverage else run


def _judged(catalog: Catalog, loaded: RuleTests) -> Run:
    policies, names, now = PolicySets(), Names(catalog), time.time()
    results, problems = [], list(loaded.problems)
    for each, claims in loaded.tests:
        if wrong := list(names.problems(each)):
            problems += wrong
        else:
            results.append(judge(each, outcome(catalog, claims, policies, now=now), catalog))
    return Run(tuple(results), tuple(problems))


def _coverage(catalog: Catalog, run: Run) -> Coverage:
    coverage = Coverage(catalog)
    for result in run.results:
        coverage.note(result)
    return coverage
