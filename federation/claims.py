"""
The claims of a token, as two types: `UnverifiedClaims` and, after verification, `Claims`.

The types differ so that code that needs verified claims cannot get unverified ones by mistake.
Only `issuers.verify` and `tokens.verify` make `Claims`, and `explain`, from a file that an
operator gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NewType

from federation.text import oauth_safe

_OURS = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "policy", "role", "function"})
# These bind the subject token to one sign-in, client or session, or say what kind of token it is.
# In ours they would be wrong: `scope` and `act` grant or delegate (RFC 8693, section 4), `cnf` asks
# for a proof of possession (RFC 7800), and `events` makes a security event or logout token.
_PROTOCOL = frozenset(
    {
        *("nonce", "at_hash", "c_hash", "s_hash", "auth_time", "azp", "sid", "acr", "amr"),
        *("typ", "events", "scope", "client_id", "cnf", "act", "may_act"),
    }
)
NOT_COPIED = _OURS | _PROTOCOL
"""Claims of a subject token that its access token does not have, or has with another value."""

UnverifiedClaims = NewType("UnverifiedClaims", Mapping[str, object])
Claims = NewType("Claims", Mapping[str, object])


def text(value: object) -> str | None:
    """
    Return a claim as the text that conditions compare, or None if it counts as absent.

    A string is its own text, an integer its digits, a boolean `true` or `false`. Null, the empty
    string, numbers with a fraction, lists and objects count as absent and match nothing.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return None


def pointer(path: str) -> tuple[str, ...]:
    """
    Split a JSON Pointer (RFC 6901) into its reference tokens.

    Raises: ValueError if *path* is not a JSON Pointer.
    """
    if not path.startswith("/") or re.search(r"~(?![01])", path):
        raise ValueError(path)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))


def is_copied(name: str) -> bool:
    """Return whether an access token has the claim *name* of its subject token, as it is."""
    return name not in NOT_COPIED and not name.startswith("fed:")


def at(claims: Mapping[str, object], name: str) -> object:
    """Return the claim *name*, or, if it begins with `/`, the value that this pointer leads to."""
    return lookup(claims, pointer(name)) if name[:1] == "/" else claims.get(name)


def audiences(claims: Mapping[str, object]) -> Sequence[object]:
    """Return the audiences in `aud`, which is one of them or a list (RFC 7519, section 4.1.3)."""
    audience = claims.get("aud")
    return audience if isinstance(audience, list) else [audience]


def lookup(claims: Mapping[str, object], path: tuple[str, ...]) -> object:
    """Return the value at *path*, or None if a step of the path is missing."""
    value: object = claims
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,5}", step):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


def shown(value: object) -> str:
    """
    Return a claim on one line for a person to read, cut to 200 characters.

    Characters that an OAuth error description may not contain are replaced, so that a claim
    cannot inject anything into logs, terminals or headers.
    """
    if value is None:
        return "(absent)"
    if isinstance(value, list):
        return oauth_safe(
            "[" + ", ".join(text(item) or type(item).__name__ for item in value) + "]"
        )
    if isinstance(value, Mapping):
        return "(an object)"
    if isinstance(value, float):
        return repr(value)
    return oauth_safe(text(value) or "(empty)")
