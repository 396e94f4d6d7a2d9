"""
Checks single values of documents: URLs, durations and PEM certificates.

The functions look at a value only. Nothing is normalised: a URL stays as written.
"""

from __future__ import annotations

import re
import ssl
from base64 import b64decode
from binascii import Error as Base64Error
from datetime import timedelta
from decimal import Decimal
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

_HOST = re.compile(r"[a-z0-9_]([-a-z0-9_.]*[a-z0-9_])?\.?")
_URL_CHARACTERS = re.compile(r"[!-~]+")


def url_fault(url: str, *, query: bool = False) -> str | None:
    """
    Return why *url* cannot be an issuer's URL, or None.

    It must be https, or http to a loopback host. A URL that two parsers could read differently is
    refused, because it could name one host in the document and another when keys are fetched.
    """
    if not _URL_CHARACTERS.fullmatch(url) or "\\" in url:
        return "has white space or characters that a URL cannot hold"
    if not url.startswith(("https://", "http://")):
        return "does not begin with https://"
    for mark, what in (("#", "a fragment"), ("?", "a query")):
        if mark in url and not (query and mark == "?"):
            return f"has {what}"
    return _authority_fault(url)


def _authority_fault(url: str) -> str | None:
    """Return what is wrong between `//` and the path of *url*, or None."""
    try:
        parts = urlsplit(url)
        host = _host(parts)
    except ValueError:
        return "has no valid host or port"
    if "@" in parts.netloc:
        return "has a user name or password"
    if parts.scheme == "http" and not loopback(host):
        return "is http; that is taken for loopback hosts only"
    return None


def _host(parts: SplitResult) -> str:
    """
    Return the host of a URL.

    Raises: ValueError if there is none, or if the host or the port is not valid.
    """
    host = parts.hostname or ""
    # `port` raises ValueError when it is read, not when the URL is split.
    if parts.port == 0 or parts.netloc.endswith(":"):
        raise ValueError(parts.netloc)
    if parts.netloc.rpartition("@")[2].startswith("["):
        ip_address(host)
    elif not _HOST.fullmatch(host):
        raise ValueError(host)
    return host


def loopback(host: str) -> bool:
    """Return whether *host* is a loopback host."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


_UNITS = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),  # U+00B5, micro sign
    "μs": Decimal(1),  # U+03BC, Greek mu; Go takes both
    "ms": Decimal(1000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
}
_PART = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
DURATION = f"(?:{_PART})+"
"""The form of a Go duration without a sign."""
_DURATION = re.compile(DURATION)
_DURATION_PART = re.compile(r"([0-9.]+)([^0-9.]+)")
_DURATION_CHARS = 64


def duration(text: str) -> timedelta | None:
    """
    Return the length of a Go duration such as `1h30m`, or None if *text* is not one.

    Fractions of a microsecond are dropped. A duration over 10,000 days is returned as 10,000 days.
    """
    if len(text) > _DURATION_CHARS or not _DURATION.fullmatch(text):
        return None
    parts = _DURATION_PART.findall(text)
    length = sum((Decimal(number) * _UNITS[unit] for number, unit in parts), Decimal(0))
    return min(timedelta(days=10_000), _timedelta(length))


def _timedelta(microseconds: Decimal) -> timedelta:
    try:
        return timedelta(microseconds=int(microseconds))
    except OverflowError:
        return timedelta.max


_PEM_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s([^-]*)-----END \1-----")
_PEM_FIRST_LINE = re.compile(r"(?m)^-----BEGIN CERTIFICATE-----[ \t]*\r?$")


def certificates_fault(pem: str) -> str | None:
    """Return why *pem* is not a bundle of certificates that TLS can trust, or None."""
    if "PRIVATE KEY-----" in pem:
        return "holds a private key"
    blocks = _PEM_BLOCK.findall(pem)
    if not blocks or len(blocks) != pem.count("-----BEGIN "):
        return "has no whole -----BEGIN CERTIFICATE----- block"
    for label, body in blocks:
        if label != "CERTIFICATE":
            return f"holds a {label.lower()}"
        if not _is_der(body):
            return "has a certificate that is not base64"
    if len(_PEM_FIRST_LINE.findall(pem)) < len(blocks):
        # TLS reads line by line, and `caBundle: >` makes one line of all.
        return "has a certificate without its line breaks, as after > in YAML"
    return None if _is_loaded(pem) else "has a certificate that cannot be read"


def _is_loaded(pem: str) -> bool:
    try:
        # Exactly what is done with it when keys are fetched.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _is_der(body: str) -> bool:
    """Return whether *body* is base64 of an ASN.1 SEQUENCE, with which every certificate begins."""
    try:
        return b64decode("".join(body.split()), validate=True)[:1] == b"\x30"
    except (Base64Error, ValueError):
        return False
