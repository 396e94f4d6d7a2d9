"""
Parses JSON Web Keys (RFC 7517) into public keys that can verify signatures.

Keys that issuers publish and keys that documents pin are both read by `parse_key`, so a key that
`check` accepts is a key that the broker can use. A key is used only as it was published: its type
and curve, its `use`, `key_ops` and `alg` each rule algorithms out.

`kid` and `alg` together choose the key: several keys may have one `kid` if their types or
algorithms differ (RFC 7517, section 4.5). Where more than one key would do, none is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from types import MappingProxyType
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError

from federation.claims import shown

MAX_KEYS = 1000
"""The most keys of a published set that are read. An answer of 256 KiB has room for twice as many."""
MAX_PINNED_KEYS = 100
"""Maximum number of keys that a document pins."""
_MAX_REASONS = 100
MAX_KID_CHARS = 256
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members that only a private or a symmetric key has (RFC 7518, section 6)."""

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA_BITS = range(2048, 8192 + 1)
_MAX_EXPONENT_CHARS = 11  # 64 bits; a longer exponent only makes verification slow

_ALGORITHMS: Mapping[str, tuple[str, Algorithm]] = MappingProxyType(
    {
        "RS256": ("RSA", RSAAlgorithm(RSAAlgorithm.SHA256)),
        "RS384": ("RSA", RSAAlgorithm(RSAAlgorithm.SHA384)),
        "RS512": ("RSA", RSAAlgorithm(RSAAlgorithm.SHA512)),
        "PS256": ("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256)),
        "PS384": ("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA384)),
        "PS512": ("RSA", RSAPSSAlgorithm(RSAPSSAlgorithm.SHA512)),
        "ES256": ("P-256", ECAlgorithm(ECAlgorithm.SHA256, SECP256R1)),
        "ES384": ("P-384", ECAlgorithm(ECAlgorithm.SHA384, SECP384R1)),
        "ES512": ("P-521", ECAlgorithm(ECAlgorithm.SHA512, SECP521R1)),
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

    def clashes(self, other: Key) -> bool:
        """Return whether a token could mean either key: they differ, and one `alg` fits both."""
        fits_both = self.kind == other.kind and (not self.alg or other.alg in {None, self.alg})
        return fits_both and self.public != other.public


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one issuer."""

    keys: tuple[Key, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    """For each unusable key the reason, by `kid`, or by `#index` if it has none."""
    _by_kid: Mapping[str | None, tuple[Key, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_kid: dict[str | None, tuple[Key, ...]] = {}
        for key in self.keys:
            by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        object.__setattr__(self, "_by_kid", by_kid)

    def publishes(self, kid: str | None) -> bool:
        """Return whether a usable key of any kind has this *kid*."""
        return kid is not None and kid in self._by_kid

    def find(self, kid: str | None, alg: str) -> Key | None:
        """
        Return the key named *kid* that fits *alg*.

        If the token has no `kid`, or no key has it, the `kid` cannot choose. Then return the only
        key that fits: of all keys, or of those without a `kid`. None if several fit.
        """
        if kid is None:
            return _only_one(self.keys, alg)
        return _only_one(self._by_kid.get(kid) or self._by_kid.get(None, ()), alg)


def _only_one(keys: Iterable[Key], alg: str) -> Key | None:
    """Return the one of *keys* that fits *alg*. A key that is published twice is one key."""
    fitting = [key for key in keys if key.fits(alg)]
    for other in fitting[1:]:
        if other.public != fitting[0].public:
            return None
    return fitting[0] if fitting else None


def parse_key_set(document: Mapping[str, object]) -> KeySet:
    """
    Return the usable keys of a JWK set, with a reason for each unusable key.

    One bad key does not spoil the others. Only the first `MAX_KEYS` entries are read, because
    reading a key costs up to 0.1 ms, and an issuer may publish thousands.
    Raises: ValueError if *document* has no list of keys, or an empty one.
    """
    published = document.get("keys")
    if not isinstance(published, list | tuple) or not published:
        raise ValueError("no list of keys, or an empty one")
    keys: list[Key] = []
    skipped: dict[str, str] = {}
    for index, jwk in enumerate(published[:MAX_KEYS]):
        try:
            keys.append(parse_key(jwk))
        except ValueError as error:
            skipped[_name(jwk, index)] = str(error)
    # First each key once: comparing every key with every other would take seconds.
    once = {(key.kid, key.alg, _der(key)): key for key in reversed(keys)}
    distinct = list(reversed(once.values()))
    ambiguous = ambiguous_kids(distinct)
    skipped |= dict.fromkeys(ambiguous, "two different keys have this kid")
    kept = tuple(key for key in distinct if key.kid not in ambiguous)
    return KeySet(kept, dict(_bounded(skipped, len(published))))


def _bounded(skipped: Mapping[str, str], published: int) -> Iterator[tuple[str, str]]:
    """Yield the first of the reasons, and what else was left out."""
    yield from islice(skipped.items(), _MAX_REASONS)
    if (more := len(skipped) - _MAX_REASONS) > 0:
        yield "#more", f"{more} more keys cannot be used"
    if published > MAX_KEYS:
        yield f"#{MAX_KEYS}", f"only the first {MAX_KEYS} of {published} keys are read"


def _der(key: Key) -> bytes:
    return key.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ambiguous_kids(keys: Sequence[Key]) -> frozenset[str]:
    """Return each `kid` that two different keys have for the same algorithm."""
    by_kid: dict[str, list[Key]] = {}
    for key in keys:
        if key.kid:
            by_kid.setdefault(key.kid, []).append(key)
    return frozenset(
        kid
        for kid, alike in by_kid.items()
        if any(one.clashes(other) for one, other in combinations(alike, 2))
    )


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


def _key(jwk: object) -> Key:
    """Return the key in *jwk*. Raises ValueError, or an error of the libraries."""
    if not isinstance(jwk, Mapping):
        raise TypeError("not an object")
    kid, alg = _optional_text(jwk, "kid"), _optional_text(jwk, "alg")
    if kid is not None and len(kid) > MAX_KID_CHARS:
        raise ValueError("its kid is too long")
    if alg is not None and alg not in _ALGORITHMS:
        raise ValueError(f"its alg is {alg}")
    if _optional_text(jwk, "use") not in {None, "sig"}:
        raise ValueError("its use is not sig")
    operations = jwk.get("key_ops") or ["verify"]
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
    """Return a member that may be absent. Some issuers write null or `""` when they mean that."""
    value = jwk.get(member)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its {member} is not a string")
    return value or None


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
        case {"kty": "EC", "crv": "P-256" | "P-384" | "P-521" as crv, "x": str(x), "y": str(y)}:
            ec = ECAlgorithm.from_jwk({"kty": "EC", "crv": crv, "x": x, "y": y})
            if isinstance(ec, EllipticCurvePublicKey):
                return str(crv), ec
        case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
            okp = OKPAlgorithm.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": x})
            if isinstance(okp, Ed25519PublicKey):
                return "Ed25519", okp
    raise ValueError("not an RSA, P-256, P-384, P-521 or Ed25519 key")
