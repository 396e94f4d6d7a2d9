"""
`federation who-can`: shows which Roles give an access, and what a token must say to get it.

It reads documents alone. `policy.who_can` finds the answer by the functions that decide requests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from federation.cli.documents import (
    catalog_in,
    documents_of_setting,
    documents_option,
    format_option,
)
from federation.documents.asked import asked_access
from federation.documents.catalog import Catalog
from federation.documents.listing import written_actions
from federation.policy.conditions import Condition
from federation.policy.permissions import Access
from federation.policy.who_can import WhatCan, WhoCan
from federation.policy.who_can import what_can as evaluate_role
from federation.policy.who_can import who_can as evaluate_access
from federation.text import did_you_mean, no_command, no_command_in_json, printable


@click.command()
@click.argument("action", required=False)
@click.argument("resource", required=False)
@click.option("--role", help="Show what this Role gives instead.")
@documents_option
@format_option
def who_can(
    action: str | None,
    resource: str | None,
    role: str | None,
    documents: tuple[Path, ...],
    output: str,
) -> None:
    """
    Show which Roles give ACTION on RESOURCE, for example Function:Create dev:figlet.

    Each with the policy and statement that says so, what a token must say to be admitted, and the
    Deny statements that may take the access away. Exit code 0 means that some token can get the
    access, 1 that none can.
    """
    if action and resource is None and "=" in action:  # as `explain --access` takes it
        action, _, resource = action.partition("=")
    if (role is None) == (action is None) or (action is None) != (resource is None):
        raise click.UsageError("give either ACTION and RESOURCE, or --role")
    access = None if action is None or resource is None else _access(action, resource)
    catalog = catalog_in(documents or documents_of_setting())
    found = evaluate_access(catalog, access) if access else _of_role(catalog, str(role))
    if output == "json":
        click.echo(no_command_in_json(json.dumps(found.as_json(), indent=2)))
    elif isinstance(found, WhoCan):
        _show(found)
    else:
        _show_role(found)
    yes = found.anybody if isinstance(found, WhoCan) else found.anything
    sys.exit(0 if yes else 1)


def _access(action: str, resource: str) -> Access:
    try:
        return asked_access(action, resource)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _of_role(catalog: Catalog, name: str) -> WhatCan:
    try:
        return evaluate_role(catalog, name)
    except KeyError as error:
        hint = did_you_mean(name, [role.name for role in catalog.all_roles])
        raise click.UsageError(f"no Role is called {printable(name, 80)}; {hint}") from error


def _show(found: WhoCan) -> None:
    for way in sorted(found.ways, key=lambda way: not way.open):  # who can, and then who cannot
        yes = click.style("yes", fg="green") if way.open else click.style("no ", fg="red")
        statement = way.statement
        named = click.style(way.role.name, bold=True)
        click.echo(f"{yes}  Role {named}  by {way.policy}/{statement.sid}")
        if way.role.shadow:
            click.echo("       a shadow Role: it is recorded, and admits nobody")
        _show_conditions(way.role.conditions, "token must say")
        _show_conditions((*statement.conditions, *way.reaches), "access token must say")
        for denial in way.denied_by:
            when = "always" if denial.always else "under conditions"
            brought = f", of Role {denial.role} where it admits too" if denial.role else ""
            click.echo(f"       denied by {denial.policy}/{denial.sid}  ({when}{brought})")
        if way.unless_narrowed:
            click.echo("       not where the job asks for some of its Roles with role")
        click.echo("")
    _show_notes(found.notes)
    if not found.anybody:
        click.echo("nobody can")


def _show_role(found: WhatCan) -> None:
    click.echo(f"Role {click.style(found.role.name, bold=True)}")
    _show_conditions(found.role.conditions, "token must say")
    for policy, statement in found.statements:
        actions = ", ".join(written_actions(statement.actions))
        resources = ", ".join(resource.text for resource in statement.resources)
        click.echo(f"\n{statement.effect}  {policy.name}/{statement.sid}")
        click.echo(f"       {actions}")
        click.echo(f"       {no_command(f'on {resources}')}")
        filled = ", ".join(found.filled(statement))
        if filled and filled != resources:
            click.echo(f"       {no_command(f'for this Role: {filled}')}")
        _show_conditions(statement.conditions, "access token must say")
    if found.notes:
        click.echo("")
    _show_notes(found.notes)


def _show_conditions(conditions: Iterable[Condition], heading: str) -> None:
    lines = [_condition(condition) for condition in conditions]
    if lines:
        click.echo(f"       {heading}")
    for line in lines:
        click.echo(f"         {line}")


def _condition(condition: Condition) -> str:
    values = " | ".join(condition.values)
    return no_command(f"{condition.operator} {condition.key}  {values}")


def _show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(no_command(f"note: {note}"))
