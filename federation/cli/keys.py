"""`federation keys`: make, list and rotate the signing keys in the state directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from federation.tokens.signing_keys import KeyFolder


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Report an error of the key folder as one sentence with exit code 1."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from error


_state = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".federation"),
    show_default=True,
    envvar="FEDERATION_STATE",
    help="The broker's state directory.",
)


@click.group()
def keys() -> None:
    """
    Make, list and rotate the broker's signing keys.

    A running broker uses a change within seconds. Tokens signed by a retired key stay valid
    until they expire.
    """


@keys.command()
@_state
def generate(state: Path) -> None:
    """
    Make a key that is published but does not sign yet.

    Verifiers that cache keys can fetch it before `rotate` makes it sign. The very first key
    signs immediately.
    """
    with _one_line_errors():
        click.echo(KeyFolder.under(state).generate().kid)


@keys.command(name="list")
@_state
def list_keys(state: Path) -> None:
    """Show the status, the time of creation and the kid of each key."""
    with _one_line_errors():
        stored = KeyFolder.under(state).list()
    if not stored:
        raise click.ClickException(
            f"no signing key under {state}; `federation keys generate` makes one"
        )
    for entry in stored:
        click.echo(f"{entry.status:<8} {entry.made:%Y-%m-%dT%H:%M:%SZ} {entry.key.kid}")


@keys.command()
@_state
def rotate(state: Path) -> None:
    """
    Sign with the next key. If there is none, make it now.

    A key that stopped signing more than 24 hours ago is deleted, because every token that it
    signed has expired.
    """
    with _one_line_errors():
        key, dropped = KeyFolder.under(state).rotate(datetime.now(UTC))
    for gone in dropped:
        click.echo(f"dropped  {gone.kid}", err=True)
    click.echo(f"{key.kid} signs now")
