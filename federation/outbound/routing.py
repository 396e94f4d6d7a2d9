"""
Transports that send each request directly or through the proxy for its URL.

The library can be told proxies by patterns of URLs only, which know no ranges of addresses. So
these ask `Outbound` for each request. What goes wrong at a proxy names that proxy, since neither
the server nor the person who reads it can tell otherwise.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2

from federation.outbound.proxies import Proxy
from federation.text import printable

THROUGH_A_PROXY = "through the proxy"
_WHY_CHARS = 200
Choose = Callable[[httpx2.URL], Proxy | None]
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20)
Transport = TypeVar("Transport")


class Routed(httpx2.BaseTransport):
    """Sends each request by the proxy that *choose* returns for it, or directly."""

    def __init__(
        self,
        choose: Choose,
        proxies: tuple[Proxy, ...],
        context: ssl.SSLContext,
        to_proxies: ssl.SSLContext | None,
    ) -> None:
        self._choose = choose
        self._routes = _routes(httpx2.HTTPTransport, proxies, context, to_proxies)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer to *request*. Raises: httpx2.TransportError."""
        proxy = self._choose(request.url)
        with _named(proxy):
            return self._routes[proxy].handle_request(_sent(request, proxy))

    def close(self) -> None:
        """Close every connection."""
        for route in self._routes.values():
            route.close()


class AsyncRouted(httpx2.AsyncBaseTransport):
    """Sends each request by the proxy that *choose* returns for it, or directly."""

    def __init__(
        self,
        choose: Choose,
        proxies: tuple[Proxy, ...],
        context: ssl.SSLContext,
        to_proxies: ssl.SSLContext | None,
        limits: httpx2.Limits | None,
    ) -> None:
        self._choose = choose
        self._routes = _routes(httpx2.AsyncHTTPTransport, proxies, context, to_proxies, limits)

    @property
    def routes(self) -> tuple[httpx2.AsyncHTTPTransport, ...]:
        """The direct way, and one through each proxy."""
        return tuple(self._routes.values())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer to *request*. Raises: httpx2.TransportError."""
        proxy = self._choose(request.url)
        with _named(proxy):
            return await self._routes[proxy].handle_async_request(_sent(request, proxy))

    async def aclose(self) -> None:
        """Close every connection."""
        for route in self._routes.values():
            await route.aclose()


def _routes(
    made: Callable[..., Transport],
    proxies: tuple[Proxy, ...],
    context: ssl.SSLContext,
    to_proxies: ssl.SSLContext | None,
    limits: httpx2.Limits | None = None,
) -> dict[Proxy | None, Transport]:
    """Return a transport that *made* makes for each proxy, and under None one without a proxy."""
    return {
        proxy: made(
            verify=context,
            trust_env=False,
            limits=limits or _LIMITS,
            proxy=_asked(proxy, to_proxies) if proxy else None,
        )
        for proxy in (None, *proxies)
    }


def _asked(proxy: Proxy, to_proxies: ssl.SSLContext | None) -> httpx2.Proxy:
    """Return *proxy* as the library takes it. One by TLS is verified by *to_proxies*."""
    by_tls = proxy.url.startswith("https:")
    return httpx2.Proxy(proxy.url, ssl_context=to_proxies if by_tls else None, auth=proxy.auth)


class _Bracketed(httpx2.URL):
    """A URL whose host is an IPv6 address in brackets, as a proxy must be told it."""

    @property
    def raw_host(self) -> bytes:
        return b"[" + super().raw_host + b"]"


def _sent(request: httpx2.Request, proxy: Proxy | None) -> httpx2.Request:
    """
    Return *request* as the library must have it.

    It would ask a proxy for `2001:db8::1:443`. The brackets are needed there (RFC 9110, section
    9.3.6), and must not be in the name that the certificate is compared with.
    """
    if proxy is None or not proxy.url.startswith("http") or ":" not in request.url.host:
        return request  # a SOCKS proxy gets addresses in another form
    sent = httpx2.Request(
        request.method,
        request.url,
        headers=request.headers,
        stream=request.stream,
        extensions={"sni_hostname": request.url.host, **request.extensions},
    )
    sent.url = _Bracketed(request.url)
    return sent


@contextmanager
def _named(proxy: Proxy | None) -> Iterator[None]:
    """Name *proxy* in each error of the block."""
    try:
        yield
    except httpx2.TransportError as error:
        if proxy is None or isinstance(error, httpx2.LocalProtocolError):
            raise  # a local error quotes headers, which contain tokens
        # A proxy chooses the words after its status, kilobytes of them and for a terminal.
        why = printable(str(error), _WHY_CHARS) or type(error).__name__
        way = f"{THROUGH_A_PROXY} {proxy.place} of {proxy.variable}"
        told = type(error)(f"{why} ({way})")
        told.add_note(way)  # for `failures`, which looks beneath and not at the text
        raise told from error
