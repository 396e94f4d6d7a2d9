"""`federation login`: sign a person in, and faas-cli with them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from federation.cli.people import (
    gateway_named,
    gateway_option,
    notice,
    own_sessions,
    require_faas_cli,
    sign_in_faas_cli,
    told_errors,
    until,
)
from federation.client import ClientError
from federation.client.exchange import AccessToken, exchange
from federation.client.http import Sender
from federation.errors import Refusal
from federation.jose import jws
from federation.sign_on.browser import why_no_browser
from federation.sign_on.client_secret import client_of
from federation.sign_on.published import (
    published_settings,
    require_no_mix_up,
    require_reachable,
)
from federation.sign_on.renewal import audience_of
from federation.sign_on.sessions import CLIENT_CREDENTIALS, Session, Sessions, SignInSettings
from federation.sign_on.sign_in import GRANTS, SignedIn, SignIn, person_of


@dataclass(frozen=True, slots=True)
class Given:
    """The settings on the command line. None where there is none."""

    authority: str | None
    client_id: str | None
    client_secret_file: Path | None
    scopes: str | None
    grant: str | None
    port: int | None
    redirect_host: str | None
    roles: tuple[str, ...]


@click.command()
@gateway_option
@click.option("--authority", help="The provider's issuer URL. Default: what the gateway publishes.")
@click.option("--client-id", help="The client that was registered for the command line.")
@click.option(
    "--client-secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the client's secret, if it has one. Only the path is remembered.",
)
@click.option("--scope", help='Scopes to ask for, such as "openid email offline_access".')
@click.option(
    "--grant",
    type=click.Choice(GRANTS),
    help="The way to sign in. Default: auto, which is code where a browser can be opened, else"
    " device.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of this machine to which the browser comes back. Default: 31111; 0 picks a free one.",
)
@click.option(
    "--redirect-host",
    type=click.Choice(["127.0.0.1", "localhost", "::1"]),
    help="Host in the address to which the browser comes back. Default: 127.0.0.1.",
)
@click.option("--no-browser", is_flag=True, help="Print the address to open, and wait.")
@click.option(
    "--prompt", help="What the provider asks again: login, consent, select_account, none."
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    help="Let only this Role give anything. Policies with a Deny stay. Repeatable.",
)
@click.option("--print-token", is_flag=True, help="Print the access token too.")
@click.option(
    "--no-exchange",
    is_flag=True,
    help="For debugging: print the provider's ID token, send it nowhere, and save nothing.",
)
def login(
    *,
    gateway: str | None,
    authority: str | None,
    client_id: str | None,
    client_secret_file: Path | None,
    scope: str | None,
    grant: str | None,
    port: int | None,
    redirect_host: str | None,
    no_browser: bool,
    prompt: str | None,
    roles: tuple[str, ...],
    print_token: bool,
    no_exchange: bool,
) -> None:
    """
    Sign in to a gateway with your browser, for faas-cli too.

    \b
      federation login --gateway https://gateway.example.com
      faas-cli list --gateway https://gateway.example.com

    The gateway says at which provider people sign in. If it does not, give --authority and
    --client-id the first time. They are remembered for this gateway: the next time you need no
    options at all.

    Tokens are kept in a folder that only you can read. `federation token` renews them without a
    browser until the provider ends the session; `federation logout` ends it.

    A token goes to standard output, and everything else to standard error.
    """
    given = Given(
        authority, client_id, client_secret_file, scope, grant, port, redirect_host, roles
    )
    with told_errors():
        sessions = own_sessions()
        named = gateway_named(gateway, sessions, signs_in=True)
        stopped = threading.Event()
        with Sender(tell=notice, pause=_pause_until(stopped)) as sender:
            settings = _settings(named, given, sessions, sender)
            if not no_exchange:
                # Whatever would fail afterwards fails before the person has signed in.
                require_faas_cli(named)
                require_reachable(named, sender)
            exchanged = _Exchanged(named, settings, sender, sessions, stopped)
            finish: Callable[[SignedIn], Awaitable[SignedIn | Session]] = (
                _only_signed_in if no_exchange else exchanged
            )
            sign_in = SignIn(
                settings=settings,
                prompt=prompt or "",
                opens_browser=not no_browser,
                why_no_browser=why_no_browser(os.environ, sys.platform),
                clock=time.time,
                tell=notice,
                finish=finish,
                gateway=named,
                others=sessions.other_providers(settings, named),
            )
            done = asyncio.run(sign_in.run())
    if isinstance(done, SignedIn):
        click.echo(done.tokens.subject_token)
    elif print_token:
        click.echo(done.access_token)


def _settings(gateway: str, given: Given, sessions: Sessions, sender: Sender) -> SignInSettings:
    """Return how to sign in: by the options, else as last time, else as the gateway publishes."""
    if bool(given.authority) != bool(given.client_id):
        raise click.UsageError("--authority and --client-id go together: give both")
    if given.authority and given.client_id:
        settings = SignInSettings(given.authority, given.client_id)
    elif saved := sessions.settings_of(gateway):
        settings = saved
    else:
        settings = published_settings(gateway, sender)
        require_no_mix_up(settings, gateway, sessions)
        notice(
            f"{gateway} has people sign in at {settings.authority} as the client"
            f" {settings.client_id}. It will get the ID token that says who you are."
        )
    if given.client_secret_file and settings.published:
        raise click.UsageError(
            "a client secret is not sent to a provider that a gateway named:"
            " give --authority and --client-id too"
        )
    settings = replace(settings, **_changes(given))
    if settings.grant == CLIENT_CREDENTIALS and not settings.client_secret_file:
        raise click.UsageError("--grant client-credentials needs --client-secret-file")
    client_of(settings)  # before the browser opens
    return settings


def _changes(given: Given) -> dict[str, Any]:
    secret_file = given.client_secret_file
    changes: dict[str, Any] = {
        "client_secret_file": str(secret_file.absolute()) if secret_file else None,
        "scopes": given.scopes,
        "grant": given.grant,
        "port": given.port,
        "redirect_host": given.redirect_host,
        "roles": given.roles or None,
    }
    return {name: value for name, value in changes.items() if value is not None}


async def _only_signed_in(signed_in: SignedIn) -> SignedIn:
    return signed_in


@dataclass(frozen=True, slots=True)
class _Exchanged:
    """Exchanges the ID token of a person, saves the session, and tells what was gained."""

    gateway: str
    settings: SignInSettings
    sender: Sender
    sessions: Sessions
    stopped: threading.Event

    async def __call__(self, signed_in: SignedIn) -> Session:
        try:
            # In a thread, so that the browser's page is served meanwhile, and Ctrl-C is heard.
            granted = await asyncio.to_thread(self._exchange, signed_in)
        except BaseException:
            self.stopped.set()
            raise
        session = self._session(signed_in, granted)
        with self.sessions.locked(self.gateway, notice):
            self.sessions.remember(self.gateway, self.settings)
            self.sessions.save(session)
        # Its session is kept. An error now would have the refresh token of it revoked.
        _tell(session, faas_cli=sign_in_faas_cli(session, self.sessions))
        return session

    def _exchange(self, signed_in: SignedIn) -> AccessToken:
        return exchange(
            self.gateway,
            signed_in.tokens.subject_token,
            self.sender,
            audience=audience_of(signed_in.grant, self.settings.client_id),
            roles=self.settings.roles,
            person=True,
        )

    def _session(self, signed_in: SignedIn, granted: AccessToken) -> Session:
        tokens = signed_in.tokens
        now = time.time()
        return Session(
            gateway=self.gateway,
            settings=self.settings,
            issuer=signed_in.issuer,
            sub=str(tokens.claims["sub"]),
            person=person_of(tokens.claims),
            grant=signed_in.grant,
            signed_in=now,
            access_token=granted.token,
            access_expires=now + granted.expires_in_seconds,
            access_seconds=float(granted.expires_in_seconds),
            id_token=tokens.id_token,
            refresh_tokens=(tokens.refresh_token,) if tokens.refresh_token else (),
        )


def _tell(session: Session, *, faas_cli: bool) -> None:
    """Tell who signed in, what for, until when, and what comes next."""
    claims = _claims(session.access_token)
    notice(f"You are signed in to {session.gateway} as {session.person}.")
    notice(f"  roles     {_listed(claims.get('role'))}")
    notice(f"  policies  {_listed(claims.get('policy'))}")
    notice(f"  until     {until(session.access_expires, time.time())}")
    if session.refresh_tokens or session.grant == CLIENT_CREDENTIALS:
        notice("  then      federation token renews it, without a browser")
    else:
        notice(
            "  then      sign in again: the provider gave no refresh token. Many give one for"
            ' --scope "openid profile email offline_access".'
        )
    notice("")
    if faas_cli:
        notice(f"faas-cli is signed in too:  faas-cli list --gateway {session.gateway}")
    notice("What you may do:            federation whoami")


def _claims(token: str) -> Mapping[str, object]:
    try:
        return jws.parse(token).claims
    except Refusal:
        return {}


def _listed(names: object) -> str:
    return ", ".join(map(str, names)) if isinstance(names, list) and names else "none"


def _pause_until(stopped: threading.Event) -> Callable[[float], None]:
    """A pause between two tries that ends when the command was stopped."""

    def pause(seconds: float) -> None:
        if stopped.wait(seconds):
            raise ClientError("It was stopped.")

    return pause
