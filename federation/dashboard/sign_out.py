"""
Sign-out, here and at the provider.

A person signs out by a form. Their session ends on every replica, their access token ends at the
broker, their refresh token at the provider, and the browser goes on to the provider, which ends its
own session (OpenID Connect RP-Initiated Logout 1.0). The other way round, the provider tells of a
session that it ended (OpenID Connect Back-Channel Logout 1.0).
"""

from __future__ import annotations

import hashlib

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from federation.client import ClientError
from federation.dashboard.cookies import SESSION, drop_cookie
from federation.dashboard.page import record_of, render
from federation.dashboard.parts import Parts, parts_of
from federation.dashboard.session import Session
from federation.errors import Refusal
from federation.providers.table import LEEWAY
from federation.sign_on.provider import LoggedOut
from federation.web.forms import Form, read_form

SIGNED_OUT = "/auth/signed-out"
_HINT_CHARS = 4096
"""A longer ID token would make a URL that servers refuse."""


async def logout(request: Request, session: Session, _form: Form) -> Response:
    """`POST /auth/logout`: end the session, and go on to the provider."""
    parts, record = parts_of(request), await record_of(request)
    assert record is not None  # noqa: S101  `changes` found the session
    await parts.sessions.end(record)
    request.scope["state"]["record"] = None
    await parts.broker.revoke(session.access_token)
    goes_to = SIGNED_OUT
    log = structlog.get_logger("federation.dashboard")
    if provider := parts.provider.known:
        try:
            if record.refresh_token:
                await provider.revoke(record.refresh_token)
        except ClientError as error:
            log.warning("a refresh token was not revoked at the provider", problem=error.problem)
        # With the hint of who signs out, the provider need not ask, and some demand it. It is the
        # ID token of the sign-in, which has most often expired by now. It goes back to where it
        # came from, in a redirect, which browsers do not keep in their history.
        hint = record.id_token if len(record.id_token) <= _HINT_CHARS else ""
        back_to = parts.public_url + SIGNED_OUT
        goes_to = provider.sign_out_url(hint, back_to=back_to) or SIGNED_OUT
    log.info("signed out", sub=record.subject, session=record.shown)
    answer = RedirectResponse(goes_to, 303)
    drop_cookie(answer, SESSION)
    return answer


async def signed_out(request: Request) -> Response:
    """`GET /auth/signed-out`: the page to which the provider sends the browser back."""
    return render(request, "signed_out.html")


async def backchannel(request: Request) -> Response:
    """`POST /auth/backchannel-logout`: the provider ended a session, or all of a person."""
    parts, caller = parts_of(request), parts_of(request).caller(request.scope)
    log = structlog.get_logger("federation.dashboard")
    if wait := parts.logouts.wait_seconds(caller):
        return _told("too many logout tokens from this address", 429, {"Retry-After": str(wait)})
    try:
        form = await read_form(request.scope, request.receive)
        if "logout_token" not in form:
            raise ClientError("logout_token is missing.")
        ended = await parts.provider.current().verify_logout_token(form["logout_token"][0])
        number = await _end(parts, ended)
    except ClientError as error:
        parts.logouts.take(caller)
        log.warning("logout token refused", problem=error.problem, client=caller)
        return _told(error.problem, 400)
    except Refusal as refused:
        if refused.reason.temporary:
            log.error("the session store does not answer", **refused.evidence)
            return _told("the store of sessions does not answer", 503, {"Retry-After": "5"})
        parts.logouts.take(caller)
        return _told(refused.public, 400)
    log.info("signed out by the provider", sub=ended.sub, sessions=number)
    return Response(status_code=200)


async def _end(parts: Parts, ended: LoggedOut) -> int:
    """End the sessions, and return how many there were. Raises: ClientError for a replay."""
    key = "logout-" + hashlib.sha256(ended.jti.encode()).hexdigest()
    if not await parts.sessions.store.spend(
        key, ended.expires + LEEWAY.total_seconds(), ended.issued
    ):
        raise ClientError("This logout token was used before.")
    try:
        return await parts.sessions.end_logged_out(ended)
    except Refusal:
        await parts.sessions.store.restore(key)  # the provider may tell it again
        raise


def _told(problem: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """Section 2.8 of the specification; the guard adds `Cache-Control: no-store`."""
    content = {"error": "invalid_request", "error_description": problem}
    return JSONResponse(content, status, headers)
