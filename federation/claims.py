"""
What a token says, before and after it is verified.

`Claims` have been verified; `UnverifiedClaims` have not. The two are different types so that
a room that needs the first cannot be handed the second. Only the verify rooms make `Claims`
(and `explain`, which says so, from a file that an operator gives it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NewType

from federation.text import oauth_safe

__all__ = ["Claims", "UnverifiedClaims", "lookup", "pointer", "shown", "text"]

UnverifiedClaims = NewType("UnverifiedClaims", Mapping[str, object])
Claims = NewType("Claims", Mapping[str, object])


def text(value: object) -> str | None:
    """
    A claim as a condition reads it, or None where it reads as absent.

    Strings are themselves, integers their digits, booleans `true` or `false`. Null, the empty
    string, numbers with a fraction, lists and objects are absent: they match nothing.
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
    The reference tokens of a JSON Pointer (RFC 6901).

    Raises: ValueError where *path* is not one.
    """
    if not path.startswith("/") or re.search(r"~(?![01])", path):
        raise ValueError(path)
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/"))


def lookup(claims: Mapping[str, object], path: tuple[str, ...]) -> object:
    """The value at *path*, or None where any step of it is missing."""
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
    A claim for a person to read, on one line, at most 200 of its characters.

    Only what an OAuth error description may hold is left as it is, so that a claim can inject
    nothing into logs, terminals or headers.
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
