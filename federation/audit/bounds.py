"""
The bounds of what an audit event holds: its length, and no text that looks like a token.

A caller writes much of an event. These functions cut each text and replace tokens in it, so that a
request costs the journal no more than its fields may take, and no event helps to steal a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from federation.jose.strict_json import dumps_ascii

# The first characters of a JSON object in base64url: `{"`, or `{` and white space. The pattern
# cannot fail after its 17th character, so it reads each text once: no quadratic search.
_TOKEN = re.compile(r"(?:eyJ|eyA|eyI|ewo|ew0|ewk)[A-Za-z0-9_-]{17,}(?:\.[A-Za-z0-9_-]*){0,4}")
# Also finds what `_TOKEN` does not. One path through the pattern is several times as fast as six.
_MAYBE_TOKEN = re.compile(rb"e[yw][JAIo0k][A-Za-z0-9_-]{17}")
FIELD_BYTES = 1024
"""The most that a member of an event takes in the journal, as JSON in ASCII."""
_SURELY_FITS = 80
"""So many characters fit whatever they are: JSON escapes one with at most 12 bytes."""
_EVIDENCE_BYTES = 16 * 1024
"""The most that the evidence takes in the log, where it is an object."""
_VALUE_CHARS = 300
_LIST_ITEMS = 50
_CUT = "..."
A_TOKEN = "(a token)"
"""Stands in events for whatever looks like one."""


def cut(text: str, most: int = FIELD_BYTES) -> str:
    """Return *text*, or as much of its beginning as takes *most* bytes in the journal."""
    if len(text) <= _SURELY_FITS or len(dumps_ascii(text)) <= most:
        return text
    text = text[: most - len(_CUT)]
    while (size := len(dumps_ascii(text + _CUT))) > most:
        text = text[: -max(1, (size - most) // 12)]  # an escape has at most 12 bytes
    return text + _CUT


def cut_list(items: tuple[str, ...]) -> tuple[str, ...]:
    """Return *items*, or those that fit into a field and then how many there are besides."""
    if not items or len(dumps_ascii(items)) <= FIELD_BYTES:
        return items
    kept: list[str] = []
    left = FIELD_BYTES - len('["(and 1000000 more)"]')
    for item in items:
        left -= len(dumps_ascii(item)) + 1
        if left < 0:
            break
        kept.append(item)
    return (*kept, f"(and {len(items) - len(kept)} more)")


def bounded(evidence: Mapping[str, object]) -> dict[str, object]:
    """Return *evidence* as JSON without tokens; if it is large, the beginning of its text."""
    plain = {name: _plain(value) for name, value in evidence.items()}
    if len(dumps_ascii(plain)) <= _EVIDENCE_BYTES:
        return plain
    return {"beginning": cut(json.dumps(plain, ensure_ascii=False), _EVIDENCE_BYTES)}


def _plain(value: object) -> object:
    """Return *value* as bounded JSON without tokens."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(_plain(str(key))): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in list(value)[:_LIST_ITEMS]]
    text = without_tokens(str(value))
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "..."


def without_tokens(text: str) -> str:
    """Replace whatever in *text* looks like a JWT or the beginning of one."""
    if "ey" not in text and "ew" not in text:
        return text
    return _TOKEN.sub(A_TOKEN, text)


def looks_like_token(written: bytes) -> bool:
    """Return whether some text in *written*, JSON in ASCII, may be a JWT or the beginning of one."""
    return _MAYBE_TOKEN.search(written) is not None


def safe(value: object) -> object:
    """Return the JSON *value* with every token in it replaced, and nothing else changed."""
    if isinstance(value, str):
        return without_tokens(value)
    if isinstance(value, Mapping):
        return {without_tokens(key): safe(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [safe(inner) for inner in value]
    return value
