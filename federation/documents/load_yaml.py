"""
Loads YAML files as trees of plain values.

The work is bounded by the size of the file: an alias counts as much as what it repeats.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import Composer

from federation.documents.tree import (
    BLANK,
    DEPTH,
    DOCUMENT_NODES,
    KEY_CHARS,
    Document,
    Fault,
    Fields,
    Items,
    Place,
    UnreadableError,
    Value,
    bare,
    encodable,
    long_key,
    too_deep,
    too_many,
)
from federation.text import quoted

REPEATED_NODES = 200_000
"""The number of nodes that the aliases of one file may repeat in total."""
_FAULTS = 20
"""After this many broken documents the rest of a file is not read."""

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
        if root != BLANK:
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
            raise too_many(line)
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
            event.value.isascii() or encodable(event.value)
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
            raise too_deep(line)
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
    if len(node.value) > KEY_CHARS:
        raise long_key(line)


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
