"""
`POST /oauth/token`: from a form to an `ExchangeRequest`, from a grant or refusal to JSON.

After this room nobody sees a form. The audit event is recorded whatever happens: by the road
itself for a grant, before it is given; here for a refusal or a fault, before it is sent.
"""

from __future__ import annotations

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.audit.event import Trail
from federation.errors import Reason, Refusal
from federation.exchange import Broker, ExchangeRequest, Grant, TokenType, exchange
from federation.web.requests import Form, read_form
from federation.web.responses import NO_STORE, refusal_response, status_of

__all__ = ["GRANT_TYPE", "understand"]

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_REPEATABLE = frozenset({"audience", "role"})
_TOKEN_TYPES = (TokenType.ACCESS_TOKEN, TokenType.ID_TOKEN, TokenType.JWT)
_NAMES = 50


async def token(request: Request) -> Response:
    """The token endpoint (RFC 8693, section 2)."""
    broker: Broker = request.app.state.broker
    trail = Trail(
        request_id=request.state.request_id,
        method=request.method,
        path=request.scope["path"],  # the URL is made with the Host header, which may say anything
        started=broker.clock(),
    )
    try:
        wanted = understand(await read_form(request, repeatable=_REPEATABLE))
        grant = await exchange(wanted, broker, trail)
    except Refusal as refusal:
        return await _refused(refusal, broker, trail)
    except Exception:
        # It is answered and logged at the edge; here it only leaves its event.
        await _failed(broker, trail)
        raise
    return _granted(grant)


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


async def _refused(refusal: Refusal, broker: Broker, trail: Trail) -> Response:
    trail.refused(refusal)
    try:
        await broker.journal.record(trail.event(status_of(refusal)))
    except Refusal as silent:
        return refusal_response(silent, trail.request_id)
    return refusal_response(refusal, trail.request_id)


async def _failed(broker: Broker, trail: Trail) -> None:
    trail.reason, trail.message = Reason.SERVER_ERROR, Reason.SERVER_ERROR.sentence
    with suppress(Refusal):
        await broker.journal.record(trail.event(500))


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
