"""
Verify a back-channel logout token (OpenID Connect Back-Channel Logout 1.0, section 2.6).

The provider sends it to the dashboard's server, so anybody can try to send one. It is signed by
the keys that sign ID tokens. `events` and the absence of a nonce tell the two apart, so that an ID
token, which passes through browsers, ends no session, and a logout token begins none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from federation.claims import UnverifiedClaims, audiences
from federation.errors import Reason, Refusal
from federation.issuers.verify import check_signature, check_times, find_signer
from federation.jose.jws import parse
from federation.sign_on.id_token import Verifier
from federation.sign_on.oauth_errors import refused_token

_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_TYPES = frozenset({"jwt", "logout+jwt"})
_KIND = "logout token"


@dataclass(frozen=True, slots=True)
class LoggedOut:
    """The sessions that a verified logout token ends: one (`sid`), or all of a person (`sub`)."""

    sid: str
    sub: str
    jti: str
    """Whoever ends sessions remembers it until `expires`, since a token counts once."""
    issued: float
    expires: float


async def verify_logout_token(text: str, verifier: Verifier) -> LoggedOut:
    """Return what the logout token *text* ends. Raises: TokenRefused."""
    try:
        return await _verified(text, verifier)
    except Refusal as refusal:
        raise refused_token(refusal, _KIND) from None


async def _verified(text: str, verifier: Verifier) -> LoggedOut:
    token, issuer = parse(text), verifier.issuer
    signer = await find_signer(token, {issuer.iss: issuer}, verifier.keys, _TYPES)
    claims = check_signature(token, signer).token.claims
    if verifier.client_id not in audiences(claims):
        raise Refusal(Reason.WRONG_AUDIENCE)
    issued, expires = check_times(claims, verifier.clock())
    _check_is_logout(claims)
    sid, sub, jti = _text(claims, "sid"), _text(claims, "sub"), _text(claims, "jti")
    if not jti or not (sid or sub):
        raise Refusal(Reason.MISSING_CLAIM)
    return LoggedOut(sid=sid, sub=sub, jti=jti, issued=issued, expires=expires)


def _check_is_logout(claims: UnverifiedClaims) -> None:
    events = claims.get("events")
    event = events.get(_EVENT) if isinstance(events, Mapping) else None
    # A nonce is prohibited, so that no ID token can be taken for a logout token (section 2.4).
    if not isinstance(event, Mapping) or "nonce" in claims:
        raise Refusal(Reason.WRONG_TOKEN_TYPE)


def _text(claims: UnverifiedClaims, name: str) -> str:
    """Return a claim that must be a string if it is there. Raises: Refusal."""
    value = claims.get(name, "")
    if not isinstance(value, str):
        raise Refusal(Reason.MALFORMED_TOKEN)
    return value
