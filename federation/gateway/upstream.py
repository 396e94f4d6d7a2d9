"""
The gateway behind the broker: how it is reached, and with whose credentials.

The upstream's own user and password are read from files and replace whatever the caller sent.
Redirects are never followed; an answer streams through as it comes.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx

__all__ = ["Answer", "BasicAuth", "Upstream", "UpstreamFailed"]

_CONNECT_SECONDS = 5.0

Headers = Sequence[tuple[bytes, bytes]]


class UpstreamFailed(Exception):
    """The upstream gave no answer. *timed_out* says whether it was too slow or not there."""

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__("too slow" if timed_out else "not reached")
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of an upstream's answer, and its body as it comes, still encoded."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]


class BasicAuth:
    """User and password from the files of a folder, read again when they change."""

    def __init__(self, folder: Path) -> None:
        self._files = tuple(folder / name for name in ("basic-auth-user", "basic-auth-password"))
        self._read: tuple[tuple[int, ...], bytes] | None = None

    def header(self) -> bytes:
        """
        The value of `Authorization` for the upstream.

        Raises: OSError where a file cannot be read.
        """
        stamp = tuple(file.stat().st_mtime_ns for file in self._files)
        if self._read is None or self._read[0] != stamp:
            user, password = (file.read_bytes().strip() for file in self._files)
            self._read = stamp, b"Basic " + base64.b64encode(user + b":" + password)
        return self._read[1]


@dataclass(slots=True)
class Upstream:
    """Sends canonical requests to one gateway."""

    url: str
    auth: BasicAuth | None
    client: httpx.AsyncClient = field(repr=False)
    timeout: timedelta

    @classmethod
    def at(
        cls, url: str, auth: BasicAuth | None, *, timeout: timedelta, connections: int
    ) -> Upstream:
        """The gateway at *url*; *timeout* is how long it may take to begin an answer."""
        client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            trust_env=False,  # a proxy of the environment would see the upstream's password
        )
        # What the caller did not send is not added: the upstream would answer it, not us.
        for name in ("accept", "accept-encoding", "user-agent"):
            del client.headers[name]
        return cls(url, auth, client, timeout)

    def authorization(self) -> bytes | None:
        """
        The value of `Authorization` for the API, None where it has no password.

        Raises: UpstreamFailed where the files of the password cannot be read.
        """
        try:
            return self.auth.header() if self.auth else None
        except OSError as error:
            raise UpstreamFailed(timed_out=False) from error

    @asynccontextmanager
    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
        *,
        endless: bool = False,
    ) -> AsyncIterator[Answer]:
        """
        The answer to one request; leaving the context ends the request, finished or not.

        With *endless* the answer, once it has begun, may pause as long as it likes.
        Raises: UpstreamFailed.
        """
        seconds = self.timeout.total_seconds()
        request = self.client.build_request(
            method,
            self.url,
            headers=list(headers),
            content=body,
            # As it was decided about, to the byte: the library would write it in its own way.
            extensions={"target": target},
            timeout=httpx.Timeout(
                seconds, connect=_CONNECT_SECONDS, read=None if endless else seconds
            ),
        )
        try:
            async with asyncio.timeout(seconds if endless else None):
                response = await self.client.send(request, stream=True)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise UpstreamFailed(timed_out=True) from error
        except httpx.TransportError as error:
            raise UpstreamFailed(timed_out=False) from error
        try:
            yield Answer(response.status_code, response.headers.raw, _body(response))
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """The connections are closed."""
        await self.client.aclose()


async def _body(response: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            yield piece
    except httpx.TimeoutException as error:
        raise UpstreamFailed(timed_out=True) from error
    except httpx.TransportError as error:
        raise UpstreamFailed(timed_out=False) from error
