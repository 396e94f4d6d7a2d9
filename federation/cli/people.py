"""Shared by `login`, `token`, `whoami` and `logout`: the sessions, the gateway, and messages."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from federation.client import ClientError
from federation.client.faas_cli import config_path, save_token, saved_entries
from federation.sign_on.sessions import Session, Sessions, gateway_of
from federation.text import printable

gateway_option: Callable[[Callable[..., None]], Callable[..., None]] = click.option(
    "--gateway",
    "-g",
    envvar=["FEDERATION_URL", "OPENFAAS_URL"],
    help="The gateway's URL. Default: FEDERATION_URL, OPENFAAS_URL, or the only gateway that you"
    " have signed in to.",
)


def own_sessions() -> Sessions:
    """Return the sessions of the person who runs this."""
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    # XDG Base Directory Specification: a relative path is invalid and is ignored.
    config = given if given.is_absolute() else Path.home() / ".config"
    return Sessions(config / "federation")


def gateway_named(given: str | None, sessions: Sessions, *, signs_in: bool = False) -> str:
    """
    Return the gateway that is *given*, or else the only one that is known.

    *signs_in* is for the command that makes a gateway known.
    Raises: UsageError if the gateway has to be named; ClientError if nobody is signed in.
    """
    if given:
        return gateway_of(given)
    known = sessions.gateways() or sessions.known_gateways()
    if len(known) == 1:
        return known[0]
    if known:
        listed = "\n".join(f"  {gateway}" for gateway in known)
        raise click.UsageError(f"Say which gateway with --gateway:\n\n{listed}")
    if signs_in:
        raise click.UsageError("Say which gateway with --gateway, or set OPENFAAS_URL.")
    raise ClientError(
        "You are not signed in to any gateway.", "Sign in: federation login --gateway URL"
    )


def notice(line: str) -> None:
    """Tell *line*, which may hold foreign text, on standard error."""
    click.echo(printable(line), err=True)


@contextmanager
def told_errors() -> Iterator[None]:
    """End the command with the sentence of a ClientError, and exit code 1."""
    try:
        yield
    except ClientError as error:
        # A provider or a gateway may have worded a part of it.
        lines = map(printable, str(error).split("\n"))
        raise click.ClickException("\n".join(lines)) from error


def faas_cli_path() -> Path:
    """Return the configuration file that faas-cli reads here."""
    return config_path(os.environ, Path.cwd(), Path.home())


def require_faas_cli(gateway: str) -> None:
    """Check that the configuration of faas-cli can be read, if there is one. Raises: ClientError."""
    saved_entries(faas_cli_path(), gateway)


def sign_in_faas_cli(session: Session, sessions: Sessions) -> bool:
    """
    Save the access token of *session* for faas-cli, and tell which password it replaced.

    False if it cannot be saved, which is told too: the session is good without it.
    """
    with _told_of_faas_cli() as told:
        with sessions.faas_cli_locked():
            replaced = save_token(faas_cli_path(), session.gateway, session.access_token)
        for kind in replaced:
            if kind != "oauth2":
                notice(f"Notice: a saved {kind} login for {session.gateway} was replaced.")
    return not told


def renew_faas_cli(session: Session, sessions: Sessions) -> None:
    """
    Save the access token of *session* for faas-cli, unless it is there.

    A password that was saved meanwhile stays: somebody wanted it.
    """
    with _told_of_faas_cli():
        entries = saved_entries(faas_cli_path(), session.gateway)
        if entries == [("oauth2", session.access_token)]:
            return
        if all(auth == "oauth2" for auth, _ in entries):
            sign_in_faas_cli(session, sessions)


@contextmanager
def _told_of_faas_cli() -> Iterator[list[ClientError]]:
    """Tell why faas-cli cannot be signed in, and go on. The list has the error, if there was one."""
    errors: list[ClientError] = []
    try:
        yield errors
    except ClientError as error:
        errors.append(error)
        notice(f"Notice: faas-cli is not signed in. {error.problem} {error.advice}".rstrip())


def until(expires: float, now: float) -> str:
    """Return when something *expires*, for a person: the time of day, and how long that is."""
    moment = datetime.fromtimestamp(expires, tz=UTC).astimezone()
    today = datetime.fromtimestamp(now, tz=UTC).astimezone().date() == moment.date()
    shown = moment.strftime("%H:%M" if today else "%Y-%m-%d %H:%M")
    seconds = max(0, round(expires - now))
    if seconds < 120:
        return f"{shown}, for {seconds} seconds"
    minutes = round(seconds / 60)
    return (
        f"{shown}, for {minutes} minutes"
        if minutes < 120
        else f"{shown}, for {minutes // 60} hours"
    )
