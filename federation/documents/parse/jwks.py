"""
Pinned keys, checked by their form alone: public, whole, and strong enough.

A JWKS in a document is trusted like the document, so a private key in it is refused loudly.
Only the members that say what a key is are kept; addresses and certificates are left behind.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from types import MappingProxyType

from federation.documents.codes import Code
from federation.documents.parse.fields import Field
from federation.documents.parse.nodes import Fields, Items, Scalar

__all__ = ["pinned_keys"]

_RSA_BITS = 2048
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_TEXT_MEMBERS = ("kty", "kid", "alg", "use", "crv", "n", "e", "x", "y")
_NEEDED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)
_COORDINATE_BYTES: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "EC": {"P-256": 32, "P-384": 48, "P-521": 66, "secp256k1": 32},
        "OKP": {"Ed25519": 32, "Ed448": 57, "X25519": 32, "X448": 56},
    }
)
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")

Key = dict[str, object]


def pinned_keys(field: Field) -> Mapping[str, object] | None:
    """The JWKS in *field*, reduced to public members; None where something is wrong with it."""
    before = field.report.errors
    members = dict(_members(field, "a JWKS"))
    if "keys" not in members:
        if field.report.errors == before:
            _bad(field, "has no member keys", "copy the whole JWKS of the issuer")
        return None
    keys = [key for item in members["keys"].items() if (key := _key(item)) is not None]
    _same_kid(members["keys"], keys)
    return {"keys": keys} if field.report.errors == before else None


def _members(field: Field, what: str) -> list[tuple[str, Field]]:
    if isinstance(field.node, Fields):
        return list(field.entries())
    _bad(field, f"is not {what}", "write the object itself, not a string that holds it")
    return []


def _key(field: Field) -> Key | None:
    """One public key; None, and a problem, where it is not one."""
    members = dict(_members(field, "a key"))
    if not members:
        return None
    if private := sorted(_PRIVATE & members.keys()):
        _bad(
            field,
            f"a private key was put here: it has {', '.join(private)}",
            "pin the public half only, and treat the private key as leaked",
        )
        return None
    found = {name: text for name in _TEXT_MEMBERS if (text := _text(members.get(name)))}
    fault = _fault(found)
    if fault:
        _bad(field, fault)
        return None
    key: Key = dict(found)
    if (uses := members.get("key_ops")) and isinstance(uses.node, Items):
        key["key_ops"] = [item.text for item in uses.node.nodes if isinstance(item, Scalar)]
    return key


def _text(field: Field | None) -> str | None:
    return field.text() if field is not None else None


def _fault(key: Mapping[str, str]) -> str | None:
    """What keeps *key* from being a public key that may be used."""
    kty = key.get("kty", "")
    needed = _NEEDED.get(kty)
    if needed is None:
        return "kty is not one of RSA, EC, OKP"
    if missing := [name for name in needed if name not in key]:
        return f"lacks {', '.join(missing)}"
    numbers = {name: _decoded(key[name]) for name in needed if name != "crv"}
    if bad := [name for name, number in numbers.items() if not number]:
        return f"{', '.join(bad)} is not base64url"
    return _rsa_fault(numbers) if kty == "RSA" else _curve_fault(kty, key["crv"], numbers)


def _rsa_fault(numbers: Mapping[str, bytes]) -> str | None:
    modulus, exponent = (int.from_bytes(numbers[name], "big") for name in ("n", "e"))
    if modulus.bit_length() < _RSA_BITS:
        return f"an RSA key of {modulus.bit_length()} bits; at least {_RSA_BITS} are needed"
    return None if exponent >= 3 and exponent % 2 else "e is not an exponent of RSA"


def _curve_fault(kty: str, curve: str, numbers: Mapping[str, bytes]) -> str | None:
    size = _COORDINATE_BYTES[kty].get(curve)
    if size is None:
        return f"crv is not one of {', '.join(_COORDINATE_BYTES[kty])}"
    wrong = [name for name, number in numbers.items() if len(number) != size]
    return f"{', '.join(wrong)} has not the {size} bytes of {curve}" if wrong else None


def _decoded(text: str) -> bytes:
    """The bytes of *text* as base64url without padding, empty where it is not that."""
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        return b""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _same_kid(field: Field, keys: list[Key]) -> None:
    kids = [key["kid"] for key in keys if "kid" in key]
    if len(kids) != len(set(kids)):
        _bad(field, "two keys have the same kid")


def _bad(field: Field, message: str, hint: str = "") -> None:
    field.wrong(Code.BAD_KEY_MATERIAL, message, hint)
