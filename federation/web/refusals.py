"""
The error boundary: turns every error of a request into its response, in this one place.

OAuth endpoints answer with JSON (RFC 6749, section 5.2), gateway paths with one line of text.
Every response gets the request's id. Unexpected exceptions are logged with a traceback; the
caller sees only that id.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.errors import HttpError, Reason, Refusal
from federation.gateway.headers import Headers
from federation.gateway.refusals import GatewayError
from federation.jose.strict_json import dumps
from federation.pages import page
from federation.web.forms import request_id_of
from federation.web.rate_limit import Network

NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def _raw(headers: Mapping[str, str]) -> Headers:
    return tuple((n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers.items())


NO_STORE_HEADERS = _raw(NO_STORE)
JSON_HEADERS = _raw(
    {"Content-Type": "application/json", **NO_STORE, "X-Content-Type-Options": "nosniff"}
)
_TEXT_HEADERS = _raw(
    {
        "Content-Type": "text/plain; charset=utf-8",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
)


@dataclass(frozen=True, slots=True)
class ErrorBoundary:
    """ASGI middleware that gives each request an id, and answers the errors of *app*."""

    app: ASGIApp
    trusted_proxies: Sequence[Network] = ()
    docs: str | None = None
    """The address of the docs, for `error_uri`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope, self.trusted_proxies)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        def send_with_id(message: Message) -> Awaitable[None]:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                name = (b"x-request-id", request_id.encode("ascii"))
                message = {**message, "headers": [*message["headers"], name]}
            return send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            if not isinstance(error, HttpError):
                structlog.get_logger("federation").error(
                    "unexpected error", request_id=request_id, exc_info=error
                )
                error = Refusal(Reason.SERVER_ERROR)
            if started:
                raise  # the server closes the connection, so that half a response shows as half
            await _send(error, request_id, self.docs, send_with_id)


class NotFound(HttpError):
    """The path does not exist here (404), or not with this method (405)."""

    reason = Reason.INVALID_REQUEST

    def __init__(self, error: HTTPException) -> None:
        super().__init__(f"{error.detail}.")
        self.status, self.headers = error.status_code, error.headers or {}


async def not_found(_request: Request, error: Exception) -> NoReturn:
    """Starlette's handler for a path or method that no route has."""
    raise NotFound(error if isinstance(error, HTTPException) else HTTPException(404)) from error


async def _send(error: HttpError, request_id: str, docs: str | None, send: Send) -> None:
    if isinstance(error, GatewayError):
        headers, body = _TEXT_HEADERS, f"{error.public} Request id {request_id}.\n".encode()
    else:
        reason = error.reason or Reason.SERVER_ERROR
        members = {
            "error": reason.oauth_error,
            "error_description": error.public,
            "reason": reason,
            "request_id": request_id,
        }
        if docs:
            members["error_uri"] = page(reason.page, docs)  # RFC 6749, section 5.2
        headers, body = JSON_HEADERS, dumps(members)
    await respond(send, error.status, [*headers, *_raw(error.headers)], body)


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole response."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
