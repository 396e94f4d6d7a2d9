"""
`federation role`: writes Roles.

`from-token` prints the tightest sensible Role for a token or its claims. No signature is checked:
the command says what a token claims, so a person reads the Role before it is used.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import BinaryIO

import click

from federation.claims import UnverifiedClaims
from federation.cli.claims_file import claims_in, text_of
from federation.errors import Refusal
from federation.jose import jws
from federation.policy.role_for import role_for
from federation.text import no_command_in_json, printable


@click.group()
def role() -> None:
    """Write Roles."""


@role.command("from-token")
@click.argument("token", type=click.File("rb"), metavar="FILE|-")
@click.option(
    "--policy",
    default="deploy",
    show_default=True,
    help="The name of the Policy that the Role gives.",
)
@click.option(
    "--shadow",
    is_flag=True,
    help="Write a shadow Role, which is recorded and admits nobody, to watch it first.",
)
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="text: YAML, notes as comments. json: for a program.",
)
def from_token(token: BinaryIO, policy: str, shadow: bool, output: str) -> None:
    """
    Print the tightest sensible Role for the token in FILE, - for standard input.

    FILE holds a token, or its claims as a JSON object. No signature is checked. The Role names the
    owner and the project by id where the token has ids, the ref, and the environment if there is
    one. Exit code 1 means that no Role can admit the token.
    """
    drafted, notes = role_for(_claims(token), policy=policy)
    if drafted:
        drafted = replace(drafted, shadow=shadow)
    if output == "json":
        written = {"rule": drafted.yaml if drafted else None, "rule_notes": list(notes)}
        click.echo(no_command_in_json(json.dumps(written, indent=2)))
    else:
        for note in notes:
            click.echo(f"# {printable(note)}", err=drafted is None)
        if drafted:
            click.echo(drafted.yaml, nl=False)
    sys.exit(0 if drafted else 1)


def _claims(file: BinaryIO) -> UnverifiedClaims:
    """Read a token or claims. No message quotes them, since they may be a secret."""
    text = text_of(file)
    if text.startswith(("{", "[")):
        return claims_in(text, "FILE", so="alone")
    try:
        return jws.parse(text).claims
    except Refusal as refusal:
        raise click.UsageError(f"the file holds no token: {refusal.public}") from refusal
