"""
The access log: one line for each request that was answered, written when its answer has ended.

The line names the caller as the audit trail does, once its token was verified. The path is as it
was sent, without its query and without tokens, and cut. Requests that the HTTP server refuses by
itself, such as malformed ones, never get here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.audit.event import Trail, shown_actor, shown_path
from federation.web.rate_limit import Network, caller_of

LOGGER = "federation.access"


@dataclass(slots=True)
class _Answer:
    """The status and the bytes sent of one answer."""

    send: Send
    status: int | None = None
    sent_bytes: int = 0
    whole: bool = False

    async def pass_on(self, message: Message) -> None:
        """Send *message*, and note it."""
        await self.send(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)


@dataclass(frozen=True, slots=True)
class AccessLog:
    """ASGI middleware around *app*. *info* writes a line."""

    app: ASGIApp
    trusted_proxies: Sequence[Network]
    info: Callable[..., None] = field(repr=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, then log it if an answer began."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, answer = perf_counter(), _Answer(send)
        state = scope.setdefault("state", {})
        try:
            await self.app(scope, receive, answer.pass_on)
        finally:
            if answer.status is not None:
                self._log(scope, state.get("trail"), answer, perf_counter() - began)

    def _log(self, scope: Scope, trail: Trail | None, answer: _Answer, seconds: float) -> None:
        actor = shown_actor(trail.actor) if trail and trail.actor else None
        self.info(
            "access",
            request_id=scope["state"].get("request_id"),
            client=caller_of(scope, self.trusted_proxies),
            sub=actor and actor.sub,
            fed_issuer=actor and actor.fed_issuer,
            method=scope["method"],
            path=shown_path(scope["raw_path"].decode("latin-1")),
            status=answer.status,
            # The server leaves the body of an answer to HEAD out.
            bytes=0 if scope["method"] == "HEAD" else answer.sent_bytes,
            seconds=round(seconds, 6),
            **({} if answer.whole else {"cut_short": True}),
        )
