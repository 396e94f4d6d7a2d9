"""
HTTP connections of the client side, and what is said when one fails.

A CI job asks with a blocking client, a person's sign-in with an asynchronous one. Both have the
same limits, follow no redirect, and take proxies and a private CA from the environment
(`HTTPS_PROXY`, `NO_PROXY`, `SSL_CERT_FILE`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from typing import Any

import httpx2

from federation.client import ClientError
from federation.providers.profile import ByMetadata
from federation.providers.table import PROFILES

TIMEOUT = httpx2.Timeout(20.0, connect=5.0)
ANSWER_BYTES = 256 * 1024
ANSWER_SECONDS = 30.0
_THIS_MACHINE = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Never asked through a proxy: http is taken to this machine only, and would leave it in clear."""


class NoCookies(CookieJar):
    """
    A cookie jar that takes nothing and gives nothing.

    A client may be shared by many people. With a common jar, the provider's session of one would
    be sent with the requests of another.
    """

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Keep no cookie of the answer."""

    def add_cookie_header(self, request: Any) -> None:
        """Send no cookie."""


def open_client() -> httpx2.Client:
    """
    Open a blocking client.

    Raises: ClientError if the proxy or CA that the environment names cannot be used.
    """
    with _environment_told():
        return httpx2.Client(
            timeout=TIMEOUT,
            follow_redirects=False,
            mounts=dict.fromkeys((*_THIS_MACHINE, *_metadata_servers())),
        )


def open_async_client() -> httpx2.AsyncClient:
    """
    Open an asynchronous client, which keeps no cookies.

    Raises: ClientError if the proxy or CA that the environment names cannot be used.
    """
    with _environment_told():
        return httpx2.AsyncClient(
            timeout=TIMEOUT,
            follow_redirects=False,
            cookies=NoCookies(),
            mounts=dict.fromkeys(_THIS_MACHINE),
        )


def transport_problem(error: httpx2.TransportError) -> str:
    """Return what went wrong, with no part of the request."""
    if isinstance(error, httpx2.LocalProtocolError):
        return type(error).__name__  # its text quotes headers, which contain tokens
    return str(error) or type(error).__name__


def advice_on_transport(problem: str) -> str:
    """Return what to do about *problem*, as `transport_problem` words it."""
    return tls_advice(problem) or (
        "Check the URL, the network of this machine, and HTTPS_PROXY / NO_PROXY."
    )


def tls_advice(problem: str) -> str:
    """Return what to do about an error of TLS, empty if *problem* is none."""
    problem = problem.lower()
    if "certificate has expired" in problem:
        return "Its certificate has expired: the operator of the server renews it."
    if "hostname mismatch" in problem or "ip address mismatch" in problem:
        return "Its certificate is for another name: check the URL."
    if "certificate" in problem:
        return "Its certificate is not trusted: set SSL_CERT_FILE to a bundle with your CA."
    if "wrong_version_number" in problem:
        return "It does not speak TLS at this port: check the URL and its port."
    return ""


def _metadata_servers() -> set[str]:
    """Metadata servers. A proxy would see the token, and would reach its own server instead."""
    return {
        f"all://{httpx2.URL(source.url).host}"
        for profile in PROFILES.values()
        for source in (profile.job_token.sources if profile.job_token else ())
        if isinstance(source, ByMetadata)
    }


@contextmanager
def _environment_told() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
        raise ClientError(
            f"The proxy or CA that the environment names cannot be used: {error}.",
            "Check SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY, HTTP_PROXY and ALL_PROXY.",
        ) from error
