"""
Sealed values: JSON that only the dashboard can read or make (JWE, RFC 7516: `dir`, `A256GCM`).

The first session key seals, and every key opens, so that a rotation ends no session. Each purpose
has a key of its own, derived from the session key: a sealed cookie is never taken for a session.
What a value belongs to is sealed with it. So nobody who can write to the store can give one
session's record to another.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from federation.jose import strict_json

SMALLEST_KEY_BYTES = 32
_ALGORITHMS = ("dir", "A256GCM")
_SEALED_CHARS = 512 * 1024
_PEM = b"-----BEGIN"


def session_key(content: bytes) -> bytes:
    """
    The secret in the *content* of a key file: a P-256 private key, or at least 32 bytes.

    Raises: ValueError, with a sentence that quotes nothing of the key.
    """
    if not content.lstrip().startswith(_PEM):
        if len(content.strip()) < SMALLEST_KEY_BYTES:
            raise ValueError("it must have a P-256 private key in PEM, or at least 32 bytes")
        return content
    try:
        private = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it has a PEM that cannot be read, or that has a password") from error
    match private:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return private.private_numbers().private_value.to_bytes(32, "big")
    raise ValueError("the key in its PEM is not of the curve P-256")


class Sealer:
    """Seals and opens the values of one *purpose* with the session keys *secrets*."""

    def __init__(self, purpose: str, secrets: Sequence[bytes]) -> None:
        self._purpose = purpose
        self._keys: dict[str, OctKey] = {}
        self.use(secrets)

    def use(self, secrets: Sequence[bytes]) -> None:
        """Seal with the first of *secrets* from now on, and open with any."""
        derived = [_derived(secret, self._purpose) for secret in secrets]
        if not derived:
            raise ValueError("no session key")
        self._keys = {_kid(key): OctKey.import_key(key) for key in derived}

    def seal(self, owner: str, value: Mapping[str, object]) -> str:
        """*value*, sealed for *owner*."""
        kid, key = next(iter(self._keys.items()))
        header = {"alg": "dir", "enc": "A256GCM", "kid": kid}
        content = strict_json.dumps({"owner": owner, "value": value})
        return jwe.encrypt_compact(header, content, key, algorithms=_ALGORITHMS)

    def open(self, owner: str, sealed: str) -> dict[str, object] | None:
        """The value that was sealed for *owner*; None for anything else."""
        if len(sealed) > _SEALED_CHARS or not sealed.isascii():
            return None
        for key in self._keys.values():
            try:
                content = jwe.decrypt_compact(sealed, key, algorithms=_ALGORITHMS).plaintext
                opened = strict_json.loads_object(content or b"")
            except (JoseError, ValueError):
                continue
            match opened:
                case {"owner": str(whose), "value": dict(value)} if hmac.compare_digest(
                    whose.encode(), owner.encode()
                ):
                    return value
        return None


def _derived(secret: bytes, purpose: str) -> bytes:
    info = f"federation dashboard: {purpose}".encode()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)


def _kid(key: bytes) -> str:
    return hashlib.sha256(b"kid" + key).hexdigest()[:16]
