"""
Access tokens are renewed before they end: a refresh at the provider, then a new exchange.

However many requests and replicas see that a token is about to end, one of them renews it. With
rotating refresh tokens a second refresh would end the session at the provider. The one that
renews holds the session in the store. The others use the token that they have while it is good,
and else wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from federation.client import ClientError
from federation.dashboard.provider import ProviderInUse
from federation.dashboard.sessions import Record, Sessions
from federation.dashboard.token_endpoint import BrokerTokens, Refused
from federation.sign_on.oauth_errors import ProviderRefused, TokenRefused

_GOOD_SECONDS = 5.0
"""A token that lasts so long is still used while another request renews it."""
_HOLD_SECONDS = 45.0
"""Longer than a renewal takes. After it, another one may renew."""
_RENEWAL_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_MAY_PASS = frozenset({"temporarily_unavailable", "server_error", "slow_down", "keys_unavailable"})
"""Codes of a provider that cannot answer now."""


class Ended(Exception):
    """The session cannot go on. The message is a sentence for the person."""


class Renewal:
    """Renews the access tokens of *sessions*."""

    def __init__(
        self,
        sessions: Sessions,
        provider: ProviderInUse,
        broker: BrokerTokens,
        clock: Callable[[], float],
    ) -> None:
        self._sessions = sessions
        self._provider = provider
        self._broker = broker
        self._clock = clock
        self._running: set[asyncio.Task[Record]] = set()

    async def fresh(self, record: Record, caller: str = "") -> Record:
        """
        The session with an access token that is not about to end.

        Raises: Ended if it cannot be renewed. The session is over then.
        """
        while record.refresh_token and record.renew_at <= self._clock():
            hold = f"renews-{record.key}-{record.generation}"
            held = await self._sessions.store.hold(hold, self._clock() + _HOLD_SECONDS)
            if not held and self._is_good(record):
                return record
            if not held:
                await asyncio.sleep(_LOOK_SECONDS)
            # Another one may have renewed it, and given the hold back, since it was read.
            newest = await self._sessions.read(record.key)
            if newest is None:
                raise Ended("Your session has ended.")
            if held and newest.generation == record.generation:
                return await self._renewed(newest, hold, caller)
            record = newest
        return record

    async def aclose(self) -> None:
        """Let the renewals that are under way come to their end."""
        if self._running:
            await asyncio.wait(self._running)

    def _is_good(self, record: Record) -> bool:
        return record.access_expires > self._clock() + _GOOD_SECONDS

    async def _renewed(self, record: Record, hold: str, caller: str) -> Record:
        # The refresh token may be spent by now, so a caller that leaves must not stop the renewal.
        task = asyncio.create_task(self._renew(record, hold, caller))
        self._running.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Record]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left

    async def _renew(self, record: Record, hold: str, caller: str) -> Record:
        log = structlog.get_logger("federation.dashboard")
        try:
            async with asyncio.timeout(_RENEWAL_SECONDS):
                renewed = await self._renew_once(record, caller)
        except (ClientError, TimeoutError) as error:
            problem = error.problem if isinstance(error, ClientError) else "No answer in time."
            log.warning("session not renewed", session=record.shown, problem=problem)
            if not _is_final(error) and self._is_good(record):
                return record  # the hold stays for a while, so that the next try is not at once
            await self._sessions.end(record)
            raise Ended(f"Your session could not be renewed. {problem}") from error
        await self._sessions.store.delete(hold)
        log.info("session renewed", session=record.shown)
        return renewed

    async def _renew_once(self, record: Record, caller: str) -> Record:
        """Raises: ClientError; Ended if the session ended meanwhile."""
        provider = self._provider.current()
        tokens = await provider.refresh(record.refresh_token, record.subject)
        # Kept before the exchange: if that fails, the old refresh token may be spent already.
        record = replace(record, refresh_token=tokens.refresh_token or record.refresh_token)
        await self._keep(record, "")
        granted = await self._broker.exchange(tokens.subject_token, caller)
        record = replace(
            record,
            session=replace(record.session, access_token=granted.access_token),
            access_expires=granted.expires,
            renew_at=granted.renew_at,
            generation=record.generation + 1,
        )
        await self._keep(record, granted.access_token)
        return record

    async def _keep(self, record: Record, access_token: str) -> None:
        """Keep *record*. If its session was ended meanwhile, end its new tokens too."""
        if await self._sessions.replace(record):
            return
        if access_token:
            await self._broker.revoke(access_token)
        try:
            await self._provider.current().revoke(record.refresh_token)
        except ClientError as error:
            # It must not pass for a renewal that failed, after which the session would go on.
            log = structlog.get_logger("federation.dashboard")
            log.warning("a refresh token was not revoked at the provider", problem=error.problem)
        raise Ended("Your session has ended.")


def _is_final(error: Exception) -> bool:
    """Return True if the provider or the broker refused, so that another try would fail too."""
    match error:
        case ProviderRefused():
            return error.error not in _MAY_PASS
        case TokenRefused():
            return error.reason not in _MAY_PASS
        case Refused():
            return not error.temporary
    return False
