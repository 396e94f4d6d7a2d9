"""
`POST /oauth/token`: from a form to an `ExchangeRequest`, from a grant or refusal to JSON.

After this room nobody sees a form. The audit event is recorded whatever happens: by the road
itself for a grant, before it is given; here for a refusal or a fault, before it is sent.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.audit.event import Trail
from federation.errors import Reason, Refusal
from federation.exchange import Broker, ExchangeRequest, Grant, TokenType, exchange
from federation.web.brakes import FailedExchanges, caller_of
from federation.web.metrics import Metrics
from federation.web.requests import Form, read_form
from federation.web.responses import NO_STORE, refusal_response, status_of

__all__ = ["GRANT_TYPE", "understand"]

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_REPEATABLE = frozenset({"audience", "role"})
_TOKEN_TYPES = (TokenType.ACCESS_TOKEN, TokenType.ID_TOKEN, TokenType.JWT)
_NAMES = 50


async def token(request: Request) -> Response:
    """The token endpoint (RFC 8693, section 2)."""
    attempt = _Attempt.of(request)
    try:
        attempt.failures.check(attempt.caller)
        wanted = understand(await read_form(request, repeatable=_REPEATABLE))
        grant = await exchange(wanted, attempt.broker, attempt.trail)
    except Refusal as refusal:
        return await attempt.refused(refusal)
    except Exception:
        # It is answered and logged at the edge; here it only leaves its event.
        await attempt.failed()
        raise
    return attempt.granted(grant)


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


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One exchange from its request to its answer, counted and recorded whatever comes of it."""

    broker: Broker
    failures: FailedExchanges
    metrics: Metrics
    caller: str
    trail: Trail
    began: float

    @classmethod
    def of(cls, request: Request) -> _Attempt:
        """The attempt that *request* is."""
        parts = request.app.state
        trail = Trail(
            request_id=request.state.request_id,
            method=request.method,
            path=request.scope["path"],  # the URL is made with Host, which may say anything
            started=parts.broker.clock(),
        )
        caller = caller_of(request, parts.trusted_proxies)
        return cls(
            parts.broker, parts.failed_exchanges, parts.metrics, caller, trail, perf_counter()
        )

    def granted(self, grant: Grant) -> Response:
        """The answer that gives *grant*, whose event the road has recorded."""
        self._count(None)
        return _granted(grant)

    async def refused(self, refusal: Refusal) -> Response:
        """The answer that says no, once its event is recorded."""
        self.trail.refused(refusal)
        self.failures.count(self.caller, refusal.reason)
        try:
            await self.broker.journal.record(self.trail.event(status_of(refusal)))
        except Refusal as silent:
            refusal = silent
        self._count(refusal.reason)
        return refusal_response(refusal, self.trail.request_id)

    async def failed(self) -> None:
        """A fault of ours is recorded, if it can be."""
        self.trail.reason, self.trail.message = Reason.SERVER_ERROR, Reason.SERVER_ERROR.sentence
        with suppress(Refusal):
            await self.broker.journal.record(self.trail.event(500))
        self._count(Reason.SERVER_ERROR)

    def _count(self, reason: Reason | None) -> None:
        self.metrics.exchanged(reason, perf_counter() - self.began)


def _granted(grant: Grant) -> Response:
    members: dict[str, object] = {
        "access_token": grant.token,
        "issued_token_type": grant.issued_token_type,
        "token_type": "Bearer",
        "expires_in": grant.expires_in_seconds,
    }
    if grant.scope is not None:
        members["scope"] = grant.scope
    return JSONResponse(members, headers=NO_STORE)
