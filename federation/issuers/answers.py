"""
Says what is wrong with an issuer's answer, and what the operator can do about it.

A wrong answer most often comes from something else: a proxy, a login page, an API server that asks
for a token. So each has its likely cause. The body is never quoted.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from federation.claims import shown

_ORIGIN_CHARS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer and its media type, as the server named it."""

    body: bytes
    media_type: str


def status_problem(status: int, location: str, *, with_token: bool) -> str:
    """
    Return what *status* says, an HTTP status other than 200, and what to do.

    *location* is the header of that name. *with_token* says whether a bearer token was sent.
    """
    if status in {401, 403} and with_token:
        return f"answered {status}{_TOKEN_REFUSED}"
    if told := _STATUSES.get(status):
        return f"answered {status}: {told}"
    if 300 <= status < 400:
        return f"answered {status}, a redirect to {_origin(location)}{_NOT_FOLLOWED}"
    if status >= 500:
        return f"answered {status}: it, or a proxy before it, has trouble; it is asked again"
    return f"answered {status}; look at the address with curl"


_NOTHING_THERE = (
    "nothing is there; check iss, or write where the keys are as jwksUri, or where discovery is as"
    " issInternal"
)
_STATUSES = {
    401: "it asks for a token; a Kubernetes API server takes that of a ServiceAccount, so write its"
    " file as bearerTokenFile into the JwtIssuer",
    403: "it, or a proxy between, forbids it; a Kubernetes API server wants a token, so write its"
    " file as bearerTokenFile into the JwtIssuer",
    404: _NOTHING_THERE,
    407: "the proxy asks for a user and password; write them into its URL",
    410: _NOTHING_THERE,
    429: "it was asked too often, and is asked again later",
}
_TOKEN_REFUSED = (
    ", though the token of bearerTokenFile was sent; it has expired, or may not read this. A"
    " Kubernetes API server wants the ClusterRole system:service-account-issuer-discovery bound to"
    " it"
)
_NOT_FOLLOWED = (
    ", which is not followed; if the keys are there, write the address as jwksUri into the"
    " JwtIssuer. A login page is no issuer: have its path opened for the broker"
)


def named(value: object) -> str:
    """
    Return *value*, which a server chose, for a message.

    Behind a semicolon stands the remedy, so it has none: a stranger would give the advice.
    """
    return shown(value).replace(";", "%3B")


def not_a_document(media_type: str, error: ValueError) -> str:
    """Return why a body with *media_type*, which is not what was asked for, cannot be read."""
    if media_type.partition(";")[0].strip().lower() in {"text/html", "application/xhtml+xml"}:
        return (
            "it is a web page (text/html), such as a login page or that of a proxy; look at the"
            " address with curl, and check iss"
        )
    return str(error)


def _origin(location: str) -> str:
    """Return scheme and host of *location*: its path and query may hold what is not for a log."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return "an address that cannot be read"
    if not parts.netloc:
        return "another path" if location else "nowhere"
    return named(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:_ORIGIN_CHARS])
