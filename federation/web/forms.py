"""
Reads the form in a request's body, and the request's id.

A form is bounded in size and time and read strictly. A parameter may be repeated only where the
endpoint allows it, so that no two programs can read one request differently.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from urllib.parse import unquote_to_bytes

from starlette.types import Receive, Scope

from federation.audit.event import fresh_id
from federation.errors import Reason, Refusal
from federation.gateway.refusals import CallerGone, TooLarge, TooSlow
from federation.gateway.request import arrived, read_body
from federation.web.rate_limit import Network, is_from_proxy

_FORM_BYTES = 64 * 1024
_FIELDS = 200
_BODY_SECONDS = 20.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FORM_TYPE = "application/x-www-form-urlencoded"

Form = dict[str, list[str]]


def request_id_of(scope: Scope, trusted: Sequence[Network] = ()) -> str:
    """
    The id in `X-Request-Id` if a *trusted* proxy sent it, or a new id.

    With an id of its choice, a caller could make its requests look like somebody else's in the log
    and in the audit trail.
    """
    if trusted and _REQUEST_ID.fullmatch(given := header(scope, b"x-request-id")):
        return given if is_from_proxy(scope, trusted) else fresh_id()
    return fresh_id()


def header(scope: Scope, name: bytes, default: str = "") -> str:
    """The first header called *name*, which is lower-case, or *default*."""
    for given, value in scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return default


def invalid_request(sentence: str) -> Refusal:
    """The refusal of a malformed request. *sentence* is for the caller."""
    return Refusal(Reason.INVALID_REQUEST, sentence)


async def read_form(scope: Scope, receive: Receive, *, repeatable: Collection[str] = ()) -> Form:
    """
    The form parameters of a request. Those without a value count as absent.

    Raises: Refusal with `invalid_request`.
    """
    media_type = header(scope, b"content-type").partition(";")[0].strip().lower()
    if media_type != _FORM_TYPE:
        raise invalid_request(f"The body must be a form: Content-Type {_FORM_TYPE}.")
    form = parsed(await whole_body(scope, receive), "The body is not a well-formed form.")
    twice = [name for name, values in form.items() if len(values) > 1 and name not in repeatable]
    if wrong := sorted(twice):
        name = wrong[0] if re.fullmatch(r"[a-z_]{1,40}", wrong[0]) else "a parameter"
        raise invalid_request(f"{name} must not be given twice.")
    return {name: given for name, values in form.items() if (given := [v for v in values if v])}


async def whole_body(scope: Scope, receive: Receive) -> bytes:
    """The body of a request, at most 64 KiB. Raises: Refusal with `invalid_request`."""
    if header(scope, b"content-encoding", "identity").lower() != "identity":
        raise invalid_request("The body must not be compressed.")
    seconds = None if arrived(scope) else _BODY_SECONDS
    try:
        return await read_body(receive, _FORM_BYTES, seconds)
    except TooSlow as late:
        raise invalid_request(late.public) from late
    except CallerGone as gone:
        raise invalid_request("The body was cut short.") from gone
    except TooLarge as error:
        raise invalid_request("The body is larger than 64 KiB.") from error


def parsed(body: bytes, otherwise: str) -> Form:
    """
    The names and values in *body* (WHATWG URL, section 5.1), read strictly.

    Raises: Refusal with `invalid_request` and the sentence *otherwise*.

    `urllib.parse.parse_qs` is more lenient and takes four times as long, which is 6 to 9 percent
    of an exchange.
    """
    form: Form = {}
    try:
        if body.count(b"&") >= _FIELDS:
            raise ValueError("too many fields")
        for pair in body.decode("ascii").split("&") if body else ():
            name, equals, value = pair.partition("=")
            if not equals:
                raise ValueError("no value")
            if "%" in pair or "+" in pair:
                name, value = _decoded(name), _decoded(value)
            form.setdefault(name, []).append(value)
    except ValueError as error:
        raise invalid_request(otherwise) from error
    return form


def _decoded(text: str) -> str:
    # The usual client escapes nothing but the colons of URNs. Replacing these first is faster.
    text = text.replace("+", " ").replace("%3A", ":")
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise ValueError("not an escape")
    return unquote_to_bytes(text).decode("utf-8")
