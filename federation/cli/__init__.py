"""
The command line: `federation` and its subcommands.

Each subcommand is a module that is imported when the command is called. `federation exchange`
in a CI job therefore neither loads nor needs the libraries of the server. Exit codes are 0 for
yes or done, 1 for no or problems found, and 2 for wrong use.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from federation import __version__
from federation.distribution import how_to_install
from federation.logs import quiet_logs
from federation.text import nearest

__all__ = ["main"]

_COMMANDS: Mapping[str, str] = {
    "serve": "Run the broker.",
    "demo": "Admit one CI job and refuse another, on this machine alone.",
    "doctor": "Find what is wrong where the broker runs.",
    "init": "Write the documents, their tests and the workflow for a repository.",
    "check": "Find every problem in documents before they are live.",
    "test": "Run the rule tests beside the documents.",
    "explain": "Show what a token would be allowed, condition by condition.",
    "who-can": "Show which Roles give an access, and what a token must say.",
    "replay": "Decide what the audit trail recorded again, by other documents.",
    "role": "Write the tightest sensible Role for a job's token.",
    "claims": "Show what this CI job's ID token says.",
    "exchange": "Trade this CI job's ID token for an access token.",
    "login": "Sign in to a gateway with your browser.",
    "token": "Print an access token for the gateway that you signed in to.",
    "whoami": "Show who you are to a gateway, and what you may do.",
    "logout": "Sign out of a gateway.",
    "keys": "Make, list and rotate the broker's signing keys.",
    "audit": "Read, search and verify the audit trail, and deliver it again.",
    "convert": "Print documents in the form that a Kubernetes cluster takes.",
    "crds": "Print the CustomResourceDefinitions for a Kubernetes cluster.",
    "dashboard": "Run the pages where people sign in.",
    "admission": "Judge Kubernetes objects before they are kept.",
    "completion": "Print the script that completes commands in a shell.",
}
_MEANT: Mapping[str, str] = {
    **dict.fromkeys(("validate", "lint", "verify"), "check"),
    **dict.fromkeys(("tests", "rule-test", "coverage"), "test"),
    **dict.fromkeys(("run", "start", "server"), "serve"),
    **dict.fromkeys(("auth", "trade"), "exchange"),
    **dict.fromkeys(("signin", "sign-in"), "login"),
    **dict.fromkeys(("signout", "sign-out"), "logout"),
    **dict.fromkeys(("new", "create", "setup"), "init"),
    **dict.fromkeys(("log", "logs", "events"), "audit"),
    **dict.fromkeys(("key", "rotate"), "keys"),
    **dict.fromkeys(("help", "version"), "--{}"),
}
"""Words of other programs, each with the command that does the same here."""
_DASHBOARD_LIBRARIES = frozenset({"jinja2", "joserfc", "markupsafe"})
"""The libraries that the extra `dashboard` has beyond those of `server`."""
_SERVER_LIBRARIES = frozenset(
    {"cachetools", "httptools", "prometheus_client", "starlette", "uvicorn"}
)
"""The libraries of the extra `server`, which the plain install lacks."""

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class _Commands(click.Group):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if sys.stdin is None:  # it is closed, and is an empty file to a command that reads it
            sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  until the end
        try:
            return super().__call__(*args, **kwargs)
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            where = error.filename or "the output"
            click.echo(f"Error: {where} cannot be written: {error.strerror}", err=True)
            if sys.stdout is not None:  # it is open
                # Python would try to write the rest at its end, and complain once more.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        try:
            module = importlib.import_module(f"federation.cli.{cmd_name.replace('-', '_')}")
        except ModuleNotFoundError as error:
            if ctx.resilient_parsing:  # words are completed, so nobody reads an error
                return None
            raise _missing_library(error, cmd_name) from error
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            with quiet_logs():  # commands that serve configure them
                return super().invoke(ctx)
        except ModuleNotFoundError as error:  # some commands import their libraries late
            raise _missing_library(error, ctx.invoked_subcommand or "") from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        # An option is left to click, which names the nearest one.
        if word not in _COMMANDS and word[:1].isalnum() and not ctx.resilient_parsing:
            ctx.fail(_no_such_command(word))
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # Of click's own answer only the options are taken: it would import every command.
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [
            *(CompletionItem(n, help=h) for n, h in _COMMANDS.items() if n.startswith(incomplete)),
            *options,
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _no_such_command(word: str) -> str:
    near = _MEANT.get(word.lower(), "").format(word.lower()) or nearest(word, _COMMANDS)
    hint = f"Did you mean 'federation {near}'?" if near else "'federation --help' lists them all."
    return f"There is no command {word[:64]!r}. {hint}"


def _missing_library(error: ModuleNotFoundError, command: str) -> Exception:
    """Return a sentence with the command to run if a library of the extra is missing."""
    if error.name not in _SERVER_LIBRARIES | _DASHBOARD_LIBRARIES:
        return error
    extra = "dashboard" if command == "dashboard" else "server"
    return click.ClickException(
        f"federation {command} needs {error.name}, which is not installed. {how_to_install(extra)}"
    )


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="federation")
def main() -> None:
    """
    Let CI deploy without stored secrets, and people sign in as themselves.

    A broker that trades the signed identity token of a CI job, or of a person, for an access token.
    The access token expires after minutes and allows what named policies say.
    """
