"""
The outermost layer of every request: its id, and an answer whatever happens within.

A fault of ours is logged whole and told as nothing but its id. This is the only place that
catches what nobody expected.
"""

from __future__ import annotations

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.errors import Reason
from federation.web.forms import request_id_of
from federation.web.responses import NO_STORE

__all__ = ["Edge", "no_such_place"]


class Edge:
    """Gives each request an id and tells it to the caller, whatever the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                name = (b"x-request-id", request_id.encode("ascii"))
                message = {**message, "headers": [*message["headers"], name]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            structlog.get_logger("federation").error(
                "unexpected error", request_id=request_id, exc_info=error
            )
            if started:
                raise  # the server closes the connection, so that half an answer shows as half
            await _our_fault(request_id)(scope, receive, send_with_id)


async def no_such_place(request: Request, error: Exception) -> Response:
    """A path or method that does not exist here, in the words of the other refusals."""
    known = error if isinstance(error, HTTPException) else HTTPException(404)
    return JSONResponse(
        {
            "error": "invalid_request",
            "error_description": f"{known.detail}.",
            "reason": "invalid_request",
            "request_id": request.state.request_id,
        },
        status_code=known.status_code,
        headers={**NO_STORE, **(known.headers or {})},
    )


def _our_fault(request_id: str) -> Response:
    return JSONResponse(
        {
            "error": Reason.SERVER_ERROR.oauth_error,
            "error_description": Reason.SERVER_ERROR.sentence,
            "reason": Reason.SERVER_ERROR,
            "request_id": request_id,
        },
        status_code=500,
        headers=NO_STORE,
    )
