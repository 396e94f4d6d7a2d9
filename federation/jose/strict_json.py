"""
Strict JSON reader and writer: refuses ambiguous or oversized input.

If an object has the same member twice, one program uses the first and another the last. An
attacker can use that to get past a check. Such text is refused and never repaired.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import orjson

MAX_DEPTH = 32
"""Maximum nesting of objects and lists. Real tokens and key sets need at most four levels."""

_MAX_NUMBER_CHARS = 64
_QUICK_BYTES = 64 * 1024  # orjson needs twelve times the memory of the text
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def loads_object(data: bytes) -> dict[str, object]:
    """
    Parse the JSON object *data* as `loads` does.

    Raises: ValueError.
    """
    value = loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004  one kind of error for bad input
    return value


def loads(data: bytes) -> object:
    """
    Parse the JSON value *data* (RFC 8259).

    Refuses a byte order mark, a duplicate member, NaN and infinity in any spelling, a number
    longer than 64 characters, half a surrogate pair, and nesting deeper than `MAX_DEPTH`.
    Raises: ValueError.
    """
    if len(data) <= _QUICK_BYTES and data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        # orjson drops duplicate members and normalises numbers. If writing the value again gives
        # the same text, there were none, so the text is not ambiguous. Most tokens are so written.
        try:
            value: object = orjson.loads(data)
            if orjson.dumps(value) == data:
                return value
        except (ValueError, TypeError):
            pass
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("not utf-8") from None
    return _careful(text)


def dumps(value: object) -> bytes:
    """Write *value* as compact JSON in UTF-8. Dictionaries keep their order."""
    try:
        return orjson.dumps(value)
    except TypeError:  # a number beyond 64 bits, or a mapping that is no dict
        return _ENCODER.encode(value).encode("utf-8")


def dumps_ascii(value: object) -> bytes:
    """Write *value* as compact JSON in ASCII, so that no character in it ends a line."""
    written = dumps(value)
    return written if written.isascii() else _ASCII_ENCODER.encode(value).encode("ascii")


def _careful(text: str) -> object:
    """Parse *text* with a check of each member and number."""
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(_in_words(text, error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("{") + text.count("[") > MAX_DEPTH and _deeper_than(MAX_DEPTH, value):
        raise ValueError("nested too deeply")
    if _ESCAPED_SURROGATE.search(text):
        # Two escapes of a pair are one character. Encoding fails if one of them is missing.
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text has half of a surrogate pair") from None
    return value


def _in_words(text: str, error: json.JSONDecodeError) -> str:
    """Return why *text* is not JSON, in words for people. Nothing of the text is quoted."""
    begins = text.lstrip()[:1]
    if not begins:
        return "it is empty"
    if begins == "\ufeff":
        return "it begins with a byte order mark; save it as UTF-8 without one"
    if begins == "<":
        return "it is a web page or XML, not JSON"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        return "it ends too soon: a part is missing"
    where = f", at line {error.lineno}, column {error.colno}"
    if error.msg == "Extra data":
        return f"more follows after the JSON{where}"
    return f"it is not JSON{where}"


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
    """True if *value* is nested more than *levels* deep; found without recursion."""
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
