"""
The command line: `federation` and its subcommands.

Each subcommand is a module that is imported when the command is called. `federation exchange`
in a CI job therefore neither loads nor needs the libraries of the server. Exit codes are 0 for
yes or done, 1 for no or problems found, and 2 for wrong use.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from federation import __version__

__all__ = ["main"]

_COMMANDS: Mapping[str, str] = {
    "serve": "Run the broker.",
    "demo": "Admit one CI job and refuse another, on this machine alone.",
    "check": "Find every problem in documents before they are live.",
    "explain": "Show what a token would be allowed, condition by condition.",
    "who-can": "Show which Roles give an access, and what a token must say.",
    "role": "Write the tightest sensible Role for a job's token.",
    "exchange": "Trade this CI job's ID token for an access token.",
    "login": "Sign in to a gateway with your browser.",
    "token": "Print an access token for the gateway that you signed in to.",
    "whoami": "Show who you are to a gateway, and what you may do.",
    "logout": "Sign out of a gateway.",
    "keys": "Make, list and rotate the broker's signing keys.",
    "audit": "Read, verify and deliver again the audit trail.",
    "convert": "Print documents in the form that a Kubernetes cluster takes.",
    "crds": "Print the CustomResourceDefinitions for a Kubernetes cluster.",
    "dashboard": "Run the pages where people sign in.",
    "admission": "Judge Kubernetes objects before they are kept.",
}
_DASHBOARD_LIBRARIES = frozenset({"jinja2", "joserfc", "markupsafe"})
"""The libraries that the extra `dashboard` has beyond those of `server`."""
_SERVER_LIBRARIES = frozenset(
    {"aiohttp", "cachetools", "httptools", "prometheus_client", "starlette", "uvicorn"}
)
"""The libraries of the extra `server`, which the plain install lacks."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        try:
            module = importlib.import_module(f"federation.cli.{cmd_name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            raise _missing_library(error, cmd_name) from error
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:  # some commands import their libraries late
            raise _missing_library(error, ctx.invoked_subcommand or "") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _missing_library(error: ModuleNotFoundError, command: str) -> Exception:
    """Return a sentence with the command to run if a library of the extra is missing."""
    if error.name not in _SERVER_LIBRARIES | _DASHBOARD_LIBRARIES:
        return error
    extra = "dashboard" if command == "dashboard" else "server"
    # The project of this name on PyPI is a stranger's, so the command must not install it.
    return click.ClickException(
        f"federation {command} needs {error.name}, which is not installed. Run in the checkout of"
        f" this project: pip install '.[{extra}]'"
    )


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="federation")
def main() -> None:
    """
    Let CI deploy without stored secrets, and people sign in as themselves.

    A broker that trades the signed identity token of a CI job, or of a person, for an access token.
    The access token expires after minutes and allows what named policies say.
    """
