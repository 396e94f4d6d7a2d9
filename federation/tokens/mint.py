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

from federation.claims import NOT_COPIED, Claims, shown
from federation.errors import Reason, Refusal
from federation.jose.jws import MAX_TOKEN_BYTES, encode_base64url
from federation.jose.strict_json import dumps
from federation.policy.index import DENY_ONLY
from federation.policy.roles import Admission
from federation.tokens.signing_keys import SigningKey

ACCESS_TOKEN_TYPE = "at+jwt"
FUNCTION_TOKEN_TYPE = "JWT"

_ES256 = ec.ECDSA(hashes.SHA256())
_SIGNATURE_BYTES = 1 + 86
"""A dot and 64 bytes in base64url."""


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
    ours = {
        name: value
        for name, value in claims.items()
        if name not in NOT_COPIED and name[:4] != "fed:"
    }
    ours["fed:iss"] = claims["iss"]
    if claims.get("jti"):
        ours["fed:jti"] = claims["jti"]
    if admission.held.narrowed:
        ours[DENY_ONLY] = list(admission.held.deny_only)
    ours["iss"] = ours["aud"] = issuer_url
    ours["sub"] = f"fed:{claims['sub']}"
    ours["policy"] = list(admission.policies)
    ours["role"] = [role.name for role in admission.roles]
    ours["iat"] = ours["nbf"] = issued
    ours["exp"] = issued + int(admission.lifetime.total_seconds())
    ours["jti"] = jti
    return Claims(ours)


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

    It expires with the access token. *parent* is that token's `jti` if that token was issued: the
    function token then also ends when the access token is revoked. If there is an audience, the
    caller passes the same list as permissions: the watchdog of a function matches each list as
    unanchored patterns and requires a match in both.
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
            **({"fed:iss": access["fed:iss"]} if "fed:iss" in access else {}),
            **({"fed:parent": parent} if parent is not None else {}),
            "function": function,
        }
    )


@dataclass(frozen=True, slots=True)
class Draft:
    """A token without its signature."""

    signing_input: bytes = field(repr=False)
    key: SigningKey = field(repr=False)
    expires: int

    def signed(self) -> str:
        """The token, signed with ES256, as a compact JWS (RFC 7515, section 7.1)."""
        return _compact(self.signing_input, self.key)


def draft(claims: Claims, key: SigningKey, typ: str = ACCESS_TOKEN_TYPE) -> Draft:
    """
    A token of *claims* to be signed by *key*.

    Raises: Refusal with `token_too_large`. Not even `/oauth/revoke` takes a longer token.
    """
    signing_input = _signing_input(claims, key, typ)
    token_bytes = len(signing_input) + _SIGNATURE_BYTES
    if token_bytes > MAX_TOKEN_BYTES:
        raise _too_large(claims, token_bytes)
    return Draft(signing_input, key, int(str(claims["exp"])))


def sign(claims: Claims, key: SigningKey, typ: str = ACCESS_TOKEN_TYPE) -> Minted:
    """Draft a token of *claims* and sign it."""
    drafted = draft(claims, key, typ)
    return Minted(drafted.signed(), drafted.expires)


def sign_jws(payload: Mapping[str, object], key: SigningKey, typ: str) -> str:
    """Sign *payload* of any size with ES256, as a compact JWS of type *typ*."""
    return _compact(_signing_input(payload, key, typ), key)


def _too_large(claims: Claims, token_bytes: int) -> Refusal:
    sizes = {name: len(dumps(value)) for name, value in claims.items()}
    largest = max(sizes, key=sizes.__getitem__)
    return Refusal(
        Reason.TOKEN_TOO_LARGE,
        f"The token to be issued would have {token_bytes} bytes, more than the {MAX_TOKEN_BYTES}"
        f" that servers take. Its largest claim is {shown(largest)}. It was not issued, and the"
        " subject token can still be exchanged.",
        evidence={"bytes": token_bytes, "largest_claim": largest, "its_bytes": sizes[largest]},
    )


def _signing_input(payload: Mapping[str, object], key: SigningKey, typ: str) -> bytes:
    header = encode_base64url(dumps({"alg": "ES256", "kid": key.kid, "typ": typ}))
    return header + b"." + encode_base64url(dumps(payload))


def _compact(signing_input: bytes, key: SigningKey) -> str:
    r, s = decode_dss_signature(key.private.sign(signing_input, _ES256))
    signature = encode_base64url(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return (signing_input + b"." + signature).decode("ascii")
