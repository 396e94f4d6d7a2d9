"""
How this process reaches other machines: proxies, exceptions and trusted CAs, in one place.

The variables are those of curl and Go, and mean here what they mean there. They are read and
checked once, at the start. `Outbound.of` is their only reader: rooms are given the value, and no
library looks at the environment by itself.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import urlsplit

import httpx2

from federation.documents.values import loopback
from federation.outbound.errors import OutboundError
from federation.outbound.exceptions import Exceptions, address_of, canonical
from federation.outbound.proxies import Proxy, read_proxies
from federation.outbound.routing import THROUGH_A_PROXY, AsyncRouted, Routed
from federation.outbound.trust import TrustStore, given_store, machine_store, trusting
from federation.providers.profile import ByMetadata
from federation.providers.table import PROFILES

__all__ = [
    "THROUGH_A_PROXY",
    "TIMEOUT",
    "AsyncRouted",
    "Description",
    "NoCookies",
    "Outbound",
    "OutboundError",
    "TrustStore",
    "UsedProxy",
    "machine_store",
    "trusting",
]

TIMEOUT = httpx2.Timeout(20.0, connect=5.0)
_PORTS = {"http": 80, "https": 443}
_NOT_READ = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Other programs take CAs from them."""


class NoCookies(CookieJar):
    """
    A cookie jar that takes nothing and gives nothing.

    Many people and issuers share a client. With a common jar, the session of one would be sent with
    the requests of another, and one server could make the requests to others too large.
    """

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep no cookie of the answer."""

    def add_cookie_header(self, request: Any) -> None:
        """Send no cookie."""


@dataclass(frozen=True, slots=True)
class UsedProxy:
    """The proxy for URLs of one scheme."""

    scheme: str
    """`http` or `https`: of the URLs that are asked for, not of the proxy."""
    url: str
    """The proxy, without its user and password."""
    variable: str
    """The environment variable that named it."""


@dataclass(frozen=True, slots=True)
class Description:
    """The settings that were understood, for people. It holds no secret."""

    proxies: tuple[UsedProxy, ...]
    exceptions: tuple[str, ...]
    """The entries of NO_PROXY that are honoured."""
    trust_store: str
    """The source of trusted CAs, such as `SSL_CERT_FILE: /etc/company.pem`."""
    notes: tuple[str, ...]
    """A sentence for each thing that was passed over or is odd, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Outbound:
    """The outgoing connections of this process: proxies, exceptions and trusted CAs."""

    proxies: Mapping[str, Proxy] = field(default_factory=dict)
    """The proxy for URLs of each scheme."""
    exceptions: Exceptions = field(default_factory=Exceptions)
    trust: TrustStore = field(default_factory=machine_store)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Outbound:
        """
        Return what *environ* says.

        Raises: OutboundError with every problem: the variable, what is wrong, what to write.
        """
        exceptions, variable = _exceptions(environ)
        proxies, problems, notes = read_proxies(environ)
        if exceptions.cover_everything:
            proxies, problems = {}, []  # none of them is ever asked
        notes += [
            f"{variable}: {entry} is no name, address or range, and is passed over; write names"
            " such as example.com, addresses, and ranges such as 10.0.0.0/8"
            for entry in exceptions.passed_over
        ]
        try:
            trust = given_store(environ) or machine_store()
        except OutboundError as error:
            raise OutboundError([*problems, *error.problems]) from None
        if problems:
            raise OutboundError(problems)
        return cls(proxies, exceptions, trust, (*notes, *_trust_notes(environ, trust)))

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy for *url*, without user and password. None: it is asked directly."""
        proxy = self._proxy_for(httpx2.URL(url))
        return proxy.url if proxy else None

    def context(self, ca: str | None = None) -> ssl.SSLContext:
        """
        Return what verifies servers: only the certificates in *ca* (PEM), or the trust store.

        Files are read anew. Raises: OutboundError if there is no certificate in them.
        """
        return self.trust.context() if ca is None else trusting(ca)

    def client(
        self,
        *,
        ca: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout: httpx2.Timeout = TIMEOUT,
    ) -> httpx2.Client:
        """
        Return a blocking client, which follows no redirect and keeps no cookies.

        It trusts *ca* alone (PEM), or what *context* trusts, or the trust store.
        Raises: OutboundError.
        """
        transport = Routed(*self._ways(ca, context))
        return httpx2.Client(transport=transport, **_alike(timeout))

    def async_client(
        self,
        *,
        ca: str | None = None,
        context: ssl.SSLContext | None = None,
        proxied: bool = True,
        timeout: httpx2.Timeout = TIMEOUT,
        limits: httpx2.Limits | None = None,
    ) -> httpx2.AsyncClient:
        """
        Return an asynchronous client that does as that of `client`.

        Unless *proxied*, it asks every server directly. Raises: OutboundError.
        """
        transport = AsyncRouted(*self._ways(ca, context, proxied=proxied), limits)
        return httpx2.AsyncClient(transport=transport, **_alike(timeout))

    def described(self) -> Description:
        """Return what was understood, for people."""
        return Description(
            tuple(
                UsedProxy(scheme, proxy.url, proxy.variable)
                for scheme, proxy in self.proxies.items()
            ),
            tuple(entry.written for entry in self.exceptions.entries),
            str(self.trust),
            self.notes,
        )

    def _proxy_for(self, url: httpx2.URL) -> Proxy | None:
        proxy = self.proxies.get(url.scheme)
        if proxy is None or _stays_here(url.host):
            return None
        port = url.port or _PORTS[url.scheme]
        return None if self.exceptions.cover(url.raw_host.decode("ascii"), port) else proxy

    def _ways(
        self, ca: str | None, context: ssl.SSLContext | None, *, proxied: bool = True
    ) -> tuple[Any, tuple[Proxy, ...], ssl.SSLContext, ssl.SSLContext | None]:
        context = context or self.context(ca)
        proxies = tuple(dict.fromkeys(self.proxies.values())) if proxied else ()
        # The CA of one server says nothing about who may be the proxy.
        by_tls = any(proxy.url.startswith("https:") for proxy in proxies)
        to_proxies = self.trust.context() if by_tls else None
        return (self._proxy_for if proxied else _directly), proxies, context, to_proxies


def _directly(_url: httpx2.URL) -> None:
    return None


def _alike(timeout: httpx2.Timeout) -> dict[str, Any]:
    return {
        "timeout": timeout,
        "trust_env": False,
        "follow_redirects": False,
        "cookies": NoCookies(),
    }


def _stays_here(host: str) -> bool:
    """
    Whether *host* is this machine, or its metadata server, whose address is link-local.

    A proxy would see tokens that are sent in clear, and would reach its own machine instead.
    """
    host = canonical(host)
    address = address_of(host) or _in_an_old_form(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified or address.is_link_local
    return loopback(host) or host.endswith(".localhost") or host in _metadata_servers()


def _in_an_old_form(host: str) -> IPv4Address | None:
    """Return the address that the system reads in *host*, such as 127.1 or 169.254.43518."""
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def _metadata_servers() -> set[str]:
    return {
        urlsplit(source.url).hostname or ""
        for profile in PROFILES.values()
        for source in (profile.job_token.sources if profile.job_token else ())
        if isinstance(source, ByMetadata)
    }


def _exceptions(environ: Mapping[str, str]) -> tuple[Exceptions, str]:
    """Return the exceptions, and the variable that lists them."""
    for variable in ("no_proxy", "NO_PROXY"):
        if text := environ.get(variable, "").strip():
            return Exceptions.of(text), variable
    return Exceptions(), "NO_PROXY"


def _trust_notes(environ: Mapping[str, str], trust: TrustStore) -> list[str]:
    if trust.empty:
        note = (
            "no trusted CA was found on this machine, so no https server is trusted but those with"
            " a CA in a document or setting; install the system's package ca-certificates, or set"
            " SSL_CERT_FILE to a bundle"
        )
        return [note]
    given = environ.get("SSL_CERT_FILE") or environ.get("SSL_CERT_DIR")
    others = [name for name in _NOT_READ if environ.get(name)] if not given else []
    return [f"{name} is not read; set SSL_CERT_FILE to trust that bundle" for name in others]
