"""
Reading a request at the door: its id, and its form within bounds.

A form is read strictly, and a parameter is never given twice unless it may be, so that no two
readers of one request can understand it differently.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Collection
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from federation.errors import Reason, Refusal

__all__ = ["FORM_BYTES", "Form", "read_form", "request_id_of"]

FORM_BYTES = 64 * 1024
_FIELDS = 200
_BODY_SECONDS = 20.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_FORM_TYPE = "application/x-www-form-urlencoded"

Form = dict[str, list[str]]


def request_id_of(request: Request) -> str:
    """The id that the ingress gave in `X-Request-Id`, or a new one where it gave none."""
    given = request.headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


async def read_form(request: Request, *, repeatable: Collection[str] = ()) -> Form:
    """
    The form parameters of *request*; those without a value are as if they were not there.

    Raises: Refusal with `invalid_request`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _FORM_TYPE:
        raise Refusal(
            Reason.INVALID_REQUEST, f"The body must be a form: Content-Type {_FORM_TYPE}."
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(Reason.INVALID_REQUEST, "The body must not be compressed.")
    form = _parsed(await _body(request))
    repeated = [name for name, values in form.items() if len(values) > 1]
    if wrong := sorted(set(repeated) - set(repeatable)):
        name = wrong[0] if re.fullmatch(r"[a-z_]{1,40}", wrong[0]) else "a parameter"
        raise Refusal(Reason.INVALID_REQUEST, f"{name} must not be given twice.")
    return {name: given for name, values in form.items() if (given := [v for v in values if v])}


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES:
                    raise Refusal(Reason.INVALID_REQUEST, "The body is larger than 64 KiB.")
    except TimeoutError as late:
        raise Refusal(Reason.INVALID_REQUEST, "The body took too long to arrive.") from late
    except ClientDisconnect as gone:
        raise Refusal(Reason.INVALID_REQUEST, "The body was cut short.") from gone
    return bytes(body)


def _parsed(body: bytes) -> Form:
    if _BAD_ESCAPE.search(body):
        # The decoder would leave it as it stands, and the next reader might not.
        raise Refusal(Reason.INVALID_REQUEST, "The body is not a well-formed form.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=_FIELDS,
        )
    except ValueError as error:
        raise Refusal(Reason.INVALID_REQUEST, "The body is not a well-formed form.") from error
    form: Form = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form
