"""
Reads events from a file of what the webhook got, of whatever size, some at a time.

Receivers keep events in different forms: an object a line, one array, each delivery's array on a line
of its own, or objects written over several lines. All are a row of JSON objects with nothing but
brackets, commas and white space between them, and so they are read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from federation.audit.read import StoredEvent
from federation.jose.strict_json import loads_object

_CHUNK_BYTES = 256 * 1024
_EVENT_CHARS = 256 * 1024
"""No event of the broker is nearly as long. A longer object is none."""
_LEVELS = 100
"""No event is nested as deeply."""
_BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")
_MARKS = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"?|[{}\[\]]')
"""A bracket, or a text with those in it. A text that lacks its end ends with the line."""


def events_in(file: BinaryIO) -> Iterator[StoredEvent | None]:
    """
    Yield the JSON objects of *file*, and None for each place that cannot be read.

    After such a place, reading goes on with the next line. Raises: OSError.
    """
    text = _Text(file)
    while text.begins():
        written = text.object()
        event = _parsed(written)
        if event is None and (not written or "\n" in written):
            text.skip_line()
        else:
            text.skip(written)
        yield event


def _parsed(written: str) -> StoredEvent | None:
    """Parse one object strictly: one member twice could be read in two ways."""
    try:
        return loads_object(written.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None


class _Text:
    """The text of a file, of which only the part that is being read is in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._text = ""
        self._at = 0
        self._ended = False

    def begins(self) -> bool:
        """Go to the beginning of the next object. Return False at the end of the file."""
        while True:
            between = _BETWEEN.match(self._text, self._at)
            self._at = between.end() if between else self._at
            if self._at < len(self._text):
                return True
            if self._ended:
                return False
            self._read()

    def object(self) -> str:
        """
        Return the text of the object that begins here, empty if it is none.

        What is nested too deeply is passed over so far: if each line opened one object more, each
        would be read to the end of them all.
        """
        while self._text.startswith("{", self._at):
            depth = 0
            for mark in _MARKS.finditer(self._text, self._at):
                if mark[0] in "{[":
                    depth += 1
                elif mark[0] in "}]":
                    depth -= 1
                if not depth:
                    return self._text[self._at : mark.end()]
                if depth > _LEVELS:
                    self._at = mark.start()
                    return ""
            if self._ended or len(self._text) - self._at >= _EVENT_CHARS:
                return ""
            self._read()
        return ""

    def skip(self, written: str) -> None:
        """Go to the end of *written*, which begins here."""
        self._at += len(written)

    def skip_line(self) -> None:
        """Go to the end of the line."""
        while (newline := self._text.find("\n", self._at)) < 0 and not self._ended:
            self._at = len(self._text)
            self._read()
        self._at = newline if newline >= 0 else len(self._text)

    def _read(self) -> None:
        chunk = self._file.read(_CHUNK_BYTES)
        self._ended = not chunk
        self._text = self._text[self._at :] + self._decode(chunk, final=not chunk)
        self._at = 0
