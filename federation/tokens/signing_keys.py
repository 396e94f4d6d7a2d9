"""
The broker's signing keys (P-256): generation, rotation, and storage in the state directory.

One key signs; all are published and accepted. A key stays published until every token that it
signed has expired, so a rotation invalidates no token. The folder has one PEM file for each
key, named by time and thumbprint, and a file `current` with the kid of the key that signs. A
key newer than the current one is published but does not sign yet, so that verifiers can fetch it
before they need it. A key that another user could have written, or can read, is not used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
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
from federation.ownership import Account, check_file, check_folder, read_key

LONGEST_TOKEN = timedelta(hours=24)
"""No access token is valid for longer, so a key that stopped signing before then can be deleted."""

_ROTATION_DELAY = timedelta(minutes=1)
"""A running broker may sign with the old key for so long after a rotation."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A P-256 key with its `kid`, the RFC 7638 thumbprint."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    public: ec.EllipticCurvePublicKey = field(repr=False)
    kid: str

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey) -> SigningKey:
        """Return the key with its thumbprint."""
        public = private.public_key()
        # RFC 7638: a hash of the required members, sorted, without spaces.
        members = json.dumps(_public_members(public), sort_keys=True, separators=(",", ":"))
        return cls(private, public, _text(hashlib.sha256(members.encode()).digest()))

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key."""
        return cls.of(ec.generate_private_key(ec.SECP256R1()))

    @property
    def jwk(self) -> dict[str, str]:
        """The public half as a JWK (RFC 7517)."""
        return {**_public_members(self.public), "kid": self.kid, "alg": "ES256", "use": "sig"}

    def pem(self) -> bytes:
        """The private key as unencrypted PKCS#8."""
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The signing keys in use. The first signs; tokens of all are accepted."""

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
        """The kids in order. They identify the set."""
        return tuple(key.kid for key in self.keys)

    def find(self, kid: object) -> SigningKey | None:
        """Return the key named *kid*, or None."""
        return next((key for key in self.keys if key.kid == kid), None)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWKS (RFC 7517, section 5)."""
        return {"keys": [key.jwk for key in self.keys]}


def read_pem(pem: bytes) -> SigningKey:
    """
    Read the signing key in *pem* (SEC1 or PKCS#8, not encrypted).

    Raises: ValueError with a sentence that does not quote *pem*, which is secret.
    """
    try:
        private = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("it holds no unencrypted PEM private key") from error
    match private:
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            return SigningKey.of(private)
        case _:
            raise ValueError("its key is not an EC key on the curve P-256")


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A signing key in the folder, with its status."""

    key: SigningKey
    made: datetime
    status: str
    """`signs`, `next` (published, signs after the next rotation) or `retired`."""


class KeyFolder:
    """
    The folder of the signing keys that the broker made. Only its owner can read it.

    *account* is the user that must be able to trust the keys: by default that of this process.
    """

    def __init__(self, folder: Path, account: Account | None = None) -> None:
        self._folder = folder
        self._account = account
        self._current = folder / "current"

    @classmethod
    def under(cls, state: Path, account: Account | None = None) -> KeyFolder:
        """Return the key folder of the state directory *state*."""
        return cls(state / "signing-keys", account)

    def ensure(self) -> SigningKeys:
        """Return the keys in use. If there is none, make the first."""
        if not self._current.exists():
            with self._lock():
                if not self._current.exists():
                    self._add()
        return self.load()

    def existing(self) -> SigningKeys | None:
        """Return the keys in use, None if there is none yet. Nothing is made."""
        return self.load() if self._current.exists() else None

    def load(self) -> SigningKeys:
        """
        Return the keys in use, first the one that signs.

        Raises: ValueError if `current` names a key that is not in the folder, or if a file is
        not to be trusted.
        """
        stored = sorted(self.list(), key=lambda entry: entry.status != "signs")
        if not stored:
            raise ValueError(f"{self._folder} holds no signing key")
        return SigningKeys(tuple(entry.key for entry in stored))

    def list(self) -> Sequence[StoredKey]:
        """Return every key, the oldest first."""
        if not self._folder.exists():
            return []
        check_folder(self._folder, self._account)
        # Read `current` before the keys: a key is written before `current` names it, so a key that
        # is named here is found below even if another process rotates now.
        current = ""
        if self._current.exists():
            check_file(self._current, self._account)
            # As bytes: a text encoding is loaded late, which `federation keys` may not be allowed to
            # do once it acts as another user.
            current = self._current.read_bytes().decode(errors="replace").strip()
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        signing = next((i for i, (_, key) in enumerate(entries) if key.kid == current), None)
        if signing is None and (entries or current):
            raise ValueError(f"{self._current} names a key that is not in {self._folder}")
        return [
            StoredKey(key, datetime.fromtimestamp(made_ns / 1e9, UTC), _status(i, signing or 0))
            for i, (made_ns, key) in enumerate(entries)
        ]

    def generate(self) -> SigningKey:
        """Make a key. It is published, and signs only if it is the first."""
        with self._lock():
            return self._add()

    def rotate(self, now: datetime) -> tuple[SigningKey, Sequence[SigningKey]]:
        """
        Sign with the next key, made now if there is none, and delete keys that are not needed.

        A retired key is deleted once every token that it signed has expired. Returns the key that
        signs and the deleted keys.
        """
        with self._lock():
            dropped = self._delete_retired(now)
            upcoming = [entry.key for entry in self.list() if entry.status == "next"]
            key = upcoming[0] if upcoming else self._add()
            self._make_current(key)
            return key, dropped

    def fingerprint(self) -> tuple[object, ...]:
        """
        Return a value that changes when a key is added, deleted or made current.

        It changes with the owner and the mode of a file too: both decide whether it can be used.
        """
        paths = sorted(path for path in self._folder.glob("*") if not path.name.startswith("."))
        prints = [(path, path.lstat()) for path in paths]
        return tuple((path.name, found.st_ino, found.st_ctime_ns) for path, found in prints)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the folder's file lock, so that two processes that start first make one key."""
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
                pem = read_key(path, self._account)  # its errors name the file
            except FileNotFoundError:
                continue  # a rotation deleted it since the listing
            try:
                yield int(made_ns), read_pem(pem)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error

    def _make_current(self, key: SigningKey) -> None:
        _write_private(self._current, key.kid.encode("ascii"))

    def _delete_retired(self, now: datetime) -> Sequence[SigningKey]:
        if not self._current.exists():
            return []
        rotated = datetime.fromtimestamp(self._current.stat().st_mtime, UTC)
        if now - rotated <= LONGEST_TOKEN + _ROTATION_DELAY:
            return []
        retired = [entry.key for entry in self.list() if entry.status == "retired"]
        for key in retired:
            for path in self._folder.glob(f"*.{key.kid}.pem"):
                path.unlink()
        return retired


def _status(position: int, signing: int) -> str:
    if position == signing:
        return "signs"
    return "next" if position > signing else "retired"


def _write_private(path: Path, content: bytes) -> None:
    """Write *content* to *path* atomically, readable by its owner alone."""
    # Not tempfile: it takes the absolute path, which `federation keys` may not be able to reach.
    temporary = path.with_name(f".new-{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _public_members(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = public.public_numbers()
    return {
        "crv": "P-256",
        "kty": "EC",
        "x": _text(numbers.x.to_bytes(32, "big")),
        "y": _text(numbers.y.to_bytes(32, "big")),
    }


def _text(raw: bytes) -> str:
    return encode_base64url(raw).decode("ascii")
