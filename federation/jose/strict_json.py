"""
JSON that can be read in one way only.

Two programs that read one text differently are how a check is got around: the first of two
equal members here, the last there. What is ambiguous or extravagant is refused, not mended.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import orjson

__all__ = ["MAX_DEPTH", "dumps", "dumps_ascii", "loads", "loads_object"]

MAX_DEPTH = 32
"""How deep objects and lists may lie in each other. Real tokens and key sets stay under five."""

_MAX_NUMBER_CHARS = 64
_QUICK_BYTES = 64 * 1024  # the quick reader takes twelve times a text's memory
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads_object(data: bytes) -> dict[str, object]:
    """
    The JSON object that *data* holds, read as `loads` reads.

    Raises: ValueError.
    """
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  one kind of error for bad input
    return value


def loads(data: bytes) -> object:
    """
    The JSON value (RFC 8259) that *data* holds.

    No byte order mark, no member twice in any object, no NaN or infinity however written, no
    number longer than 64 characters, no half of a surrogate pair, nothing nested deeper than
    `MAX_DEPTH`.
    Raises: ValueError.
    """
    value = _plain(data)
    return _careful(data.decode("utf-8")) if value is _UNDECIDED else value


def dumps(value: object) -> bytes:
    """*value* as compact JSON in UTF-8; dictionaries keep their order."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a number beyond 64 bits, or a mapping that is no dict
        return _ENCODER.encode(value).encode("utf-8")


def dumps_ascii(value: object) -> bytes:
    """*value* as compact JSON in which nothing but ASCII stands, so that a line is a line."""
    written = dumps(value)
    return written if written.isascii() else _ASCII_ENCODER.encode(value).encode("ascii")


_UNDECIDED = object()


def _plain(data: bytes) -> object:
    """
    What *data* holds, where a quick look shows that it can be read in one way only.

    A text that comes out the same when its value is written again has no member twice and no
    number in another form: either would be lost. Most tokens are written so.
    """
    if len(data) > _QUICK_BYTES or data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        return _UNDECIDED
    try:
        value = orjson.loads(data)
        return value if orjson.dumps(value) == data else _UNDECIDED
    except (ValueError, TypeError):
        return _UNDECIDED


def _careful(text: str) -> object:
    """What *text* holds, each member and number looked at."""
    try:
        value: object = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, value):
        raise ValueError("nested too deeply")
    if _ESCAPED_SURROGATE.search(text):
        # A pair of escapes is one character; a half of one cannot be encoded.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ASCII_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return members


def _integer(digits: str) -> int:
    if len(digits) > _MAX_NUMBER_CHARS:
        raise ValueError("a number is too long")
    return int(digits)


def _fraction(digits: str) -> float:
    number = float(digits)
    if len(digits) > _MAX_NUMBER_CHARS or not math.isfinite(number):
        raise ValueError("a number is too long or too large")
    return number


def _constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members,
    parse_int=_integer,
    parse_float=_fraction,
    parse_constant=_constant,
)


def _deeper_than(levels: int, value: object) -> bool:
    """Whether *value* nests more than *levels* deep, found without recursion."""
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            for inner in (
                outer.values()
                if isinstance(outer, dict)
                else outer
                if isinstance(outer, list)
                else ()
            )
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True
