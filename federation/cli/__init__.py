"""
The command line. Exit codes: 0 yes or done, 1 no or problems found, 2 wrong use.

One module a command; this one only gathers them, each imported when it is called for, so that
`federation exchange` in a CI job does not wait for what only a server needs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

import click

from federation import __version__

__all__ = ["main"]

_COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "serve": "Run the broker.",
        "demo": "Admit one CI job and refuse another, on this machine alone.",
        "check": "Find every problem in documents before they are live.",
        "explain": "Show what a token would be allowed, condition by condition.",
        "exchange": "Trade this CI job's ID token for an access token.",
        "keys": "Make, list and rotate the broker's signing keys.",
        "audit": "Read, verify and deliver again the audit trail.",
    }
)


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(
            importlib.import_module(f"federation.cli.{cmd_name}"), cmd_name
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="federation")
def main() -> None:
    """
    Let CI deploy without stored secrets.

    A broker that trades a CI job's signed identity token for an access token that lives for
    minutes and may do what named policies say.
    """
