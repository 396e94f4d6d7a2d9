"""
`POST /oauth/revoke` (RFC 7009): whoever holds a token may end it.

The answer is 200 whether or not the token was live, so that it tells nothing about tokens.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from federation.errors import Reason, Refusal
from federation.exchange import Broker
from federation.jose import jws
from federation.tokens.verify import verify_signed
from federation.web.forms import read_form
from federation.web.responses import NO_STORE, refusal_response

__all__ = ["revoke"]


async def revoke(request: Request) -> Response:
    """The revocation endpoint."""
    broker: Broker = request.app.state.broker
    try:
        form = await read_form(request.scope, request.receive)
        if "token" not in form:
            raise Refusal(Reason.INVALID_REQUEST, "token is missing.")
        await _end(form["token"][0], broker)
    except Refusal as refusal:
        return refusal_response(refusal, request.state.request_id)
    return Response(status_code=200, headers=NO_STORE)


async def _end(token: str, broker: Broker) -> None:
    try:
        claims = verify_signed(jws.parse(token), broker.signing, issuer_url=broker.issuer_url)
    except Refusal:
        return  # RFC 7009, section 2.2: an invalid token is as good as ended
    match claims:
        case {"jti": str(jti), "exp": int(expires)} if expires > broker.clock():
            await broker.state.revoke(jti, expires)
        case _:
            return
