"""
The paths of the API. Everything below `/federation/` is the broker's own.

A path there that does not exist is 404, and another method than a path has is 405, HEAD and OPTIONS
too. Neither is ever forwarded to a gateway behind the broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from federation.web.api.endpoint import Endpoint
from federation.web.refusals import NotFound

PREFIX = "/federation/"


@dataclass(frozen=True, slots=True)
class ApiPaths:
    """An ASGI application that sends each request to its endpoint."""

    endpoints: Mapping[str, tuple[str, Endpoint]]
    """For each path its method and its endpoint."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises: NotFound, and what the endpoint raises."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        found = self.endpoints.get(scope["path"])
        if found is None:
            raise NotFound(HTTPException(404))
        method, endpoint = found
        if scope["method"] != method:
            raise NotFound(HTTPException(405, headers={"Allow": method}))
        await endpoint(scope, receive, send)
