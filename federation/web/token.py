"""
`POST /oauth/token`: from a form to an `ExchangeRequest`, from a grant or refusal to JSON.

After this room nobody sees a form. The audit event is recorded whatever happens: by the road
itself for a grant, before it is given; here for a refusal or a fault, before it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from starlette.types import Receive, Scope, Send

from federation.audit.event import Trail
from federation.errors import Reason, Refusal
from federation.exchange import Broker, ExchangeRequest, Grant, TokenType, exchange
from federation.jose.strict_json import dumps
from federation.web.forms import Form, read_form
from federation.web.rate_limit import FailedExchanges, Network, caller_of
from federation.web.responses import NO_STORE, refusal_response, status_of

__all__ = ["GRANT_TYPE", "Observer", "TokenEndpoint", "understand"]

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_REPEATABLE = frozenset({"audience", "role"})
_TOKEN_TYPES = (TokenType.ACCESS_TOKEN, TokenType.ID_TOKEN, TokenType.JWT)
_NAMES = 50
_GIVEN_HEADERS = (
    (b"content-type", b"application/json"),
    *((name.lower().encode(), value.encode()) for name, value in NO_STORE.items()),
)


class Observer(Protocol):
    """Is told of each exchange."""

    def exchanged(self, reason: Reason | None, seconds: float) -> None:
        """An exchange was answered after *seconds*: granted, or refused for *reason*."""


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """The token endpoint (RFC 8693, section 2), as an ASGI application."""

    broker: Broker
    failures: FailedExchanges
    trusted_proxies: Sequence[Network]
    observer: Observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange."""
        began = perf_counter()
        trail = Trail(
            request_id=scope["state"]["request_id"],
            method=scope["method"],
            path=scope["path"],  # a URL is made with Host, which may say anything
            started=self.broker.clock(),
        )
        reason: Reason | None = Reason.SERVER_ERROR
        try:
            if len(self.failures):
                self.failures.check(caller_of(scope, self.trusted_proxies))
            wanted = understand(await read_form(scope, receive, repeatable=_REPEATABLE))
            await _give(await exchange(wanted, self.broker, trail), send)
            reason = None
        except Refusal as refusal:
            reason = await self._refuse(refusal, trail, scope, receive, send)
        except Exception:
            # It is answered and logged at the edge; here it only leaves its event.
            trail.reason, trail.message = Reason.SERVER_ERROR, Reason.SERVER_ERROR.sentence
            with suppress(Refusal):
                await self.broker.journal.record(trail.event(500))
            raise
        finally:
            self.observer.exchanged(reason, perf_counter() - began)

    async def _refuse(
        self, refusal: Refusal, trail: Trail, scope: Scope, receive: Receive, send: Send
    ) -> Reason:
        """The answer says no, once its event is recorded."""
        trail.refused(refusal)
        self.failures.count(caller_of(scope, self.trusted_proxies), refusal.reason)
        try:
            await self.broker.journal.record(trail.event(status_of(refusal)))
        except Refusal as silent:
            refusal = silent
        await refusal_response(refusal, trail.request_id)(scope, receive, send)
        return refusal.reason


def understand(form: Form) -> ExchangeRequest:
    """
    The exchange that *form* asks for.

    Raises: Refusal with `unsupported_grant_type`, `invalid_request` or `invalid_scope`.
    """
    one = {name: values[0] for name, values in form.items()}
    if "grant_type" not in one:
        raise Refusal(
            Reason.INVALID_REQUEST,
            "grant_type is missing; send the parameters in the body, not in the URL.",
        )
    if one["grant_type"] != GRANT_TYPE:
        raise Refusal(Reason.UNSUPPORTED_GRANT_TYPE)
    for name in ("subject_token", "subject_token_type"):
        if name not in one:
            raise Refusal(Reason.INVALID_REQUEST, f"{name} is missing.")
    if one["subject_token_type"] not in _TOKEN_TYPES:
        raise Refusal(
            Reason.INVALID_REQUEST,
            f"subject_token_type must be {TokenType.ID_TOKEN} or {TokenType.JWT}.",
        )
    issued = one.get("requested_token_type", TokenType.ACCESS_TOKEN)
    if issued not in _TOKEN_TYPES:
        raise Refusal(
            Reason.INVALID_REQUEST, f"requested_token_type must be {TokenType.ACCESS_TOKEN}."
        )
    if one.get("scope", "function") != "function":
        raise Refusal(Reason.INVALID_SCOPE, "The only scope is function.")
    if max(len(form.get("audience", ())), len(form.get("role", ()))) > _NAMES:
        raise Refusal(Reason.INVALID_REQUEST, f"At most {_NAMES} audiences or roles may be named.")
    return ExchangeRequest(
        subject_token=one["subject_token"],
        subject_token_type=one["subject_token_type"],
        audience=tuple(dict.fromkeys(form.get("audience", ()))),
        for_functions="scope" in one,
        roles=tuple(dict.fromkeys(form.get("role", ()))),
        issued_token_type=issued,
    )


async def _give(grant: Grant, send: Send) -> None:
    members: dict[str, object] = {
        "access_token": grant.token,
        "issued_token_type": grant.issued_token_type,
        "token_type": "Bearer",
        "expires_in": grant.expires_in_seconds,
    }
    if grant.scope is not None:
        members["scope"] = grant.scope
    body = dumps(members)
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length, *_GIVEN_HEADERS]})
    await send({"type": "http.response.body", "body": body})
