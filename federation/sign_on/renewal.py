"""
Renew a session: refresh at the provider, exchange at the gateway, without a browser.

One process renews at a time, under the lock of the gateway; every other caller waits, and finds the
renewed session. What each step gained is on disk before the next begins:

    refresh token sent → new refresh token and ID token written → ID token verified → exchanged →
    access token written

A process that is killed loses no more than the step that it was in. The renewal is a process of
its own (`outliving`), so only a crash of the whole machine can fall between the first two. Then the
old refresh token is tried again: many providers take it for some seconds more.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from federation.client.connection import open_async_client
from federation.client.exchange import AccessToken, BrokerRefused, exchange
from federation.client.http import Sender
from federation.errors import Reason
from federation.sign_on.client_secret import client_of
from federation.sign_on.live import SessionOver, signed_in
from federation.sign_on.oauth_errors import ProviderRefused, TokenRefused
from federation.sign_on.outliving import report, tell
from federation.sign_on.provider import OpenIdProvider
from federation.sign_on.sessions import (
    CLIENT_CREDENTIALS,
    Session,
    Sessions,
    with_refresh_token,
)
from federation.sign_on.tokens import Answered

_OVER = frozenset({"invalid_grant", "interaction_required", "login_required", "consent_required"})
"""By these a provider says that a person has to sign in again (Entra ID has the last three)."""
_SPENT = frozenset({Reason.ALREADY_USED, Reason.EXPIRED})


@dataclass
class Renewal:
    """One renewal of one session. The caller holds its lock."""

    sessions: Sessions
    session: Session
    clock: Callable[[], float]
    sender: Sender

    def run(self) -> Session:
        """Renew the session, and return it. Raises: ClientError."""
        while True:
            session, pending = self.session, self.session.received
            subject_token = asyncio.run(self._subject_token())
            try:
                granted = exchange(
                    session.gateway,
                    subject_token,
                    self.sender,
                    audience=audience_of(session.grant, session.settings.client_id),
                    roles=session.settings.roles,
                    person=True,
                )
            except BrokerRefused as refused:
                if pending and refused.reason in _SPENT:  # exchanged just before a kill
                    self._save(received="")
                    continue
                raise
            kept = "" if session.grant == CLIENT_CREDENTIALS else subject_token
            self._save(**granted_now(granted, self.clock()), id_token=kept, received="")
            return self.session

    async def _subject_token(self) -> str:
        """An ID token that was not exchanged yet, or the best that there is."""
        session = self.session
        async with open_async_client() as http:
            provider = await OpenIdProvider.discover(
                session.settings.authority, client_of(session.settings), http, self.clock
            )
            if session.received and (token := await self._still_good(provider, session.received)):
                return token
            if session.grant == CLIENT_CREDENTIALS:
                return (await provider.client_credentials()).subject_token
            if session.refresh_tokens:
                return await self._refreshed(provider)
            if session.id_token and (token := await self._still_good(provider, session.id_token)):
                return token
        raise self._over("it had no refresh token, and its ID token has expired")

    async def _refreshed(self, provider: OpenIdProvider) -> str:
        given = await self._answered(provider)
        # On disk before anything else is done with it: the refresh token that was sent is used up.
        self.session = with_refresh_token(self.session, given.refresh_token)
        self._save(received=given.id_token)
        if given.id_token:
            await provider.verify_refreshed(given.id_token, self.session.sub)
            return given.id_token
        # OpenID Connect Core, section 12.2: a refresh need not give an ID token.
        if token := await self._still_good(provider, self.session.id_token):
            return token
        raise self._over("the provider gives no new ID token, and the last has expired")

    async def _answered(self, provider: OpenIdProvider) -> Answered:
        """Return the provider's answer to the newest refresh token that it accepts. Not verified."""
        error = ""
        for refresh_token in self.session.refresh_tokens:
            try:
                return await provider.send_refresh(refresh_token)
            except ProviderRefused as refused:
                if refused.error not in _OVER:
                    raise
                error = refused.error
        raise self._over(f"{provider.issuer} does not renew it ({error})")

    async def _still_good(self, provider: OpenIdProvider, id_token: str) -> str:
        """*id_token* if it verifies, else an empty text."""
        try:
            await provider.verify_refreshed(id_token, self.session.sub)
        except TokenRefused as refused:
            if refused.reason == Reason.KEYS_UNAVAILABLE:
                raise  # it may be good
            return ""
        return id_token

    def _over(self, why: str) -> SessionOver:
        """Forget what is of no use any more, so that nobody asks the provider with it again."""
        self._save(refresh_tokens=(), id_token="", received="")
        return SessionOver(self.session.gateway, why)

    def _save(self, **changes: object) -> None:
        self.session = replace(self.session, **changes)  # type: ignore[arg-type]  # checked by use
        self.sessions.save(self.session)


def granted_now(granted: AccessToken, now: float) -> dict[str, object]:
    """Return the members of a session that *granted* changes."""
    return {
        "access_token": granted.token,
        "access_expires": now + granted.expires_in_seconds,
        "access_seconds": float(granted.expires_in_seconds),
    }


def audience_of(grant: str, client_id: str) -> str | None:
    """
    Return the audience that a subject token must have to be sent to the gateway.

    An ID token has the client id. The token that a client gets for itself has what its operator
    has set up for the gateway, which only the gateway can judge: None.
    """
    return None if grant == CLIENT_CREDENTIALS else client_id


def main(words: list[str]) -> int:
    """Renew the session for a gateway: the program that `live_session` runs."""

    def work() -> None:
        home, gateway = words
        sessions = Sessions(Path(home))
        with Sender(tell=tell) as sender:
            Renewal(sessions, signed_in(sessions, gateway), time.time, sender).run()

    return report(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
