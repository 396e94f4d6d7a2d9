"""`federation convert`: print documents in the form that a Kubernetes API server takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from federation.documents.kubernetes.list_form import rewritten, text
from federation.documents.parse import FILE_BYTES
from federation.errors import Problem
from federation.sources.files import contents
from federation.text import no_command

_STANDARD_INPUT = Path("-")


@click.command()
@click.argument(
    "paths",
    metavar="PATH...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, allow_dash=True, path_type=Path),
)
@click.pass_context
def convert(context: click.Context, paths: tuple[Path, ...]) -> None:
    """
    Print the documents at PATH in the form that a Kubernetes API server takes.

    A PATH is a file, a directory, or - for standard input. The older apiVersion becomes the
    present one, and a single value becomes a list of strings. Nothing else changes, but comments
    are lost. Exits with 1 if a document has an error, and if there is none.
    """
    files, problems = _read(paths)
    documents = []
    for path, data in files:
        made, errors = rewritten(path, data)
        documents += made
        problems += errors
    for problem in problems:
        click.echo(no_command(str(problem)), err=True)
    if problems:
        context.exit(1)
    if not documents:  # a mistyped path, and `kubectl apply` would have nothing to say
        raise click.ClickException(
            "no documents were found; name a file or directory that holds JwtIssuer, Role and"
            " Policy documents"
        )
    click.echo(text(documents), nl=False)


def _read(paths: Sequence[Path]) -> tuple[list[tuple[str, bytes]], list[Problem]]:
    files, problems = contents([path for path in paths if path != _STANDARD_INPUT])
    if _STANDARD_INPUT in paths:
        files.append(("-", sys.stdin.buffer.read(FILE_BYTES + 1)))
    return files, problems
