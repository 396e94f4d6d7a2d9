"""
HTTP connections of the client side, and what is said when one fails.

A CI job asks with a blocking client, a person's sign-in with an asynchronous one. Both have the
same limits and follow no redirect. `outbound` says which proxies and CAs the environment names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx2

from federation.client import ClientError
from federation.outbound import THROUGH_A_PROXY, Outbound, OutboundError
from federation.outbound.failures import failure

ANSWER_BYTES = 256 * 1024
ANSWER_SECONDS = 30.0


def open_client(environ: Mapping[str, str] = os.environ) -> httpx2.Client:
    """
    Open a blocking client.

    Raises: ClientError if a proxy or CA that *environ* names cannot be used.
    """
    with _environment_told():
        return Outbound.of(environ).client()


def open_async_client(environ: Mapping[str, str] = os.environ) -> httpx2.AsyncClient:
    """
    Open an asynchronous client.

    Raises: ClientError if a proxy or CA that *environ* names cannot be used.
    """
    with _environment_told():
        return Outbound.of(environ).async_client()


def transport_problem(error: httpx2.HTTPError | httpx2.InvalidURL) -> str:
    """Return what went wrong, with no part of the request and no words of a library."""
    return failure(error).partition("; ")[0]


def advice_on_transport(problem: str) -> str:
    """Return what to do about *problem*, as `transport_problem` words it."""
    if problem.startswith("the proxy asks for a user"):
        return (
            "The proxy asks for a user and a password. Write them into the variable, as"
            " http://user:password@host:port, with / ? # @ in them percent-encoded."
        )
    return tls_advice(problem) or (
        "Check the URL, the network of this machine, and HTTPS_PROXY / NO_PROXY."
    )


def tls_advice(problem: str) -> str:
    """Return what to do about an error of TLS, empty if *problem* is none."""
    if "certificate is not trusted" in problem and THROUGH_A_PROXY in problem:
        return (
            "Its certificate is not trusted. If the proxy opens TLS, this is a certificate of your"
            " company: set SSL_CERT_FILE to a bundle with that CA, or add the host to NO_PROXY."
        )
    if "INTERNAL_ERROR" in problem:  # a load balancer without a server behind it, for now
        return ""
    return next((advice for words, advice in _TLS if words in problem), "")


_TLS = (
    (
        "certificate has expired",
        "Its certificate has expired: the operator of the server renews it.",
    ),
    ("certificate is for another name", "Its certificate is for another name: check the URL."),
    (
        "certificate is not valid yet",
        "Its certificate is not valid yet: check the clock of this machine.",
    ),
    ("certificate", "Its certificate is not trusted: set SSL_CERT_FILE to a bundle with your CA."),
    (
        "ended the TLS handshake",
        "It may ask for a client certificate, or want another version of TLS: check URL and port.",
    ),
    ("does not speak TLS", "It does not speak TLS at this port: check the URL and its port."),
)
"""Words of `transport_problem`, and what to do."""


@contextmanager
def _environment_told() -> Iterator[None]:
    try:
        yield
    except OutboundError as error:
        raise ClientError(" ".join(f"{problem}." for problem in error.problems)) from error
