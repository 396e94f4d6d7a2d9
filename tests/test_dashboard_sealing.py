"""Sealed values: who can read and make them, and which keys."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwe
from joserfc.jwk import OctKey

from federation.dashboard.sealing import Sealer, session_key

OLD, NEW = b"old key of at least 32 bytes, for tests", b"new key of at least 32 bytes, for tests"
VALUE = {"a": 1, "b": "\N{SNOWMAN}", "c": [1.5, None]}

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem(key: PrivateKey, password: bytes | None = None, *, sec1: bool = False) -> bytes:
    formats = serialization.PrivateFormat
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(
        serialization.Encoding.PEM,
        formats.TraditionalOpenSSL if sec1 else formats.PKCS8,
        encryption,
    )


def test_what_was_sealed_is_opened() -> None:
    sealer = Sealer("session", [OLD])
    sealed = sealer.seal("owner", VALUE)
    assert sealer.open("owner", sealed) == VALUE
    assert "SNOWMAN" not in sealed
    assert sealed != sealer.seal("owner", VALUE)


def test_every_key_opens_and_the_first_one_seals() -> None:
    old = Sealer("session", [OLD])
    both = Sealer("session", [NEW, OLD])
    assert both.open("owner", old.seal("owner", VALUE)) == VALUE
    assert old.open("owner", both.seal("owner", VALUE)) is None


def test_a_key_that_was_taken_away_opens_nothing() -> None:
    sealer = Sealer("session", [OLD])
    sealed = sealer.seal("owner", VALUE)
    sealer.use([NEW])
    assert sealer.open("owner", sealed) is None
    sealer.use([NEW, OLD])
    assert sealer.open("owner", sealed) == VALUE


def test_a_value_belongs_to_its_owner_and_purpose() -> None:
    sealed = Sealer("session", [OLD]).seal("owner", VALUE)
    assert Sealer("session", [OLD]).open("other", sealed) is None
    assert Sealer("sign-in", [OLD]).open("owner", sealed) is None


def test_no_bit_of_a_sealed_value_can_be_changed() -> None:
    sealer = Sealer("session", [OLD])
    sealed = sealer.seal("owner", VALUE)
    for place in range(len(sealed)):
        other = "A" if sealed[place] != "A" else "z"
        changed = f"{sealed[:place]}{other}{sealed[place + 1 :]}"
        opened = sealer.open("owner", changed)
        # The last character of a segment may have bits that say nothing.
        assert opened is None or (opened == VALUE and sealed[place + 1 : place + 2] in {"", "."})


@pytest.mark.parametrize(
    "sealed",
    ["", ".", "....", "a.b.c.d.e", "\N{SNOWMAN}", "x" * 1_000_000, "null", "a" * 4096 + "." * 4],
    ids=["empty", "dot", "dots", "letters", "not ASCII", "long", "null", "long header"],
)
def test_garbage_opens_to_nothing(sealed: str) -> None:
    assert Sealer("session", [OLD]).open("owner", sealed) is None


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "dir", "enc": "A256GCM", "zip": "DEF"},
        {"alg": "A256KW", "enc": "A256GCM"},
        {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": 10_000_000, "p2s": "c2FsdA"},
    ],
    ids=["compressed", "wrapped", "by password"],
)
def test_another_way_to_encrypt_is_not_taken(header: dict[str, object]) -> None:
    # Even who has the key gets no other algorithm in: none that unpacks, none that is slow.
    sealer = Sealer("session", [OLD])
    ((_, key),) = sealer._keys.items()
    given = json.dumps({"owner": "owner", "value": VALUE})
    names = [str(value) for value in header.values() if isinstance(value, str)]
    if "p2c" in header:
        header = {"alg": header["alg"], "enc": header["enc"]}
    sealed = jwe.encrypt_compact(header, given, OctKey.import_key(key.raw_value), algorithms=names)
    assert sealer.open("owner", sealed) is None


def test_a_p256_key_gives_the_same_secret_in_any_form() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    secret = session_key(pem(key))
    assert len(secret) == 32
    assert session_key(pem(key, sec1=True)) == secret
    assert session_key(b"\n" + pem(key)) == secret
    assert session_key(pem(ec.generate_private_key(ec.SECP256R1()))) != secret


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "at least 32 bytes"),
        (b"x" * 31 + b"\n", "at least 32 bytes"),
        (b"\n" * 40, "at least 32 bytes"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "cannot be read"),
        (pem(ec.generate_private_key(ec.SECP256R1()), b"password"), "password"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (pem(rsa.generate_private_key(65537, 2048)), "P-256"),
    ],
    ids=["empty", "short", "blank", "broken", "password", "P-384", "RSA"],
)
def test_a_key_that_cannot_be_used_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        session_key(content)


def test_a_sealer_needs_a_key() -> None:
    with pytest.raises(ValueError, match="no session key"):
        Sealer("session", [])
