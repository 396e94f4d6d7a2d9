"""
`POST /oauth/revoke` (RFC 7009): the holder of a token of the broker can revoke it.

The response is 200 for every token, so that it says nothing about the token.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from federation.errors import Refusal
from federation.exchange import Broker
from federation.jose import jws
from federation.tokens.verify import verify_signed
from federation.web.forms import invalid_request, read_form
from federation.web.refusals import NO_STORE


async def revoke(request: Request) -> Response:
    """The revocation endpoint. Raises: Refusal with `invalid_request` or `state_unavailable`."""
    broker: Broker = request.app.state.broker
    form = await read_form(request.scope, request.receive)
    if "token" not in form:
        raise invalid_request("token is missing.")
    await _revoke(form["token"][0], broker)
    return Response(status_code=200, headers=NO_STORE)


async def _revoke(token: str, broker: Broker) -> None:
    try:
        claims = verify_signed(jws.parse(token), broker.signing, issuer_url=broker.issuer_url)
    except Refusal:
        return  # RFC 7009, section 2.2: an invalid token needs no revocation
    match claims:
        case {"jti": str(jti), "exp": int(expires)} if expires > broker.clock():
            await broker.state.revoke(jti, expires)
