"""`federation demo`: run a broker and a few CI jobs on this machine, and show what they may do."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import click


@click.command()
@click.option("--keep", is_flag=True, help="Stay up afterwards, and print commands to try by hand.")
def demo(keep: bool) -> None:
    """
    Admit CI jobs and refuse others, on this machine alone.

    Starts a local CI issuer, a sample OpenFaaS gateway and a broker with sample documents on
    free loopback ports; runs jobs against them, deploys a function with the token one of them
    got, prints what happened and why, and stops. Needs no network.
    """
    click.echo()
    click.secho(
        "==> Starting a local CI issuer, a sample gateway, and a broker with sample documents",
        bold=True,
    )
    # The servers take a second to import: import them only after the first line is printed.
    from federation.demo.walkthrough import walk_through  # noqa: PLC0415

    with suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(walk_through(keep=keep, program=_program())))


def _program() -> str:
    """Return how this program is called in another shell of the same folder."""
    called = Path(sys.argv[0])
    if called.name == "federation" and shutil.which("federation") == str(called):
        return "federation"
    if called.name == "federation" and called.exists():
        return shlex.quote(str(called))
    return f"{shlex.quote(sys.executable)} -m federation"
