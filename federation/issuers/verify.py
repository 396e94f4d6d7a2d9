"""
Verify a subject token: issuer, signature, audience, times, and the provider's own claims.

The checks run in this order, cheapest first, and the first that fails ends the verification. The
issuer must match by its exact name before any key is fetched, so an unknown issuer's token causes
no traffic. Until signature and audience are verified, the caller gets only constant sentences,
what its own header says, and what is public about the provider.

A token whose audience is one of the issuer's `clients` is a person's, and must be an ID token. Any
other token is a workload's: a CI job's, or that of a program with an account of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from federation.claims import Claims, UnverifiedClaims, at, audiences, shown, text
from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from federation.jose.jwk import MAX_KID_CHARS, Key
from federation.jose.jws import Unverified
from federation.providers.table import LEEWAY

_YEAR_10000 = 253_402_300_800
_LEEWAY_SECONDS = LEEWAY.total_seconds()
_LONGEST_ONCE_SECONDS = 31 * 24 * 3600.0
"""A token that is taken once is remembered while it is valid, and no CI job runs for longer."""
_ACCESS_TOKEN = "at+jwt"
_TYPES = frozenset({"jwt", _ACCESS_TOKEN})


class Verified(NamedTuple):
    """A verified subject token."""

    claims: Claims
    issuer: JwtIssuer
    once: bool
    """True if it may be exchanged only once."""
    spend_key: str
    """A digest that identifies this token in the record of spent tokens."""
    issued: float
    expires: float
    """`iat`, and the end of the time in which it is taken, in seconds since the epoch."""


class Signer(NamedTuple):
    """The issuer that a token names, and the issuer's key that must have signed it."""

    issuer: JwtIssuer
    key: Key
    alg: str


async def find_signer(
    token: Unverified,
    issuers: Mapping[str, JwtIssuer],
    keys: KeyRing,
    types: Collection[str] = _TYPES,
) -> Signer:
    """
    Find which of *issuers* (by `iss`) *token* names, and the key that its header names.

    The header's `typ`, if there is one, must be one of *types*, in lower case.

    Only `alg`, `kid`, `typ` and `crit` of the header are read. With `jku`, `x5u`, `jwk` or `x5c` a
    token could bring its own key. RFC 7515, section 4.1.11: unknown `crit` must be refused.
    Raises: Refusal with `missing_claim`, `untrusted_issuer`, `unsupported_algorithm`,
    `wrong_token_type`, `unknown_key`, `keys_unavailable` or `bad_signature`.
    """
    issuer = trusted_issuer(token.claims, issuers)
    alg = _algorithm(token, issuer)
    if "crit" in token.header:
        raise Refusal(Reason.UNSUPPORTED_ALGORITHM, evidence={"iss": issuer.iss, "crit": True})
    if "typ" in token.header and _type(token) not in types:
        # An issuer signs other things with the same keys, such as a logout token (`logout+jwt`).
        raise _wrong_type(issuer, typ=token.header["typ"])
    return Signer(issuer, await keys.key(issuer, _key_id(token, issuer), alg), alg)


def _algorithm(token: Unverified, issuer: JwtIssuer) -> str:
    alg, taken = token.header.get("alg"), issuer.profile.algorithms
    if isinstance(alg, str) and alg in taken:
        return alg
    allowed = ", ".join(sorted(taken))
    raise Refusal(
        Reason.UNSUPPORTED_ALGORITHM,
        f"{Reason.UNSUPPORTED_ALGORITHM.sentence} Its alg is {shown(alg)}; taken: {allowed}.",
        evidence={"iss": issuer.iss, "alg": shown(alg)},
    )


def _type(token: Unverified) -> str | None:
    """
    Return the `typ` of the header as types are compared, None if it has none.

    Types are media types: their case does not count, and `application/` may be left out (RFC
    7515, section 4.1.9).
    """
    typ = token.header.get("typ")
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else None


def _wrong_type(issuer: JwtIssuer, **what: object) -> Refusal:
    ((name, value),) = what.items()
    return Refusal(
        Reason.WRONG_TOKEN_TYPE,
        f"{Reason.WRONG_TOKEN_TYPE.sentence} Its {name} is {shown(value)}.",
        evidence={"iss": issuer.iss, name: shown(value)},
    )


class Signed(NamedTuple):
    """A token with a valid signature of *issuer*. Its claims are not checked yet."""

    token: Unverified
    issuer: JwtIssuer


class Addressed(NamedTuple):
    """A signed token that is for this broker, valid or not. It is known whose it is."""

    token: Unverified
    issuer: JwtIssuer
    subject: str
    clients: tuple[str, ...]
    """The issuer's clients that it is meant for. If there are any, it is a person's."""


def check_signature(token: Unverified, signer: Signer) -> Signed:
    """Check that *signer* signed *token*. Raises: Refusal with `bad_signature`."""
    issuer, key, alg = signer
    if not key.verifies(alg, token.signing_input, token.signature):
        raise Refusal(
            Reason.BAD_SIGNATURE, evidence={"iss": issuer.iss, "kid": key.kid, "alg": alg}
        )
    return Signed(token, issuer)


def addressed(signed: Signed) -> Addressed:
    """
    Check that a signed token is some subject's identity for this broker.

    From here on it is known whose token it is, so what becomes of it has an audit event.
    Raises: Refusal with `wrong_token_type`, `missing_claim`, `malformed_token` or `wrong_audience`.
    """
    token, issuer = signed
    subject = _check_addressee(issuer, token.claims)
    return Addressed(token, issuer, subject, issuer.clients_of(token.claims))


def verify(signed: Signed, now: float) -> Verified:
    """
    Verify that a signed token is for this broker and valid at *now*.

    Raises: Refusal with `wrong_token_type`, `missing_claim`, `malformed_token`, `wrong_audience`,
    `wrong_party`, `expired`, `not_yet_valid` or `not_a_ci_token`.
    """
    return verify_addressed(addressed(signed), now)


def verify_addressed(given: Addressed, now: float) -> Verified:
    """Verify that a token for this broker is valid at *now*. Raises: Refusal, as `verify` does."""
    token, issuer, _, clients = given
    issued, expires = _check_content(issuer, token.claims, clients, now)
    once = issuer.taken_once(token.claims)
    if once:
        # Otherwise an issuer could fill the store with tokens that are never forgotten.
        expires = min(expires, issued + _LONGEST_ONCE_SECONDS)
        _check_expiry(expires, now)
    if clients and _type(token) == _ACCESS_TOKEN:
        raise _wrong_type(issuer, typ=_ACCESS_TOKEN)
    return Verified(Claims(token.claims), issuer, once, _spend_key(token), issued, expires)


def trusted_issuer(claims: UnverifiedClaims, issuers: Mapping[str, JwtIssuer]) -> JwtIssuer:
    """
    Return the issuer whose name equals `iss`, character for character.

    Raises: Refusal with `missing_claim` or `untrusted_issuer`.
    """
    iss = claims.get("iss")
    if iss is None:
        raise Refusal(Reason.MISSING_CLAIM, evidence={"claim": "iss"})
    issuer = issuers.get(iss) if isinstance(iss, str) else None
    if issuer is None:
        raise Refusal(Reason.UNTRUSTED_ISSUER, evidence={"iss": shown(iss)})
    return issuer


def _key_id(token: Unverified, issuer: JwtIssuer) -> str | None:
    kid = token.header.get("kid")
    if kid is None or kid == "":  # an issuer whose keys have an empty `kid` writes it here too
        return None
    if isinstance(kid, str) and len(kid) <= MAX_KID_CHARS:
        return kid
    raise Refusal(Reason.UNKNOWN_KEY, evidence={"iss": issuer.iss, "kid": shown(kid)})


def check_claims(
    issuer: JwtIssuer, claims: UnverifiedClaims, now: float | None
) -> tuple[float, float]:
    """
    Check type, subject, audience, times, and the claims that the issuer's provider must send.

    If *now* is None, times are only checked for their form. Returns `iat` and `exp`, in seconds
    since the epoch.
    Raises: Refusal, as `verify` does.
    """
    _check_addressee(issuer, claims)
    return _check_content(issuer, claims, issuer.clients_of(claims), now)


def _check_content(
    issuer: JwtIssuer, claims: UnverifiedClaims, clients: tuple[str, ...], now: float | None
) -> tuple[float, float]:
    _check_party(issuer, claims, clients)
    times = check_times(claims, now)
    if clients:
        _check_id_token(issuer, claims)
    else:
        _check_profile(issuer, claims)
    return times


def check_times(claims: UnverifiedClaims, now: float | None) -> tuple[float, float]:
    """
    Check that *now* lies between `iat` and `exp` (RFC 7519, sections 4.1.4 to 4.1.6).

    If *now* is None, they are only checked for their form. The audience is already verified, so
    the message may tell the caller these times. Returns `iat` and `exp`.
    Raises: Refusal with `missing_claim`, `malformed_token`, `expired` or `not_yet_valid`.
    """
    expires = _required_time(claims, "exp")
    issued = _required_time(claims, "iat")
    starts = _time(claims, "nbf") if "nbf" in claims else issued
    if now is None:
        return issued, expires
    _check_expiry(expires, now)
    if max(issued, starts) > now + _LEEWAY_SECONDS:
        claim, start = ("iat", issued) if issued >= starts else ("nbf", starts)
        raise Refusal(
            Reason.NOT_YET_VALID,
            f"{Reason.NOT_YET_VALID.sentence} Its {claim} is {_moment(start)},"
            f" {int(start - now)} s after now.",
            evidence={claim: start, "now": now},
        )
    return issued, expires


def _check_addressee(issuer: JwtIssuer, claims: UnverifiedClaims) -> str:
    """Check that the token is some subject's identity for this broker. Return the subject."""
    if "events" in claims:
        # A security event token, such as a logout token, is no proof of identity (RFC 8417).
        raise Refusal(Reason.WRONG_TOKEN_TYPE, evidence={"iss": issuer.iss, "events": True})
    subject = _check_subject(claims)
    _check_audience(issuer, claims)
    return subject


def _check_subject(claims: UnverifiedClaims) -> str:
    subject = claims.get("sub")
    if subject is None or subject == "":
        raise Refusal(Reason.MISSING_CLAIM, evidence={"claim": "sub"})
    if not isinstance(subject, str):
        raise Refusal(Reason.MALFORMED_TOKEN, evidence={"claim": "sub", "got": shown(subject)})
    return subject


def _check_audience(issuer: JwtIssuer, claims: UnverifiedClaims) -> None:
    audience, accepted = claims.get("aud"), (*issuer.audiences, *issuer.clients)
    if audience is None:
        raise Refusal(Reason.MISSING_CLAIM, evidence={"claim": "aud", "expected": accepted})
    meant = audiences(claims)
    readable = len(meant) == 1 or (
        issuer.profile.audience_list and all(isinstance(one, str) for one in meant)
    )
    if not readable or not any(one in accepted for one in meant):
        evidence = {"got": shown(audience), "expected": accepted}
        raise Refusal(Reason.WRONG_AUDIENCE, evidence=evidence)


def _check_party(issuer: JwtIssuer, claims: UnverifiedClaims, clients: tuple[str, ...]) -> None:
    """
    Check that the token was issued to a client that is meant to use it here (`azp`).

    Some providers add our audience to the access tokens of every client, once a user has a role
    here. The owner of such a client could exchange the tokens of its users.
    """
    party = claims.get("azp")
    if party is None:
        return
    accepted: Collection[object]
    if clients:
        accepted = clients  # OpenID Connect Core 1.0, section 3.1.3.7
    elif issuer.authorized_parties:
        accepted = issuer.authorized_parties
    elif issuer.profile.azp_is_client:
        accepted = (*audiences(claims), *issuer.clients)
    else:
        return
    if not isinstance(party, str) or party not in accepted:
        raise Refusal(
            Reason.WRONG_PARTY,
            f"{Reason.WRONG_PARTY.sentence} Its azp is {shown(party)}.",
            evidence={"iss": issuer.iss, "azp": shown(party), "expected": accepted},
        )


def _check_id_token(issuer: JwtIssuer, claims: UnverifiedClaims) -> None:
    """Check that a token for one of the issuer's clients is the ID token of a person."""
    typ = issuer.profile.id_token_typ
    if typ is not None and claims.get("typ") != typ:
        raise _wrong_type(issuer, typ=claims.get("typ"))
    # A job may ask for any audience, also for a client, and would pass for a person.
    if of_job := [claim for claim in issuer.profile.required if _has(claims, claim)]:
        raise Refusal(
            Reason.WRONG_TOKEN_TYPE,
            f"{Reason.WRONG_TOKEN_TYPE.sentence} It is a job's, and its audience is for people.",
            evidence={"iss": issuer.iss, "aud": shown(claims.get("aud")), "claims": of_job},
        )


def _has(claims: UnverifiedClaims, name: str) -> bool:
    """Return whether there is a claim *name*, also null or empty; *name* may be a JSON Pointer."""
    return name in claims or at(claims, name) is not None


def _check_expiry(expires: float, now: float) -> None:
    if expires + _LEEWAY_SECONDS <= now:
        raise Refusal(
            Reason.EXPIRED,
            f"{Reason.EXPIRED.sentence} It was valid until {_moment(expires)},"
            f" {int(now - expires)} s before now.",
            evidence={"exp": expires, "now": now},
        )


def _check_profile(issuer: JwtIssuer, claims: UnverifiedClaims) -> None:
    required, reason = issuer.profile.required, issuer.profile.lacking
    if missing := [claim for claim in required if text(at(claims, claim)) is None]:
        sentence = f"{reason.sentence} Missing: {', '.join(missing)}."
        raise Refusal(reason, sentence, evidence={"provider": issuer.provider, "missing": missing})


def _required_time(claims: UnverifiedClaims, claim: str) -> float:
    if claims.get(claim) is None:
        sentence = f"{Reason.MISSING_CLAIM.sentence} Missing: {claim}."
        raise Refusal(Reason.MISSING_CLAIM, sentence, evidence={"missing": [claim]})
    return _time(claims, claim)


def _time(claims: UnverifiedClaims, claim: str) -> float:
    """Read a NumericDate (RFC 7519, section 2) in the years that `datetime` can represent."""
    moment = claims.get(claim)
    match moment:
        case bool():
            pass  # in Python True is the number 1, in JSON it is not
        case int() | float() if 0 <= moment < _YEAR_10000:
            return float(moment)
    sentence = f"{Reason.MALFORMED_TOKEN.sentence} Its {claim} is not a time."
    raise Refusal(Reason.MALFORMED_TOKEN, sentence, evidence={"claim": claim, "got": shown(moment)})


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _spend_key(token: Unverified) -> str:
    """
    Return a digest of issuer and `jti`, or of issuer and signed text if there is no `jti`.

    The signature is left out: anybody can make a second valid ECDSA signature from the first,
    and could then use the token twice.
    """
    iss, jti = str(token.claims["iss"]), token.claims.get("jti")
    named = isinstance(jti, str | int) and not isinstance(jti, bool) and jti != ""
    what = str(jti).encode() if named else token.signing_input
    return hashlib.sha256(iss.encode() + b"\0" + what).hexdigest()
