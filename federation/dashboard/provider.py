"""
The provider that people sign in at, as the dashboard knows it at this moment.

It may be away when the dashboard starts, so its metadata is asked for again until it answers, and
then every hour. A failure keeps what is known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import structlog

from federation.client import ClientError
from federation.sign_on.provider import OpenIdProvider

_AGAIN_SECONDS = 5.0
_FRESH_SECONDS = 3600.0
_DISCOVERY_SECONDS = 15.0

Discover = Callable[[], Awaitable[OpenIdProvider]]


class ProviderInUse:
    """The provider, found by *discover*."""

    def __init__(self, discover: Discover) -> None:
        self._discover = discover
        self._known: OpenIdProvider | None = None
        self._changed = asyncio.Event()
        self.problem = "its metadata was not fetched yet"
        """The reason why the provider's metadata cannot be fetched, empty if it can."""

    @property
    def known(self) -> OpenIdProvider | None:
        """The provider, None while its metadata could not be fetched."""
        return self._known

    def current(self) -> OpenIdProvider:
        """The provider. Raises: ClientError while its metadata could not be fetched."""
        if self._known is None:
            raise ClientError(
                "The identity provider does not answer at the moment.", "Try again in a minute."
            )
        return self._known

    def sign_out_origin(self) -> str:
        """The origin at which the provider ends sessions, empty if it has none."""
        if self._known is None or not self._known.ends_sessions:
            return ""
        parts = urlsplit(self._known.sign_out_url(""))
        return f"{parts.scheme}://{parts.netloc}"

    async def refresh(self) -> bool:
        """Fetch the metadata again. Return whether it could be fetched."""
        log = structlog.get_logger("federation.dashboard")
        try:
            async with asyncio.timeout(_DISCOVERY_SECONDS):
                self._known = await self._discover()
        except (ClientError, TimeoutError) as error:
            problem = error.problem if isinstance(error, ClientError) else "no answer in time"
            if problem != self.problem:
                log.warning("the identity provider cannot be used", problem=problem)
            self.problem = problem
            return False
        if self.problem:
            log.info("the identity provider can be used", issuer=self._known.issuer)
        self.problem = ""
        return True

    def again(self) -> None:
        """Fetch the metadata soon, since the client's secret changed."""
        self._changed.set()

    async def follow(self) -> None:
        """Keep the metadata fresh, until cancelled."""
        while True:
            self._changed.clear()
            wait = _FRESH_SECONDS if await self.refresh() else _AGAIN_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
