"""
The base of every API endpoint: authenticate the caller, decide, answer, record.

The caller shows an access token, as at the gateway. A function token is never taken: functions
get it, and they must not act for the person. What an endpoint needs is decided before its body is
read, and again after it, since the token or its policies may have ended meanwhile. There are no
CORS headers, no cookies and no Basic credentials, so a page of another origin can read nothing and
a browser adds nothing to its requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog
from starlette.types import Receive, Scope, Send

from federation.audit.event import Actor, Standing, Trail, token_sha256
from federation.audit.log import facts
from federation.audit.recording import Recording
from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.errors import HttpError, Reason, Refusal
from federation.exchange import Broker
from federation.gateway.authorize import TokenCaller, denied
from federation.gateway.refusals import BEARER, NotAuthenticated
from federation.gateway.request import access_token
from federation.policy.permissions import Access, decide
from federation.tokens.verify import AccessTokens
from federation.web.api.parameters import json_body, no_query
from federation.web.refusals import JSON_HEADERS, respond


class Observer(Protocol):
    """Counts what the API decides and refuses, beside what the gateway does."""

    def decided(self, action: str, allowed: bool) -> None:
        """Count that *action* was allowed or denied."""

    def not_authenticated(self, reason: Reason | None) -> None:
        """Count a request without a token, or with one that was refused for *reason*."""


@dataclass(frozen=True, slots=True)
class Api:
    """The state and methods that all endpoints share."""

    broker: Broker
    tokens: AccessTokens
    count_invalid_token: Callable[[Scope, Reason], None]
    """Raises: Refusal with `too_many_failures` if the caller's address sent too many before."""
    observer: Observer
    challenge: str = BEARER
    """The challenge of a 401."""

    async def caller(self, scope: Scope, trail: Trail) -> Asked:
        """The caller of a request. Raises: NotAuthenticated, Refusal if that cannot be told now."""
        token = _bearer_token(scope)
        if token is None:
            raise NotAuthenticated(challenge=self.challenge)
        trail.token_sha256 = token_sha256(token)
        broker = self.broker
        try:
            bearer = await self.tokens.bearer(token, broker.signing)
        except Refusal as refusal:
            if refusal.reason.temporary:
                raise
            raise NotAuthenticated(refusal, challenge=self.challenge) from refusal
        catalog = broker.source.current()
        catalog.check_read()
        claims = bearer.claims
        trail.actor = Actor(str(claims["sub"]), broker.issuer_url, str(claims.get("fed:iss", "")))
        trail.standing = Standing.ADMITTED
        trail.roles, trail.policies = bearer.roles, bearer.policies
        caller = TokenCaller(bearer, broker.policies.of(catalog, bearer.held))
        return Asked(caller, catalog, trail, self.observer, query=scope["query_string"])


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a caller with a good access token."""

    caller: TokenCaller
    catalog: Catalog
    """All documents. Only a caller with `Documents:Read` may learn of them."""
    trail: Trail = field(repr=False)
    observer: Observer = field(repr=False)
    query: bytes = b""
    """The query as it was sent. An endpoint that has no parameters never sees one."""
    body: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The JSON object in the body of a POST."""

    @property
    def claims(self) -> Claims:
        """The claims of the access token."""
        return self.caller.bearer.claims

    @property
    def person(self) -> str:
        """Whom the token is for. All tokens of one person or job share their turns."""
        return f"{self.claims.get('fed:iss', '')} {self.claims['sub']}"

    def need(self, action: str) -> None:
        """Make sure that the caller may do *action*, and record it. Raises: Denied."""
        trail = self.trail
        if action not in trail.actions:
            trail.actions = (*trail.actions, action)
        decision = decide(self.caller.policies, Access(action, "*", "*"), self.claims)
        trail.evidence = {"policy": decision.policy, "sid": decision.sid}
        self.observer.decided(action, decision.allowed)
        if not decision.allowed:
            raise denied(self.caller, decision)


Answer = Callable[[Asked], Awaitable[bytes]]
"""Returns the JSON that answers a request. Raises: HttpError."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as an ASGI application. If it *needs* an action, its requests are audited."""

    api: Api
    answer: Answer
    needs: str | None = None
    has_query: bool = False
    has_body: bool = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or raise an HttpError whose event is recorded."""
        broker = self.api.broker
        trail = Trail(
            request_id=scope["state"]["request_id"],
            method=scope["method"],
            path=scope["path"],
            started=broker.clock(),
        )
        scope["state"]["trail"] = trail  # the access log names the caller
        recording = Recording(broker.journal, trail, audited=self.needs is not None)
        try:
            async with recording:
                body = await self._answer(scope, receive, trail, recording)
                await recording.record(200)
        except HttpError as error:
            # What is raised has no name here: it would hold itself by its traceback.
            raise _logged(self._limited(error, scope), trail) from error.__cause__
        await respond(send, 200, JSON_HEADERS, body)

    async def _answer(
        self, scope: Scope, receive: Receive, trail: Trail, recording: Recording
    ) -> bytes:
        asked = await self._admitted(scope, trail)
        if not self.has_query:
            no_query(scope)
        if self.has_body:
            body = await json_body(scope, receive)
            # While the body arrived, the token or its policies may have ended.
            asked = replace(await self._admitted(scope, trail), body=body)
        recording.check()  # what cannot be recorded is not answered
        return await self.answer(asked)

    async def _admitted(self, scope: Scope, trail: Trail) -> Asked:
        asked = await self.api.caller(scope, trail)
        if self.needs is not None:
            asked.need(self.needs)
        return asked

    def _limited(self, error: HttpError, scope: Scope) -> HttpError:
        """Return *error*, or the 429 for an address that sent too many invalid tokens."""
        if not isinstance(error, NotAuthenticated):
            return error
        self.api.observer.not_authenticated(error.reason)
        try:
            if error.reason is not None:
                self.api.count_invalid_token(scope, error.reason)
        except Refusal as refusal:
            return refusal
        return error


def _bearer_token(scope: Scope) -> str | None:
    """The token in the only `Authorization` header. Basic is for faas-cli at the gateway alone."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1 or values[0][:7].lower() != b"bearer ":
        return None
    return access_token(values)


def _logged(error: HttpError, trail: Trail) -> HttpError:
    """Return *error*, which was logged. One that is not audited leaves no other trace."""
    trail.refused(error)
    event = trail.event(error.status)
    said = {"reason": event.reason, "evidence": event.evidence, "sentence": trail.message}
    structlog.get_logger("federation.api").info(
        "api request refused", **facts(event), **{name: fact for name, fact in said.items() if fact}
    )
    return error
