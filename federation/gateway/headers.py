"""
Which headers pass, in each direction.

Calls of the API send a few known headers and no more. A function receives the caller's
headers, less those that speak of the connection, of who the caller is, or of another method
or path than the one that was decided about. No credential passes by itself: the caller of
these functions says which one is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from federation.gateway.refusals import Ambiguous, Malformed, TooLarge

__all__ = ["Forwarded", "Headers", "answer_headers", "check_body_headers", "upstream_headers"]

Headers = Sequence[tuple[bytes, bytes]]
"""Names and values in order, as ASGI has them."""

# RFC 9110, section 7.6.1, and what older servers send.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Written here, or by the client that sends the request.
_OURS = frozenset({b"authorization", b"expect", b"forwarded", b"host", b"via", b"x-request-id"})
# Who the caller is, or which other method or path is meant, in the words of various frameworks.
_MISLEADING = re.compile(
    rb"x-forwarded-.*|x-real-ip|true-client-ip|cf-connecting-ip|x-client-ip|x-cluster-client-ip"
    rb"|(x-)?remote-(user|groups?|email|name)|x-auth-request-.*|x-authenticated-.*|x-webauth-.*"
    rb"|x-http-method.*|x-method-override|x-original-.*|x-rewrite-url|x-openfaas-internal"
)
_API_REQUEST = frozenset({b"user-agent", b"accept"})
_API_ANSWER = frozenset(
    {b"content-encoding", b"content-length", b"content-type", b"retry-after", b"x-call-id"}
)
_NEVER_ON = _HOP_BY_HOP | _OURS
_NEVER_BACK = _HOP_BY_HOP | {b"date", b"server", b"x-request-id"}
_ONCE = frozenset(
    {b"content-encoding", b"content-length", b"content-type", b"host", b"transfer-encoding"}
)
_OF_THE_BODY = frozenset({b"content-length", b"content-type"})
_JSON = re.compile(rb'application/json(?:\s*;\s*charset="?utf-8"?)?', re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the broker itself knows of a request: who connected, and how they called us."""

    client: str
    scheme: str
    host: str

    def headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """The forwarding headers that replace all that came."""
        known = (
            (b"x-forwarded-for", self.client),
            (b"x-forwarded-proto", self.scheme),
            (b"x-forwarded-host", self.host),
            (b"x-request-id", request_id),
        )
        return [(name, value.encode("latin-1")) for name, value in known if value]


def check_body_headers(headers: Headers, *, json: bool, streams: bool, most_bytes: int) -> None:
    """
    The headers tell of one body, of a kind and length that is taken.

    With *json*, a JSON text of at most *most_bytes*; with *streams*, anything; else no body.
    To be asked before the body is read, and asked again by `routes.read`.
    Raises: Ambiguous, Malformed, TooLarge.
    """
    once = _stated_once(headers)
    coding, length = once.get(b"transfer-encoding"), once.get(b"content-length")
    if coding is not None and (length is not None or coding.lower() != b"chunked"):
        raise Ambiguous("The length of the body is stated in more than one way.")
    if length is not None and not _LENGTH.fullmatch(length):
        raise Ambiguous("The Content-Length is not a plain number.")
    if streams:
        return
    if not json:
        if coding is not None or int(length or 0) > 0:
            raise Malformed("This call takes no body.")
        return
    if int(length or 0) > most_bytes:
        raise TooLarge(f"The body is larger than {most_bytes} bytes.")
    if once.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Malformed("The body must not be compressed.")
    # Some SDKs state no type at all, so its absence is taken to mean JSON.
    if not _JSON.fullmatch(once.get(b"content-type", b"application/json")):
        raise Malformed("The body must be JSON: Content-Type application/json.")


def upstream_headers(
    headers: Headers,
    *,
    function: bool,
    json: bool,
    authorization: bytes | None,
    forwarded: Forwarded,
    request_id: str,
) -> list[tuple[bytes, bytes]]:
    """
    What is sent on of *headers*, to a *function* or to the API, with *json* a rebuilt body.

    `Authorization` is *authorization* or absent; what the caller sent is never kept by itself.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _dropped(lowered)
    if function:
        kept = [(n, v) for n, v in lowered if n not in dropped and not _misleading(n)]
    else:
        wanted = _API_REQUEST - dropped
        kept = [(n, v) for n, v in lowered if n in wanted]
    sent = kept + forwarded.headers(request_id)
    if not (function and any(name == b"accept-encoding" for name, _ in kept)):
        # Not saying so would let the upstream, or the client in between, choose.
        sent.append((b"accept-encoding", b"identity"))
    if json:
        sent.append((b"content-type", b"application/json"))
    if authorization is not None:
        sent.append((b"authorization", authorization))
    return sent


def answer_headers(
    headers: Headers, *, function: bool, rewritten: bool = False
) -> list[tuple[bytes, bytes]]:
    """
    What of an upstream's answer the caller sees.

    The API's answers show a few known headers: not its challenge, which asks for the upstream's
    own password, nor its cookies or redirects. With *rewritten* the body is another one now.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _NEVER_BACK | _named_by_connection(lowered)
    if rewritten:
        dropped |= {b"content-length", b"content-encoding", b"etag"}
    return [(n, v) for n, v in lowered if n not in dropped and (function or n in _API_ANSWER)]


def _stated_once(headers: Headers) -> dict[bytes, bytes]:
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        if (lowered := name.lower()) in _ONCE:
            if lowered in once:
                raise Ambiguous(f"The header {lowered.decode('ascii')} is given twice.")
            once[lowered] = value.strip()
    return once


def _dropped(lowered: Headers) -> frozenset[bytes]:
    dropped = _NEVER_ON | _named_by_connection(lowered)
    return dropped | {b"content-length"} if _chunked(lowered) else dropped


def _chunked(lowered: Headers) -> bool:
    return any(name == b"transfer-encoding" for name, _ in lowered)


def _named_by_connection(lowered: Headers) -> frozenset[bytes]:
    named = (value.split(b",") for name, value in lowered if name == b"connection")
    # A caller may not name away the length of its own body.
    return frozenset(_trimmed(named)) - _OF_THE_BODY


def _trimmed(lists: Iterable[list[bytes]]) -> Iterable[bytes]:
    return (item.strip().lower() for items in lists for item in items)


def _misleading(name: bytes) -> bool:
    # CGI, and so WSGI, reads `_` in a name as `-`: a header in that disguise is the header.
    undisguised = name.replace(b"_", b"-")
    return bool(_MISLEADING.fullmatch(undisguised)) or (
        undisguised != name and undisguised in _OURS | _HOP_BY_HOP
    )
