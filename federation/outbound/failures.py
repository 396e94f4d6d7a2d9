"""
Says why a request to another machine failed: what happened, and what to do.

HTTP libraries hand on the words of the system and of OpenSSL, or none. Here the errors beneath are
looked at, and each usual one has its own sentence. No part of the request is shown: its headers may
hold tokens.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator, Sequence

import httpx2

from federation.outbound.errors import OutboundError
from federation.outbound.limits import LimitBroken
from federation.text import printable

_DETAIL_CHARS = 200
_X509_EXPIRED, _X509_NOT_YET = 10, 9
_X509_OTHER_NAME = frozenset({62, 64})
"""OpenSSL's X509_V_ERR codes: for another host name, for another IP address."""
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})


def failure(error: Exception, *, ca: str = "SSL_CERT_FILE") -> str:
    """
    Return why a request failed with *error*, and what to do.

    *ca* names the setting or variable for the CA of a server whose certificate is not trusted.
    """
    if isinstance(error, OutboundError):
        return str(error)
    chain = list(_chain(error))
    told = next(filter(None, (_of_the_system(beneath, ca) for beneath in chain)), "")
    ways = (note for beneath in chain for note in getattr(beneath, "__notes__", ()))
    what, then, advice = (told or _of_the_library(error)).partition("; ")
    way = next(ways, "")
    return what + (f" ({way})" if way else "") + then + advice


def known(error: Exception, *, ca: str = "SSL_CERT_FILE") -> str:
    """Return as `failure` does why a request failed, empty if no error of the system says it."""
    return next(filter(None, (_of_the_system(beneath, ca) for beneath in _chain(error))), "")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that led to *error*, those that say most first. There may be a loop."""
    seen: list[BaseException] = []
    waiting: list[BaseException] = [error]
    while waiting and len(seen) < 32:
        one = waiting.pop()
        if one in seen:
            continue
        seen.append(one)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        waiting += [inner for inner in (one.__cause__, one.__context__) if inner is not None]
    return reversed(seen)


def _of_the_system(error: BaseException, ca: str) -> str:
    """Return what an error of the system or of TLS says, empty if it is none of the usual ones."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_a_certificate(error, ca)
    if isinstance(error, ssl.SSLError):
        return _of_a_handshake(error.reason or "")
    for kind, told in _KINDS_OF_THE_SYSTEM:
        if isinstance(error, kind):
            return told
    if isinstance(error, OSError) and error.errno in _NO_WAY:
        return "there is no way to it from here; check the network, and IPv6 if it has no IPv4"
    return ""


_KINDS_OF_THE_SYSTEM: Sequence[tuple[type[OSError], str]] = (
    (socket.gaierror, "its name has no address; check the name, and DNS on this machine"),
    (
        ConnectionRefusedError,
        "nothing listens there (connection refused); check host and port",
    ),
    (
        ConnectionResetError,
        "it closed the connection; it, or a firewall or proxy between, refuses",
    ),
    (BrokenPipeError, "it closed the connection; it, or a firewall or proxy between, refuses"),
)


def _of_a_handshake(reason: str) -> str:
    if reason in _NOT_TLS:
        return "it does not speak TLS at this port; check the scheme and the port"
    if "ALERT" in reason:
        return (
            f"it ended the TLS handshake ({printable(reason, _DETAIL_CHARS)}); it may ask for a"
            " client certificate, or take other versions of TLS"
        )
    return ""


def _of_a_certificate(error: ssl.SSLCertVerificationError, ca: str) -> str:
    if error.verify_code == _X509_EXPIRED:
        return "its certificate has expired; its operator renews it"
    if error.verify_code == _X509_NOT_YET:
        return "its certificate is not valid yet; check the clock of this machine"
    if error.verify_code in _X509_OTHER_NAME:
        return "its certificate is for another name; check the address"
    why = printable(error.verify_message or "it cannot be verified", _DETAIL_CHARS)
    return f"its certificate is not trusted ({why}); write its CA into {ca}"


def _of_the_library(error: Exception) -> str:
    if isinstance(error, LimitBroken):
        return str(error)
    if isinstance(error, httpx2.ProxyError) and str(error).startswith("407"):
        return (
            "the proxy asks for a user and password; write them into its variable, as"
            " http://user:password@host:port"
        )
    told = (told for kind, told in _KINDS_OF_THE_LIBRARY if isinstance(error, kind))
    return next(told, f"it failed ({type(error).__name__})")


_KINDS_OF_THE_LIBRARY: Sequence[tuple[type[Exception], str]] = (
    (
        httpx2.ProxyError,
        "the proxy refused to pass it on; check the proxy's address, user and exceptions",
    ),
    (
        httpx2.ConnectTimeout,
        "no connection in time; a firewall may drop the packets, or a proxy is needed",
    ),
    (httpx2.PoolTimeout, "too many requests wait for it"),
    (httpx2.TimeoutException, "no complete answer in time"),
    # Its text quotes headers, which may hold tokens.
    (
        httpx2.LocalProtocolError,
        "the request cannot be sent; a setting holds characters that HTTP does not allow",
    ),
    (
        httpx2.RemoteProtocolError,
        "the answer was cut off or is not HTTP; look at what stands at this address",
    ),
    (httpx2.DecodingError, "the answer cannot be decoded"),
    (httpx2.InvalidURL, "its address is not one that can be asked"),
    (httpx2.UnsupportedProtocol, "its address is not one that can be asked"),
    (httpx2.ConnectError, "no connection; check the address, and whether a proxy is needed"),
    (httpx2.NetworkError, "the connection broke before the answer was complete"),
)
"""A kind stands before those that include it."""
