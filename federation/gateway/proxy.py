"""
The gateway road, top to bottom: who asks, for what, may they; then it is carried out.

Nothing reaches the upstream before it is decided, and what reaches it is the form that was
decided about, with the upstream's own credentials in place of the caller's. Answers stream as
they come; a caller that leaves ends its request at the upstream too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from time import perf_counter
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from federation.audit import Journal
from federation.audit.event import Actor, Trail, token_sha256
from federation.audit.log import facts
from federation.documents.model import Policy
from federation.errors import FederationError, Reason, Refusal
from federation.gateway.credentials import access_token
from federation.gateway.headers import (
    Forwarded,
    Headers,
    answer_headers,
    check_body_headers,
    upstream_headers,
)
from federation.gateway.incoming import CallerGone, Incoming, arrived
from federation.gateway.narrow import ANSWER_BYTES, may_list, narrow
from federation.gateway.refusals import RequestRefused
from federation.gateway.routes import BODY_BYTES, Call, Kind, Match, match, read
from federation.gateway.upstream import Answer, Upstream, UpstreamFailed
from federation.policy.index import PolicySets
from federation.policy.permissions import Decision, decide
from federation.sources import Source
from federation.steps import in_step
from federation.tokens.signing_keys import SigningKeys
from federation.tokens.verify import AccessTokens, Bearer, FunctionBearer

__all__ = ["Functions", "Gateway", "Observer"]

_CALLER_LEFT = 499
_FUNCTIONS = (b"/function/", b"/async-function/")
_CHALLENGE = b"Bearer"
# What a watchdog says that wants a function token: faas-cli looks for it, gets one and calls again.
_FUNCTION_CHALLENGE = b'Bearer realm="IAM function invoke"'


class Functions(StrEnum):
    """Who may call functions through the broker."""

    OPEN = "open"
    """Anybody; the function itself sees to it."""
    AUTHORIZE = "authorize"
    """Who has `Function:Invoke` on it, or a function token for it."""
    CLOSED = "closed"
    """Nobody."""


class Observer(Protocol):
    """Is told what happens on the road, as values of small closed sets."""

    def decided(self, action: str, allowed: bool) -> None:
        """It was decided whether a caller may do *action*."""

    def forwarded(self, route: str, outcome: str, seconds: float) -> None:
        """The upstream began to answer after *seconds*, or it failed."""

    def answered(self, status: int) -> None:
        """The caller got *status*."""


class _Denied(FederationError):
    """The decision was no. *sentence* is for the caller."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class _NotAuthenticated(FederationError):
    """There is no access token, or it is not good."""

    def __init__(self, refusal: Refusal | None = None) -> None:
        super().__init__(refusal)
        self.refusal = refusal


@dataclass(slots=True)
class _Exchange:
    """One request on the road, and what was found of it so far."""

    scope: Scope
    send: Send
    incoming: Incoming
    trail: Trail
    bearer: Bearer | FunctionBearer | None = None
    policies: tuple[Policy, ...] = ()
    answered: bool = False
    recorded: bool = False

    @property
    def headers(self) -> Headers:
        headers: Headers = self.scope["headers"]
        return headers

    @property
    def of_function(self) -> bool:
        """Whether it is meant for a function."""
        path: bytes = self.scope["raw_path"]
        return path.startswith(_FUNCTIONS)

    @property
    def authorization(self) -> list[str]:
        return [v.decode("latin-1") for n, v in self.headers if n.lower() == b"authorization"]


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
    functions: Functions
    default_namespace: str
    audited: Collection[str]
    """The methods whose requests make an audit event."""
    observer: Observer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # only requests can be decided about
            return
        trail = Trail(
            request_id=scope["state"]["request_id"],
            method=scope["method"],
            path=scope["path"],
            started=self.clock(),
        )
        exchange = _Exchange(scope, send, Incoming(receive, arrived=arrived(scope)), trail)
        try:
            await self._answer(exchange)
        except CallerGone:
            trail.message = trail.message or "The caller left before the answer began"
            with suppress(Refusal):
                await self._record(exchange, _CALLER_LEFT)
        except (FederationError, UpstreamFailed) as no:
            if exchange.answered:
                raise
            await self._say_no(exchange, no)
        except BaseException:
            # It is answered and logged at the edge; here it only leaves its event.
            trail.reason, trail.message = Reason.SERVER_ERROR, Reason.SERVER_ERROR.sentence
            with suppress(Refusal):
                await self._record(exchange, 500)
            raise

    async def _answer(self, exchange: _Exchange) -> None:
        """Authenticate, map, decide, forward."""
        scope = exchange.scope
        path, query = scope["raw_path"], scope["query_string"]
        public = self._is_public(exchange)
        if not public:
            await self._authenticate(exchange)
        matched = match(scope["method"], path, query)
        check_body_headers(
            exchange.headers,
            json=matched.reads_body,
            streams=matched.route.kind.streams,
            most_bytes=BODY_BYTES,
        )
        call = await self._understand(exchange, matched)
        if not public:
            self._decide(exchange, call)
        await in_step()
        if exchange.trail.method in self.audited:
            self.journal.check()  # what cannot be recorded is not done
        await exchange.incoming.while_waited_for(self._forward(exchange, call))

    def _is_public(self, exchange: _Exchange) -> bool:
        """Whether anybody may ask: health, and functions where they see to it themselves."""
        if exchange.scope["raw_path"] == b"/healthz":
            return exchange.trail.method in {"GET", "HEAD"}
        if exchange.of_function and self.functions is Functions.CLOSED:
            raise _Denied("Functions cannot be called through this gateway")
        return exchange.of_function and self.functions is Functions.OPEN

    async def _authenticate(self, exchange: _Exchange) -> None:
        token = access_token(exchange.authorization)
        if token is None:
            raise _NotAuthenticated
        trail = exchange.trail
        trail.token_sha256 = token_sha256(token)
        known = self.tokens.holder if exchange.of_function else self.tokens.bearer
        try:
            bearer = exchange.bearer = await known(token, self.signing())
        except Refusal as refusal:
            if refusal.reason.temporary:
                raise
            raise _NotAuthenticated(refusal) from refusal
        claims = bearer.claims
        trail.actor = Actor(str(claims["sub"]), self.issuer_url, str(claims.get("fed:iss", "")))
        if isinstance(bearer, Bearer):
            exchange.policies = self.policies.of(self.source.current(), bearer.policies)
            trail.roles, trail.policies = bearer.roles, bearer.policies

    async def _understand(self, exchange: _Exchange, matched: Match) -> Call:
        body = None
        if matched.reads_body:
            body = await exchange.incoming.whole(BODY_BYTES)
        elif not matched.route.kind.streams:
            await exchange.incoming.nothing()
        call = read(matched, exchange.headers, body, default_namespace=self.default_namespace)
        exchange.trail.path = call.path
        if call.access is not None:
            exchange.trail.actions = (call.access.action,)
            exchange.trail.namespace = call.access.namespace.replace("*", "")
        return call

    def _decide(self, exchange: _Exchange, call: Call) -> None:
        """The bearer may do what *call* asks for, or it ends here."""
        bearer, access = exchange.bearer, call.access
        if bearer is None or access is None:
            raise _NotAuthenticated
        if isinstance(bearer, FunctionBearer):
            decision = Decision(access, bearer.opens(access.namespace, access.name))
        elif call.kind is Kind.NAMESPACES:
            decision = may_list(exchange.policies, bearer.claims)
        else:
            decision = decide(exchange.policies, access, bearer.claims)
        exchange.trail.evidence = {"policy": decision.policy, "sid": decision.sid}
        if self.observer:
            self.observer.decided(access.action, decision.allowed)
        if not decision.allowed:
            raise _Denied(_why(decision, bearer))

    async def _forward(self, exchange: _Exchange, call: Call) -> None:
        """*call* is carried out, and its answer sent to the caller."""
        streams = call.kind.streams
        body = exchange.incoming.chunks() if streams and self._has_body(exchange) else call.body
        headers = upstream_headers(
            exchange.headers,
            function=streams,
            json=call.body is not None,
            authorization=self._upstream_authorization(exchange, call),
            forwarded=_forwarded(exchange.scope, exchange.headers),
            request_id=exchange.trail.request_id,
        )
        if not isinstance(body, AsyncIterator):
            exchange.incoming.no_more()
        answer = await self._sent(call, headers, body)
        try:
            await in_step()
            if not streams and answer.status in {401, 403}:
                raise UpstreamFailed(f"it answered {answer.status} to the broker's own password")
            if call.kind is Kind.NAMESPACES and answer.status == 200:
                await self._send_narrowed(exchange, answer)
            else:
                await self._send_on(exchange, call, answer)
        finally:
            await answer.end()

    async def _sent(
        self, call: Call, headers: Headers, body: AsyncIterator[bytes] | bytes | None
    ) -> Answer:
        """The upstream's answer to *call*; how long it took to begin is told."""
        began, outcome = perf_counter(), "failed"
        try:
            answer = await self.upstream.send(
                call.method, call.target, headers, body, endless=call.kind is Kind.LOGS
            )
            outcome = "answered"
        except UpstreamFailed as failed:
            outcome = "timed_out" if failed.timed_out else "failed"
            raise
        finally:
            if self.observer:
                self.observer.forwarded(call.kind.name.lower(), outcome, perf_counter() - began)
        return answer

    @staticmethod
    def _has_body(exchange: _Exchange) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in ((n.lower(), v) for n, v in exchange.headers)
        )

    def _upstream_authorization(self, exchange: _Exchange, call: Call) -> bytes | None:
        """The broker's own credentials for the API, the caller's for an open function."""
        if call.kind is Kind.HEALTH:
            return None
        if not call.kind.streams:
            return self.upstream.authorization()
        if self.functions is Functions.OPEN and len(exchange.authorization) == 1:
            return exchange.authorization[0].encode("latin-1")
        return None

    async def _send_on(self, exchange: _Exchange, call: Call, answer: Answer) -> None:
        await self._begin(
            exchange, answer.status, answer_headers(answer.headers, function=call.kind.streams)
        )
        if answer.whole is None:
            async for piece in answer.body:
                await exchange.send(
                    {"type": "http.response.body", "body": piece, "more_body": True}
                )
        await exchange.send({"type": "http.response.body", "body": answer.whole or b""})

    async def _send_narrowed(self, exchange: _Exchange, answer: Answer) -> None:
        whole = bytearray(answer.whole or b"")
        async for piece in answer.body:
            whole += piece
            if len(whole) > ANSWER_BYTES:
                break  # `narrow` says what is wrong
        claims = exchange.bearer.claims if exchange.bearer else None
        if claims is None:
            raise _NotAuthenticated
        body = narrow(bytes(whole), exchange.policies, claims)
        headers = [
            *answer_headers(answer.headers, function=False, rewritten=True),
            (b"content-length", str(len(body)).encode()),
        ]
        await self._begin(exchange, answer.status, headers)
        await exchange.send({"type": "http.response.body", "body": body})

    async def _say_no(self, exchange: _Exchange, no: Exception) -> None:
        """One plain sentence, and what a client needs to know to go on."""
        request_id = exchange.trail.request_id
        headers = []
        match no:
            case _NotAuthenticated():
                status, sentence = 401, "An access token is needed"
                if no.refusal is not None:
                    exchange.trail.refused(no.refusal)
                    sentence = no.refusal.reason.sentence.replace(
                        "subject token", "access token"
                    ).rstrip(".")
                asked = _FUNCTION_CHALLENGE if exchange.of_function else _CHALLENGE
                headers.append((b"www-authenticate", asked))
            case _Denied():
                status, sentence = 403, no.sentence
            case RequestRefused():
                status, sentence = no.status, no.sentence.rstrip(".")
            case Refusal():
                exchange.trail.refused(no)
                status, sentence = 503, no.public.rstrip(".")
                headers.append((b"retry-after", str(no.retry_after_seconds).encode()))
            case UpstreamFailed(timed_out=True):
                status, sentence = 504, "The gateway behind this broker did not answer in time"
            case _:
                status, sentence = 502, "The gateway behind this broker gave no usable answer"
        exchange.trail.message = exchange.trail.message or sentence
        self._log_no(exchange, status, no)
        body = f"{sentence}. Request id {request_id}.\n".encode()
        headers += [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        try:
            await self._begin(exchange, status, headers)
        except Refusal as silent:
            if exchange.answered:
                raise
            await self._say_no(exchange, silent)  # it cannot be recorded, and the caller hears that
            return
        await exchange.send({"type": "http.response.body", "body": body})

    @staticmethod
    def _log_no(exchange: _Exchange, status: int, no: Exception) -> None:
        log = structlog.get_logger("federation.gateway")
        event = exchange.trail.event(status)
        why = {
            "reason": event.reason,
            "evidence": event.evidence,
            "sentence": exchange.trail.message,
        }
        said = {**facts(event), **{name: fact for name, fact in why.items() if fact}}
        if status >= 500:
            log.warning("gateway request failed", **said, cause=str(no))
        else:
            log.info("gateway request refused", **said)

    async def _begin(self, exchange: _Exchange, status: int, headers: Headers) -> None:
        """The answer begins, and its event is recorded before."""
        await self._record(exchange, status)
        exchange.answered = True
        if self.observer:
            self.observer.answered(status)
        await exchange.send(
            {"type": "http.response.start", "status": status, "headers": list(headers)}
        )

    async def _record(self, exchange: _Exchange, status: int) -> None:
        """Its event is recorded, unless one attempt was made before."""
        if exchange.recorded:
            return
        exchange.recorded = True
        if exchange.trail.method in self.audited:
            await self.journal.record(exchange.trail.event(status))


def _why(decision: Decision, bearer: Bearer | FunctionBearer) -> str:
    access = f"{decision.access.action} on {decision.access.resource}"
    if isinstance(bearer, FunctionBearer):
        return f"{access} is not what this function token is for"
    if decision.policy is not None:
        return f"{access} is denied by statement {decision.sid} of policy {decision.policy}"
    return (
        f"{access} is not allowed by this token's policies ({', '.join(bearer.policies) or 'none'})"
    )


def _forwarded(scope: Scope, headers: Headers) -> Forwarded:
    client = scope.get("client")
    host = next((v for n, v in headers if n.lower() == b"host"), b"")
    return Forwarded(client[0] if client else "", scope["scheme"], host.decode("latin-1"))
