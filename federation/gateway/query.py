"""
Reads a query string that has one meaning only.

Upstreams differ: most take the first of two equal parameters, the log handler takes the last.
A `;` drops the pair in one and splits it in another. So each parameter may occur once, under its
exact name. Anything else raises Ambiguous or Malformed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from federation.gateway import values
from federation.gateway.refusals import Ambiguous, quoted
from federation.gateway.values import Reader

_VALUE = re.compile(r"(?:[A-Za-z0-9._~!$'()*,:@/?+-]|%[0-9A-Fa-f]{2})*")


def read_query(raw: bytes, readers: Mapping[str, Reader]) -> dict[str, str]:
    """
    The parameters in *raw*, each in the form that is sent to the upstream.

    A parameter without a value counts as absent, as it does for every upstream.
    """
    given: dict[str, str] = {}
    for pair in raw.decode("latin-1").split("&") if raw else ():
        parameter, _, value = pair.partition("=")
        if parameter not in readers:
            raise Ambiguous(f"This call takes no query parameter {quoted(parameter)}.")
        if parameter in given:
            raise Ambiguous(f'The query parameter "{parameter}" is given twice.')
        given[parameter] = _decoded(parameter, value)
    return {
        parameter: str(values.read(f'The query parameter "{parameter}"', readers[parameter], value))
        for parameter, value in given.items()
        if value
    }


def _decoded(parameter: str, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise Ambiguous(f'The query parameter "{parameter}" is not properly encoded.')
    if "%" not in value and "+" not in value:
        return value
    try:
        return unquote_to_bytes(value.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError:
        raise Ambiguous(f'The query parameter "{parameter}" is not UTF-8.') from None
