"""
Loads YAML and JSON files as plain values with line numbers.

Nothing here knows what a document means. The work is bounded by the size of the file: nesting
ends at 50 levels, a document at 500,000 values, and an alias counts as much as what it repeats.
Plain scalars are read here and not by PyYAML, which follows YAML 1.1: it would make `no` a boolean
and `0123` the number 83. A form that YAML 1.1 and 1.2 read differently is marked as unclear, so
that a document either means the same to every tool or is refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from json import JSONDecodeError, JSONDecoder
from typing import Any, TypeAlias

import yaml
from yaml.composer import Composer

from federation.text import quoted

DEPTH = 50
DOCUMENT_NODES = 500_000
REPEATED_NODES = 200_000
"""The number of nodes that the aliases of one file may repeat in total."""
_KEY_CHARS = 4096
_FAULTS = 20
"""After this many broken documents the rest of a file is not read."""

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
# and base 60.
_UNCLEAR = re.compile(
    r"[yYnN]|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF"
    r"|[-+]?0[0-9_]+|[-+]?0[oxb][0-9a-fA-F_]+|\+[0-9]+|-0"
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
        return Sort.FLOAT if _FLOAT.fullmatch(text) else Sort.TEXT
    # The longest word that YAML 1.1 takes for a boolean has three letters.
    return Sort.UNCLEAR if len(text) <= 3 and _UNCLEAR.fullmatch(text) else Sort.TEXT


def is_null(value: object) -> bool:
    """Return whether *value* is null or was left blank."""
    return isinstance(value, Bare) and value.sort is Sort.NULL


def bare(text: str) -> str | Bare:
    """Return a scalar that was written without quotes."""
    found = sort(text)
    return text if found is Sort.TEXT else Bare(text, found)


_BLANK = Bare("", Sort.NULL)


def _encodable(text: str) -> bool:
    """Return whether *text* is free of unpaired surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(line: int) -> UnreadableError:
    return UnreadableError(line, f"lists and maps are nested more than {DEPTH} deep")


def _too_many(line: int) -> UnreadableError:
    return UnreadableError(line, f"the document has more than {DOCUMENT_NODES:,} values")


def _long_key(line: int) -> UnreadableError:
    return UnreadableError(line, f"a key is longer than {_KEY_CHARS:,} characters")


# YAML

_MARKER = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


def yaml_documents(data: bytes) -> Iterator[Document | Fault]:
    """
    Yield every document in *data*, which is UTF-8, in order. Empty documents are left out.

    After a fault, reading resumes at the next `---`, which in YAML always begins a document.
    """
    repeated = Repeated()
    start, before, last_fault = 0, 0, 0
    for _ in range(_FAULTS):
        segment = data[start:]
        try:
            yield from _composed(segment, before + 1, repeated)
        except UnreadableError as error:
            fault = error.fault
        except yaml.YAMLError as error:
            fault = _syntax_fault(error, segment, before)
        else:
            return
        if fault.line != last_fault:
            yield fault
        last_fault = fault.line
        found = _next_marker(data, start, fault.line - 1 - before)
        if found is None:
            return
        before += data.count(b"\n", start, found)
        start = found
    yield Fault(before + 1, "this file has many faults; the rest of it was not read")


def _composed(segment: bytes, first_line: int, repeated: Repeated) -> Iterator[Document]:
    composer = _Composer(_PARSER(segment), first_line, repeated)
    composer.get_event()  # the start of the stream
    while (node := composer.get_node()) is not None:
        values = _Values(first_line)
        root = values.value(node, ())
        if root != _BLANK:
            yield Document(root, first_line + node.start_mark.line, tuple(values.duplicates))


def whole_documents(segment: bytes, first_line: int, repeated: Repeated) -> list[Document] | None:
    """Return every document in *segment*, which begins at *first_line*; None if it has a fault."""
    try:
        return list(_composed(segment, first_line, repeated))
    except (UnreadableError, yaml.YAMLError):
        return None


def _next_marker(data: bytes, start: int, lines: int) -> int | None:
    """Return where the first `---` after *start* begins that is at least *lines* lines below."""
    line, place = 0, start
    for marker in _MARKER.finditer(data, start + 1):
        line += data.count(b"\n", place, marker.start())
        place = marker.start()
        if line >= lines:
            return place
    return None


def _syntax_fault(error: yaml.YAMLError, segment: bytes, before: int) -> Fault:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        message = ": ".join(part for part in (error.context, error.problem) if part)
        hint = ""
        if "cannot start any token" in message:
            hint = "indent with spaces, and quote values that begin with @, ` or %"
        # An error at the end of the file belongs to its last line that has text.
        last = segment.rstrip().count(b"\n")
        return Fault(before + min(error.problem_mark.line, last) + 1, message, hint)
    place = getattr(error, "position", 0)
    line = before + segment.count(b"\n", 0, place) + 1
    return Fault(line, "a character that YAML does not allow", "remove the control character")


@dataclass(slots=True)
class Repeated:
    """The number of nodes that the aliases of one file have repeated so far."""

    nodes: int = 0


_PARSER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""libyaml where PyYAML was built with it. Only its events are used."""
_TAGS: Mapping[type[yaml.Event], str] = {
    yaml.ScalarEvent: "tag:yaml.org,2002:str",
    yaml.SequenceStartEvent: "tag:yaml.org,2002:seq",
    yaml.MappingStartEvent: "tag:yaml.org,2002:map",
}
"""The one tag that each type of node may have."""


class _Composer(Composer):
    """
    PyYAML's composer, with each event checked before a node is made of it.

    PyYAML composes by recursion and shares the nodes that aliases repeat, so depth and size must
    be limited here.
    """

    def __init__(self, parser: Any, first_line: int, repeated: Repeated) -> None:
        super().__init__()
        self.check_event = parser.check_event
        self.peek_event = parser.peek_event
        self.get_event = parser.get_event
        self._first_line = first_line
        self._repeated = repeated
        self._count = 0
        self._depth = 0
        self._deepest = 0
        self._extents: dict[str, tuple[int, int]] = {}
        """For each complete anchor its number of nodes, repeats included, and its depth."""

    def compose_document(self) -> yaml.Node | None:
        """Compose the next document."""
        self._count = 0
        self._extents = {}
        return super().compose_document()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose the next node."""
        event = self.peek_event()
        line = self._first_line + event.start_mark.line
        if isinstance(event, yaml.AliasEvent):
            self._check_alias(event.anchor or "", line)
        else:
            self._check(event, line)
        if self._count > DOCUMENT_NODES:
            raise _too_many(line)
        # Only a key has a map around it and no index.
        if index is None and isinstance(parent, yaml.MappingNode):
            _check_key(self.anchors.get(event.anchor, event), line)
        if isinstance(event, yaml.CollectionStartEvent):
            self._check_depth(self._depth + 1, line)
        elif isinstance(event, yaml.ScalarEvent) and event.anchor is None:
            # Most nodes. The way through PyYAML's own method takes three times as long.
            return self.compose_scalar_node(None)  # type: ignore[arg-type]  # the stub is wrong
        if event.anchor is None or isinstance(event, yaml.AliasEvent):
            return super().compose_node(parent, index)
        return self._anchored(event, parent, index)

    def _anchored(self, event: Any, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node that aliases may repeat, and note its size and depth."""
        before, outer = self._count - 1, self._deepest
        self._deepest = self._depth + isinstance(event, yaml.CollectionStartEvent)
        node = super().compose_node(parent, index)
        self._extents[event.anchor] = (self._count - before, self._deepest - self._depth)
        self._deepest = max(outer, self._deepest)
        return node

    def _check(self, event: Any, line: int) -> None:
        self._count += 1
        if event.tag is not None and event.tag != _TAGS[type(event)]:
            message = f"the tag {quoted(event.tag)} is not taken here"
            raise UnreadableError(line, message, "write the value without a tag")
        # YAML lets a later anchor replace an earlier one of the same name. PyYAML does not.
        if event.anchor is not None and event.anchor in self.anchors:
            message = f"the anchor {quoted(event.anchor)} is defined twice"
            raise UnreadableError(line, message, "give each its own name")
        if isinstance(event, yaml.ScalarEvent) and not (
            event.value.isascii() or _encodable(event.value)
        ):
            raise UnreadableError(line, "a value has half of a surrogate pair")

    def _check_alias(self, anchor: str, line: int) -> None:
        if anchor not in self.anchors:
            raise UnreadableError(line, f"no anchor is called {quoted(anchor)}")
        if anchor not in self._extents:
            raise UnreadableError(line, "an alias refers to the value it stands in")
        size, height = self._extents[anchor]
        self._count += size
        self._repeated.nodes += size
        if self._repeated.nodes > REPEATED_NODES:
            message = f"aliases repeat more than {REPEATED_NODES:,} values"
            raise UnreadableError(line, message, "write them out")
        self._check_depth(self._depth + height, line)

    def _check_depth(self, depth: int, line: int) -> None:
        if depth > DEPTH:
            raise _too_deep(line)
        self._deepest = max(self._deepest, depth)

    def descend_resolver(self, _parent: object, _index: object) -> None:
        """Note that the composer goes one level down."""
        self._depth += 1

    def ascend_resolver(self) -> None:
        """Note that the composer comes one level up."""
        self._depth -= 1

    def resolve(self, _kind: object, _value: object, _implicit: object) -> None:
        """Give a node without a tag none: the text of a scalar decides its type."""


def _check_key(node: yaml.Event | yaml.Node, line: int) -> None:
    if not isinstance(node, yaml.ScalarEvent | yaml.ScalarNode):
        raise UnreadableError(line, "a key is a list or a map", "write a string")
    if len(node.value) > _KEY_CHARS:
        raise _long_key(line)


class _Values:
    """The values of one composed document. Nodes that aliases share become one value."""

    def __init__(self, first_line: int) -> None:
        self.duplicates: list[tuple[Place, int]] = []
        self._first_line = first_line
        self._known: dict[int, Fields | Items] = {}

    def value(self, node: yaml.Node, place: Place) -> Value:
        """Return the value of *node*, which is at *place*."""
        if isinstance(node, yaml.ScalarNode):
            # A scalar with a tag is a string: the composer takes no other.
            text: str = node.value
            return text if node.style or node.tag else bare(text)
        if id(node) not in self._known:
            read = self._fields if isinstance(node, yaml.MappingNode) else self._items
            self._known[id(node)] = read(node, place)
        return self._known[id(node)]

    def _fields(self, node: yaml.Node, place: Place) -> Fields:
        fields = Fields(self._first_line + node.start_mark.line)
        for key_node, value_node in node.value:
            # The same few keys occur in every document; one copy of each is enough.
            key = sys.intern(key_node.value)
            here = (*place, key)
            line = self._first_line + key_node.start_mark.line
            if not fields.add(key, line, self.value(value_node, here)):
                self.duplicates.append((here, line))
        return fields

    def _items(self, node: yaml.Node, place: Place) -> Items:
        items = Items(self._first_line + node.start_mark.line)
        for index, item in enumerate(node.value):
            items.append(self.value(item, (*place, index)))
            items.lines.append(self._first_line + item.start_mark.line)
        return items


# JSON

_SPACE = re.compile(r"[ \t\r\n]+")
_WORD = re.compile(
    r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![-+.\w])"
)


def json_documents(data: bytes) -> Iterator[Document | Fault]:
    """
    Yield the one document in *data*, which is UTF-8; nothing if it is only white space.

    JSON (RFC 8259) is read strictly. YAML's scanner cannot read it: it refuses surrogate pairs in
    escapes and keys over 1,024 characters, and takes much that is not JSON. The json module keeps
    no lines.
    """
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
            if len(key) > _KEY_CHARS:
                raise _long_key(line)
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
            raise _too_deep(self._line)

    def _counted(self) -> None:
        self._count += 1
        if self._count > DOCUMENT_NODES:
            raise _too_many(self._line)

    def _string(self) -> str:
        """Read the rest of a string whose opening quote has been taken."""
        self._counted()
        try:
            text, self._position = self._strings.raw_decode(self._text, self._position - 1)
        except JSONDecodeError as error:
            raise UnreadableError(self._line, f"not JSON: {error.msg}") from error
        if not _encodable(text):
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
            raise _too_many(0)
        if isinstance(value, str):
            return _checked_text(value)
        if not isinstance(value, dict | list):
            return _bare_value(value)
        if depth >= DEPTH:
            raise _too_deep(0)
        return self._fields(value, depth) if isinstance(value, dict) else self._items(value, depth)

    def _fields(self, value: dict[object, object], depth: int) -> Fields:
        fields = Fields(0)
        for key, member in value.items():
            if not isinstance(key, str):
                raise UnreadableError(0, "a key is not a string")
            if len(key) > _KEY_CHARS:
                raise _long_key(0)
            fields.add(sys.intern(_checked_text(key)), 0, self.value(member, depth + 1))
        return fields

    def _items(self, value: list[object], depth: int) -> Items:
        items = Items(0)
        for item in value:
            items.append(self.value(item, depth + 1))
            items.lines.append(0)
        return items


def _checked_text(text: str) -> str:
    if not (text.isascii() or _encodable(text)):
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
