"""
Read JSON of an API server, in which an object may be nested more deeply than a parser can read.

orjson limits the depth that it reads, and writes still less. An author of one deep object could so
keep a page of 500 objects from being read. In a text that is too deep, each value that is nested
deeper than `MAX_DEPTH` is therefore read as null. No field of ours is so deep, and an object with such a value is
refused either way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import orjson

MAX_DEPTH = 64

_QUICK_BYTES = 16 * 1024
_NO_OBJECT = "not a JSON object"
# Nothing is tried twice, so that neither time nor memory grows faster than the text. A string
# without an end goes to the end.
_STEP = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def loads_shallow(data: bytes) -> dict[str, Any]:
    """Return the JSON object *data*, with null for what is too deep. Raises: ValueError."""
    try:
        value = orjson.loads(data)
        orjson.dumps(value)  # it writes less deep than it reads, and a spec is written again
    except (ValueError, TypeError):
        value = _loads(b"".join(_shallow(data)))
    if not isinstance(value, dict):
        raise ValueError(_NO_OBJECT)  # noqa: TRY004  one kind of error for bad input
    return value


async def loads_aside(data: bytes) -> dict[str, Any]:
    """Return `loads_shallow` of *data*, from a thread if that takes a while. Raises: ValueError."""
    if len(data) <= _QUICK_BYTES:
        return loads_shallow(data)
    return await asyncio.to_thread(loads_shallow, data)


def _loads(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except ValueError:
        raise ValueError(_NO_OBJECT) from None  # the text is hostile, and is not quoted


def _shallow(data: bytes) -> Iterator[bytes]:
    """Yield the parts of *data*, with `null` in place of what is too deep."""
    depth, kept_from = 0, 0
    for step in _STEP.finditer(data):
        match step[0]:
            case b"{" | b"[":
                depth += 1
                if depth == MAX_DEPTH + 1:
                    yield data[kept_from : step.start()] + b"null"
            case b"}" | b"]":
                depth -= 1
                if depth == MAX_DEPTH:
                    kept_from = step.end()
    if depth > MAX_DEPTH:
        raise ValueError(_NO_OBJECT)
    yield data[kept_from:]
