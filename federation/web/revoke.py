"""
`POST /oauth/revoke` (RFC 7009): the holder of a token of the broker can revoke it.

The response is 200 for every token, so that it says nothing about the token. A token that is not
valid any more costs nothing: no entry in the store, no audit event, and none of the budget. Every
other revocation makes an event and counts, so that nobody can fill the store. Beyond the budget
there is no event either, or the journal would be filled instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog
from starlette.types import Receive, Scope, Send

from federation.audit.event import Actor, Standing, Trail, token_sha256
from federation.audit.recording import Recording
from federation.claims import Claims
from federation.errors import Refusal
from federation.exchange import Broker
from federation.jose import jws
from federation.tokens.verify import is_revoked, names, parent_of, verify_signed
from federation.web.forms import invalid_request, read_form
from federation.web.rate_limit import Network, Revocations, caller_of
from federation.web.refusals import NO_STORE_HEADERS, respond

Outcome = Literal["revoked", "nothing", "refused", "unavailable"]


class Observer(Protocol):
    """Counts revocations."""

    def revoked(self, outcome: Outcome) -> None:
        """Count a request to revoke a token."""


@dataclass(frozen=True, slots=True)
class RevocationEndpoint:
    """The revocation endpoint (RFC 7009, section 2), as an ASGI application."""

    broker: Broker
    budget: Revocations
    trusted_proxies: Sequence[Network]
    observer: Observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request.

        Raises: Refusal with `invalid_request`, `too_many_revocations`, `state_unavailable` or
        `audit_unavailable`.
        """
        try:
            form = await read_form(scope, receive)
            if "token" not in form:
                raise invalid_request("token is missing.")
            outcome = await self._revoke(form["token"][0], scope)
        except Refusal as refusal:
            self.observer.revoked("unavailable" if refusal.reason.temporary else "refused")
            log = structlog.get_logger("federation")
            log.info(
                "revocation refused",
                request_id=scope["state"]["request_id"],
                reason=refusal.reason,
                **refusal.evidence,
            )
            raise
        self.observer.revoked(outcome)
        await respond(send, 200, NO_STORE_HEADERS, b"")

    async def _revoke(self, token: str, scope: Scope) -> Outcome:
        broker = self.broker
        try:
            claims = verify_signed(jws.parse(token), broker.signing, issuer_url=broker.issuer_url)
            parent = parent_of(claims)
        except Refusal as refusal:
            # RFC 7009, section 2.2: an invalid token needs no revocation. Nobody is known, so the
            # log has it and the audit trail has not.
            log = structlog.get_logger("federation")
            log.info(
                "nothing to revoke",
                request_id=scope["state"]["request_id"],
                reason=refusal.reason,
                token_sha256=token_sha256(token),
            )
            return "nothing"
        match claims:
            case {"jti": str(jti), "exp": int(expires)} if expires > broker.clock():
                trail = self._trail(token, claims, scope)
                scope["state"]["trail"] = trail  # the access log names the caller
                async with Recording(broker.journal, trail) as recording:
                    if await is_revoked(jti, parent, broker.state):
                        return "nothing"
                    self.budget.take(caller_of(scope, self.trusted_proxies), _whose(claims))
                    trail.standing = Standing.ADMITTED  # before, an event would cost no budget
                    ended = await broker.state.revoke(jti, expires, parent)
                    if ended != jti:
                        trail.message = "The access token of this function token was revoked."
                    # After the revocation: a stolen token can be revoked while the journal fails.
                    await recording.record(200)
                return "revoked"
            case _:
                return "nothing"

    def _trail(self, token: str, claims: Claims, scope: Scope) -> Trail:
        sub, fed_issuer = str(claims.get("sub", "")), str(claims.get("fed:iss", ""))
        return Trail(
            request_id=scope["state"]["request_id"],
            method=scope["method"],
            path=scope["path"],
            started=self.broker.clock(),
            actor=Actor(sub, self.broker.issuer_url, fed_issuer),
            roles=names(claims, "role"),
            policies=names(claims, "policy"),
            token_sha256=token_sha256(token),
        )


def _whose(claims: Claims) -> str:
    """
    Return the subject of a token, with the issuer that named it so.

    Another issuer could give its tokens the subject of somebody else's, and use up what is left.
    """
    return f"{claims.get('fed:iss', '')} {claims.get('sub', '')}"
