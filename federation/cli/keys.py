"""
`federation keys`: make, list and rotate the signing keys in the state directory.

The running broker must be able to read a new key. So keys are written as the user that the state
belongs to: root becomes that user first, and anybody else is told as whom to run the command.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from federation.ownership import ROOT_UID, Account, fault, keeper_of, shared_by_group
from federation.tokens.signing_keys import KeyFolder


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Report an error of the key folder as one sentence with exit code 1."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(fault(error)) from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error


@contextmanager
def _as_keeper(command: str, state: Path) -> Iterator[KeyFolder]:
    """Act as the user that *state* belongs to, and use its key folder."""
    with _one_line_errors():
        keeper, account = keeper_of(state), Account.current()
        if keeper.uid == account.uid:
            yield KeyFolder.under(state)
            _note_root(state)
        elif account.uid == ROOT_UID:
            try:
                with _become(keeper, state):
                    yield KeyFolder.under(_reached(state))
            except PermissionError as error:
                raise click.ClickException(
                    f"uid {keeper.uid}, which the state belongs to, cannot use {error.filename};"
                    f" run: chown -R {keeper.uid} {shlex.quote(str(state))}"
                ) from error
        elif shared_by_group(state.stat(), account):
            yield KeyFolder.under(state)  # a volume that has outlived the user of an earlier pod
        else:
            run = f"federation keys {command} --state {shlex.quote(str(state))}"
            raise click.ClickException(
                f"{state} belongs to uid {keeper.uid}, and the broker could not use a key of uid"
                f" {account.uid}; run: sudo -u '#{keeper.uid}' {run}"
            )


def _note_root(state: Path) -> None:
    """Say that a new key is root's, if nothing in *state* says as whom the broker runs."""
    if os.geteuid() == ROOT_UID and not (state / "state.db").exists():
        folder = shlex.quote(str(state))
        click.echo(
            f"Note: the key belongs to root, as {state} does. If the broker runs as another user, run:"
            f" chown -R USER {folder}",
            err=True,
        )


@contextmanager
def _become(user: Account, state: Path) -> Iterator[None]:
    """
    Give up root's rights for those of *user*, within the folder *state*.

    A folder that root writes to, while somebody else can put links into it, could be any folder.
    """
    before = Path.cwd(), os.getegid(), os.getgroups()
    # systemd keeps the state of a DynamicUser in a folder that root alone can go through.
    os.chdir(state)
    (group,) = user.groups
    os.setgroups([group])
    os.setegid(group)
    os.seteuid(user.uid)
    try:
        yield
    finally:
        os.seteuid(ROOT_UID)
        os.setegid(before[1])
        os.setgroups(before[2])
        os.chdir(before[0])


def _reached(state: Path) -> Path:
    """Return *state* by its own name, so that errors show it, or as the current folder."""
    try:
        return state if state.is_absolute() and state.samefile(".") else Path()
    except OSError:
        return Path()


_state = click.option(
    "--state",
    # Not `readable`, which would stop before the advice as whom to run the command.
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    default=Path(".federation"),
    show_default=True,
    envvar="FEDERATION_STATE",
    help="The broker's state directory. [FEDERATION_STATE]",
)


@click.group()
def keys() -> None:
    """
    Make, list and rotate the broker's signing keys.

    A running broker uses a change within seconds. Tokens signed by a retired key stay valid
    until they expire. New keys belong to the user that the state directory belongs to.
    """


@keys.command()
@_state
def generate(state: Path) -> None:
    """
    Make a key that is published but does not sign yet.

    Verifiers that cache keys can fetch it before `rotate` makes it sign. The very first key
    signs immediately.
    """
    with _as_keeper("generate", state) as folder:
        kid = folder.generate().kid
        folder.load()  # as the broker does it
    click.echo(kid)


@keys.command(name="list")
@_state
def list_keys(state: Path) -> None:
    """Show the status, the time of creation and the kid of each key."""
    with _one_line_errors():
        stored = KeyFolder.under(state, keeper_of(state)).list()
    if not stored:
        raise click.ClickException(
            f"no signing key under {state}; name the broker's folder with --state, or let"
            " `federation keys generate` make one"
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
    with _as_keeper("rotate", state) as folder:
        _, dropped = folder.rotate(datetime.now(UTC))
        signs = folder.load().signs  # as the broker does it
    for gone in dropped:
        click.echo(f"dropped  {gone.kid}", err=True)
    click.echo(f"{signs.kid} signs now")
    click.echo("A running broker uses it within 2 seconds.", err=True)
