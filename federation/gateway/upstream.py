"""
The gateway behind the broker: how it is reached, and with whose credentials.

The upstream's own user and password are read from files and replace whatever the caller sent.
Redirects are never followed; an answer streams through as it comes.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

__all__ = ["Answer", "BasicAuth", "Headers", "Transport", "Upstream", "UpstreamFailed"]

Headers = Sequence[tuple[bytes, bytes]]


class UpstreamFailed(Exception):
    """The upstream gave no usable answer: *why*, for the operator; was it too slow?"""

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.timed_out = timed_out


@dataclass(frozen=True, slots=True)
class Answer:
    """The beginning of an upstream's answer, and its body as it comes, still encoded."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]
    end: Callable[[], Awaitable[None]]
    """Ends the request, whether its answer was read or not. It is always called."""
    whole: bytes | None = None
    """All of the body, where it came with the beginning; there is then no more in `body`."""


class BasicAuth:
    """
    User and password from the files of a folder, read again when they change.

    Whether they did is looked at after *look_seconds* at the earliest.
    """

    def __init__(self, folder: Path, look_seconds: float = 1.0) -> None:
        self._files = tuple(folder / name for name in ("basic-auth-user", "basic-auth-password"))
        self._look_seconds = look_seconds
        self._look = 0.0
        """When to look next, on the monotonic clock."""
        self._read: tuple[tuple[int, ...], bytes] | None = None

    def header(self) -> bytes:
        """
        The value of `Authorization` for the upstream.

        Raises: OSError where a file cannot be read.
        """
        if self._read is not None and time.monotonic() < self._look:
            return self._read[1]
        stamp = tuple(file.stat().st_mtime_ns for file in self._files)
        if self._read is None or self._read[0] != stamp:
            user, password = (file.read_bytes().strip() for file in self._files)
            self._read = stamp, b"Basic " + base64.b64encode(user + b":" + password)
        self._look = time.monotonic() + self._look_seconds
        return self._read[1]


class Transport(Protocol):
    """Carries requests to one gateway."""

    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
        *,
        seconds: float,
        endless: bool,
    ) -> Answer:
        """As `Upstream.send`."""

    async def aclose(self) -> None:
        """The connections are closed."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Sends canonical requests to one gateway; *timeout* is how long it may take to answer."""

    transport: Transport = field(repr=False)
    auth: BasicAuth | None
    timeout: timedelta

    def authorization(self) -> bytes | None:
        """
        The value of `Authorization` for the API, None where it has no password.

        Raises: UpstreamFailed where the files of the password cannot be read.
        """
        try:
            return self.auth.header() if self.auth else None
        except OSError as error:
            raise UpstreamFailed(f"its password cannot be read: {error}") from error

    async def send(
        self,
        method: str,
        target: bytes,
        headers: Headers,
        body: AsyncIterator[bytes] | bytes | None,
        *,
        endless: bool = False,
    ) -> Answer:
        """
        The beginning of the answer to one request.

        With *endless* the answer, once it has begun, may pause as long as it likes.
        Raises: UpstreamFailed.
        """
        seconds = self.timeout.total_seconds()
        return await self.transport.send(
            method, target, headers, body, seconds=seconds, endless=endless
        )

    async def aclose(self) -> None:
        """The connections are closed."""
        await self.transport.aclose()
