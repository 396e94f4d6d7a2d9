"""
The guard around every page: whom it answers, the headers of every answer, and unexpected errors.

Pages are answered for the host of the public URL only, so that no other name that leads here (DNS
rebinding) has our cookies or forms. A page of another origin may link to us and nothing more: it
can neither frame, nor load, nor post.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import structlog
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.dashboard.provider import ProviderInUse
from federation.web.forms import request_id_of
from federation.web.rate_limit import Network

FOR_MACHINES = frozenset({"/livez", "/readyz", "/auth/backchannel-logout"})
"""The paths that probes and the provider ask for, by whatever name they know this process."""

_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "x-frame-options": "DENY",
}
_HSTS = "max-age=31536000"


@dataclass(frozen=True, slots=True)
class Guard:
    """ASGI middleware around *app*, whose pages are at *public_url*."""

    app: ASGIApp
    public_url: str
    provider: ProviderInUse
    trusted_proxies: Sequence[Network] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope, self.trusted_proxies)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": self._headers(message["headers"], request_id)}
            await send(message)

        try:
            if problem := self._problem(scope):
                await problem(scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        except Exception as error:
            log = structlog.get_logger("federation.dashboard")
            log.error("unexpected error", request_id=request_id, exc_info=error)
            if started:
                raise  # the server closes the connection, so that half a page shows as half
            sentence = f"The dashboard failed. Its log has the details under {request_id}.\n"
            await PlainTextResponse(sentence, 500)(scope, receive, send_with_headers)

    def _problem(self, scope: Scope) -> PlainTextResponse | None:
        """Return why this request is refused before any page sees it."""
        if scope["path"] in FOR_MACHINES:
            return None
        hosts = [value.lower() for name, value in scope["headers"] if name == b"host"]
        if hosts != [urlsplit(self.public_url).netloc.lower().encode("ascii")]:
            return PlainTextResponse(f"This dashboard is at {self.public_url}/\n", 421)
        if not _may_load(scope):
            return PlainTextResponse("Other sites may link to this page and nothing more.\n", 403)
        return None

    def _headers(
        self, given: Sequence[tuple[bytes, bytes]], request_id: str
    ) -> list[tuple[bytes, bytes]]:
        headers = {**_HEADERS, "content-security-policy": self.policy(), "x-request-id": request_id}
        if self.public_url.startswith("https:"):
            headers["strict-transport-security"] = _HSTS
        if not any(name == b"cache-control" for name, _ in given):
            headers["cache-control"] = "no-store"
        return [*given, *((n.encode("ascii"), v.encode("ascii")) for n, v in headers.items())]

    def policy(self) -> str:
        """
        The Content-Security-Policy of every answer.

        `form-action` names the provider, since browsers apply it to the redirect after the form
        for signing out too.
        """
        sign_out = self.provider.sign_out_origin()
        form_action = f"'self' {sign_out}" if sign_out else "'self'"
        return (
            "default-src 'none'; style-src 'self'; img-src 'self';"
            f" form-action {form_action}; frame-ancestors 'none'; base-uri 'none';"
            " require-trusted-types-for 'script'; trusted-types 'none'"
        )


def _may_load(scope: Scope) -> bool:
    """
    Whether the browser says that the request is ours, or that a person followed a link to it.

    What another origin posts is refused by the page itself, in the same way for browsers that say
    nothing (Fetch Metadata).
    """
    said = {
        name: value
        for name, value in scope["headers"]
        if name in {b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest"}
    }
    if said.get(b"sec-fetch-site") not in {b"cross-site", b"same-site"}:
        return True
    return said.get(b"sec-fetch-mode") == b"navigate" and said.get(b"sec-fetch-dest") in {
        b"document",
        None,
    }
