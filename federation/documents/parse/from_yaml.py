"""
YAML to trees.

PyYAML's parser gives the events, and nothing else of it is used: no tag makes an object, no
plain scalar is resolved, a merge key merges nothing, a key that stands twice is noted, and an
alias counts as much as what it repeats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from federation.documents.parse.nodes import (
    Document,
    Fault,
    Fields,
    Items,
    Node,
    Scalar,
    Tree,
    UnreadableError,
    encodable,
    finished,
)
from federation.text import quoted

__all__ = ["yaml_documents"]

REPEATED_NODES = 200_000
"""How many nodes the aliases of a file may repeat, all together."""
_FAULTS = 20
"""How many broken documents of a file are told before the rest is left unread."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MARKER = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_TEXT_TAGS: frozenset[str | None] = frozenset({None, "!", "tag:yaml.org,2002:str"})
_LIST_TAGS: frozenset[str | None] = frozenset({None, "tag:yaml.org,2002:seq"})
_MAP_TAGS: frozenset[str | None] = frozenset({None, "tag:yaml.org,2002:map"})


def yaml_documents(data: bytes) -> Iterator[Document | Fault]:
    """
    Every document in *data*, which is UTF-8, in order. Empty documents are left out.

    After a fault, reading goes on at the next `---`, which in YAML always begins a document.
    """
    composer = _Composer()
    start, line, last_fault = 0, 0, 0
    for _ in range(_FAULTS):
        fault: Fault
        try:
            yield from composer.documents(data[start:], line)
        except UnreadableError as error:
            fault = error.fault
        except yaml.YAMLError as error:
            fault = _fault(error, data[start:], line)
        else:
            return
        if fault.line != last_fault:
            yield fault
        last_fault = fault.line
        found = _next_marker(data, start, fault.line - 1 - line)
        if found is None:
            return
        line += data.count(b"\n", start, found)
        start = found
    yield Fault(line + 1, "this file has many faults; the rest of it was not read")


def _next_marker(data: bytes, start: int, lines: int) -> int | None:
    """Where the first `---` after *start* begins that is at least *lines* lines below it."""
    line, place = 0, start
    for marker in _MARKER.finditer(data, start + 1):
        line += data.count(b"\n", place, marker.start())
        place = marker.start()
        if line >= lines:
            return place
    return None


def _fault(error: yaml.YAMLError, data: bytes, before: int) -> Fault:
    """What the parser says of *data*, before which its file has *before* lines."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        message = ": ".join(part for part in (error.context, error.problem) if part)
        hint = ""
        if "cannot start any token" in message:
            hint = "indent with spaces, and quote values that begin with @, ` or %"
        # What is missed at the end of a file is missed at its last line.
        last = data.rstrip().count(b"\n")
        return Fault(before + min(error.problem_mark.line, last) + 1, message, hint)
    place = getattr(error, "position", 0)
    line = before + data.count(b"\n", 0, place) + 1
    return Fault(line, "a character that YAML does not allow", "remove the control character")


class _Composer:
    """YAML events to documents."""

    def __init__(self) -> None:
        self._repeated = 0
        self._tree = Tree()
        self._anchors: dict[str, Node] = {}

    def documents(self, data: bytes, before: int) -> Iterator[Document]:
        """The documents of *data*, before which its file has *before* lines."""
        for event in yaml.parse(data, Loader=_LOADER):
            line = before + 1 + (event.start_mark.line if event.start_mark else 0)
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._collection(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._tree.close()
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event.anchor or "", line)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._tree, self._anchors = Tree(), {}
            elif isinstance(event, yaml.DocumentEndEvent):
                yield from finished(self._tree)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _check_tag(event.tag, _TEXT_TAGS, line)
        text = event.value
        if not (text.isascii() or encodable(text)):
            raise UnreadableError(line, "a value has half of a surrogate pair")
        # A tag can say only that the value is a string, so one that has it is not plain.
        node = Scalar(line, text, plain=not event.style and event.tag is None)
        self._remember(event.anchor, node)
        self._tree.add(node)

    def _collection(self, event: yaml.CollectionStartEvent, line: int) -> None:
        of_items = isinstance(event, yaml.SequenceStartEvent)
        _check_tag(event.tag, _LIST_TAGS if of_items else _MAP_TAGS, line)
        node = Items(line) if of_items else Fields(line)
        self._remember(event.anchor, node)
        self._tree.open(node)

    def _alias(self, anchor: str, line: int) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            raise UnreadableError(line, f"no anchor is called {quoted(anchor)}")
        self._repeated += node.size
        if self._repeated > REPEATED_NODES:
            raise UnreadableError(
                line, f"aliases repeat more than {REPEATED_NODES:,} values", "write them out"
            )
        self._tree.repeat(node, line)

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node


def _check_tag(tag: str | None, allowed: frozenset[str | None], line: int) -> None:
    if tag not in allowed:
        raise UnreadableError(
            line,
            f"the tag {quoted(tag or '')} is not taken here",
            "write the value without a tag",
        )
