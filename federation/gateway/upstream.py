"""
The gateway behind the broker: the ways to it, and the credentials of its API.

The API has connections of its own, so that calls of functions, which anybody may be allowed to
make, cannot use them up. Passwords and certificates are read from files, and again when they are
renewed; a file that cannot be used then leaves the last good one in place.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import structlog

from federation.gateway.client import ConnectionPool, Transport
from federation.gateway.refusals import UpstreamFailed
from federation.gateway.routes import Kind
from federation.outbound import OutboundError, TrustStore, machine_store, trusting
from federation.ownership import fault

_LOOK_SECONDS = 10.0
_API_SHARE = 4
"""The API has one in so many of the connections."""
_LOGS_SHARE = 8
"""Logs have one in so many: each that is followed holds its connection for as long as it lasts."""


class BasicAuth:
    """
    The upstream's user and password, from the files of a folder.

    At most every *look_seconds* it looks whether the files changed, and then reads them again.
    """

    def __init__(self, folder: Path, look_seconds: float = 1.0) -> None:
        self._files = tuple(folder / name for name in ("basic-auth-user", "basic-auth-password"))
        self._look_seconds = look_seconds
        self._next_look = 0.0
        """On the monotonic clock."""
        self._stamp: tuple[int, ...] = ()
        self._header = b""
        self._problem = ""

    def header(self) -> bytes:
        """
        The value of `Authorization` for the upstream.

        Raises: OSError or ValueError if a file cannot be read or is empty, and never could.
        """
        if time.monotonic() >= self._next_look:
            try:
                self._look()
                self._problem = ""
            except (OSError, ValueError) as error:
                if not self._header:
                    raise
                self._report(str(error))
            self._next_look = time.monotonic() + self._look_seconds
        return self._header

    def _look(self) -> None:
        stamp = tuple(file.stat().st_mtime_ns for file in self._files)
        if stamp == self._stamp:
            return
        read = [file.read_bytes().strip() for file in self._files]
        for file, content in zip(self._files, read, strict=True):
            if not content:
                raise ValueError(f"{file} is empty")
        self._header = b"Basic " + base64.b64encode(b":".join(read))
        self._stamp = stamp

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            structlog.get_logger("federation.gateway").error(
                "the upstream's password cannot be read; the last one is used", error=problem
            )
        self._problem = problem


@dataclass(frozen=True, slots=True)
class Tls:
    """The files by which the broker and the upstream know each other over https."""

    ca: Path | None = None
    """Instead of *trust*."""
    certificate: Path | None = None
    """Shown to the upstream."""
    key: Path | None = None
    trust: TrustStore | None = None
    """CAs trusted without *ca*: those of the environment, or the machine's own if None."""

    def stamp(self) -> tuple[int, ...]:
        """A value that changes when a file does."""
        return tuple(_changed_at(p) for p in (self.ca, self.certificate, self.key) if p)

    def context(self) -> ssl.SSLContext:
        """Return a new context of the files. Raises: OSError or ValueError with the file's name."""
        try:
            made = trusting(self.ca) if self.ca else (self.trust or machine_store()).context()
        except OutboundError as error:
            raise ValueError(str(error)) from error
        if self.certificate:
            try:
                made.load_cert_chain(self.certificate, self.key, password=_ask_nobody)
            except ssl.SSLError as error:
                raise ValueError(
                    f"{self.certificate} and {self.key} are not a certificate and its key"
                ) from error
        return made


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _ask_nobody() -> NoReturn:
    raise ValueError("the key is encrypted; give one that is not")


@dataclass(frozen=True, slots=True)
class Upstream:
    """The gateway behind the broker: the ways to it, and the password of its API."""

    api: Transport = field(repr=False)
    functions: Transport = field(repr=False)
    logs: Transport = field(repr=False)
    auth: BasicAuth | None
    """None if the API needs no password."""
    tls: Tls | None = None

    @classmethod
    def at(
        cls,
        url: str,
        *,
        connections: int,
        timeout_seconds: float,
        auth: BasicAuth | None = None,
        tls: Tls | None = None,
    ) -> Upstream:
        """
        The gateway at *url*. Of the *connections*, at least 3, a quarter is for the API, an eighth
        for logs, and the rest for calls of functions.

        Raises: OSError or ValueError for the files of *tls*.
        """
        context = tls.context() if tls else None
        for_api, for_logs = (max(1, connections // share) for share in (_API_SHARE, _LOGS_SHARE))
        api, functions, logs = (
            ConnectionPool(url, most, timeout_seconds, context)
            for most in (for_api, connections - for_api - for_logs, for_logs)
        )
        return cls(api, functions, logs, auth, tls)

    def renew(self) -> None:
        """
        Use the certificates that the files hold now for new connections.

        Raises: OSError or ValueError, and keeps the last good ones.
        """
        if self.tls is None:
            return
        context = self.tls.context()
        for pool in (self.api, self.functions, self.logs):
            if isinstance(pool, ConnectionPool):
                pool.tls = context

    async def follow_renewals(self, look_seconds: float = _LOOK_SECONDS) -> None:
        """Renew the certificates whenever their files change. A failure is logged once."""
        log = structlog.get_logger("federation.gateway")
        seen, problem = self.tls and self.tls.stamp(), ""
        while self.tls:
            await asyncio.sleep(look_seconds)
            now = self.tls.stamp()
            if now == seen and not problem:
                continue
            try:
                self.renew()
                log.info("certificates for the upstream renewed")
                seen, problem = now, ""
            except (OSError, ValueError) as error:
                if str(error) != problem:
                    log.error("certificates for the upstream cannot be used", error=str(error))
                problem = str(error)

    def authorization(self) -> bytes | None:
        """
        The value of `Authorization` for the API, None if it needs none.

        Raises: UpstreamFailed if the password cannot be read.
        """
        try:
            return self.auth.header() if self.auth else None
        except (OSError, ValueError) as error:
            why = fault(error) if isinstance(error, OSError) else str(error)
            raise UpstreamFailed(f"its password cannot be read: {why}") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self.api.aclose()
        await self.functions.aclose()
        await self.logs.aclose()

    def way_of(self, kind: Kind) -> Transport:
        """The connections for calls of *kind*."""
        if kind.streams:
            return self.functions
        return self.logs if kind is Kind.LOGS else self.api
