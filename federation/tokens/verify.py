"""
Verify tokens that this broker signed: access tokens and function tokens.

A token must be signed by a key in use, be meant for this broker, be valid now, and not be
revoked. An access token becomes a `Bearer`. A function token becomes a `FunctionBearer`, a type
of its own, because it may call the functions that it names and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from sys import getsizeof
from typing import Protocol

from cachetools import LRUCache
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from federation.claims import Claims
from federation.documents.resources import Resource
from federation.errors import Reason, Refusal
from federation.jose import jws
from federation.policy.index import DENY_ONLY, PolicyNames
from federation.providers.table import LEEWAY
from federation.tokens.mint import ACCESS_TOKEN_TYPE, FUNCTION_TOKEN_TYPE
from federation.tokens.signing_keys import SigningKeys

_LEEWAY_SECONDS = LEEWAY.total_seconds()
_REMEMBERED_BYTES = 16 * 1024 * 1024
_ENTRY_BYTES = 1024
"""
At most what an entry takes beside its claims, what the pattern of functions takes once compiled, and
what each star in it adds: the text between two stars is searched by a function of its own.
"""


@dataclass(frozen=True, slots=True)
class Bearer:
    """The holder of a verified access token."""

    claims: Claims
    held: PolicyNames
    roles: tuple[str, ...]
    jti: str
    begins: float
    expires: float

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of all policies that the token holds."""
        return self.held.names


@dataclass(frozen=True, slots=True)
class FunctionBearer:
    """The holder of a verified function token, and the functions that it may call."""

    claims: Claims
    permissions: tuple[Resource, ...]
    audience: tuple[Resource, ...]
    """If not empty, a function must match one of these, too."""
    jti: str
    begins: float
    expires: float
    parent: str
    """The `jti` of the access token that it was traded for, with which it ends; empty if none."""

    def opens(self, namespace: str, name: str) -> bool:
        """Return whether it may call the function *name* in *namespace*. Names match as a whole."""
        return _covered(self.permissions, namespace, name) and (
            not self.audience or _covered(self.audience, namespace, name)
        )


class Revocations(Protocol):
    """The record of revoked tokens."""

    async def revoked(self, jti: str) -> bool:
        """Return whether the token *jti* was revoked. Raises: Refusal, `state_unavailable`."""


class AccessTokens:
    """
    Verifies the broker's own tokens, with a cache of verified signatures.

    Whatever can change is checked on each call: the time, revocation, and the keys in use.
    """

    def __init__(
        self, issuer_url: str, revocations: Revocations, clock: Callable[[], float]
    ) -> None:
        self._issuer_url = issuer_url
        self._revocations = revocations
        self._clock = clock
        self._seen: LRUCache[bytes, tuple[SigningKeys, Bearer | FunctionBearer]] = LRUCache(
            _REMEMBERED_BYTES, getsizeof=_entry_bytes
        )

    async def bearer(self, token: str, keys: SigningKeys) -> Bearer:
        """Verify an access token. Raises: Refusal, as `verify` does."""
        holder = await self.holder(token, keys)
        if not isinstance(holder, Bearer):
            raise Refusal(Reason.WRONG_AUDIENCE, evidence={"typ": FUNCTION_TOKEN_TYPE})
        return holder

    async def holder(self, token: str, keys: SigningKeys) -> Bearer | FunctionBearer:
        """Verify an access token or a function token. Raises: Refusal, as `verify` does."""
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        keys_then, holder = self._seen.get(digest, (None, None))
        if holder is None or keys_then is not keys:
            unverified = jws.parse(token)
            # The type only chooses the function; either verifies the type with everything else.
            of_function = unverified.header.get("typ") == FUNCTION_TOKEN_TYPE
            read = _function_bearer if of_function else _bearer
            holder = read(unverified, keys, self._issuer_url)
            self._seen[digest] = keys, holder
        await _check_now(holder, self._revocations, self._clock())
        return holder


def _entry_bytes(entry: tuple[SigningKeys, Bearer | FunctionBearer]) -> int:
    """
    Return the memory that an entry takes.

    The length of the token does not tell: a list of empty lists takes twenty times its text.
    """
    _, holder = entry
    functions = holder.permissions + holder.audience if isinstance(holder, FunctionBearer) else ()
    size = _ENTRY_BYTES * (1 + sum(1 + pattern.text.count("*") for pattern in functions))
    left: list[object] = [holder.claims]
    while left:
        value = left.pop()
        size += getsizeof(value)
        if isinstance(value, Mapping):
            left += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            left += value
    return size


def is_own(unverified: jws.Unverified, issuer_url: str) -> bool:
    """Return whether the token claims to be ours. The signature is not verified yet."""
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
    Verify an access token: signed by this broker, valid now, and not revoked.

    Raises: Refusal with `malformed_token`, `untrusted_issuer`, `unsupported_algorithm`,
    `unknown_key`, `bad_signature`, `wrong_audience`, `expired`, `not_yet_valid`, `revoked` or
    `state_unavailable`.
    """
    bearer = _bearer(token, keys, issuer_url)
    await _check_now(bearer, revocations, now)
    return bearer


def _bearer(token: jws.Unverified, keys: SigningKeys, issuer_url: str) -> Bearer:
    claims = verify_signed(token, keys, issuer_url=issuer_url)
    if token.header.get("typ") != ACCESS_TOKEN_TYPE or claims.get("aud") != issuer_url:
        raise Refusal(Reason.WRONG_AUDIENCE, evidence={"typ": token.header.get("typ")})
    match claims:
        case {"jti": str(jti), "exp": int(expires), "nbf": int(begins)}:
            held = PolicyNames(
                names(claims, "policy"), names(claims, DENY_ONLY), DENY_ONLY in claims
            )
            return Bearer(claims, held, names(claims, "role"), jti, begins, expires)
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)


def _function_bearer(token: jws.Unverified, keys: SigningKeys, issuer_url: str) -> FunctionBearer:
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
            return FunctionBearer(claims, *opened, jti, begins, expires, parent_of(claims))
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)


async def _check_now(bearer: Bearer | FunctionBearer, revocations: Revocations, now: float) -> None:
    if bearer.expires <= now:
        raise Refusal(Reason.EXPIRED)
    # The clocks of replicas differ a little, so a token may seem to be minted in the future.
    if bearer.begins > now + _LEEWAY_SECONDS:
        raise Refusal(Reason.NOT_YET_VALID)
    parent = bearer.parent if isinstance(bearer, FunctionBearer) else ""
    if await is_revoked(bearer.jti, parent, revocations):
        raise Refusal(Reason.REVOKED)


def parent_of(claims: Claims) -> str:
    """
    Return the `jti` of the access token that a function token ends with; empty if there is none.

    Raises: Refusal with `malformed_token`.
    """
    parent = claims.get("fed:parent", "")
    if not isinstance(parent, str):
        raise Refusal(Reason.MALFORMED_TOKEN)
    return parent


async def is_revoked(jti: str, parent: str, revocations: Revocations) -> bool:
    """Return whether the token *jti* or its *parent* was revoked."""
    return await revocations.revoked(jti) or (parent != "" and await revocations.revoked(parent))


def verify_signed(token: jws.Unverified, keys: SigningKeys, *, issuer_url: str) -> Claims:
    """
    Check that this broker signed *token*, and return its claims. Times are not checked.

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
                made = tuple(Resource(str(text)) for text in resources)
            except ValueError as error:
                raise Refusal(Reason.MALFORMED_TOKEN) from error
            # A function token carries values, so a variable in it can only be a mistake.
            if any(resource.variables for resource in made):
                raise Refusal(Reason.MALFORMED_TOKEN)
            return made
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)


def _covered(resources: tuple[Resource, ...], namespace: str, name: str) -> bool:
    return any(resource.covers_call(namespace, name) for resource in resources)


def names(claims: Claims, claim: str) -> tuple[str, ...]:
    """The names that the list *claim* holds. Raises: Refusal with `malformed_token`."""
    # One name that cannot be read could be a policy with a Deny, so none may be passed over.
    match claims.get(claim, []):
        case [*names] if all(isinstance(name, str) for name in names):
            return tuple(map(str, names))
        case _:
            raise Refusal(Reason.MALFORMED_TOKEN)
