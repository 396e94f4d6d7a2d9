"""
`federation check`: report every problem in a set of documents, with file and line.

It reads the files as `serve` does and needs no network. Names of files and text from documents are
printed on one line and without control characters, so that they cannot act on a terminal, and
never so that a CI runner takes them for a command.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from federation import __version__
from federation.cli.annotations import problem_annotation, sentence, subject
from federation.cli.documents import documents_of_setting, problem_as_json
from federation.cli.manual import page_of
from federation.cli.terminal import colours
from federation.client.docs import page_at
from federation.documents.assemble import Assembled
from federation.documents.codes import Code
from federation.documents.rules.lint import CODES
from federation.errors import Problem, Severity
from federation.sources.files import load
from federation.text import counted, no_command, no_command_in_json


@click.command()
@click.argument(
    "paths",
    metavar="[PATH]...",
    nargs=-1,
    type=click.Path(exists=True, path_type=Path),
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    show_default=True,
    help="text for people, json for programs, github for annotations in a workflow's log, "
    "sarif for code scanning.",
)
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.pass_context
def check(context: click.Context, paths: tuple[Path, ...], form: str, strict: bool) -> None:
    """
    Find every problem in the documents at PATH.

    A PATH is a file or a directory; all of them together are one set. Without one, the setting
    documents is checked, from FEDERATION_DOCUMENTS. Exits with 0 if `serve`
    would adopt the set, with 1 if not. docs/lint.md explains the codes that begin with T and W.
    """
    found = load(paths or documents_of_setting("give a PATH or set"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may lack a character
    forms = {"text": _as_text, "json": _as_json, "github": _as_github, "sarif": _as_sarif}
    click.echo(forms[form](found), color=colours())
    failed = any(strict or problem.severity is Severity.ERROR for problem in found.problems)
    context.exit(1 if failed else 0)


def _as_text(found: Assembled) -> str:
    return "\n".join(
        [*map(_coloured, found.problems), *_notes(found), *_see(found), _summary(found)]
    )


def _coloured(problem: Problem) -> str:
    label = f"{problem.severity}[{problem.code}]"
    colour = "red" if problem.severity is Severity.ERROR else "yellow"
    return no_command(str(problem)).replace(label, click.style(label, fg=colour, bold=True), 1)


def _summary(found: Assembled) -> str:
    errors = sum(problem.severity is Severity.ERROR for problem in found.problems)
    numbers = ((errors, "error"), (len(found.problems) - errors, "warning"))
    counts = ", ".join(counted(number, thing) for number, thing in numbers if number)
    documents = counted(found.documents, "document") if found.documents else "no documents"
    return f"{documents}: {counts or 'no problems'}"


def _see(found: Assembled) -> Sequence[str]:
    """Say how to learn more about the first problem, if there is one."""
    codes = [problem.code for problem in found.problems]
    return [f"For what {codes[0]} means, run: federation explain {codes[0]}"] if codes else []


def _notes(found: Assembled) -> Sequence[str]:
    return [no_command(f"note: {sentence}") for sentence in (*found.passed_over, *found.notes)]


def _as_json(found: Assembled) -> str:
    problems = [problem_as_json(problem) for problem in found.problems]
    told = {"passed_over": list(found.passed_over), "notes": list(found.notes)}
    told = {name: sentences for name, sentences in told.items() if sentences}
    return _json({"documents": found.documents, "problems": problems, **told})


def _json(value: Mapping[str, Any]) -> str:
    return no_command_in_json(json.dumps(value, indent=2))


def _as_github(found: Assembled) -> str:
    lines = map(problem_annotation, found.problems)
    return "\n".join([*lines, *_notes(found), *_see(found), _summary(found)])


def _as_sarif(found: Assembled) -> str:
    codes = sorted({problem.code for problem in found.problems})
    rules = [_sarif_rule(code) for code in codes]
    driver = {"name": "federation check", "version": __version__, "rules": rules}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(problem, codes) for problem in found.problems],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return _json({"$schema": schema, "version": "2.1.0", "runs": [run]})


def _sarif_rule(code: str) -> dict[str, Any]:
    title = CODES.get(code) or Code(code).name.lower().replace("_", " ")
    page = page_at(page_of(code), os.environ)
    address = {"helpUri": page} if page.startswith("http") else {}
    return {
        "id": code,
        "shortDescription": {"text": title},
        "help": {"text": f"{page} explains {code}; so does federation explain {code}."},
        **address,
        "defaultConfiguration": {"level": "warning" if code.startswith("W") else "error"},
    }


def _sarif_result(problem: Problem, codes: Sequence[str]) -> dict[str, Any]:
    about = subject(problem)
    return {
        "ruleId": problem.code,
        "ruleIndex": codes.index(problem.code),
        "level": problem.severity.value,
        "message": {"text": (f"{about}: " if about else "") + sentence(problem)},
        "locations": [_sarif_location(problem)] if problem.path else [],
    }


def _sarif_location(problem: Problem) -> dict[str, Any]:
    region = {"region": {"startLine": problem.line}} if problem.line else {}
    where = {"uri": quote(os.fsencode(Path(problem.path).as_posix()))}
    return {"physicalLocation": {"artifactLocation": where, **region}}
