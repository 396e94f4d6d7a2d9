"""
Strict JSON (RFC 8259) to trees, the same that YAML gives.

YAML's scanner cannot be used for it: it refuses surrogate pairs in escapes and keys over 1,024
characters, and takes much that is not JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder

from federation.documents.parse.nodes import (
    Document,
    Fault,
    Fields,
    Items,
    Scalar,
    Tree,
    UnreadableError,
    encodable,
    finished,
)
from federation.text import quoted

__all__ = ["json_documents"]

_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(
    r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![-+.\w])"
)


def json_documents(data: bytes) -> Iterator[Document | Fault]:
    """The one document in *data*, which is UTF-8; none where there is only white space."""
    text = data.decode()
    if not text.strip(" \t\r\n"):
        return
    try:
        yield from finished(_Reader(text).read())
    except UnreadableError as error:
        yield error.fault


class _Reader:
    """One JSON text on its way to one tree."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._strings = JSONDecoder()
        self._place = 0
        self._line = 1
        self._tree = Tree()
        self._ends: list[str] = []
        """What closes each list and map that is open."""
        self._fresh = False
        """Whether the innermost of them has no member yet."""

    def read(self) -> Tree:
        """The tree of the whole text, which must be one JSON value."""
        self._value()
        while self._ends:
            self._member(self._ends[-1])
        self._space()
        if self._place < len(self._text):
            raise self._expected("the end of the file after one JSON value")
        return self._tree

    def _member(self, end: str) -> None:
        """Read what follows inside a list or map: its end, or one more member."""
        if self._takes(end):
            self._ends.pop()
            self._tree.close()
            self._fresh = False
            return
        if not self._fresh and not self._takes(","):
            raise self._expected(f"a comma or {end}")
        if end == "}":
            if not self._takes('"'):
                raise self._expected("a key in double quotes")
            self._string()
            if not self._takes(":"):
                raise self._expected("a colon")
        self._value()

    def _value(self) -> None:
        self._fresh = False
        if self._takes('"'):
            self._string()
        elif self._takes("{"):
            self._open(Fields(self._line), "}")
        elif self._takes("["):
            self._open(Items(self._line), "]")
        elif word := _WORD.match(self._text, self._place):
            self._place = word.end()
            self._tree.add(Scalar(self._line, word[0], plain=True))
        else:
            raise self._expected("a JSON value")

    def _open(self, node: Items | Fields, end: str) -> None:
        self._tree.open(node)
        self._ends.append(end)
        self._fresh = True

    def _string(self) -> None:
        """Read the rest of a string whose opening quote has been taken."""
        try:
            text, self._place = self._strings.raw_decode(self._text, self._place - 1)
        except JSONDecodeError as error:
            raise UnreadableError(self._line, f"not JSON: {error.msg}") from error
        if not encodable(text):
            raise UnreadableError(self._line, "a string has half of a surrogate pair")
        self._tree.add(Scalar(self._line, text, plain=False))

    def _takes(self, character: str) -> bool:
        """Whether *character* comes next, past white space; if so, it is taken."""
        self._space()
        found = self._text.startswith(character, self._place)
        self._place += found
        return found

    def _space(self) -> None:
        space = _SPACE.match(self._text, self._place)
        if space is not None and space.end() > self._place:
            self._line += self._text.count("\n", self._place, space.end())
            self._place = space.end()

    def _expected(self, what: str) -> UnreadableError:
        got = self._text[self._place : self._place + 20].partition("\n")[0]
        found = quoted(got) if got else "the end"
        return UnreadableError(self._line, f"not JSON: expected {what}, found {found}")
