"""The options of a command whose settings can also be given by environment variables."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import click
from pydantic.fields import FieldInfo

from federation.config.reading import Model, Reading, flag


def setting_options(reading: Reading[Model]) -> Callable[[click.Command], click.Command]:
    """
    Return a decorator that adds an option for each setting that *reading* reads.

    An option says its meaning, its default and its variable.
    """

    def with_options(command: click.Command) -> click.Command:
        for name, field in reading.model.model_fields.items():
            command.params.append(
                click.Option(
                    [flag(name), name],
                    multiple=name in reading.repeatable,
                    metavar="VALUE",
                    help=f"{field.description}{_default(field)} [{reading.variable(name)}]",
                )
            )
        return command

    return with_options


def _default(field: FieldInfo) -> str:
    default = field.default
    if field.is_required() or default in {None, (), ""}:
        return ""
    shown = f"{default.total_seconds():g}s" if isinstance(default, timedelta) else default
    return f" Default: {shown}."
