"""
The gateway road: authenticate the caller, read the call, authorize it, forward it.

Each step needs the value that the step before it returned, so none can be left out: nothing
reaches the upstream without a permit, and what reaches it is the call that was authorized.
Errors are raised; the error boundary in `web/refusals` turns them into responses.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import NoReturn

import structlog
from starlette.types import Receive, Scope, Send

from federation.audit import Journal
from federation.audit.event import Actor, Standing, Trail, token_sha256
from federation.audit.log import facts
from federation.audit.recording import Recording
from federation.errors import Reason, Refusal
from federation.gateway.authorize import Anonymous, Caller, Granted, Permit, TokenCaller, authorize
from federation.gateway.body_budget import BodyBudget
from federation.gateway.forward import Observer, Reply, forward
from federation.gateway.function_headers import FunctionHeaders
from federation.gateway.refusals import (
    BEARER,
    FUNCTION_CHALLENGE,
    CallerGone,
    Denied,
    GatewayError,
    NotAuthenticated,
    NotMapped,
    Unavailable,
)
from federation.gateway.request import Request, access_token, run_until
from federation.gateway.request_lines import RequestLines
from federation.gateway.routes import (
    BODY_BYTES,
    Call,
    HealthCall,
    Kind,
    Match,
    check_headers,
    match,
    read,
)
from federation.gateway.upstream import Upstream
from federation.policy.index import PolicySets
from federation.policy.permissions import Decision
from federation.sources import Source
from federation.tokens.signing_keys import SigningKeys
from federation.tokens.verify import AccessTokens, Bearer

# A followed log ends within 5 s. A revocation takes up to 1 s to be known everywhere, and a change
# of the documents up to 2 s.
_ASK_AGAIN_SECONDS = 2.0
_LEAST_SECONDS = 0.01


class Functions(StrEnum):
    """The setting `functions`: who may call functions through the broker."""

    OPEN = "open"
    """Everybody; the function itself checks its callers."""
    AUTHORIZE = "authorize"
    """Callers with `Function:Invoke` on it, and those with a function token for it."""
    CLOSED = "closed"
    """No caller at all."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """The ASGI application for every path that is not the broker's own."""

    issuer_url: str
    source: Source
    signing: Callable[[], SigningKeys] = field(repr=False)
    tokens: AccessTokens
    policies: PolicySets
    upstream: Upstream
    journal: Journal
    clock: Callable[[], float]
    is_from_proxy: Callable[[Scope], bool]
    """True if a request comes from a proxy whose word about the caller is taken."""
    bodies: BodyBudget
    functions: Functions
    to_functions: FunctionHeaders
    default_namespace: str
    audited: Collection[str]
    """The methods whose requests make an audit event."""
    observer: Observer
    count_invalid_token: Callable[[Scope, Reason], None]
    """Raises: Refusal with `too_many_failures` if the caller's address sent too many before."""
    lines: RequestLines = field(default_factory=RequestLines, repr=False)
    challenge: str = BEARER
    """The challenge of a 401 at the API (RFC 9110, section 11.6.1)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise a GatewayError whose event is recorded."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # a WebSocket is not one call to authorize
            return
        request = Request.of(
            scope,
            receive,
            public_scheme=self.issuer_url.partition(":")[0],
            is_from_proxy=self.is_from_proxy,
        )
        trail = Trail(request.id, request.method, scope["path"], started=self.clock())
        scope["state"]["trail"] = trail  # the access log names the caller
        recording = Recording(self.journal, trail, audited=request.method in self.audited)
        reply = Reply(send, recording, self.observer, request.body.has_left)
        try:
            async with recording:
                await self._handle(request, trail, reply)
        except CallerGone:
            return  # there is nobody to answer
        except Refusal as refusal:
            raise self._noted(Unavailable(refusal), trail, reply) from refusal
        except GatewayError as error:
            # What is raised has no name here. Else it would hold itself by its traceback, and with
            # it the body that was read, until the garbage collector comes.
            raise self._noted(self._limited(error, scope, reply), trail, reply) from error.__cause__
        except asyncio.CancelledError:
            # The server is stopping, and the upstream may have carried the call out.
            await recording.record_fault()
            raise

    async def _handle(self, request: Request, trail: Trail, reply: Reply) -> None:
        caller = await self._authenticate(request, trail)
        known = self.lines.get(line := (request.method, request.raw_path, request.raw_query))
        if known is None:
            matched = match(*line, request.headers)
        else:
            matched, call = known
            check_headers(matched.route, request.headers)
        if matched.route.body is None:
            if not matched.route.kind.streams:
                await request.body.expect_none()
            if known is None:
                call = read(matched, b"", default_namespace=self.default_namespace)
                self.lines.remember(line, matched, call)
            _note_call(call, trail)
            await self._do(call, caller, request, trail, reply)
            return
        async with self.bodies.room(_body_bytes(request), trail.actor):
            call = await self._read_with_body(matched, request)
            _note_call(call, trail)
            # While the body arrived, the token or its policies may have ended.
            caller = await self._authenticate(request, trail)
            await self._do(call, caller, request, trail, reply)

    async def _do(
        self,
        call: Call | HealthCall,
        caller: Caller,
        request: Request,
        trail: Trail,
        reply: Reply,
    ) -> None:
        """Authorize *call*, and forward it."""
        permit = self._authorize(caller, call, trail)
        reply.recording.check()  # what cannot be recorded is not done
        work = forward(request, call, permit, reply, self.upstream, to_functions=self.to_functions)
        if call.kind is Kind.LOGS:
            work = run_until(self._ask_again(request, call, caller, trail), work)
        await request.body.cancel_on_disconnect(work)

    async def _ask_again(
        self, request: Request, call: Call | HealthCall, caller: Caller, trail: Trail
    ) -> NoReturn:
        """Authorize *call* anew every few seconds. Raises: what refuses it, in the end."""
        while True:
            left = math.inf if isinstance(caller, Anonymous) else caller.expires - self.clock()
            await asyncio.sleep(min(max(left, _LEAST_SECONDS), _ASK_AGAIN_SECONDS))
            caller = await self._authenticate(request, trail)
            authorize(caller, call)

    async def _authenticate(self, request: Request, trail: Trail) -> Caller:
        """The caller, by its token; for a public path, `Anonymous`."""
        if self._is_public(request):
            return Anonymous()
        token = access_token(request.values(b"authorization"))
        if token is None:
            raise NotAuthenticated(challenge=self._challenge(request))
        trail.token_sha256 = token_sha256(token)
        known = self.tokens.holder if request.for_function else self.tokens.bearer
        try:
            bearer = await known(token, self.signing())
        except Refusal as refusal:
            if refusal.reason.temporary:
                raise
            raise NotAuthenticated(refusal, challenge=self._challenge(request)) from refusal
        catalog = self.source.current()
        catalog.check_read()
        claims = bearer.claims
        trail.actor = Actor(str(claims["sub"]), self.issuer_url, str(claims.get("fed:iss", "")))
        trail.standing = Standing.ADMITTED
        if not isinstance(bearer, Bearer):
            return bearer
        trail.roles, trail.policies = bearer.roles, bearer.policies
        return TokenCaller(bearer, self.policies.of(catalog, bearer.held))

    def _challenge(self, request: Request) -> str:
        return FUNCTION_CHALLENGE if request.for_function else self.challenge

    def _is_public(self, request: Request) -> bool:
        """True for the health check, and for functions if they check their callers themselves."""
        if not request.for_function:
            return request.raw_path == b"/healthz" and request.method in {"GET", "HEAD"}
        if self.functions is Functions.CLOSED:
            raise NotMapped("Functions cannot be called through this gateway.")
        return self.functions is Functions.OPEN

    async def _read_with_body(self, matched: Match, request: Request) -> Call | HealthCall:
        """The call that *request* asks for in its body."""
        body = await request.body.read(BODY_BYTES)
        reads = partial(read, matched, default_namespace=self.default_namespace)
        return await self.bodies.parse(body, reads)

    def _authorize(self, caller: Caller, call: Call | HealthCall, trail: Trail) -> Permit:
        """The permit to forward *call*. The decision is noted, also if it is no."""
        try:
            permit = authorize(caller, call)
        except Denied as denied:
            self._note(denied.decision, trail)
            raise
        if isinstance(permit, Granted):
            self._note(permit.decision, trail)
        if isinstance(caller, Anonymous):
            trail.standing = Standing.OUTSIDER
        return permit

    def _note(self, decision: Decision, trail: Trail) -> None:
        trail.evidence = {"policy": decision.policy, "sid": decision.sid}
        self.observer.decided(decision.access.action, decision.allowed)

    def _limited(self, error: GatewayError, scope: Scope, reply: Reply) -> GatewayError:
        """Return *error*, or the 429 for an address that sent too many invalid tokens."""
        if reply.status is not None or not isinstance(error, NotAuthenticated):
            return error
        self.observer.not_authenticated(error.reason)
        try:
            if error.reason is not None:
                self.count_invalid_token(scope, error.reason)
        except Refusal as refusal:
            return Unavailable(refusal)
        return error

    def _noted(self, error: GatewayError, trail: Trail, reply: Reply) -> GatewayError:
        """
        Return *error*, which was counted and logged.

        A request that is not audited leaves no other trace.
        """
        log = structlog.get_logger("federation.gateway")
        if reply.status is not None:
            # Too late for another response: the connection is closed before the body's end.
            event = trail.event(reply.status)
            log.warning("gateway answer cut short", **facts(event), cause=str(error))
            return error
        self.observer.answered(error.status)
        trail.refused(error)
        event = trail.event(error.status)
        why = {"reason": event.reason, "evidence": event.evidence, "sentence": trail.message}
        said = {**facts(event), **{name: fact for name, fact in why.items() if fact}}
        if error.status >= 500:
            log.warning("gateway request failed", **said, cause=str(error))
        else:
            log.info("gateway request refused", **said)
        return error


def _note_call(call: Call | HealthCall, trail: Trail) -> None:
    trail.path = call.path
    if isinstance(call, Call):
        access = call.access
        trail.actions, trail.resource = (access.action,), access.resource
        trail.namespace = access.namespace.replace("*", "")


def _body_bytes(request: Request) -> int:
    """The most memory that the body takes when it is read."""
    announced = request.announced_bytes
    if announced is not None:
        return announced
    return BODY_BYTES if request.has_body else 0
