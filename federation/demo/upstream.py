"""
A small OpenFaaS gateway for the demo: it lists, deploys and updates functions, in memory.

Like a real gateway it asks for a user and a password under `/system`. Only the broker has them,
so a job cannot go around the broker.
"""

from __future__ import annotations

import base64
import hmac

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

_DEFAULT_NAMESPACE = "openfaas-fn"


class DemoGateway:
    """A gateway whose `app` lets in the holder of *user* and *password*."""

    def __init__(self, user: str, password: str) -> None:
        self._credentials = b"Basic " + base64.b64encode(f"{user}:{password}".encode())
        self._functions: dict[tuple[str, str], dict[str, object]] = {}

    @property
    def app(self) -> Starlette:
        """The gateway as an ASGI application."""
        functions = Route("/system/functions", self._answer, methods=["GET", "POST", "PUT"])
        return Starlette(routes=[functions, Route("/healthz", PlainTextResponse("OK"))])

    async def _answer(self, request: Request) -> Response:
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, self._credentials):
            return PlainTextResponse("invalid credentials", 401)
        if request.method in {"GET", "HEAD"}:
            return self._list(request.query_params.get("namespace"))
        return self._deploy(await request.json(), update=request.method == "PUT")

    def _list(self, namespace: str | None) -> Response:
        wanted = namespace or _DEFAULT_NAMESPACE
        return JSONResponse(
            [f for (namespace, _), f in self._functions.items() if namespace == wanted]
        )

    def _deploy(self, body: dict[str, str], *, update: bool) -> Response:
        # As in the real gateway, POST only creates a function and PUT only replaces one.
        name, namespace = body["service"], body.get("namespace") or _DEFAULT_NAMESPACE
        exists = (namespace, name) in self._functions
        if update and not exists:
            return PlainTextResponse(f"function {name} not found", 404)
        if exists and not update:
            return PlainTextResponse(f"function {name} already exists", 409)
        self._functions[namespace, name] = {
            "name": name,
            "namespace": namespace,
            "image": body["image"],
            "replicas": 1,
        }
        return Response(status_code=202)
