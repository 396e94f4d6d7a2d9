"""
Checks that a request path can be read in one way only.

The upstream decodes a path before it chooses a handler, cleans `//` and dot segments, and
writes the decoded path into its own request to the next server, which decodes it again. So a
path of the API holds plain characters only, and the part of a path that belongs to a function
holds nothing that any number of decodings could turn into a step to another function.
Other paths raise Ambiguous or TooLarge.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from federation.gateway import values
from federation.gateway.refusals import Ambiguous, TooLarge

FUNCTION_PATHS = (b"/function/", b"/async-function/")
"""The beginnings of all paths that call functions."""

_LONGEST_BYTES = 8 * 1024
_PLAIN = re.compile(rb"/[-A-Za-z0-9_./]*")
# The characters of RFC 3986, section 3.3, and no others that merely happen to work.
_FUNCTION_PATH = re.compile(rb"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*")
_HARMFUL = re.compile(rb"[\x00-\x1f\x7f\\]")
_DECODINGS = 4

_UNCLEAR = "The path can be read in more than one way; write it without encoding, // or dots."


def plain(raw_path: bytes) -> str:
    """*raw_path* as text: plain characters, no empty segments, no dot segments."""
    _check_length(raw_path)
    if not _PLAIN.fullmatch(raw_path) or not _walks_down(raw_path):
        raise Ambiguous(_UNCLEAR)
    return raw_path.decode("ascii")


def check_function_path(path: bytes) -> None:
    """Make sure that *path*, which follows a function's name, stays below it when decoded."""
    _check_length(path)
    if not _FUNCTION_PATH.fullmatch(path) or not _walks_down(path):
        raise Ambiguous(_UNCLEAR)
    segments = path.count(b"/")
    for _ in range(_DECODINGS):
        decoded = unquote_to_bytes(path)
        if decoded == path:
            return
        if decoded.count(b"/") != segments or _HARMFUL.search(decoded) or not _walks_down(decoded):
            raise Ambiguous(_UNCLEAR)
        path = decoded
    raise Ambiguous(_UNCLEAR)


def split_name(segment: str) -> tuple[str, str]:
    """
    The name and the namespace in `<name>.<namespace>`; `""` for no namespace.

    The namespace follows the last dot, since names may hold dots.
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
    """
    True if no segment is a dot segment, and none but the last is empty.

    Java servers ignore `;…` at the end of a segment, so it does not count here either.
    """
    *inner, last = (segment.partition(b";")[0] for segment in path.split(b"/")[1:] or [b""])
    return all(inner) and not {b".", b".."} & {*inner, last}
