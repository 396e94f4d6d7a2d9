"""
Mint access tokens and function tokens: compute their claims and sign them.

The functions that compute claims are pure. An access token has the claims of the subject token,
except those that the broker sets itself and those that belong to one sign-in or session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from federation.claims import Claims
from federation.jose.jws import encode_base64url
from federation.jose.strict_json import dumps
from federation.policy.roles import Admission
from federation.tokens.signing_keys import SigningKey

ACCESS_TOKEN_TYPE = "at+jwt"
FUNCTION_TOKEN_TYPE = "JWT"

_OURS = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "policy", "role", "function"})
# These bind the subject token to one sign-in, client or session and mean nothing in our token.
_PROTOCOL = frozenset(
    {"nonce", "at_hash", "c_hash", "s_hash", "auth_time", "azp", "sid", "acr", "amr"}
)
_NOT_COPIED = _OURS | _PROTOCOL
_ES256 = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Minted:
    """A signed token and its expiry."""

    token: str = field(repr=False)
    expires: int
    """`exp`, in seconds since the epoch."""


def access_claims(
    claims: Claims, admission: Admission, *, issuer_url: str, now: float, jti: str
) -> Claims:
    """Return the claims of the access token for a subject token's *claims* (RFC 9068)."""
    issued = int(now)
    caps = [role.token_expiry for role in admission.roles if role.token_expiry is not None]
    lifetime = min([admission.issuer.token_expiry, *caps])
    copied = {
        name: value
        for name, value in claims.items()
        if name not in _NOT_COPIED and not name.startswith("fed:")
    }
    copied["fed:iss"] = claims["iss"]
    if claims.get("jti"):
        copied["fed:jti"] = claims["jti"]
    return Claims(
        {
            **copied,
            "iss": issuer_url,
            "aud": issuer_url,
            "sub": f"fed:{claims['sub']}",
            "policy": list(admission.policies),
            "role": [role.name for role in admission.roles],
            "iat": issued,
            "nbf": issued,
            "exp": issued + int(lifetime.total_seconds()),
            "jti": jti,
        }
    )


def function_claims(
    access: Claims,
    *,
    permissions: Sequence[str],
    audience: Sequence[str],
    now: float,
    jti: str,
    parent: str | None = None,
) -> Claims:
    """
    Return the claims of a function token for the access token *access*.

    It expires with the access token. *parent* is that token's `jti` if it was given to anybody: the
    function token then also ends when the access token is revoked. If there is an audience, the caller passes the same list as
    permissions: the watchdog of a function matches each list as unanchored patterns and requires
    a match in both.
    """
    function = {"permissions": list(permissions)}
    if audience:
        function["audience"] = list(audience)
    return Claims(
        {
            "iss": access["iss"],
            "sub": access["sub"],
            "aud": [access["iss"]],
            "iat": int(now),
            "exp": access["exp"],
            "jti": jti,
            **({"fed:parent": parent} if parent is not None else {}),
            "function": function,
        }
    )


def sign(claims: Claims, key: SigningKey, typ: str = ACCESS_TOKEN_TYPE) -> Minted:
    """Sign *claims* with ES256, as a compact JWS (RFC 7515, section 7.1)."""
    return Minted(sign_jws(claims, key, typ), int(str(claims["exp"])))


def sign_jws(payload: Mapping[str, object], key: SigningKey, typ: str) -> str:
    """Sign *payload* with ES256, as a compact JWS (RFC 7515, section 7.1) of type *typ*."""
    signing_input = (
        _segment({"alg": "ES256", "kid": key.kid, "typ": typ}) + b"." + _segment(payload)
    )
    r, s = decode_dss_signature(key.private.sign(signing_input, _ES256))
    signature = encode_base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return (signing_input + b"." + signature).decode("ascii")


def _segment(members: Mapping[str, object]) -> bytes:
    return encode_base64url(dumps(members))
