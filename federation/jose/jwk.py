"""
An issuer's published keys (RFC 7517) as keys that can check a signature.

A key is used for what it is published for and for nothing else: its type and curve, its `use`,
`key_ops` and `alg` each rule algorithms out. One bad key in a set does not spoil the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError

from federation.claims import shown

__all__ = ["MAX_KEYS", "MAX_KID_CHARS", "Key", "KeySet", "PublicKey", "parse_key_set"]

MAX_KEYS = 100
MAX_KID_CHARS = 256

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA_BITS = range(2048, 8192 + 1)
_MAX_EXPONENT_CHARS = 11  # 64 bits; a longer exponent only makes checking slow

_ALGORITHMS: Mapping[str, tuple[str, Algorithm]] = MappingProxyType(
    {
        "RS256": ("RSA", RSAAlgorithm(RSAAlgorithm.SHA256)),
        "PS256": ("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256)),
        "ES256": ("P-256", ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)),
        "ES384": ("P-384", ECAlgorithm(ECAlgorithm.SHA384, SECP384R1)),
        "EdDSA": ("Ed25519", OKPAlgorithm()),
    }
)
"""The kind of key that each algorithm takes, and what checks its signatures."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of an issuer."""

    public: PublicKey
    kind: str
    """`RSA`, or the name of the curve."""
    kid: str | None = None
    alg: str | None = None
    """The one algorithm it is published for; None where its kind alone decides."""

    def fits(self, alg: str) -> bool:
        """Whether a signature made with *alg* can be by this key."""
        return alg in _ALGORITHMS and _ALGORITHMS[alg][0] == self.kind and self.alg in {None, alg}

    def verifies(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether *signature* is this key's over *signing_input*, made with *alg*."""
        if not self.fits(alg):
            return False
        try:
            return _ALGORITHMS[alg][1].verify(signing_input, self.public, signature)
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
            return False  # a signature so odd that the library has no answer


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys that an issuer publishes, those that can be used."""

    keys: tuple[Key, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why the others cannot be used, by `kid`, or by place in the set."""
    _by_kid: Mapping[str, Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_kid", {key.kid: key for key in self.keys if key.kid})

    def publishes(self, kid: str | None) -> bool:
        """Whether a usable key has this *kid*, of whatever kind."""
        return kid in self._by_kid

    def find(self, kid: str | None, alg: str) -> Key | None:
        """The key named *kid*, or without a name the only one there is, if it fits *alg*."""
        if kid is not None:
            key = self._by_kid.get(kid)
            return key if key and key.fits(alg) else None
        fitting = [key for key in self.keys if key.fits(alg)]
        return fitting[0] if len(fitting) == 1 else None


def parse_key_set(document: Mapping[str, object]) -> KeySet:
    """
    The usable keys of a JWK set, at most `MAX_KEYS`, and why the others are not.

    Raises: ValueError where it is no key set, or an empty one.
    """
    published = document.get("keys")
    if not isinstance(published, list | tuple) or not published:
        raise ValueError("no list of keys, or an empty one")
    keys: list[Key] = []
    skipped: dict[str, str] = {}
    for place, jwk in enumerate(published):
        try:
            keys.append(_key(jwk))
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidKeyError) as error:
            skipped[_name(jwk, place)] = shown(str(error))
    ambiguous = _ambiguous(keys)
    skipped |= dict.fromkeys(ambiguous, "two different keys have this kid")
    kept: list[Key] = []
    for key in keys:
        if len(kept) < MAX_KEYS and key.kid not in ambiguous and key not in kept:
            kept.append(key)
    return KeySet(tuple(kept), dict(list(skipped.items())[:MAX_KEYS]))


def _name(jwk: object, place: int) -> str:
    kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
    return kid if isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS else f"#{place}"


def _ambiguous(keys: Iterable[Key]) -> set[str]:
    """Names that stand for two different keys: nobody can say which was meant."""
    first: dict[str, Key] = {}
    return {key.kid for key in keys if key.kid and first.setdefault(key.kid, key) != key}


def _key(jwk: object) -> Key:
    """The key that *jwk* describes. Raises: ValueError, or what the libraries raise."""
    if not isinstance(jwk, Mapping):
        raise TypeError("not an object")
    kid, alg = _optional_text(jwk, "kid"), _optional_text(jwk, "alg")
    if kid is not None and len(kid) > MAX_KID_CHARS:
        raise ValueError("its kid is too long")
    if alg is not None and alg not in _ALGORITHMS:
        raise ValueError(f"its alg is {alg}")
    if jwk.get("use", "sig") != "sig":
        raise ValueError("its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list | tuple) or "verify" not in operations:
        raise ValueError("its key_ops do not hold verify")
    if "d" in jwk or "k" in jwk:
        raise ValueError("it holds a private or symmetric key, which is no secret any more")
    kind, public = _material(jwk)
    key = Key(public, kind, kid, alg)
    if alg is not None and not key.fits(alg):
        raise ValueError(f"its alg is {alg}, but it is a key for {kind}")
    return key


def _optional_text(jwk: Mapping[str, object], member: str) -> str | None:
    value = jwk.get(member)
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError(f"its {member} is not a string")
    return value


def _material(jwk: Mapping[str, object]) -> tuple[str, PublicKey]:
    """The kind of the key and the key itself, from its public members alone."""
    match jwk:
        case {"kty": "RSA", "n": str(n), "e": str(e)} if len(e) <= _MAX_EXPONENT_CHARS:
            rsa = RSAAlgorithm.from_jwk({"kty": "RSA", "n": n, "e": e})
            if isinstance(rsa, RSAPublicKey) and rsa.key_size in _RSA_BITS:
                return "RSA", rsa
            raise ValueError(f"RSA key of {rsa.key_size} bits, not {_RSA_BITS[0]} to 8192")
        case {"kty": "EC", "crv": "P-256" | "P-384" as crv, "x": str(x), "y": str(y)}:
            ec = ECAlgorithm.from_jwk({"kty": "EC", "crv": crv, "x": x, "y": y})
            if isinstance(ec, EllipticCurvePublicKey):
                return str(crv), ec
        case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
            okp = OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": x})
            if isinstance(okp, Ed25519PublicKey):
                return "Ed25519", okp
    raise ValueError("not an RSA, P-256, P-384 or Ed25519 key")
