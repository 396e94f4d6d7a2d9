"""
The broker's signing keys: P-256, the first signs, all are published and accepted.

Because every key stays published until the tokens it signed have expired, rotation costs no
token. Keys made by the broker lie in a folder of the state directory, one PEM file each, named
by the key's thumbprint; the file `current` names the one that signs. A key newer than the
current one is published but does not sign yet, so that verifiers can learn it beforehand.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.jose.jws import encode_base64url

__all__ = ["LONGEST_TOKEN", "KeyFolder", "SigningKey", "SigningKeys", "StoredKey", "read_pem"]

LONGEST_TOKEN = timedelta(hours=24)
"""No access token lives longer, so a key that signed before then may go."""

_FOLLOWING = timedelta(minutes=1)
"""A running broker signs with the old key until it has noticed a rotation."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key with its `kid`, the RFC 7638 thumbprint."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    public: ec.EllipticCurvePublicKey = field(repr=False)
    kid: str

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> SigningKey:
        """The key with its thumbprint worked out."""
        public = private.public_key()
        return cls(private, public, _thumbprint(_public_members(public)))

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        return cls.of(ec.generate_private_key(ec.SECP256R1()))

    @property
    def jwk(self) -> dict[str, str]:
        """The public half as a JWK (RFC 7517)."""
        return {
            **_public_members(self.public),
            "kid": self.kid,
            "alg": "ES256",
            "use": "sig",
        }

    def pem(self) -> bytes:
        """The private key as unencrypted PKCS#8."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """All signing keys in force; the first signs."""

    keys: tuple[SigningKey, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise ValueError("at least one signing key is needed")

    @property
    def signs(self) -> SigningKey:
        """The key that signs new tokens."""
        return self.keys[0]

    @property
    def kids(self) -> tuple[str, ...]:
        """Their names, in order: two sets with the same are the same."""
        return tuple(key.kid for key in self.keys)

    def find(self, kid: object) -> SigningKey | None:
        """The key named *kid*, None where there is none."""
        return next((key for key in self.keys if key.kid == kid), None)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves as a JWKS (RFC 7517, section 5)."""
        return {"keys": [key.jwk for key in self.keys]}


def read_pem(pem: bytes) -> SigningKey:
    """
    The signing key in *pem* (SEC1 or PKCS#8, not encrypted).

    Raises: ValueError, with a sentence, where it holds none. The sentence never quotes *pem*.
    """
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it holds no unencrypted PEM private key") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
        private.curve, ec.SECP256R1
    ):
        raise ValueError("its key is not an EC key on the curve P-256")  # noqa: TRY004  one kind of error for callers
    return SigningKey.of(private)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key in the folder, and what it does there."""

    key: SigningKey
    made: datetime
    status: str
    """`signs`, `next` (published, signs after the next rotation) or `retired`."""


class KeyFolder:
    """The signing keys that the broker made itself, in a folder that only it may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current = folder / "current"

    @classmethod
    def under(cls, state: Path) -> KeyFolder:
        """The folder within the state directory *state*."""
        return cls(state / "signing-keys")

    def ensure(self) -> SigningKeys:
        """The keys in force, after making the first one if there was none."""
        if not self._current.exists():
            with self._alone():
                if not self._current.exists():
                    self._add()
        return self.load()

    def load(self) -> SigningKeys:
        """
        The keys in force, the one that signs first.

        Raises: ValueError where the folder names a current key that it does not hold.
        """
        stored = self.list()
        return SigningKeys(tuple(entry.key for entry in sorted(stored, key=_signs_first)))

    def list(self) -> Sequence[StoredKey]:
        """Every key, the oldest first."""
        # A key is written before it is made current, so whatever this names is found below.
        current = self._current.read_text("ascii").strip() if self._current.exists() else ""
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        place = next((i for i, (_, key) in enumerate(entries) if key.kid == current), None)
        if place is None and (entries or current):
            raise ValueError(f"{self._current} names a key that is not in {self._folder}")
        return [
            StoredKey(
                key,
                datetime.fromtimestamp(made_ns / 1e9, UTC),
                "signs" if i == place else "next" if i > (place or 0) else "retired",
            )
            for i, (made_ns, key) in enumerate(entries)
        ]

    def generate(self) -> SigningKey:
        """Make a key. It is published and does not sign, unless it is the only one."""
        with self._alone():
            return self._add()

    def rotate(self, now: datetime) -> tuple[SigningKey, Sequence[SigningKey]]:
        """
        Let the next key sign, made now if there is none, and drop those no token needs.

        A retired key goes once no token that it signed can be alive. Returns the key that signs
        and the keys dropped.
        """
        with self._alone():
            dropped = self._drop_retired(now)
            upcoming = [entry.key for entry in self.list() if entry.status == "next"]
            key = upcoming[0] if upcoming else self._add()
            self._make_current(key)
            return key, dropped

    def fingerprint(self) -> tuple[object, ...]:
        """Changes whenever a key was added, dropped or made current."""
        names = sorted(path.name for path in self._folder.glob("*"))
        return (*names, self._current.stat().st_mtime_ns if self._current.exists() else 0)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the folder within: two first starts must make one key."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _add(self) -> SigningKey:
        key = SigningKey.generate()
        _write_private(self._folder / f"{time.time_ns()}.{key.kid}.pem", key.pem())
        if not self._current.exists():
            self._make_current(key)
        return key

    def _entries(self) -> Iterator[tuple[int, SigningKey]]:
        for path in self._folder.glob("*.pem"):
            made_ns = path.name.partition(".")[0]
            if not made_ns.isdecimal():
                continue
            try:
                yield int(made_ns), read_pem(path.read_bytes())
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error

    def _make_current(self, key: SigningKey) -> None:
        _write_private(self._current, key.kid.encode("ascii"))

    def _drop_retired(self, now: datetime) -> Sequence[SigningKey]:
        if not self._current.exists():
            return []
        rotated = datetime.fromtimestamp(self._current.stat().st_mtime, UTC)
        if now - rotated <= LONGEST_TOKEN + _FOLLOWING:
            return []
        retired = [entry.key for entry in self.list() if entry.status == "retired"]
        for key in retired:
            for path in self._folder.glob(f"*.{key.kid}.pem"):
                path.unlink()
        return retired


def _signs_first(entry: StoredKey) -> tuple[bool, datetime]:
    return entry.status != "signs", entry.made


def _write_private(path: Path, content: bytes) -> None:
    """*path* holds *content* and only its owner may read it; never half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{secrets.token_hex(4)}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _public_members(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = public.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": _text(numbers.x.to_bytes(32, "big")),
        "y": _text(numbers.y.to_bytes(32, "big")),
    }


def _thumbprint(members: dict[str, str]) -> str:
    """RFC 7638: the required members, sorted, without white space, hashed."""
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return _text(hashlib.sha256(canonical).digest())


def _text(raw: bytes) -> str:
    return encode_base64url(raw).decode("ascii")
