"""
Taking back the broker's own tokens: who bears this one, and is it still good?

Only tokens signed by a key in force, for this broker, in time and not revoked make `Bearer`s.
A function token is never one: it is for functions, not for the broker. It makes a
`FunctionBearer`, who may call the functions it names and do nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from cachetools import LRUCache
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from federation.claims import Claims
from federation.documents.model import Resource
from federation.errors import Reason, Refusal
from federation.jose import jws
from federation.providers.table import LEEWAY
from federation.tokens.mint import ACCESS_TOKEN_TYPE, FUNCTION_TOKEN_TYPE
from federation.tokens.signing_keys import SigningKeys

__all__ = [
    "AccessTokens",
    "Bearer",
    "FunctionBearer",
    "Revocations",
    "is_own",
    "verify",
    "verify_function",
    "verify_signed",
]

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who an access token speaks for."""

    claims: Claims
    policies: tuple[str, ...]
    roles: tuple[str, ...]
    jti: str
    begins: float
    expires: float


@dataclass(frozen=True, slots=True)
class FunctionBearer:
    """Who a function token speaks for, and the functions that it opens."""

    claims: Claims
    permissions: tuple[Resource, ...]
    audience: tuple[Resource, ...]
    """Where it names any, a function must be among these too."""
    jti: str
    begins: float
    expires: float

    def opens(self, namespace: str, name: str) -> bool:
        """Whether it may call the function *name* of *namespace*; matched whole, never in part."""
        return _covered(self.permissions, namespace, name) and (
            not self.audience or _covered(self.audience, namespace, name)
        )


class Revocations(Protocol):
    """Knows which tokens were ended."""

    async def revoked(self, jti: str) -> bool:
        """
        Whether the token *jti* was ended.

        Raises: Refusal with `state_unavailable`.
        """


class AccessTokens:
    """
    Remembers tokens of ours that were verified, so that a signature is checked once.

    What can change is asked every time: the hour, revocation, and the keys in force.
    """

    def __init__(
        self, issuer_url: str, revocations: Revocations, clock: Callable[[], float]
    ) -> None:
        self._issuer_url = issuer_url
        self._revocations = revocations
        self._clock = clock
        self._seen: LRUCache[bytes, tuple[SigningKeys, Bearer | FunctionBearer]] = LRUCache(
            _REMEMBERED
        )

    async def bearer(self, token: str, keys: SigningKeys) -> Bearer:
        """
        Who *token*, an access token, speaks for.

        Raises: Refusal, as `verify` does.
        """
        holder = await self.holder(token, keys)
        if not isinstance(holder, Bearer):
            raise Refusal(Reason.WRONG_AUDIENCE, evidence={"typ": FUNCTION_TOKEN_TYPE})
        return holder

    async def holder(self, token: str, keys: SigningKeys) -> Bearer | FunctionBearer:
        """
        Who *token* speaks for, an access token or a function token.

        Raises: Refusal, as `verify` and `verify_function` do.
        """
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        keys_then, holder = self._seen.get(digest, (None, None))
        if holder is not None and keys_then is keys:
            await _check_now(holder, self._revocations, self._clock())
            return holder
        unverified = jws.parse(token)
        of_function = unverified.header.get("typ") == FUNCTION_TOKEN_TYPE
        holder = await (verify_function if of_function else verify)(
            unverified,
            keys,
            self._revocations,
            issuer_url=self._issuer_url,
            now=self._clock(),
        )
        self._seen[digest] = keys, holder
        return holder


def is_own(unverified: jws.Unverified, issuer_url: str) -> bool:
    """Whether the token says that this broker signed it. It may lie."""
    return unverified.claims.get("iss") == issuer_url


async def verify(
    token: jws.Unverified,
    keys: SigningKeys,
    revocations: Revocations,
    *,
    issuer_url: str,
    now: float,
) -> Bearer:
    """
    The bearer of an access token that this broker signed, still valid and not revoked.

    Raises: Refusal with `malformed_token`, `untrusted_issuer`, `unsupported_algorithm`,
    `unknown_key`, `bad_signature`, `wrong_audience`, `expired`, `not_yet_valid`, `revoked` or
    `state_unavailable`.
    """
    claims = verify_signed(token, keys, issuer_url=issuer_url)
    if token.header.get("typ") != ACCESS_TOKEN_TYPE or claims.get("aud") != issuer_url:
        raise Refusal(Reason.WRONG_AUDIENCE, evidence={"typ": token.header.get("typ")})
    match claims:
        case {"jti": str(jti), "exp": int(expires), "nbf": int(begins)}:
            policies, roles = _names(claims, "policy"), _names(claims, "role")
            bearer = Bearer(claims, policies, roles, jti, begins, expires)
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)
    await _check_now(bearer, revocations, now)
    return bearer


async def verify_function(
    token: jws.Unverified,
    keys: SigningKeys,
    revocations: Revocations,
    *,
    issuer_url: str,
    now: float,
) -> FunctionBearer:
    """
    The bearer of a function token that this broker signed, still valid and not revoked.

    Raises: Refusal, as `verify` does.
    """
    claims = verify_signed(token, keys, issuer_url=issuer_url)
    if token.header.get("typ") != FUNCTION_TOKEN_TYPE or claims.get("aud") != [issuer_url]:
        raise Refusal(Reason.WRONG_AUDIENCE, evidence={"typ": token.header.get("typ")})
    match claims:
        case {
            "jti": str(jti),
            "exp": int(expires),
            "iat": int(begins),
            "sub": str(),
            "function": {"permissions": list(permissions), **rest},
        }:
            opened = _resources(permissions), _resources(rest.get("audience", []))
            bearer = FunctionBearer(claims, *opened, jti, begins, expires)
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)
    await _check_now(bearer, revocations, now)
    return bearer


async def _check_now(bearer: Bearer | FunctionBearer, revocations: Revocations, now: float) -> None:
    if bearer.expires <= now:
        raise Refusal(Reason.EXPIRED)
    # Replicas' clocks differ a little: a token that one minted just now is not of the future.
    if bearer.begins > now + LEEWAY.total_seconds():
        raise Refusal(Reason.NOT_YET_VALID)
    if await revocations.revoked(bearer.jti):
        raise Refusal(Reason.REVOKED)


def verify_signed(token: jws.Unverified, keys: SigningKeys, *, issuer_url: str) -> Claims:
    """
    What *token* says, once it is certain that this broker signed it, at whatever time.

    Raises: Refusal with `untrusted_issuer`, `unsupported_algorithm`, `unknown_key` or
    `bad_signature`.
    """
    if not is_own(token, issuer_url):
        raise Refusal(Reason.UNTRUSTED_ISSUER)
    if token.header.get("alg") != "ES256" or "crit" in token.header:
        raise Refusal(Reason.UNSUPPORTED_ALGORITHM)
    key = keys.find(token.header.get("kid"))
    if key is None:
        raise Refusal(Reason.UNKNOWN_KEY)
    if len(token.signature) != 64:
        raise Refusal(Reason.BAD_SIGNATURE)
    r, s = (int.from_bytes(half, "big") for half in (token.signature[:32], token.signature[32:]))
    try:
        key.public.verify(
            encode_dss_signature(r, s), token.signing_input, ec.ECDSA(hashes.SHA256())
        )
    except InvalidSignature:
        raise Refusal(Reason.BAD_SIGNATURE) from None
    return Claims(token.claims)


def _resources(texts: object) -> tuple[Resource, ...]:
    match texts:
        case [*resources] if all(isinstance(text, str) for text in resources):
            try:
                return tuple(Resource(str(text)) for text in resources)
            except ValueError as error:
                raise Refusal(Reason.MALFORMED_TOKEN) from error
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)


def _covered(resources: tuple[Resource, ...], namespace: str, name: str) -> bool:
    return any(resource.covers(namespace, name) for resource in resources)


def _names(claims: Claims, claim: str) -> tuple[str, ...]:
    names = claims.get(claim)
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
