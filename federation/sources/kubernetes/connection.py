"""
The connection to a Kubernetes API server: requests with a token and a CA that are read anew.

They are read again each minute, and before the next request after one that failed to connect or
was answered 401. When they changed, new requests use them; streams that run go on. Every answer is
bounded in size and time. Redirects are not followed, so that the token leaves for no other server.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson

from federation import __version__
from federation.outbound import NoCookies, Outbound, OutboundError
from federation.outbound.failures import failure
from federation.sources.kubernetes.access import (
    SERVICE_ACCOUNT,
    Access,
    AccessUnreadable,
    Kubeconfig,
    KubeconfigRefused,
    pod_access,
)
from federation.sources.kubernetes.json_depth import loads_aside
from federation.sources.kubernetes.tls import load_certificate
from federation.text import printable

__all__ = ["SERVICE_ACCOUNT", "Connection", "KubeconfigRefused", "TooLarge", "Trouble"]

ANSWER_BYTES = 32 * 1024 * 1024
"""An answer to `request` may have so many bytes."""
LINE_BYTES = 16 * 1024 * 1024
"""A line of a watch may have so many: etcd keeps objects up to 1.5 MiB, some escaped sixfold."""

_CONNECT_SECONDS = 10.0
_REQUEST_SECONDS = 30.0
_REREAD_SECONDS = 60.0
_ERROR_BYTES = 64 * 1024
_MESSAGE_CHARS = 300
_LIMITS = httpx2.Limits(max_connections=16, max_keepalive_connections=4, keepalive_expiry=30)


class Trouble(Exception):
    """
    A request to the API server that was not answered as it should be. All of it is passing.

    *status* is the HTTP status, 0 if there was no answer. The text is for the operator.
    """

    def __init__(
        self, text: str, status: int = 0, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class TooLarge(Trouble):
    """An answer that is larger than the bound. It may be asked for in smaller parts."""


class _Client:
    """An HTTP client with one token and CA. It is closed when its last stream ends."""

    def __init__(self, access: Access, http: httpx2.AsyncClient) -> None:
        self.access = access
        self.http = http
        self.users = 0
        self.retired = False

    async def close_if_unused(self) -> None:
        if self.retired and not self.users:
            await self.http.aclose()


@dataclass(slots=True)
class Connection:
    """Requests to one API server. Make it with `in_cluster` or `of_kubeconfig`."""

    url: str
    namespace: str
    read_access: Callable[[], Access] = field(repr=False)
    """Reads the token and the CA. Raises: AccessUnreadable, KubeconfigRefused."""
    outbound: Outbound = field(default_factory=Outbound, repr=False)
    """Whom to trust if no CA is given, and the proxies on the way."""
    proxied: bool = False
    """True if proxies apply, as for kubectl. A pod in its own cluster connects directly."""
    transport: httpx2.AsyncBaseTransport | None = field(default=None, repr=False)
    """Answers instead of a server, in tests."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    answered_at: float | None = field(default=None, init=False)
    """When the API server last answered with what was asked for, on *clock*."""
    _client: _Client | None = field(default=None, init=False, repr=False)
    _read_at: float | None = field(default=None, init=False, repr=False)
    """When the token was read; None to read it before the next request."""

    @classmethod
    def in_cluster(
        cls, host: str, port: str, namespace: str, folder: Path = SERVICE_ACCOUNT
    ) -> Connection:
        """
        The connection of a pod, by the token and the CA in *folder*.

        Raises: AccessUnreadable.
        """
        access = pod_access(host, port, folder)
        _check_tls(access, Outbound())
        return cls(access.url, namespace, lambda: pod_access(host, port, folder))

    @classmethod
    def of_kubeconfig(
        cls, path: Path, namespace: str, outbound: Outbound | None = None
    ) -> Connection:
        """
        The connection of the current context of the kubeconfig *path*, by the proxies of *outbound*.

        Raises: KubeconfigRefused, AccessUnreadable.
        """
        kubeconfig = Kubeconfig.current(path)
        outbound = outbound or Outbound()
        _check_tls(kubeconfig.access(), outbound)
        return cls(kubeconfig.url, namespace, kubeconfig.access, outbound, proxied=True)

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """
        Send a request and return the JSON object that the API server answers with a 2xx.

        Raises: Trouble for any other answer, and for none.
        """
        content = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": content_type}
        timeout = httpx2.Timeout(_REQUEST_SECONDS, connect=_CONNECT_SECONDS)
        try:
            async with (
                asyncio.timeout(_REQUEST_SECONDS),
                self._answer(
                    method, path, params, timeout, headers=headers, content=content
                ) as response,
            ):
                answer = await _parsed(await _read_whole(response))
        except TimeoutError:
            self.reread()
            raise Trouble(f"no whole answer within {_REQUEST_SECONDS:g} s") from None
        self.answered_at = self.clock()
        return answer

    def lines(
        self, path: str, params: Mapping[str, str], silence_seconds: float
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """
        The lines of a watch, until the API server ends it or is silent for *silence_seconds*.

        Raises: Trouble.
        """
        return self._lines(path, params, silence_seconds)

    def reread(self) -> None:
        """Read the token and the CA again before the next request."""
        self._read_at = None

    async def aclose(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client:
            await client.http.aclose()

    @asynccontextmanager
    async def _lines(
        self, path: str, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        timeout = httpx2.Timeout(silence_seconds, connect=_CONNECT_SECONDS)
        async with self._answer("GET", path, params, timeout, headers={}) as response:
            self.answered_at = self.clock()
            async with aclosing(self._split(response)) as lines:
                yield lines

    async def _split(self, response: httpx2.Response) -> AsyncGenerator[bytes]:
        """Yield the whole lines of *response*."""
        rest = bytearray()
        async for chunk in response.aiter_bytes():
            self.answered_at = self.clock()
            if b"\n" not in chunk:
                rest += chunk
            else:
                first, *others = chunk.split(b"\n")
                yield bytes(rest + first)
                for line in others[:-1]:
                    yield line
                rest = bytearray(others[-1])
            if len(rest) > LINE_BYTES:
                raise TooLarge(f"a line of more than {LINE_BYTES} bytes")
        if rest:
            raise Trouble("the stream ended in the middle of a line")

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        timeout: httpx2.Timeout,  # noqa: ASYNC109  the client's own: it bounds each read
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> AsyncIterator[httpx2.Response]:
        """The answer to a request if it is a 2xx. After a 401 it is asked once more."""
        for retry in (True, False):
            async with self._asked(
                method, path, params, timeout, headers=headers, content=content
            ) as (client, response):
                if response.status_code == 401:
                    self.reread()
                    if retry and await self._token_changed(client):
                        continue
                await _check(response)
                yield response
                return

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        timeout: httpx2.Timeout,  # noqa: ASYNC109  the client's own: it bounds each read
        *,
        headers: Mapping[str, str],
        content: bytes | None,
    ) -> AsyncIterator[tuple[_Client, httpx2.Response]]:
        """The client that asked, and the answer of any status. Raises: Trouble, also while it is read."""
        async with self._used_client() as client:
            try:
                async with client.http.stream(
                    method,
                    self.url + path,
                    params=params,
                    content=content,
                    headers=_headers(client.access, headers),
                    timeout=timeout,
                    extensions=_extensions(client.access),
                ) as response:
                    yield client, response
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                self.reread()
                raise Trouble(_told(error, self.url)) from error

    @asynccontextmanager
    async def _used_client(self) -> AsyncIterator[_Client]:
        """The client with the newest token and CA, which is not closed within the block."""
        client = await self._newest_client()
        client.users += 1
        try:
            yield client
        finally:
            client.users -= 1
            await client.close_if_unused()

    async def _token_changed(self, client: _Client) -> bool:
        return (await self._newest_client()).access != client.access

    async def _newest_client(self) -> _Client:
        known, read_at = self._client, self._read_at
        if known and read_at is not None and self.clock() - read_at < _REREAD_SECONDS:
            return known
        try:
            access = await asyncio.to_thread(self.read_access)
            if known and known.access == access:
                self._read_at = self.clock()
                return known
            http = await asyncio.to_thread(self._open, access)
        except (AccessUnreadable, KubeconfigRefused) as error:
            raise Trouble(str(error)) from error
        if self._client is not known:  # another request did the same meanwhile
            await http.aclose()
            return await self._newest_client()
        self._client, self._read_at = _Client(access, http), self.clock()
        if known:
            known.retired = True
            await known.close_if_unused()
        return self._client

    def _open(self, access: Access) -> httpx2.AsyncClient:
        context = _check_tls(access, self.outbound)
        if self.transport:
            return httpx2.AsyncClient(transport=self.transport, cookies=NoCookies())
        return self.outbound.async_client(context=context, proxied=self.proxied, limits=_LIMITS)


def _check_tls(access: Access, outbound: Outbound) -> ssl.SSLContext:
    """Return what verifies the API server and shows it our certificate. Raises: AccessUnreadable."""
    try:
        context = outbound.context(access.ca)
        if access.certificate:
            load_certificate(context, *access.certificate)
    except OutboundError as error:
        place = "the CA of the API server " if access.ca else ""
        raise AccessUnreadable(f"{place}{error}") from error
    except (ssl.SSLError, ValueError) as error:
        raise AccessUnreadable("the client certificate cannot be used") from error
    return context


def _headers(access: Access, more: Mapping[str, str]) -> dict[str, str]:
    return {
        "Accept": "application/json",
        # Ask for no compression, so that a small answer cannot unpack to a large one.
        "Accept-Encoding": "identity",
        "User-Agent": f"federation/{__version__}",
        **({"Authorization": f"Bearer {access.token}"} if access.token else {}),
        **more,
    }


def _extensions(access: Access) -> dict[str, Any]:
    return {"sni_hostname": access.server_name} if access.server_name else {}


async def _check(response: httpx2.Response) -> None:
    """Raises: Trouble unless *response* is a plain 2xx."""
    if not response.is_success:
        why = await _reason(response)
        status = response.status_code
        raise Trouble(f"HTTP {status}{why}", status, _retry_after(response))
    if _is_compressed(response):
        raise Trouble("an answer was compressed, though asked not to", response.status_code)


def _is_compressed(response: httpx2.Response) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() != "identity"


async def _reason(response: httpx2.Response) -> str:
    """The message of the API server's `Status`, empty if there is none."""
    if _is_compressed(response):
        return ""
    try:
        found = orjson.loads(await _read_whole(response, _ERROR_BYTES))
    except (Trouble, ValueError):
        return ""
    message = found.get("message") if isinstance(found, dict) else None
    return f": {printable(message, _MESSAGE_CHARS)}" if isinstance(message, str) else ""


def _retry_after(response: httpx2.Response) -> float | None:
    """The seconds of `Retry-After`; the API server sends no dates (RFC 9110, section 10.2.3)."""
    given = response.headers.get("Retry-After", "").strip()
    return float(given) if given.isdecimal() and given.isascii() and len(given) < 6 else None


async def _read_whole(response: httpx2.Response, limit: int = ANSWER_BYTES) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"an answer of more than {limit} bytes", response.status_code)
    return bytes(body)


async def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return await loads_aside(body)
    except ValueError:
        raise Trouble("an answer is not a JSON object") from None


def _told(error: Exception, url: str) -> str:
    """Return the error in words for the operator."""
    if isinstance(error, httpx2.ReadTimeout):
        return "the API server is silent"
    why = failure(error, ca="the kubeconfig, or SSL_CERT_FILE")
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return f"no connection to {url}: {why.removeprefix('no connection; ')}"
    return why
