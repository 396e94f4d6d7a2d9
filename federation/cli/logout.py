"""`federation logout`: end a person's session, here, at the gateway and at the provider."""

from __future__ import annotations

import os
import sys
import time

import click

from federation.cli.people import (
    faas_cli_path,
    gateway_named,
    gateway_option,
    notice,
    own_sessions,
    told_errors,
)
from federation.client import ClientError
from federation.client.faas_cli import remove_token
from federation.client.http import Sender
from federation.sign_on.browser import open_browser, why_no_browser
from federation.sign_on.live import signed_in
from federation.sign_on.private_folder import Damaged
from federation.sign_on.sessions import Session, Sessions
from federation.sign_on.sign_out import end_there


@click.command()
@gateway_option
@click.option(
    "--no-browser", is_flag=True, help="Print the provider's sign-out page, and open none."
)
def logout(*, gateway: str | None, no_browser: bool) -> None:
    """
    Sign out of a gateway, and take faas-cli's token away.

    The access token is revoked at the gateway and the refresh token at the provider, and both are
    removed here. Then the provider's own page opens: as long as you are signed in there, your
    browser needs no password to sign in again.

    The tokens are removed here even if a server cannot be reached. Then the exit code is 1, and the
    message says which tokens are still valid.
    """
    with told_errors():
        sessions = own_sessions()
        named = gateway_named(gateway, sessions)
        with sessions.locked(named, notice):
            session = _session(sessions, named)
            with Sender(tell=notice, pause=lambda _seconds: None) as sender:
                ended = end_there(session, time.time, sender)
            failures = [*ended.failures, *_forget(session, sessions)]
    for failure in failures:
        notice(failure)
    if ended.sign_out_page:
        _show(ended.sign_out_page, no_browser=no_browser)
    if failures:
        raise click.ClickException(f"You are signed out of {named} here, but not everywhere.")
    notice(f"You are signed out of {named}.")


def _session(sessions: Sessions, gateway: str) -> Session:
    try:
        return signed_in(sessions, gateway)
    except Damaged as damaged:
        sessions.remove(gateway)
        raise ClientError(
            f"{damaged.problem} It was removed.",
            "Its tokens could not be revoked. They end by themselves.",
        ) from damaged


def _forget(session: Session, sessions: Sessions) -> list[str]:
    """Remove the tokens of *session* here. Return what could not be done."""
    failures = []
    try:
        with sessions.faas_cli_locked():
            remove_token(faas_cli_path(), session.gateway, session.access_token)
    except ClientError as error:
        failures.append(f"faas-cli was not signed out. {error.problem}")
    sessions.remove(session.gateway)
    return failures


def _show(page: str, *, no_browser: bool) -> None:
    if no_browser or why_no_browser(os.environ, sys.platform):
        notice("Your browser may still be signed in at the provider. To sign out there, open:")
    else:
        open_browser(page)
        notice("Your browser opens the provider's sign-out page. If it does not, open:")
    notice("")
    notice(f"  {page}")
    notice("")
