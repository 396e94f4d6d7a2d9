"""
A field that knows its place, so that whoever reads it can say what is wrong there.

Reading never stops at the first problem: a reader gets None or an empty result for what is
wrong, and a document is whole only if its report is without errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from federation.documents.codes import Code
from federation.documents.model import field_text
from federation.documents.parse.nodes import Fields, Items, Node, Place, Scalar
from federation.documents.parse.values import Sort, sort
from federation.documents.shape import FieldSpec
from federation.errors import Problem, Severity
from federation.text import did_you_mean, printable, quoted

__all__ = [
    "LIST_VALUES",
    "VALUE_CHARS",
    "Field",
    "Report",
    "TooManyError",
    "is_null",
]

VALUE_CHARS = 4096
LIST_VALUES = 1000
_ERRORS = 1000
_PLACE_CHARS = 300


class TooManyError(Exception):
    """A document has so many errors that the rest of it is not worth reading."""


class Report:
    """The problems of one document, gathered while it is read."""

    __slots__ = ("_places", "errors", "kind", "name", "path", "problems")

    def __init__(self, path: str, places: dict[Place, Place]) -> None:
        """*places* is what `one` remembers; the documents of a set share it."""
        self.path = path
        self._places = places
        self.kind = ""
        self.name = ""
        self.problems: list[Problem] = []
        self.errors = 0

    def add(
        self,
        code: Code,
        line: int,
        place: Place,
        message: str,
        hint: str = "",
        *,
        severity: Severity = Severity.ERROR,
    ) -> None:
        """
        Note one problem.

        Raises: TooManyError at the thousandth error.
        """
        self.problems.append(
            Problem(
                self.path,
                line,
                code.value,
                severity,
                message,
                self.kind,
                self.name,
                printable(field_text(place), _PLACE_CHARS),
                hint,
            )
        )
        self.errors += severity is Severity.ERROR
        if self.errors >= _ERRORS:
            raise TooManyError

    def one(self, place: Place) -> Place:
        """The one copy of *place*: documents have the same few places, in great numbers."""
        return self._places.setdefault(place, place)


class Field:
    """A node, its place in the document, and the report of that document."""

    __slots__ = ("line", "node", "place", "report")

    def __init__(self, node: Node, line: int, place: Place, report: Report) -> None:
        self.node = node
        self.line = line
        self.place = place
        self.report = report

    def wrong(self, code: Code, message: str, hint: str = "") -> None:
        """Note that something is wrong with this field."""
        self.report.add(code, self.line, self.place, message, hint)

    def text(self) -> str | None:
        """A string that is not empty."""
        node = self.node
        if not isinstance(node, Scalar):
            self.wrong(Code.BAD_VALUE, f"is {_what(node)}, not a string")
            return None
        what = sort(node.text, node.plain)
        if what is Sort.NULL:
            self.wrong(Code.BAD_VALUE, "is null, not a string", "leave it out or write a value")
        elif what is not Sort.TEXT:
            self._unquoted(node, f"{what.value}, not a string")
        elif not node.text:
            self.wrong(Code.BAD_VALUE, "is an empty string")
        else:
            return self._within(node.text)
        return None

    def choice(self, choices: Iterable[str]) -> str | None:
        """One of a few words."""
        known = tuple(choices)
        text = self.text()
        if text is None or text in known:
            return text
        message = f"{quoted(text)} is not one of {', '.join(known)}"
        self.wrong(Code.BAD_VALUE, message, did_you_mean(text, known))
        return None

    def texts(self) -> tuple[str, ...]:
        """A list of strings, at least one."""
        found = (item.text() for item in self.items())
        return tuple(text for text in found if text is not None)

    def values(self) -> tuple[str, ...]:
        """The values of a condition: one scalar, or a list of them, at least one."""
        if isinstance(self.node, Scalar):
            value = self._value()
            return () if value is None else (value,)
        if isinstance(self.node, Fields):
            self.wrong(Code.BAD_VALUE, "is a map, not a value or a list of values")
            return ()
        found = (item._value() for item in self.items())
        return tuple(value for value in found if value is not None)

    def items(self) -> Iterator[Field]:
        """The members of a list, at least one."""
        node = self.node
        if isinstance(node, Items) and node.nodes:
            if len(node.nodes) > LIST_VALUES:
                self.wrong(
                    Code.TOO_LARGE, f"has {len(node.nodes):,} entries; at most {LIST_VALUES:,}"
                )
                return
            for index, item in enumerate(node.nodes):
                yield Field(item, item.line, (*self.place, index), self.report)
        elif isinstance(node, Items) or is_null(node):
            self.wrong(Code.EMPTY, "is empty; at least one entry is needed")
        else:
            hint = f"write [{quoted(node.text)}]" if isinstance(node, Scalar) else ""
            self.wrong(Code.BAD_VALUE, f"is {_what(node)}, not a list", hint)

    def entries(self) -> Iterator[tuple[str, Field]]:
        """The members of a map, at least one."""
        node = self.node
        if isinstance(node, Fields) and node.entries:
            for key, (line, value) in node.entries.items():
                yield key, Field(value, line, (*self.place, key), self.report)
        elif isinstance(node, Fields) or is_null(node):
            self.wrong(Code.EMPTY, "is empty")
        else:
            self.wrong(Code.BAD_VALUE, f"is {_what(node)}, not a map")

    def known(self, specs: Mapping[str, FieldSpec]) -> dict[str, Field]:
        """The members of a map that has the fields of *specs* and no other."""
        found: dict[str, Field] = {}
        for key, field in self.entries():
            if key in specs:
                found[key] = field
            else:
                field.wrong(Code.UNKNOWN_FIELD, "is not a field here", did_you_mean(key, specs))
        if isinstance(self.node, Fields) and self.node.entries:
            self._require(key for key, spec in specs.items() if spec.required and key not in found)
        return found

    def _require(self, missing: Iterable[str]) -> None:
        for key in missing:
            place = (*self.place, key)
            self.report.add(Code.MISSING_FIELD, self.line, place, "is required and missing")

    def _value(self) -> str | None:
        """A condition's value as text: a string, an integer's digits, or true or false."""
        node = self.node
        if not isinstance(node, Scalar):
            self.wrong(Code.BAD_VALUE, f"is {_what(node)}, not a single value")
            return None
        what = sort(node.text, node.plain)
        if what in {Sort.TEXT, Sort.INT}:
            return self._within(node.text)
        if what is Sort.BOOL:
            return node.text.lower()
        if what is Sort.NULL:
            self.wrong(Code.BAD_VALUE, "is null, not a value", "leave it out or write a value")
        else:
            self._unquoted(node, what.value)
        return None

    def _unquoted(self, node: Scalar, what: str) -> None:
        """Note a scalar that would be taken if it stood in quotes."""
        shown = quoted(node.text)
        self.wrong(Code.BAD_VALUE, f"{shown} is {what}", f"quote it: {shown}")

    def _within(self, text: str) -> str | None:
        if len(text) <= VALUE_CHARS:
            return text
        self.wrong(Code.TOO_LARGE, f"has {len(text):,} characters; at most {VALUE_CHARS:,}")
        return None


def is_null(node: Node) -> bool:
    """Whether *node* is null or not written at all."""
    return isinstance(node, Scalar) and sort(node.text, node.plain) is Sort.NULL


def _what(node: Node) -> str:
    if isinstance(node, Scalar):
        return sort(node.text, node.plain).value
    return "a list" if isinstance(node, Items) else "a map"
