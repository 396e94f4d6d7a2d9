"""
A path that can be read in one way only.

The upstream decodes a path before it chooses a handler, cleans `//` and dot segments, and
writes the decoded path into its own request to the next server, which decodes it again. So a
path of the API holds plain characters alone, and a function's own part of a path holds nothing
that any round of decoding could turn into a step to another function.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from federation.gateway import values
from federation.gateway.refusals import Ambiguous, TooLarge

__all__ = ["check_rest", "function_name", "plain"]

_LONGEST_BYTES = 8 * 1024
_PLAIN = re.compile(rb"/[-A-Za-z0-9_./]*")
# RFC 3986, section 3.3, and nothing that merely happens to work.
_REST = re.compile(rb"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_HARMFUL = re.compile(rb"[\x00-\x1f\x7f\\]")
_ROUNDS = 4

_UNCLEAR = "The path can be read in more than one way; write it without encoding, // or dots."


def plain(raw_path: bytes) -> str:
    """
    *raw_path* as text, of plain characters, without empty or dot segments.

    Raises: Ambiguous, TooLarge.
    """
    _check_length(raw_path)
    if not _PLAIN.fullmatch(raw_path) or not _walks_down(raw_path):
        raise Ambiguous(_UNCLEAR)
    return raw_path.decode("ascii")


def check_rest(rest: bytes) -> None:
    """
    *rest*, what follows a function's name, stays below that name whoever decodes it.

    Raises: Ambiguous, TooLarge.
    """
    _check_length(rest)
    if not _REST.fullmatch(rest) or not _walks_down(rest):
        raise Ambiguous(_UNCLEAR)
    segments = rest.count(b"/")
    for _ in range(_ROUNDS):
        decoded = unquote_to_bytes(rest)
        if decoded == rest:
            return
        if decoded.count(b"/") != segments or _HARMFUL.search(decoded) or not _walks_down(decoded):
            raise Ambiguous(_UNCLEAR)
        rest = decoded
    raise Ambiguous(_UNCLEAR)


def function_name(segment: str) -> tuple[str, str]:
    """
    The name and the namespace that `<name>.<namespace>` holds; `""` for no namespace.

    The namespace stands after the last dot, since names may hold dots.
    Raises: ValueError with the rest of a sentence.
    """
    name, dot, namespace = segment.rpartition(".")
    if not dot:
        return values.name(segment), ""
    return values.name(name), values.namespace(namespace)


def _check_length(path: bytes) -> None:
    if len(path) > _LONGEST_BYTES:
        raise TooLarge(f"The path is longer than {_LONGEST_BYTES} bytes.")


def _walks_down(path: bytes) -> bool:
    """Whether no segment is empty (but the last) or a dot segment, with or without `;…`."""
    *inner, last = (segment.partition(b";")[0] for segment in path.split(b"/")[1:] or [b""])
    return all(inner) and not {b".", b".."} & {*inner, last}
