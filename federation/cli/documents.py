"""The documents that a command reads (those of its options, else of the setting), and how it answers."""

from __future__ import annotations

import os
from pathlib import Path

import click

from federation.documents.catalog import Catalog
from federation.errors import Problem
from federation.sources.files import load
from federation.text import no_command

DOCUMENTS_VARIABLE = "FEDERATION_DOCUMENTS"

documents_option = click.option(
    "--documents",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="File or directory of documents; may be given more than once. Default: the setting"
    f" documents, from {DOCUMENTS_VARIABLE}.",
)
"""The option of commands that read documents. Without it they take `documents_of_setting`."""

format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For a person or for a program.",
)
"""The option of commands that answer a question about documents."""


def documents_of_setting(otherwise: str = "set --documents or") -> tuple[Path, ...]:
    """
    Return the paths of the setting `documents`, as `serve` reads it from its variable.

    Raises: click.UsageError if it is not set, which begins with *otherwise*, or if a path is not there.
    """
    given = os.environ.get(DOCUMENTS_VARIABLE)
    if not given:
        raise click.UsageError(f"{otherwise} {DOCUMENTS_VARIABLE}")
    paths = tuple(Path(path) for path in given.split(os.pathsep))
    for path in paths:
        if not path.exists():
            raise click.UsageError(f"{path} of {DOCUMENTS_VARIABLE} does not exist")
    return paths


def catalog_in(paths: tuple[Path, ...]) -> Catalog:
    """Return the documents at *paths*. Every error is printed before click's exception is raised."""
    assembled = load(paths)
    if assembled.catalog is None:
        for problem in assembled.problems:
            click.echo(no_command(str(problem)), err=True)
        raise click.ClickException("the documents have errors")
    return assembled.catalog


def problem_as_json(problem: Problem) -> dict[str, object]:
    """Return *problem* as the commands with `--format json` write it."""
    return {
        "path": problem.path,
        "line": problem.line,
        "kind": problem.kind,
        "name": problem.name,
        "field": problem.field,
        "code": problem.code,
        "severity": problem.severity,
        "message": problem.message,
        "hint": problem.hint,
    }
