"""
End a session: at the gateway, at the provider, in faas-cli's configuration, and here.

Each step is tried, even if the one before failed. The failures are returned: a token that was not
revoked is valid until it expires, and the person should know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from federation.client import ClientError
from federation.client.connection import open_async_client
from federation.client.http import Sender, server_of
from federation.sign_on.client_secret import client_of
from federation.sign_on.provider import OpenIdProvider
from federation.sign_on.sessions import CLIENT_CREDENTIALS, Session


@dataclass(frozen=True, slots=True)
class EndedThere:
    """The outcome of a sign-out at the gateway and at the provider."""

    failures: tuple[str, ...]
    sign_out_page: str
    """URL of the page where the provider ends its own session; empty if it names none."""


def end_there(session: Session, clock: Callable[[], float], sender: Sender) -> EndedThere:
    """Revoke the tokens of *session* at the gateway and at the provider."""
    failures, page = [], ""
    if session.access_expires > clock():
        try:
            _revoke_at_gateway(session, sender)
        except ClientError as error:
            failures.append(
                f"The access token was not revoked at {session.gateway}. {error.problem}"
            )
    try:
        page = asyncio.run(_end_at_provider(session, clock))
    except ClientError as error:
        what = "The refresh token was not revoked" if session.refresh_tokens else "It was not asked"
        failures.append(f"{what} at {session.issuer}. {error.problem}")
    return EndedThere(tuple(failures), page)


def _revoke_at_gateway(session: Session, sender: Sender) -> None:
    form: dict[str, str | list[str]] = {"token": session.access_token}
    response = sender.send("POST", f"{session.gateway}/oauth/revoke", form=form)
    if response.status_code != httpx2.codes.OK:
        raise ClientError(f"{server_of(response.url)} answered HTTP {response.status_code}.")


async def _end_at_provider(session: Session, clock: Callable[[], float]) -> str:
    """Revoke the refresh tokens, and return the address of the sign-out page."""
    if session.grant == CLIENT_CREDENTIALS:
        return ""  # there is neither a refresh token nor a person
    async with open_async_client() as http:
        provider = await OpenIdProvider.discover(
            session.settings.authority, client_of(session.settings), http, clock
        )
        for refresh_token in session.refresh_tokens[:1]:
            if not await provider.revoke(refresh_token):
                raise ClientError("It says nowhere how to (RFC 7009).")
        # No hint: the ID token would stand in the browser's history and in the list of processes.
        # Without one, the provider asks the person before it ends the session.
        return provider.sign_out_url("")
