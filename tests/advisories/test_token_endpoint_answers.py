"""
The dashboard asks the broker for tokens, and whether it lives.

No answer may fill the memory of the dashboard, or lead it elsewhere.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest

from federation.client import ClientError
from federation.dashboard.health import Health
from federation.dashboard.provider import ProviderInUse
from federation.dashboard.token_endpoint import BrokerTokens, NoAnswer
from federation.sign_on.provider import OpenIdProvider
from federation.state.sessions import MemorySessions

URL = "https://gateway.example.com"
GRANTED = b'{"access_token": "granted", "expires_in": 900}'


def exchange(answer: Callable[[httpx2.Request], httpx2.Response]) -> str:
    """The access token that the dashboard takes from *answer*."""

    async def asked() -> str:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as http:
            granted = await BrokerTokens(URL, http, lambda: 1_800_000_000.0).exchange("id-token")
            return granted.access_token

    return asyncio.run(asked())


def test_a_grant_is_taken() -> None:
    assert exchange(lambda _request: httpx2.Response(200, content=GRANTED)) == "granted"


def test_a_compressed_answer_is_not_unpacked() -> None:
    """A few KiB could become gigabytes."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        packed = gzip.compress(GRANTED)
        return httpx2.Response(200, content=packed, headers={"content-encoding": "gzip"})

    with pytest.raises(NoAnswer):
        exchange(answer)
    assert asked[0].headers["accept-encoding"] == "identity"


class Endless:
    """An answer that never ends. It counts what is read of it."""

    def __init__(self) -> None:
        self.read = 0

    def __call__(self, _request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            self.read += 4096
            yield b" " * 4096
            await asyncio.sleep(0)  # so that a limit of time can end it, too


def test_a_grant_without_end_is_given_up() -> None:
    endless = Endless()
    with pytest.raises(NoAnswer):
        exchange(endless)
    assert endless.read <= 264 * 1024


def test_a_sign_of_life_without_end_is_given_up() -> None:
    endless = Endless()

    async def discover() -> OpenIdProvider:
        raise ClientError("It is away.")

    async def looked() -> str:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(endless)) as http:
            store = MemorySessions(time.time)
            return await Health(ProviderInUse(discover), store, URL, http).status()

    asyncio.run(asyncio.wait_for(looked(), 10))
    assert endless.read <= 264 * 1024


def test_a_redirect_is_not_followed() -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(307, headers={"location": "https://mallory.example.com/"})

    with pytest.raises(NoAnswer):
        exchange(answer)
    assert len(asked) == 1
