"""
Parses JSON Web Keys (RFC 7517) into public keys that can verify signatures.

Keys that issuers publish and keys that documents pin are both read by `parse_key`, so a key that
`check` accepts is a key that the broker can use. A key is used only as it was published: its type
and curve, its `use`, `key_ops` and `alg` each rule algorithms out.
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

MAX_KEYS = 100
MAX_KID_CHARS = 256
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members that only a private or a symmetric key has (RFC 7518, section 6)."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA_BITS = range(2048, 8192 + 1)
_MAX_EXPONENT_CHARS = 11  # 64 bits; a longer exponent only makes verification slow

_ALGORITHMS: Mapping[str, tuple[str, Algorithm]] = MappingProxyType(
    {
        "RS256": ("RSA", RSAAlgorithm(RSAAlgorithm.SHA256)),
        "PS256": ("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256)),
        "ES256": ("P-256", ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)),
        "ES384": ("P-384", ECAlgorithm(ECAlgorithm.SHA384, SECP384R1)),
        "EdDSA": ("Ed25519", OKPAlgorithm()),
    }
)
"""For each algorithm the kind of key it needs, and the PyJWT object that verifies with it."""

_NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)
"""The members that each type of key must have (RFC 7518, section 6; RFC 8037, section 2)."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key of an issuer."""

    public: PublicKey
    kind: str
    """`RSA`, or the name of the curve."""
    kid: str | None = None
    alg: str | None = None
    """The only algorithm it is published for; None if any algorithm of its kind will do."""

    def fits(self, alg: str) -> bool:
        """Return whether this key can verify signatures made with *alg*."""
        return alg in _ALGORITHMS and _ALGORITHMS[alg][0] == self.kind and self.alg in {None, alg}

    def verifies(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Return whether *signature* over *signing_input* was made by this key with *alg*."""
        if not self.fits(alg):
            return False
        try:
            return _ALGORITHMS[alg][1].verify(signing_input, self.public, signature)
        except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm):
            return False  # a malformed signature on which the library raises


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer."""

    keys: tuple[Key, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    """For each unusable key the reason, by `kid`, or by `#index` if it has none."""
    _by_kid: Mapping[str, Key] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_kid", {key.kid: key for key in self.keys if key.kid})

    def publishes(self, kid: str | None) -> bool:
        """Return whether a usable key of any kind has this *kid*."""
        return kid in self._by_kid

    def find(self, kid: str | None, alg: str) -> Key | None:
        """
        Return the key named *kid* if it fits *alg*.

        Without *kid* return the only key that fits *alg*; None if several fit.
        """
        if kid is not None:
            key = self._by_kid.get(kid)
            return key if key and key.fits(alg) else None
        fitting = [key for key in self.keys if key.fits(alg)]
        return fitting[0] if len(fitting) == 1 else None


def parse_key_set(document: Mapping[str, object]) -> KeySet:
    """
    Return the usable keys of a JWK set, at most `MAX_KEYS`, with a reason for each unusable key.

    One bad key does not spoil the others.
    Raises: ValueError if *document* has no list of keys, or an empty one.
    """
    published = document.get("keys")
    if not isinstance(published, list | tuple) or not published:
        raise ValueError("no list of keys, or an empty one")
    keys: list[Key] = []
    skipped: dict[str, str] = {}
    for index, jwk in enumerate(published):
        try:
            keys.append(parse_key(jwk))
        except ValueError as error:
            skipped[_name(jwk, index)] = str(error)
    ambiguous = _ambiguous(keys)
    skipped |= dict.fromkeys(ambiguous, "two different keys have this kid")
    kept: list[Key] = []
    for key in keys:
        if len(kept) < MAX_KEYS and key.kid not in ambiguous and key not in kept:
            kept.append(key)
    return KeySet(tuple(kept), dict(list(skipped.items())[:MAX_KEYS]))


def parse_key(jwk: object) -> Key:
    """
    Return the public key that *jwk* describes.

    Raises: ValueError with the reason why the key cannot be used.
    """
    try:
        return _key(jwk)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidKeyError) as error:
        raise ValueError(shown(str(error))) from error


def _name(jwk: object, index: int) -> str:
    kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
    return kid if isinstance(kid, str) and 0 < len(kid) <= MAX_KID_CHARS else f"#{index}"


def _ambiguous(keys: Iterable[Key]) -> set[str]:
    """Return each `kid` that two different keys have. Such a `kid` identifies neither."""
    first: dict[str, Key] = {}
    return {key.kid for key in keys if key.kid and first.setdefault(key.kid, key) != key}


def _key(jwk: object) -> Key:
    """Return the key in *jwk*. Raises ValueError, or an error of the libraries."""
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
    # Published private keys are known to everybody, so a signature by one proves nothing.
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
    """Return the kind of key and the key itself, built from its public members only."""
    needed = _NEEDED.get(str(jwk.get("kty")), ())
    if missing := [member for member in needed if member not in jwk]:
        raise ValueError(f"it lacks {', '.join(missing)}")
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
