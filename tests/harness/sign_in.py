"""A whole sign-in at a fake provider, in one line, for tests of what comes before and after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from federation.sign_on.oauth_errors import TokenRefused
from federation.sign_on.provider import Client, OpenIdProvider, Pending, Tokens
from tests.harness.openid_provider import CLIENT_ID, FakeProvider

PUBLIC = Client(CLIENT_ID, "profile email")
REDIRECT_URI = "http://127.0.0.1:31111/oauth/callback"


async def opened(
    fake: FakeProvider,
    client: Client = PUBLIC,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> OpenIdProvider:
    """The provider *fake*, as *client* sees it."""
    return await OpenIdProvider.discover(fake.iss, client, fake.http(), fake.clock, pause)


async def sign_in(
    fake: FakeProvider, client: Client = PUBLIC, *, implicit: bool = False, sub: str = ""
) -> Tokens:
    """The tokens after a person signed in at *fake*."""
    provider = await opened(fake, client)
    pending = Pending.fresh(REDIRECT_URI)
    answer = fake.sign_in(provider.authorization_url(pending, implicit=implicit), sub)
    if implicit:
        return await provider.implicit_tokens(answer, pending)
    return await provider.redeem(provider.code_of(answer, pending), pending)


def refused(fake: FakeProvider, *, implicit: bool = False) -> str:
    """The reason for which the ID token of a sign-in at *fake* is refused."""
    with pytest.raises(TokenRefused) as caught:
        asyncio.run(sign_in(fake, implicit=implicit))
    return caught.value.reason
