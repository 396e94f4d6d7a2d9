"""Wrap and render pages: find the session, check forms against CSRF, fill templates."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Collection
from functools import wraps
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from federation.dashboard.cookies import SESSION, cookie, drop_cookie
from federation.dashboard.parts import parts_of
from federation.dashboard.renewal import Ended
from federation.dashboard.session import Session
from federation.dashboard.sessions import Record
from federation.errors import Refusal
from federation.web.forms import Form, read_form

Page = Callable[[Request, Session], Awaitable[Response]]
Change = Callable[[Request, Session, Form], Awaitable[Response]]
Endpoint = Callable[[Request], Awaitable[Response]]

CSRF = "csrf"
"""The field of every form that carries the session's CSRF token."""


def render(request: Request, template: str, status: int = 200, **values: object) -> Response:
    """The page made of *template* with *values*; templates see `session` (or None) and `csrf`."""
    parts = parts_of(request)
    session = _known_session(request)
    content = parts.templates.get_template(template).render(
        **values,
        session=session,
        csrf=session.csrf if session else "",
        path=request.url.path,
        request_id=request.scope["state"].get("request_id", ""),
        gateway_url=parts.gateway_url,
    )
    return HTMLResponse(content, status)


def refusal(
    request: Request, title: str, sentence: str, status: int = 403, *, advice: str = ""
) -> Response:
    """A page that says in one sentence what was refused, and in *advice* what to do."""
    return render(
        request,
        "refused.html",
        status,
        title=title,
        sentence=sentence,
        advice=advice,
        missing=status == 404,  # then nobody has looked for the session, and there may be one
    )


async def record_of(request: Request) -> Record | None:
    """
    The live session of the browser that asks, with a fresh access token.

    Raises: Ended if it was live and could not be renewed; Refusal if the store does not answer.
    """
    state = request.scope["state"]
    if "record" not in state:
        parts = parts_of(request)
        record = await parts.sessions.find(cookie(request, SESSION))
        if record is not None:
            record = await parts.renewal.fresh(record, parts.caller(request.scope))
        state["record"] = record
    known: Record | None = state["record"]
    return known


async def session_of(request: Request) -> Session | None:
    """The live session of the browser that asks, None if nobody signed in. Raises: as `record_of`."""
    record = await record_of(request)
    return record.session if record else None


def signed_in(page: Page) -> Endpoint:
    """
    An endpoint that shows *page* to who signed in, and asks others to sign in and come back.

    The start page welcomes them first, so that a person who signed out is not signed in again by
    the provider's own session before they can look.
    """

    @wraps(page)
    async def endpoint(request: Request) -> Response:
        try:
            session = await session_of(request)
        except Ended as ended:
            return over(request, ended)
        if session is None and request.url.path == "/":
            return render(request, "welcome.html")
        if session is None:
            return RedirectResponse(sign_in_path(request), 303)
        return await page(request, session)

    return endpoint


def changes(change: Change, *, repeatable: Collection[str] = ()) -> Endpoint:
    """
    An endpoint for a form of ours: it refuses what was not sent from our own page by its session.

    `SameSite=Lax` alone is not enough: pages of functions may live on a sibling host, which is the
    same site. The form's fields of the names *repeatable* may come more than once.
    """

    @wraps(change)
    async def endpoint(request: Request) -> Response:
        if request.method != "POST" or not is_same_origin(request):
            return _foreign(request)
        try:
            session = await session_of(request)
        except Ended as ended:
            return over(request, ended)
        if session is None:
            return refusal(
                request,
                "Signed out",
                "Your session has ended, so nothing was changed.",
                401,
                advice="Sign in, and do it again.",
            )
        try:
            form = await read_form(request.scope, request.receive, repeatable=repeatable)
        except Refusal as refused:
            return refusal(request, "Refused", refused.public, refused.status)
        given = form.pop(CSRF, [""])[0]
        if not hmac.compare_digest(given.encode(), session.csrf.encode()):
            return _foreign(request)
        return await change(request, session, form)

    return endpoint


def is_same_origin(request: Request) -> bool:
    """
    Whether a page of this very origin sent the request (Fetch Metadata, section 2.1).

    Browsers that do not say so send `Origin` with every POST.
    """
    sites = request.headers.getlist("sec-fetch-site")
    if sites:
        return sites == ["same-origin"]
    return request.headers.getlist("origin") == [parts_of(request).public_url]


def sign_in_path(request: Request) -> str:
    """Return the path where a person signs in and then comes back to this page."""
    if request.method not in {"GET", "HEAD"}:
        return "/auth/login"
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/auth/login" if path == "/" else f"/auth/login?to={quote(path, safe='/')}"


def over(request: Request, ended: Ended) -> Response:
    """The page that says that the session is over."""
    request.scope["state"]["record"] = None
    answer = refusal(request, "Signed out", str(ended), 401, advice="Sign in again.")
    drop_cookie(answer, SESSION)
    return answer


def _foreign(request: Request) -> Response:
    return refusal(
        request,
        "Refused",
        "This form was not sent from a page of this dashboard in your session, so nothing was"
        " changed.",
        403,
        advice="Open the page again, and do it there.",
    )


def _known_session(request: Request) -> Session | None:
    record: Record | None = request.scope["state"].get("record")
    return record.session if record else None
