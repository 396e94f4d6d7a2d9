"""
`POST /oauth/token` (RFC 8693): reads the form, exchanges the token, answers with JSON.

A grant's audit event is recorded by the exchange, before the grant is given. The event of a
refusal is recorded here, before the error boundary answers. A request without a valid token makes
none: the log has it, and it is counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from starlette.types import Receive, Scope, Send

from federation.audit.event import Standing, Trail
from federation.audit.log import log_refusal
from federation.audit.recording import Recording
from federation.errors import Reason, Refusal
from federation.exchange import Broker, ExchangeRequest, Grant, TokenType, exchange, next_stage
from federation.jose.strict_json import dumps
from federation.web.forms import Form, invalid_request, read_form
from federation.web.rate_limit import Failures, Network, caller_of
from federation.web.refusals import JSON_HEADERS, respond

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_REPEATABLE = frozenset({"audience", "role"})
_TOKEN_TYPES = (TokenType.ACCESS_TOKEN, TokenType.ID_TOKEN, TokenType.JWT)
_NAMES = 50


class Observer(Protocol):
    """Counts exchanges."""

    def exchanged(self, reason: Reason | None, seconds: float) -> None:
        """Count an exchange that took *seconds*: granted, or refused for *reason*."""

    def shadow_admitted(self, roles: Sequence[str]) -> None:
        """Count an exchange that the shadow Roles named *roles* would have admitted."""


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """The token endpoint (RFC 8693, section 2), as an ASGI application."""

    broker: Broker
    failures: Failures
    trusted_proxies: Sequence[Network]
    observer: Observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one exchange, or raise a Refusal whose event is recorded."""
        began = perf_counter()
        trail = Trail(
            request_id=scope["state"]["request_id"],
            method=scope["method"],
            path=scope["path"],  # a URL would be made with the Host header, which may say anything
            started=self.broker.clock(),
        )
        scope["state"]["trail"] = trail  # the access log names the caller
        reason: Reason | None = Reason.SERVER_ERROR
        try:
            try:
                self._check_failures(scope)
                form = await read_form(scope, receive, repeatable=_REPEATABLE)
                await next_stage()
                # Again: a caller can open thousands of requests and send their bodies at one moment.
                self._check_failures(scope)
                grant = await exchange(understand(form), self.broker, trail)
            except Exception as error:
                if isinstance(error, Refusal):
                    self.failures.count(caller_of(scope, self.trusted_proxies), error.reason)
                await Recording(self.broker.journal, trail).record_error(error)
                raise
            # Outside the block: the grant has its event, and a failure to send must not add one.
            await _send_grant(grant, send)
            reason = None
        except Refusal as refusal:
            reason = refusal.reason
            if trail.standing is Standing.UNKNOWN:
                log_refusal(trail, refusal)
            raise
        finally:
            self.observer.exchanged(reason, perf_counter() - began)
            if trail.shadow_roles:
                self.observer.shadow_admitted(trail.shadow_roles)

    def _check_failures(self, scope: Scope) -> None:
        if len(self.failures):
            self.failures.check(caller_of(scope, self.trusted_proxies))


def understand(form: Form) -> ExchangeRequest:
    """
    The exchange that *form* asks for (RFC 8693, section 2.1).

    Raises: Refusal with `unsupported_grant_type`, `invalid_request` or `invalid_scope`.
    """
    one = {name: values[0] for name, values in form.items()}
    if "grant_type" not in one:
        raise invalid_request(
            "grant_type is missing; send the parameters in the body, not in the URL."
        )
    if one["grant_type"] != GRANT_TYPE:
        raise Refusal(Reason.UNSUPPORTED_GRANT_TYPE)
    for name in ("subject_token", "subject_token_type"):
        if name not in one:
            raise invalid_request(f"{name} is missing.")
    if one["subject_token_type"] not in _TOKEN_TYPES:
        raise invalid_request(
            f"subject_token_type must be {TokenType.ID_TOKEN} or {TokenType.JWT}."
        )
    issued = one.get("requested_token_type", TokenType.ACCESS_TOKEN)
    if issued not in _TOKEN_TYPES:
        raise invalid_request(f"requested_token_type must be {TokenType.ACCESS_TOKEN}.")
    if one.get("scope", "function") != "function":
        raise Refusal(Reason.INVALID_SCOPE, "The only scope is function.")
    audience, roles = form.get("audience", ()), form.get("role", ())
    if len(audience) > _NAMES or len(roles) > _NAMES:
        raise invalid_request(f"At most {_NAMES} audiences or roles may be named.")
    return ExchangeRequest(
        subject_token=one["subject_token"],
        subject_token_type=one["subject_token_type"],
        audience=tuple(dict.fromkeys(audience)),
        for_functions="scope" in one,
        roles=tuple(dict.fromkeys(roles)),
        issued_token_type=issued,
    )


def _send_grant(grant: Grant, send: Send) -> Awaitable[None]:
    members: dict[str, object] = {
        "access_token": grant.token,
        "issued_token_type": grant.issued_token_type,
        "token_type": "Bearer",
        "expires_in": grant.expires_in_seconds,
    }
    if grant.scope is not None:
        members["scope"] = grant.scope
    return respond(send, 200, JSON_HEADERS, dumps(members))
