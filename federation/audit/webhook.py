"""
The receiver of audit events, in OpenFaaS's format: one POST for each batch, signed by a secret.

Only a 2xx answer counts. Every other outcome is `NotDelivered`, in words that hold no secret.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2

from federation import __version__
from federation.audit.connect_only import connect_only
from federation.outbound import Outbound, OutboundError, trusting
from federation.outbound.failures import failure

_TIMEOUT = httpx2.Timeout(15.0, connect=5.0)
_TOTAL_SECONDS = 15.0
_CA = "audit-webhook-ca, or SSL_CERT_FILE"
_ANSWER_BYTES = 64 * 1024
_SECRET_BYTES = 4096
_HEADER_LINE = re.compile(
    rb"(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?P<value>[!-~]([ \t!-~]*[!-~])?)"
)
_OWN_HEADERS = re.compile(
    r"(?i)x-openfaas-.*|content-.*|transfer-encoding|host|connection|accept-encoding"
)
_LONGEST_RETRY_AFTER_SECONDS = 300.0


class NotDelivered(Exception):
    """The webhook did not accept a batch."""

    def __init__(
        self, why: str, *, status: int | None = None, retry_after_seconds: float = 0.0
    ) -> None:
        super().__init__(why)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class Webhook:
    """
    Sends batches to the receiver at *url*.

    *header* is a file with one more header line, such as `Authorization: …`. It and the secret are
    read for each batch and the CA for each new client, so that they can be changed while the broker
    runs. The way to the receiver is that of *outbound*; without it, it is asked directly.
    """

    def __init__(
        self,
        url: str,
        *,
        secret: Path | None = None,
        header: Path | None = None,
        ca: Path | None = None,
        outbound: Outbound | None = None,
        total_seconds: float = _TOTAL_SECONDS,
    ) -> None:
        self._url = url
        self._secret = secret
        self._header = header
        self._ca = ca
        self._outbound = outbound or Outbound()
        self._total_seconds = total_seconds
        self._client: httpx2.AsyncClient | None = None
        self._renewing = False

    def __repr__(self) -> str:
        return f"<Webhook at {self.host}>"

    @property
    def host(self) -> str:
        """The host. The rest of the URL may hold a secret and is never logged."""
        return httpx2.URL(self._url).host

    async def post(self, body: bytes, delivery_id: str) -> None:
        """Send *body* and wait for a 2xx answer. Raises: NotDelivered."""
        if self._renewing:
            self._renewing = False
            await self.aclose()
        try:
            headers = self._headers(body, delivery_id)
            client = self._client = self._client or self._connect()
            async with asyncio.timeout(self._total_seconds):
                await self._send(client, body, headers)
        except NotDelivered:
            raise
        except TimeoutError as error:
            await self.aclose()
            raise NotDelivered(f"no whole answer within {self._total_seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, OutboundError) as error:
            await self.aclose()  # a new client reads the CA and the DNS name again
            raise NotDelivered(failure(error, ca=_CA)) from error

    async def reach(self) -> None:
        """
        Connect to the receiver as `post` does, and send it nothing.

        Raises: NotDelivered, also if the secret or the extra header cannot be read.
        """
        self._headers(b"", "")
        try:
            client = self._client = self._client or self._connect()
            async with asyncio.timeout(self._total_seconds):
                await connect_only(client, self._url)
        except TimeoutError as error:
            raise NotDelivered(f"no connection within {self._total_seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, OutboundError) as error:
            raise NotDelivered(failure(error, ca=_CA)) from error

    def renew(self) -> None:
        """Make the next batch go over a new connection, which reads the CA again."""
        self._renewing = True

    async def aclose(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client:
            await client.aclose()

    def _connect(self) -> httpx2.AsyncClient:
        """Raises: OutboundError if the CA cannot be used."""
        context = trusting(self._ca) if self._ca else None
        return self._outbound.async_client(context=context, timeout=_TIMEOUT)

    async def _send(self, client: httpx2.AsyncClient, body: bytes, headers: dict[str, str]) -> None:
        async with client.stream("POST", self._url, content=body, headers=headers) as response:
            read = 0
            async for chunk in response.aiter_raw():
                read += len(chunk)
                if read > _ANSWER_BYTES:
                    break
        if not response.is_success:
            raise NotDelivered(
                f"HTTP {response.status_code}",
                status=response.status_code,
                retry_after_seconds=_retry_after(response),
            )

    def _headers(self, body: bytes, delivery_id: str) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"federation/{__version__}",
            "X-Openfaas-Event": "api_access",
            "X-Openfaas-Delivery": delivery_id,
        }
        if self._secret is not None:
            digest = hmac.new(_read_secret(self._secret), body, hashlib.sha256).hexdigest()
            headers["X-Openfaas-Signature-256"] = f"sha256={digest}"
        if self._header is not None:
            try:
                name, value = read_header(self._header)
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise NotDelivered(f"the extra header cannot be read: {why}") from error
            headers[name] = value
        return headers


def _read_secret(path: Path) -> bytes:
    """
    Return the secret in *path* without the one line end that editors add.

    Raises: NotDelivered, because a batch that should be signed is not sent unsigned.
    """
    try:
        with path.open("rb") as file:
            secret = file.read(_SECRET_BYTES + 1)
    except OSError as error:
        raise NotDelivered(f"the secret cannot be read: {error.strerror}") from error
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret or len(secret) > _SECRET_BYTES:
        raise NotDelivered("the file with the secret is empty or larger than 4 KiB")
    return secret


def read_header(path: Path) -> tuple[str, str]:
    """
    Return name and value of the one header line in *path*.

    No message quotes the line, which may be a secret. Raises: OSError, ValueError.
    """
    with path.open("rb") as file:
        text = file.read(_SECRET_BYTES + 1)
    line = _HEADER_LINE.fullmatch(text.removesuffix(b"\n").removesuffix(b"\r"))
    if not line or len(text) > _SECRET_BYTES:
        raise ValueError(f"{path} must hold one line such as Authorization: Bearer …, up to 4 KiB")
    name = line["name"].decode("ascii")
    if _OWN_HEADERS.fullmatch(name):
        raise ValueError(f"{path} must not set {name}, which the broker sets itself")
    return name, line["value"].decode("ascii")


def _retry_after(response: httpx2.Response) -> float:
    """Return the seconds of `Retry-After` (RFC 9110, section 10.2.3), within a bound."""
    given = response.headers.get("retry-after", "").strip()
    if given.isdecimal() and len(given) < 10:
        seconds = float(given)
    else:
        try:
            moment = parsedate_to_datetime(given)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            seconds = (moment - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)
