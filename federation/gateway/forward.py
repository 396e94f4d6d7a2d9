"""
Forwards an authorized call to the upstream, and streams the response to the caller.

The upstream gets the form that was authorized, with the broker's own credentials. The response
begins only after the request's audit event is recorded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from starlette.types import Send

from federation.audit.recording import Recording
from federation.errors import Reason
from federation.gateway.authorize import GrantedList, Permit, Public, TokenCaller
from federation.gateway.client import Transport, UpstreamRequest, UpstreamResponse
from federation.gateway.function_headers import FunctionHeaders
from federation.gateway.headers import (
    Headers,
    forwarding_headers,
    response_headers,
    upstream_headers,
)
from federation.gateway.narrow import LIST_BYTES, narrow
from federation.gateway.refusals import CallerGone, UpstreamFailed
from federation.gateway.request import Request
from federation.gateway.routes import Call, HealthCall, Kind
from federation.gateway.upstream import Upstream


class Observer(Protocol):
    """Counts what happens to requests, by values of small closed sets."""

    def decided(self, action: str, allowed: bool) -> None:
        """Count a decision about *action*."""

    def forwarded(self, route: str, outcome: str, seconds: float) -> None:
        """Count that the upstream began to respond, or failed to, after *seconds*."""

    def not_authenticated(self, reason: Reason | None) -> None:
        """Count a request without a valid token: there was none, or it was refused for *reason*."""

    def answered(self, status: int) -> None:
        """Count that the caller got *status*."""


@dataclass(slots=True)
class Reply:
    """The response to the caller. It begins only once the event of the request is recorded."""

    send: Send
    recording: Recording
    observer: Observer
    has_left: Callable[[], bool]
    """True if the server knows that the caller has left."""
    status: int | None = None
    """None until it has begun."""

    async def begin(self, status: int, headers: Headers) -> None:
        """
        Record the event, then send status and headers.

        Raises: Refusal with `audit_unavailable`.
        """
        await self.recording.record(status)
        self.status = status
        self.observer.answered(status)
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, piece: bytes, *, more: bool = False) -> None:
        """
        Send a piece of the body, the last one unless *more* follows.

        Raises: CallerGone. While the upstream does not take the request's body, nothing is read from
        the caller, so no disconnect is received. An upstream that streams could go on for ever.
        """
        if more and self.has_left():
            raise CallerGone
        await self.send({"type": "http.response.body", "body": piece, "more_body": more})


async def forward(
    request: Request,
    call: Call | HealthCall,
    permit: Permit,
    reply: Reply,
    upstream: Upstream,
    *,
    to_functions: FunctionHeaders,
) -> None:
    """
    Send *call*, which *permit* allows, to the upstream, and the response to the caller.

    Raises: UpstreamFailed; CallerGone and TooSlow while the body of *request* streams; Refusal
    with `audit_unavailable`.
    """
    streams = call.kind.streams
    body: AsyncIterator[bytes] | bytes | None = call.body
    if streams and request.has_body:
        body = request.body.stream()
    else:
        request.body.finish()
    host = next(iter(request.values(b"host")), b"")
    given = request.headers
    if isinstance(call, Call) and streams:
        given = to_functions.passing(given, call)
    headers = upstream_headers(
        given,
        function=streams,
        json=call.body is not None,
        authorization=_authorization(request, given, call, permit, upstream),
        forwarding=forwarding_headers(request.addresses, request.scheme, host, request.id),
    )
    endless = call.kind is Kind.LOGS
    sent = UpstreamRequest(call.method, call.target, headers, body, endless)
    response = await _send(sent, call.kind, upstream.way_of(call.kind), reply.observer)
    try:
        if not streams and response.status in {401, 403}:
            # Passed on, it would look like a fault of the caller's own token.
            raise UpstreamFailed(f"it answered {response.status} to the broker's own password")
        if isinstance(permit, GrantedList) and response.status == 200:
            await _reply_narrowed(reply, response, permit.caller)
        else:
            await _reply(reply, response, function=streams)
    finally:
        await response.close()


def _authorization(
    request: Request,
    passing: Headers,
    call: Call | HealthCall,
    permit: Permit,
    upstream: Upstream,
) -> bytes | None:
    """
    The credential for the upstream: the broker's own for the API, none for functions.

    Only a public function gets the caller's, since it checks its callers itself. It must be the
    only one in *request*, and be among the *passing* headers.
    """
    if isinstance(call, HealthCall):
        return None
    if not call.kind.streams:
        return upstream.authorization()
    if not isinstance(permit, Public) or len(request.values(b"authorization")) != 1:
        return None
    return next((value for name, value in passing if name == b"authorization"), None)


async def _send(
    request: UpstreamRequest, kind: Kind, transport: Transport, observer: Observer
) -> UpstreamResponse:
    began, outcome = perf_counter(), "failed"
    try:
        response = await transport.send(request)
        outcome = "answered"
    except UpstreamFailed as failed:
        outcome = "timed_out" if failed.timed_out else "failed"
        raise
    finally:
        observer.forwarded(kind, outcome, perf_counter() - began)
    return response


async def _reply(reply: Reply, response: UpstreamResponse, *, function: bool) -> None:
    headers = response_headers(response.headers, function=function, status=response.status)
    await reply.begin(response.status, headers)
    if response.whole is None:
        async for piece in response.body:
            await reply.write(piece, more=True)
    await reply.write(response.whole or b"")


async def _reply_narrowed(reply: Reply, response: UpstreamResponse, caller: TokenCaller) -> None:
    listed = bytearray(response.whole or b"")
    async for piece in response.body:
        listed += piece
        if len(listed) > LIST_BYTES:
            break  # `narrow` raises the error
    body = narrow(bytes(listed), caller.policies, caller.bearer.claims)
    headers = response_headers(response.headers, function=False, status=200, rewritten=True)
    await reply.begin(response.status, [*headers, (b"content-length", b"%d" % len(body))])
    await reply.write(body)
