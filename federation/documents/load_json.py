"""
Loads JSON as trees of plain values: the text of a file, or what another parser has read.

JSON text (RFC 8259) is read strictly. YAML's scanner cannot read it: it refuses surrogate pairs in
escapes and keys over 1,024 characters, and takes much that is not JSON. The json module keeps no
lines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder

from federation.documents.tree import (
    DEPTH,
    DOCUMENT_NODES,
    KEY_CHARS,
    Bare,
    Document,
    Fault,
    Fields,
    Items,
    Place,
    Sort,
    UnreadableError,
    Value,
    bare,
    encodable,
    long_key,
    too_deep,
    too_many,
)
from federation.text import quoted

_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(
    r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![-+.\w])"
)


def json_documents(data: bytes) -> Iterator[Document | Fault]:
    """Yield the one document in *data*, which is UTF-8; nothing if it is only white space."""
    text = data.decode()
    if not text.strip(" \t\r\n"):
        return
    try:
        yield _JsonReader(text).document()
    except UnreadableError as error:
        yield error.fault


class _JsonReader:
    """Reads one JSON text. Recursion ends at `DEPTH`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._strings = JSONDecoder()
        self._position = 0
        self._line = 1
        self._count = 0
        self._duplicates: list[tuple[Place, int]] = []

    def document(self) -> Document:
        """Return the whole text, which must be one JSON value."""
        self._space()
        line = self._line
        root = self._value(())
        self._space()
        if self._position < len(self._text):
            raise self._expected("the end of the file after one JSON value")
        return Document(root, line, tuple(self._duplicates))

    def _value(self, place: Place) -> Value:
        self._space()
        begins = self._text[self._position : self._position + 1]
        if begins == '"':
            self._position += 1
            return self._string()
        if begins == "{":
            self._position += 1
            return self._fields(place)
        if begins == "[":
            self._position += 1
            return self._items(place)
        if word := _WORD.match(self._text, self._position):
            self._position = word.end()
            self._counted()
            return bare(word[0])
        raise self._expected("a JSON value")

    def _fields(self, place: Place) -> Fields:
        self._enter(place)
        fields = Fields(self._line)
        while not self._takes("}"):
            if fields and not self._takes(","):
                raise self._expected("a comma or }")
            if not self._takes('"'):
                raise self._expected("a key in double quotes")
            line = self._line
            key = sys.intern(self._string())
            if len(key) > KEY_CHARS:
                raise long_key(line)
            if not self._takes(":"):
                raise self._expected("a colon")
            here = (*place, key)
            if not fields.add(key, line, self._value(here)):
                self._duplicates.append((here, line))
        return fields

    def _items(self, place: Place) -> Items:
        self._enter(place)
        items = Items(self._line)
        while not self._takes("]"):
            if items and not self._takes(","):
                raise self._expected("a comma or ]")
            self._space()
            items.lines.append(self._line)
            items.append(self._value((*place, len(items))))
        return items

    def _enter(self, place: Place) -> None:
        self._counted()
        if len(place) >= DEPTH:
            raise too_deep(self._line)

    def _counted(self) -> None:
        self._count += 1
        if self._count > DOCUMENT_NODES:
            raise too_many(self._line)

    def _string(self) -> str:
        """Read the rest of a string whose opening quote has been taken."""
        self._counted()
        try:
            text, self._position = self._strings.raw_decode(self._text, self._position - 1)
        except JSONDecodeError as error:
            raise UnreadableError(self._line, f"not JSON: {error.msg}") from error
        if not encodable(text):
            raise UnreadableError(self._line, "a string has half of a surrogate pair")
        return str(text)

    def _takes(self, character: str) -> bool:
        """Skip white space, then *character* if it comes next; return whether it did."""
        self._space()
        found = self._text.startswith(character, self._position)
        self._position += found
        return found

    def _space(self) -> None:
        if space := _SPACE.match(self._text, self._position):
            self._line += space[0].count("\n")
            self._position = space.end()

    def _expected(self, what: str) -> UnreadableError:
        got = self._text[self._position : self._position + 20].partition("\n")[0]
        found = quoted(got) if got else "the end"
        return UnreadableError(self._line, f"not JSON: expected {what}, found {found}")


# Values that were parsed already

_INT_BITS = 1024
"""Longer numbers are no condition's value, and take long to write in digits."""


def plain_document(value: object) -> Document | Fault:
    """
    Return the document that *value* is: JSON that another parser has read.

    It has no lines: they are all 0. Keys cannot be there twice any more.
    """
    try:
        return Document(_PlainReader().value(value, 0), 0)
    except UnreadableError as error:
        return error.fault


class _PlainReader:
    """Reads the values of one document. Recursion ends at `DEPTH`."""

    def __init__(self) -> None:
        self._count = 0

    def value(self, value: object, depth: int) -> Value:
        """Return *value*, which is *depth* levels below the root."""
        self._count += 1
        if self._count > DOCUMENT_NODES:
            raise too_many(0)
        if isinstance(value, str):
            return _checked_text(value)
        if not isinstance(value, dict | list):
            return _bare_value(value)
        if depth >= DEPTH:
            raise too_deep(0)
        return self._fields(value, depth) if isinstance(value, dict) else self._items(value, depth)

    def _fields(self, value: dict[object, object], depth: int) -> Fields:
        fields = Fields(0)
        for key, member in value.items():
            if not isinstance(key, str):
                raise UnreadableError(0, "a key is not a string")
            if len(key) > KEY_CHARS:
                raise long_key(0)
            fields.add(sys.intern(_checked_text(key)), 0, self.value(member, depth + 1))
        return fields

    def _items(self, value: list[object], depth: int) -> Items:
        items = Items(0)
        for item in value:
            items.append(self.value(item, depth + 1))
            items.lines.append(0)
        return items


def _checked_text(text: str) -> str:
    if not (text.isascii() or encodable(text)):
        raise UnreadableError(0, "a string has half of a surrogate pair")
    return text


def _bare_value(value: object) -> Bare:
    """Return a value that is no string, list or map."""
    match value:
        case None:
            return Bare("null", Sort.NULL)
        case bool():
            return Bare(str(value).lower(), Sort.BOOL)
        case int() if value.bit_length() <= _INT_BITS:
            return Bare(str(value), Sort.INT)
        case int() | float():
            return Bare(f"{value:g}" if isinstance(value, float) else "a number", Sort.FLOAT)
        case _:
            raise UnreadableError(0, "a value is not of JSON")
