"""`federation token`: print an access token of the person who signed in, renewed if needed."""

from __future__ import annotations

import time

import click

from federation.cli.people import (
    gateway_named,
    gateway_option,
    notice,
    own_sessions,
    renew_faas_cli,
    told_errors,
)
from federation.sign_on.live import live_session


@click.command()
@gateway_option
@click.option(
    "--min-life",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    help="Renew the token if it lives for fewer seconds than this.",
)
def token(*, gateway: str | None, min_life: float) -> None:
    """
    Print an access token for the gateway that you signed in to.

    A token that is about to expire is renewed first, for faas-cli too. No browser is ever opened,
    so scripts and credential helpers can call this, many at once: one of them renews, the others
    wait for it. The exit code is 1 if you have to sign in again.

    \b
      curl -H "Authorization: Bearer $(federation token)" https://gateway.example.com/…
    """
    with told_errors():
        sessions = own_sessions()
        named = gateway_named(gateway, sessions)
        session = live_session(sessions, named, min_life, time.time, notice)
        if session.access_expires - time.time() < min_life:
            notice(
                f"Notice: tokens of {named} live for {session.access_seconds:.0f} seconds, so this"
                " one is shorter than --min-life."
            )
        renew_faas_cli(session, sessions)
        click.echo(session.access_token)
