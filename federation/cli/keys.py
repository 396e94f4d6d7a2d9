"""`federation keys`: the signing keys in the state directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from federation.tokens.signing_keys import KeyFolder

__all__ = ["keys"]


@contextmanager
def _told_plainly() -> Iterator[None]:
    """Errors of the folder become one sentence and exit code 1."""
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

    A running broker follows within seconds. Tokens signed by a retired key stay good until
    they expire.
    """


@keys.command()
@_state
def generate(state: Path) -> None:
    """
    Make a key, published but not signing yet.

    Verifiers that cache keys can learn it before `rotate` lets it sign. The first key of all
    signs at once.
    """
    with _told_plainly():
        click.echo(KeyFolder.under(state).generate().kid)


@keys.command(name="list")
@_state
def list_keys(state: Path) -> None:
    """Show each key: what it does, since when it exists, its kid."""
    with _told_plainly():
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
    Let the next key sign, made now if there is none.

    A key that stopped signing more than 24 hours ago is dropped: no token of it can be alive.
    """
    with _told_plainly():
        key, dropped = KeyFolder.under(state).rotate(datetime.now(UTC))
    for gone in dropped:
        click.echo(f"dropped  {gone.kid}", err=True)
    click.echo(f"{key.kid} signs now")
