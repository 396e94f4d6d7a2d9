"""
A document as a tree of plain values with line numbers: maps, lists and scalars.

Nothing here knows what a document means. Nesting ends at 50 levels, and a document at 500,000
values. Plain scalars are read here and not by PyYAML, which follows YAML 1.1: it would make `no` a
boolean and `0123` the number 83. A form that YAML 1.1 and 1.2 read differently is marked as
unclear, so that a document either means the same to every tool or is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

DEPTH = 50
DOCUMENT_NODES = 500_000
KEY_CHARS = 4096

Place: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead from the root of a document to a value."""


class Sort(Enum):
    """The type of a scalar."""

    TEXT = "a string"
    NULL = "null"
    BOOL = "a boolean"
    INT = "an integer"
    FLOAT = "a number with a fraction or exponent"
    UNCLEAR = "read differently by YAML 1.1 and YAML 1.2"


@dataclass(frozen=True, slots=True)
class Bare:
    """A scalar without quotes that is not a string. Its text stays as it was written."""

    text: str
    sort: Sort


class Fields(dict[str, "Value"]):
    """A map, with the line of each key."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}

    def add(self, key: str, line: int, value: Value) -> bool:
        """Add a key. Return False if the map has it already; the first value stays."""
        if key in self:
            return False
        self[key] = value
        self.lines[key] = line
        return True


class Items(list["Value"]):
    """A list, with the line of each item."""

    __slots__ = ("line", "lines")

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []


Value: TypeAlias = str | Bare | Fields | Items


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file. *duplicates* has each repeated key, with the line of the repeat."""

    root: Value
    line: int
    duplicates: tuple[tuple[Place, int], ...] = ()
    one_line: bool = False
    """True if all of it is known to be on one line."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The reason why a document could not be loaded: bad syntax, or too large."""

    line: int
    message: str
    hint: str = ""


class UnreadableError(Exception):
    """Raised where the rest of a document cannot be loaded."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(line, message, hint)


# Scalars

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), Sort.NULL),
    **dict.fromkeys(("true", "True", "TRUE", "false", "False", "FALSE"), Sort.BOOL),
}
_NUMBER_BEGINS = frozenset("0123456789+-.")
_INT = re.compile(r"0|-?[1-9][0-9]*")
# YAML 1.1 takes these as booleans, octal, hexadecimal, binary or signed numbers, digit groups
# and base 60. kubectl and Helm take the capitals too.
_UNCLEAR = re.compile(
    r"[yYnN]|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF"
    r"|[-+]?0[0-9_]+|[-+]?0[oxbOXB][0-9a-fA-F_]+|\+[0-9]+|-0"
    r"|[-+]?[0-9][0-9_]*_[0-9_]*|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
)
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)


def sort(text: str) -> Sort:
    """Return the type of a scalar that was written without quotes."""
    if word := _WORDS.get(text):
        return word
    if text[0] in _NUMBER_BEGINS:
        if _INT.fullmatch(text):
            return Sort.INT
        if _UNCLEAR.fullmatch(text):
            return Sort.UNCLEAR
        if _FLOAT.fullmatch(text):
            return Sort.FLOAT
        # kubectl and Helm drop every underscore before they look for a number.
        number = "_" in text and sort(text.replace("_", "")) is not Sort.TEXT
        return Sort.UNCLEAR if number else Sort.TEXT
    # The longest word that YAML 1.1 takes for a boolean has three letters.
    return Sort.UNCLEAR if len(text) <= 3 and _UNCLEAR.fullmatch(text) else Sort.TEXT


def is_null(value: object) -> bool:
    """Return whether *value* is null or was left blank."""
    return isinstance(value, Bare) and value.sort is Sort.NULL


def bare(text: str) -> str | Bare:
    """Return a scalar that was written without quotes."""
    found = sort(text)
    return text if found is Sort.TEXT else Bare(text, found)


BLANK = Bare("", Sort.NULL)
"""The value of an empty document."""


def encodable(text: str) -> bool:
    """Return whether *text* is free of unpaired surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def too_deep(line: int) -> UnreadableError:
    """Return the error of a value below `DEPTH`."""
    return UnreadableError(line, f"lists and maps are nested more than {DEPTH} deep")


def too_many(line: int) -> UnreadableError:
    """Return the error of a document with more than `DOCUMENT_NODES`."""
    return UnreadableError(line, f"the document has more than {DOCUMENT_NODES:,} values")


def long_key(line: int) -> UnreadableError:
    """Return the error of a key over `KEY_CHARS`."""
    return UnreadableError(line, f"a key is longer than {KEY_CHARS:,} characters")
