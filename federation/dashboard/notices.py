"""
Messages for the page after a redirect, in a sealed cookie for a minute, never in a URL.

The provider's answer comes in the query of `/auth/callback`, with the code in it. A page at that
address would keep the code in the history, so even a refusal is told at another address.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from federation.audit.bounds import cut
from federation.dashboard.cookies import NOTICE, cookie, drop_cookie, set_cookie
from federation.dashboard.page import refusal
from federation.dashboard.parts import parts_of

REFUSED = "/auth/refused"
_OWNER = "notice"
_SECONDS = 60
_SENTENCE_CHARS = 1000
_WRITTEN_BYTES = 1200
"""Browsers drop a cookie of more than 4 KiB, and sealing makes a text a third longer."""


def refused(
    request: Request, title: str, sentence: str, status: int = 400, *, advice: str = ""
) -> Response:
    """A redirect to the page that says *sentence*."""
    parts = parts_of(request)
    sealed = parts.notices.seal(
        _OWNER,
        {
            "title": title,
            "sentence": cut(sentence[:_SENTENCE_CHARS], _WRITTEN_BYTES),
            "advice": cut(advice[:_SENTENCE_CHARS], _WRITTEN_BYTES),
            "status": status,
            "until": parts.clock() + _SECONDS,
        },
    )
    answer = RedirectResponse(REFUSED, 303)
    set_cookie(answer, NOTICE, sealed, _SECONDS)
    return answer


async def show_refused(request: Request) -> Response:
    """The page with the notice that this browser was given."""
    parts = parts_of(request)
    match parts.notices.open(_OWNER, cookie(request, NOTICE)):
        case {
            "title": str(title),
            "sentence": str(sentence),
            "advice": str(advice),
            "status": int(status),
            "until": int(until) | float(until),
        } if until > parts.clock():
            answer = refusal(request, title, sentence, status, advice=advice)
            drop_cookie(answer, NOTICE)
            return answer
    return RedirectResponse("/", 303)
