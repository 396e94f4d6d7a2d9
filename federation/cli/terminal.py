"""Lines that a person reads at a terminal, or in the log of a job."""

from __future__ import annotations

import os

import click

from federation.text import no_command


def notice(line: str) -> None:
    """Print *line* on standard error. It may hold what a server said, so it is no command."""
    click.echo(no_command(f"Notice: {line}"), err=True)


def colours() -> bool | None:
    """Return False if NO_COLOR asks for it. With None, click colours only for a terminal."""
    return False if os.environ.get("NO_COLOR") else None
