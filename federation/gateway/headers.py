"""
Filters request headers on their way to the upstream, and response headers on their way back.

The API receives a few known headers only. A function receives the caller's headers except those
about the connection, about the caller's identity, and about another method or path than the
authorized one. No `Authorization` passes by itself: forward.py says which credential is sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from federation.gateway.refusals import Ambiguous, Malformed, TooLarge, UpstreamFailed

UNCLEAR_END = "its answer does not say clearly where it ends"

Headers = Sequence[tuple[bytes, bytes]]
"""Names and values in order, as ASGI has them."""

# RFC 9110, section 7.6.1, and what older servers send.
_HOP_BY_HOP = frozenset(
    b"connection http2-settings keep-alive proxy-authenticate proxy-authentication-info"
    b" proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
# Set by the broker itself, or by its HTTP client.
_OURS = frozenset({b"authorization", b"expect", b"forwarded", b"host", b"via", b"x-request-id"})
# Headers by which various frameworks learn who the caller is, or which other method or path to
# serve. Callers must not be able to set them behind a proxy that authorizes.
_MISLEADING = re.compile(
    rb"x-forwarded-.*|x-real-ip|true-client-ip|cf-connecting-ip|x-client-ip|x-cluster-client-ip"
    rb"|(x-)?remote-(user|groups?|email|name)|x-auth-request-.*|x-authenticated-.*|x-webauth-.*"
    rb"|x-http-method.*|x-method-override|x-original-.*|x-rewrite-url|x-openfaas-internal"
)
_API_REQUEST = frozenset({b"user-agent", b"accept"})
_API_RESPONSE = frozenset(
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
# Each of them says where an answer ends, in this form.
_FRAMING = {
    b"content-length": _LENGTH,
    b"transfer-encoding": re.compile(rb"chunked", re.IGNORECASE),
}
_NO_TOKEN = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def forwarding_headers(addresses: str, scheme: str, host: bytes, request_id: str) -> Headers:
    """The headers about the caller's connection. They replace whatever the caller sent."""
    known = (
        (b"x-forwarded-for", addresses.encode("latin-1")),
        (b"x-forwarded-proto", scheme.encode("latin-1")),
        (b"x-forwarded-host", host),
        (b"x-request-id", request_id.encode("latin-1")),
    )
    return [(name, value) for name, value in known if value]


def check_body_headers(headers: Headers, *, json: bool, streams: bool, most_bytes: int) -> None:
    """
    Make sure that the headers announce a body that the call takes, with one clear end.

    With *json* that is a JSON text of at most *most_bytes*, with *streams* any body, else none.
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
    # One SDK sends no type at all, so a missing one means JSON.
    if not _JSON.fullmatch(once.get(b"content-type", b"application/json")):
        raise Malformed("The body must be JSON: Content-Type application/json.")


def is_utf8(value: bytes) -> bool:
    """True if the *value* of a header is text."""
    if value.isascii():
        return True
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def undisguised(name: bytes) -> bytes:
    """
    The *name* of a header, which is lower-case, as CGI and WSGI read it: with `-` for each `_`.

    To them `X_Forwarded_For` is `X-Forwarded-For`.
    """
    return name.replace(b"_", b"-")


def upstream_headers(
    headers: Headers,
    *,
    function: bool,
    json: bool,
    authorization: bytes | None,
    forwarding: Headers,
) -> Headers:
    """
    The headers for the upstream, made from the caller's *headers*.

    They are for a *function* or else for the API. With *json* the body was written anew.
    *authorization* replaces the caller's `Authorization`; None sends none.
    Raises: Malformed if a header that passes is not UTF-8.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _with_those_of_the_connection(_NEVER_ON, lowered)
    if function:
        if any(name == b"transfer-encoding" for name, _ in lowered):
            dropped |= {b"content-length"}
        kept = [(n, v) for n, v in lowered if n not in dropped and not _misleading(n)]
    else:
        kept = [(n, v) for n, v in lowered if n in _API_REQUEST and n not in dropped]
    if not is_utf8(b"\n".join([value for _, value in kept])):
        # Two programs would read it as two different texts.
        raise Malformed("A header of the request is not UTF-8.")
    sent = [*kept, *forwarding]
    if not (function and any(name == b"accept-encoding" for name, _ in kept)):
        # Without it, the upstream or our HTTP client would choose an encoding.
        sent.append((b"accept-encoding", b"identity"))
    if json:
        sent.append((b"content-type", b"application/json"))
    if authorization is not None:
        sent.append((b"authorization", authorization))
    return sent


def has_no_body(method: str, status: int) -> bool:
    """True if an answer never has a body, whatever its headers say (RFC 9112, section 6.3)."""
    return method == "HEAD" or status in {204, 304}


def check_answer(status: int, headers: Headers) -> None:
    """
    Make sure that the head of an upstream's final response can be passed on and read in one way.

    A function's own answer comes through the upstream nearly as the function wrote it: a 101 would
    turn the caller's connection into a tunnel past every proxy before the broker.
    Raises: UpstreamFailed.
    """
    if not 200 <= status <= 599:
        raise UpstreamFailed(f"it answered with the status {status}")
    names, values = [name for name, _ in headers], [value for _, value in headers]
    if not all(names) or _NO_TOKEN.search(b"".join(names)) or _CONTROL.search(b"".join(values)):
        raise UpstreamFailed("a header of its answer has characters that are not allowed")
    lowered = ((name.lower(), value) for name, value in headers)
    ends = [_FRAMING[name].fullmatch(value) for name, value in lowered if name in _FRAMING]
    if len(ends) > 1 or not all(ends):
        raise UpstreamFailed(UNCLEAR_END)


def response_headers(
    headers: Headers, *, function: bool, status: int, rewritten: bool = False
) -> Headers:
    """
    The headers of an upstream's response that the caller gets, of a *function*'s or the API's.

    Of the API's only a few known ones pass: not its challenge, which asks for the upstream's own
    password, nor its cookies or redirects. With *rewritten* the body is another one now.
    """
    lowered = [(name.lower(), value) for name, value in headers]
    dropped = _with_those_of_the_connection(_NEVER_BACK, lowered)
    if status in {204, 304}:
        dropped |= {b"content-length"}  # the server would wait for a body of that length
    if rewritten:
        dropped |= {b"content-length", b"content-encoding", b"etag"}
    return [(n, v) for n, v in lowered if n not in dropped and (function or n in _API_RESPONSE)]


def _stated_once(headers: Headers) -> dict[bytes, bytes]:
    once: dict[bytes, bytes] = {}
    for name, value in headers:
        if (lowered := name.lower()) in _ONCE:
            if lowered in once:
                raise Ambiguous(f"The header {lowered.decode('ascii')} is given twice.")
            once[lowered] = value.strip()
    return once


def _with_those_of_the_connection(never: frozenset[bytes], lowered: Headers) -> frozenset[bytes]:
    """*never* and the headers that `Connection` names: these are for this one connection."""
    lines = [value for name, value in lowered if name == b"connection"]
    if not lines:
        return never
    named = {item.strip().lower() for item in b",".join(lines).split(b",")}
    # A caller must not be able to remove the length of its own body.
    return never | (named - _OF_THE_BODY)


def _misleading(name: bytes) -> bool:
    plain = undisguised(name)
    return bool(_MISLEADING.fullmatch(plain)) or (plain != name and plain in _OURS | _HOP_BY_HOP)
