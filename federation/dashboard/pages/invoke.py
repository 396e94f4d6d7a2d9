"""
The page that calls a function and shows its answer as text.

A function's answer may be written by anybody. It is never rendered, whatever its type says.
"""

from __future__ import annotations

import re

from starlette.responses import Response

from federation.dashboard.connection import Answer, NotTaken
from federation.dashboard.gateway import RESULT_BYTES
from federation.dashboard.pages.function import path_of, permissions, place_of
from federation.dashboard.pages.visit import Visit, does, given, shows
from federation.web.forms import Form

_BODY_CHARS = 32 * 1024
_CONTENT_TYPE = re.compile(r"[\w.+-]{1,60}/[\w.+-]{1,60}(?:; ?charset=[\w-]{1,20})?", re.ASCII)
_DEFAULT_TYPE = "text/plain"


@shows("functions")
async def ask(visit: Visit) -> Response:
    """Show the form for a call."""
    return await _page(visit, "", _DEFAULT_TYPE, None)


@does("functions")
async def invoke(visit: Visit, form: Form) -> Response:
    """Call the function with the form's text, and show what it answers."""
    place = place_of(visit.request)
    # Browsers send line ends as CR LF (HTML, section 4.10.21.7); a program expects LF.
    body = given(form, "body", _BODY_CHARS).replace("\r\n", "\n")
    content_type = given(form, "content_type").strip() or _DEFAULT_TYPE
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise NotTaken(
            "The content type must be written like text/plain or application/json.",
            "Go back and write another one.",
        )
    answer = await visit.gateway.invoke(visit.token, place, body.encode(), content_type)
    return await _page(visit, body, content_type, answer)


async def _page(visit: Visit, body: str, content_type: str, answer: Answer | None) -> Response:
    place = place_of(visit.request)
    return await visit.page(
        "invoke.html",
        place=place,
        base=path_of(place),
        may=await permissions(visit, place),
        body=body,
        content_type=content_type,
        answer=answer,
        result=answer.body.decode("utf-8", "replace") if answer else "",
        most_kib=RESULT_BYTES // 1024,
    )
