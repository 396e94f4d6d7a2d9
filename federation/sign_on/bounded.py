"""
A transport whose answers are bounded in size and time, and never lead elsewhere.

Each request to a provider goes through here: metadata, keys, and everything that authlib's client
sends. A provider may be hostile or broken, and a person or a dashboard waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2

from federation import __version__
from federation.client import ClientError
from federation.client.connection import (
    ANSWER_BYTES,
    advice_on_transport,
    transport_problem,
)
from federation.client.http import server_of
from federation.outbound import TIMEOUT, NoCookies
from federation.outbound.limits import Compressed, TooLong, TooSlow

_HEADERS = {
    "Accept": "application/json",
    # Ask for no compression, so that a small answer cannot unpack to a large one.
    "Accept-Encoding": "identity",
    "User-Agent": f"federation/{__version__}",
}


class Bounded(httpx2.AsyncBaseTransport):
    """
    Sends by *http*, and reads the whole answer: at most 256 KiB within *seconds*.

    Raises: httpx2.RequestError, a LimitBroken if an answer breaks a limit.
    """

    def __init__(self, http: httpx2.AsyncClient, seconds: float) -> None:
        self._http = http
        self._seconds = seconds

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the whole answer. A redirect is an answer like any other: it is not followed."""
        try:
            async with asyncio.timeout(self._seconds):
                return await self._answer(request)
        except TimeoutError:
            raise TooSlow(request) from None

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise Compressed(request)
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES:
                    raise TooLong(request, ANSWER_BYTES // 1024)
        finally:
            await response.aclose()
        kept = [pair for pair in response.headers.multi_items() if pair[0] not in _FRAMING]
        return httpx2.Response(response.status_code, headers=kept, content=bytes(body))


_FRAMING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def client_of(transport: Bounded) -> httpx2.AsyncClient:
    """Return a client over *transport*. It holds nothing that must be closed."""
    return httpx2.AsyncClient(**client_arguments(transport))


def client_arguments(transport: Bounded) -> dict[str, Any]:
    """Return the arguments of a client over *transport*, authlib's or any other."""
    return {
        "transport": transport,
        "headers": _HEADERS,
        "timeout": TIMEOUT,
        "follow_redirects": False,
        "cookies": NoCookies(),
        "trust_env": False,  # proxies and CA are those of the client below
    }


def unreachable(error: httpx2.HTTPError | httpx2.InvalidURL, url: str) -> ClientError:
    """Return what to tell about *error*. Nothing of the request is in it but the server's name."""
    server = server_of(httpx2.URL(url))
    problem = transport_problem(error)
    if not isinstance(error, httpx2.TransportError):
        return ClientError(f"{server} answered what cannot be read: {problem}.")
    return ClientError(f"{server} could not be reached: {problem}.", advice_on_transport(problem))
