"""
Cuts a file of YAML at its `---`, so that each document is read by itself, and once.

In YAML a `---` at the start of a line always begins a document. A file of which each piece can be
read therefore means the same as its pieces. Of any other file the pieces prove nothing: it is read
from its beginning by `documents.load_yaml`, whose faults are those of the whole file.

A piece that is JSON on one line, as programs write it, is read as JSON, which takes a tenth of the
time. JSON is YAML almost everywhere. Only text in which the two cannot differ is read so: printable
ASCII without a backslash, no long or repeated key, few brackets. YAML's reader decides the rest.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import NamedTuple

from federation.documents.tree import DEPTH, Bare, Document, Fields, Items, Sort, Value, bare

PIECE_BYTES = 64 * 1024
"""A file with a longer piece is read as a whole, so that a hostile one is not read twice."""
_PIECES = 100_000
KEY_CHARS = 1000
"""JSON with a longer key is left to YAML's reader."""
_BLANKS = b" " * 20
"""libyaml takes 1,024 characters from the beginning of a key to its colon, with blanks between."""
_ODD_BREAKS = ("\x85".encode(), "\u2028".encode(), "\u2029".encode())
_JSON_LINE = re.compile(rb"(?:---(?=[ \r\n]))?((?: |\r?\n)*)(\{[ -\[\]-~]*\})(?: |\r?\n)*")


class Piece(NamedTuple):
    """The text of a document, and the line of the file where it begins."""

    line: int
    text: bytes


def pieces(data: bytes) -> Iterator[Piece]:
    """
    Yield the pieces of *data*, a file in YAML. There are none if its lines are not plain ones.

    YAML ends a line at a lone carriage return and at U+0085, U+2028 and U+2029 too.
    """
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        return
    if not data.isascii() and any(odd in data for odd in _ODD_BREAKS):
        return
    if data.count(b"\n---") > _PIECES:
        return
    start, line = 0, 1
    while start < len(data):
        end = _next_marker(data, start)
        text = data[start:end]
        yield Piece(line, text)
        start, line = end, line + text.count(b"\n")


def _next_marker(data: bytes, start: int) -> int:
    """Return where the first `---` after *start* begins a line, or the end of *data*."""
    found = start
    while (found := data.find(b"\n---", found)) >= 0:
        found += 1
        if data[found + 3 : found + 4] in b" \t\r\n":
            return found
    return len(data)


class JsonText(NamedTuple):
    """JSON on one line, which YAML reads in the same way unless a key is long or there twice."""

    line: int
    text: str

    def plain(self) -> object:
        """Return the value as JSON has it, with the last of equal keys. None if it is no JSON."""
        try:
            return _PLAIN.decode(self.text)
        except (JSONDecodeError, _NotQuickError):
            return None


def json_text(piece: Piece) -> JsonText | None:
    """Return the text of *piece* if it is on one line and looks like JSON."""
    found = _JSON_LINE.fullmatch(piece.text) if len(piece.text) <= PIECE_BYTES else None
    # Brackets and blanks within strings count too: a bound is enough here.
    if found is None or found[2].count(b"{") + found[2].count(b"[") > DEPTH:
        return None
    if _BLANKS in found[2]:
        return None
    return JsonText(piece.line + found[1].count(b"\n"), found[2].decode())


class JsonLines:
    """Reads pieces that are JSON on one line."""

    def __init__(self) -> None:
        # Nothing here refers to this object: in a circle it would stay until the collector comes,
        # which keeps away from what is made while documents are read.
        self._values = _Values()
        self._decoder = JSONDecoder(
            object_pairs_hook=self._values.fields,
            parse_int=bare,
            parse_float=bare,
            parse_constant=_not_json,
        )

    def document(self, piece: Piece) -> Document | None:
        """Return the document of *piece*; None if it is not JSON that YAML reads the same way."""
        found = json_text(piece)
        if found is None:
            return None
        self._values.line = found.line
        try:
            root: Fields = self._decoder.decode(found.text)
        except (JSONDecodeError, _NotQuickError):
            return None
        return Document(root, found.line, one_line=True)


class _Values:
    """Makes values of what the JSON decoder found on *line*."""

    def __init__(self) -> None:
        self.line = 0

    def fields(self, pairs: list[tuple[str, object]]) -> Fields:
        """Return *pairs* as a map. Raises: _NotQuickError if YAML may read it in another way."""
        fields = Fields(self.line)
        for key, value in pairs:
            if len(key) > KEY_CHARS:
                raise _NotQuickError
            fields[sys.intern(key)] = value if isinstance(value, str) else self._value(value)
        if len(fields) != len(pairs):
            raise _NotQuickError
        fields.lines = dict.fromkeys(fields, self.line)
        return fields

    def _value(self, value: object) -> Value:
        if isinstance(value, list):
            items = Items(self.line)
            items += [one if isinstance(one, str) else self._value(one) for one in value]
            items.lines = [self.line] * len(items)
            return items
        if isinstance(value, Fields | Bare | str):
            return value
        return _CONSTANTS[value]


_CONSTANTS: dict[object, Bare] = {
    None: Bare("null", Sort.NULL),
    True: Bare("true", Sort.BOOL),
    False: Bare("false", Sort.BOOL),
}


class _NotQuickError(Exception):
    """Raised for JSON that YAML may read in another way."""


def _not_json(_word: str) -> Value:
    raise _NotQuickError


_PLAIN = JSONDecoder(parse_int=bare, parse_float=bare, parse_constant=_not_json)
"""Reads the same texts, and makes a dictionary of each map."""
