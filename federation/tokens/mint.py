"""
Minting: what an access token says, and its signature.

The claims half is pure: values in, values out. The subject token's claims are copied, except
those that the broker says itself and those that only meant something to the subject token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from federation.claims import Claims
from federation.jose.jws import encode_base64url
from federation.jose.strict_json import dumps
from federation.policy.roles import Admission
from federation.tokens.signing_keys import SigningKey

__all__ = ["Minted", "access_claims", "function_claims", "lifetime", "sign", "sign_jws"]

ACCESS_TOKEN_TYPE = "at+jwt"
FUNCTION_TOKEN_TYPE = "JWT"

_OURS = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "policy", "role", "function"})
# They bind the subject token to one sign-in, one client or one session, and say nothing here.
_PROTOCOL = frozenset(
    {"nonce", "at_hash", "c_hash", "s_hash", "auth_time", "azp", "sid", "acr", "amr"}
)
_NOT_COPIED = _OURS | _PROTOCOL
_ES256 = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Minted:
    """A signed token and what it says."""

    token: str = field(repr=False)
    expires: int
    """`exp`, in seconds since the epoch."""


def lifetime(admission: Admission) -> timedelta:
    """The least of the issuer's and the admitted Roles' `tokenExpiry`."""
    caps = [role.token_expiry for role in admission.roles if role.token_expiry is not None]
    return min([admission.issuer.token_expiry, *caps])


def access_claims(
    claims: Claims, admission: Admission, *, issuer_url: str, now: float, jti: str
) -> Claims:
    """What the access token for *claims* says; verifiers read it by RFC 9068."""
    issued = int(now)
    copied = {
        name: value
        for name, value in claims.items()
        if name not in _NOT_COPIED and not name.startswith("fed:")
    }
    federated = {"fed:iss": claims["iss"]} | (
        {"fed:jti": claims["jti"]} if claims.get("jti") else {}
    )
    return Claims(
        {
            **copied,
            **federated,
            "iss": issuer_url,
            "aud": issuer_url,
            "sub": f"fed:{claims['sub']}",
            "policy": list(admission.policies),
            "role": [role.name for role in admission.roles],
            "iat": issued,
            "nbf": issued,
            "exp": issued + int(lifetime(admission).total_seconds()),
            "jti": jti,
        }
    )


def function_claims(
    access: Claims, *, permissions: Sequence[str], audience: Sequence[str], now: float, jti: str
) -> Claims:
    """
    What the function token derived from *access* says; it never outlives it.

    With an audience both lists hold exactly that: a deployed watchdog matches each as an
    unanchored pattern and asks both to match.
    """
    return Claims(
        {
            "iss": access["iss"],
            "sub": access["sub"],
            "aud": [access["iss"]],
            "iat": int(now),
            "exp": access["exp"],
            "jti": jti,
            "function": {"permissions": list(permissions)}
            | ({"audience": list(audience)} if audience else {}),
        }
    )


def sign(claims: Claims, key: SigningKey, typ: str = ACCESS_TOKEN_TYPE) -> Minted:
    """*claims* as a compact JWS (RFC 7515, section 7.1), signed with ES256."""
    return Minted(sign_jws(claims, key, typ), int(str(claims["exp"])))


def sign_jws(payload: Mapping[str, object], key: SigningKey, typ: str) -> str:
    """Return *payload* as a compact JWS (RFC 7515, section 7.1) of type *typ*, signed with ES256."""
    signing_input = (
        _segment({"alg": "ES256", "kid": key.kid, "typ": typ}) + b"." + _segment(payload)
    )
    r, s = decode_dss_signature(key.private.sign(signing_input, _ES256))
    signature = encode_base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return (signing_input + b"." + signature).decode("ascii")


def _segment(members: Mapping[str, object]) -> bytes:
    return encode_base64url(dumps(members))
