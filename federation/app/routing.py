"""Sends each request to the endpoint that answers it, or with an upstream to the gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from federation.gateway.proxy import Gateway
from federation.logs import quick_info
from federation.web.access_log import LOGGER as ACCESS_LOGGER
from federation.web.access_log import AccessLog
from federation.web.api.paths import PREFIX, ApiPaths
from federation.web.rate_limit import Network
from federation.web.refusals import ErrorBoundary
from federation.web.token import TokenEndpoint


class BrokerApp(Starlette):
    """
    The broker's routes; with an upstream, every other request goes to the gateway.

    Exchanges and gateway requests do not pass Starlette's router and middleware, which cost 6 to
    11 % of an exchange. `ErrorBoundary` is the only middleware, so they are wrapped in it here, and
    so is the API for people, which owns a whole tree of paths.
    """

    def __init__(
        self,
        exchanges: TokenEndpoint,
        api: ApiPaths,
        gateway: Gateway | None,
        trusted_proxies: Sequence[Network],
        *,
        docs: str | None,
        access_log: bool,
        **starlette: Any,
    ) -> None:
        super().__init__(**starlette)
        self._exchanges = ErrorBoundary(exchanges, trusted_proxies, docs)
        self._api = ErrorBoundary(api, trusted_proxies, docs)
        self._gateway = ErrorBoundary(gateway, trusted_proxies) if gateway else None
        self._own_requests = frozenset(
            (method, route.path)
            for route in self.routes
            if isinstance(route, Route)
            for method in route.methods or ()
        )

        self._answer: ASGIApp = self._route
        if access_log:
            info = quick_info(ACCESS_LOGGER)
            self._answer = AccessLog(self._route, trusted_proxies, info)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)

    def _route(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            # As it was sent: a reverse proxy that keeps `/readyz` to itself passes `/%72eadyz` on.
            scope["path"] = scope["raw_path"].decode("latin-1")
        request = scope.get("method"), scope.get("path")
        if request == ("POST", "/oauth/token"):
            return self._exchanges(scope, receive, send)
        if scope["type"] != "lifespan" and scope["path"].startswith(PREFIX):
            return self._api(scope, receive, send)
        if self._gateway and scope["type"] != "lifespan" and request not in self._own_requests:
            return self._gateway(scope, receive, send)
        return super().__call__(scope, receive, send)
