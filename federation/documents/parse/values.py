"""
What single values may look like: scalars, names, URLs, durations, PEM.

Plain scalars are read here and not by PyYAML, whose rules are those of YAML 1.1: it would make
`no` a boolean and `0123` the number 83. A form that YAML 1.1 and 1.2 read differently is told
apart as unclear, so that a document means the same to every tool or is refused.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

__all__ = [
    "DURATION",
    "NAME",
    "Sort",
    "certificates_fault",
    "duration",
    "is_name",
    "loopback",
    "sort",
    "url_fault",
]


class Sort(Enum):
    """What a scalar is."""

    TEXT = "a string"
    NULL = "null"
    BOOL = "a boolean"
    INT = "an integer"
    FLOAT = "a number with a fraction or exponent"
    UNCLEAR = "read differently by YAML 1.1 and YAML 1.2"


_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), Sort.NULL),
    **dict.fromkeys(("true", "True", "TRUE", "false", "False", "FALSE"), Sort.BOOL),
}
_NUMBER_BEGINS = frozenset("0123456789+-.")
_INT = re.compile(r"0|-?[1-9][0-9]*")
# Booleans, octal, hexadecimal, binary and signed numbers, digit groups, base 60: YAML 1.1.
_UNCLEAR = re.compile(
    r"[yYnN]|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF"
    r"|[-+]?0[0-9_]+|[-+]?0[oxb][0-9a-fA-F_]+|\+[0-9]+|-0"
    r"|[-+]?[0-9][0-9_]*_[0-9_]*|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def sort(text: str, plain: bool) -> Sort:
    """What a scalar is, by its text and whether it was written without quotes."""
    if not plain:
        return Sort.TEXT
    if word := _WORDS.get(text):
        return word
    if text[0] in _NUMBER_BEGINS:
        if _INT.fullmatch(text):
            return Sort.INT
        if _UNCLEAR.fullmatch(text):
            return Sort.UNCLEAR
        return Sort.FLOAT if _FLOAT.fullmatch(text) else Sort.TEXT
    # The longest word that YAML 1.1 takes for a boolean has three letters.
    return Sort.UNCLEAR if len(text) <= 3 and _UNCLEAR.fullmatch(text) else Sort.TEXT


NAME = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
"""A document's name, as Kubernetes takes them."""
_NAME = re.compile(NAME)


def is_name(text: str) -> bool:
    """Whether *text* can name a document."""
    return _NAME.fullmatch(text) is not None


_HOST = re.compile(r"[a-z0-9_]([-a-z0-9_.]*[a-z0-9_])?\.?")
_URL_CHARACTERS = re.compile(r"[!-~]+")


def url_fault(url: str, *, query: bool = False) -> str | None:
    """
    Why *url* cannot be an issuer's, None where it can.

    Only https, or http to this very machine. What a parser might read in two ways is refused,
    and nothing is normalised: a URL stays as it was written.
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
    """What is wrong between `//` and the path of *url*."""
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
    The host of a URL.

    Raises: ValueError where there is none, or it or the port is not valid.
    """
    host = parts.hostname or ""
    # Reading the port is what checks it.
    if parts.port == 0 or parts.netloc.endswith(":"):
        raise ValueError(parts.netloc)
    if parts.netloc.rpartition("@")[2].startswith("["):
        ip_address(host)
    elif not _HOST.fullmatch(host):
        raise ValueError(host)
    return host


def loopback(host: str) -> bool:
    """Whether *host* is this machine itself."""
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
"""A duration as Go writes them, without a sign."""
_DURATION = re.compile(DURATION)
_DURATION_PART = re.compile(r"([0-9.]+)([^0-9.]+)")
_DURATION_CHARS = 64


def duration(text: str) -> timedelta | None:
    """
    The length of a Go duration such as `1h30m`, None where *text* is none.

    Down to the microsecond, and at most 10,000 days: whatever is longer reads as that long.
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


def certificates_fault(pem: str) -> str | None:
    """Why *pem* is not a bundle of certificates, None where it is. Only the form is checked."""
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
    return None


def _is_der(body: str) -> bool:
    """Whether *body* is base64 of something that begins as every certificate does."""
    try:
        return b64decode("".join(body.split()), validate=True)[:1] == b"\x30"
    except (Base64Error, ValueError):
        return False
