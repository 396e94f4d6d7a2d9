"""
Bytes to trees: YAML or JSON in, nodes that know their line out.

Nothing here knows what a document means. Whatever the bytes are, the work is bounded by the
size of the file: nesting ends at 50 levels, an alias counts as much as what it repeats, no tag
makes an object, and nothing is called recursively.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from typing import TypeAlias

import yaml

from federation.documents.parse.values import excerpt

__all__ = ["Document", "Fault", "Fields", "Items", "Node", "Place", "Scalar", "documents"]

DEPTH = 50
DOCUMENT_NODES = 500_000
REPEATED_NODES = 200_000
"""How many nodes the aliases of a file may repeat, all together."""
_KEY_CHARS = 4096
_FAULTS = 20
"""How many broken documents of a file are told before the rest is left unread."""

Place: TypeAlias = tuple[str | int, ...]


class Scalar:
    """A single value. *plain* means written without quotes, so that its form tells its type."""

    __slots__ = ("line", "plain", "text")
    size = 1
    height = 0

    def __init__(self, line: int, text: str, plain: bool) -> None:
        self.line = line
        self.text = text
        self.plain = plain


class Items:
    """A list."""

    __slots__ = ("height", "line", "nodes", "size")

    def __init__(self, line: int) -> None:
        self.line = line
        self.nodes: list[Node] = []
        self.size = 1
        self.height = 1


class Fields:
    """A map: for each key the line it stands on and its value."""

    __slots__ = ("entries", "height", "line", "pending", "size")

    def __init__(self, line: int) -> None:
        self.line = line
        self.entries: dict[str, tuple[int, Node]] = {}
        self.pending: Scalar | None = None
        """The key that waits for its value."""
        self.size = 1
        self.height = 1


Node: TypeAlias = Scalar | Items | Fields


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file, and where in it a key was written a second time."""

    root: Node
    duplicates: tuple[tuple[Place, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """A document that is not YAML, not JSON, or more than one document may be."""

    line: int
    message: str
    hint: str = ""


def documents(data: bytes, *, json: bool) -> Iterator[Document | Fault]:
    """
    Every document in *data*, which is UTF-8, in order. Empty documents are left out.

    After a fault, reading goes on at the next `---`, which in YAML always begins a document.
    """
    return _json_documents(data.decode()) if json else _yaml_documents(data)


class _UnreadableError(Exception):
    """A document that has to be given up."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(line, message, hint)


class _Tree:
    """One document while it grows."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.duplicates: list[tuple[Place, int]] = []
        self._open: list[Items | Fields] = []
        self._steps: list[str | int] = []
        self._count = 0

    def add(self, node: Node) -> None:
        """Put a finished *node* where the document stands."""
        self._attach(node)
        if self._open:
            self._open[-1].size += node.size

    def open(self, node: Items | Fields) -> None:
        """Put *node* where the document stands, and go into it."""
        step = self._attach(node)
        if len(self._open) >= DEPTH:
            raise _too_deep(node.line)
        self._open.append(node)
        self._steps.append(step)

    def close(self) -> None:
        """Leave the innermost list or map."""
        node = self._open.pop()
        self._steps.pop()
        if self._open:
            around = self._open[-1]
            around.size += node.size
            around.height = max(around.height, node.height + 1)

    def repeat(self, node: Node, line: int) -> None:
        """Put *node*, which stands elsewhere already, here as well."""
        if any(node is around for around in self._open):
            raise _UnreadableError(line, "an alias refers to the value it stands in")
        if len(self._open) + node.height > DEPTH:
            raise _too_deep(line)
        self.add(node)
        if self._open:
            self._open[-1].height = max(self._open[-1].height, node.height + 1)

    def _attach(self, node: Node) -> str | int:
        """The key or index under which *node* is now found."""
        self._count += node.size
        if self._count > DOCUMENT_NODES:
            raise _UnreadableError(
                node.line, f"the document has more than {DOCUMENT_NODES:,} values"
            )
        if not self._open:
            self.root = node
            return ""
        around = self._open[-1]
        if isinstance(around, Items):
            around.nodes.append(node)
            return len(around.nodes) - 1
        if around.pending is None:
            around.pending = _key(node)
            return ""
        key, around.pending = around.pending, None
        if key.text in around.entries:
            self.duplicates.append(((*self._steps[1:], key.text), key.line))
        else:
            around.entries[key.text] = (key.line, node)
        return key.text


def _key(node: Node) -> Scalar:
    if not isinstance(node, Scalar):
        raise _UnreadableError(node.line, "a key is a list or a map", "write a string")
    if len(node.text) > _KEY_CHARS:
        raise _UnreadableError(node.line, f"a key is longer than {_KEY_CHARS:,} characters")
    # The same few keys stand in every document; one copy of each is enough.
    return Scalar(node.line, sys.intern(node.text), node.plain)


def _too_deep(line: int) -> _UnreadableError:
    return _UnreadableError(line, f"lists and maps are nested more than {DEPTH} deep")


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MARKER = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_TEXT_TAGS: frozenset[str | None] = frozenset({None, "!", "tag:yaml.org,2002:str"})
_LIST_TAGS: frozenset[str | None] = frozenset({None, "tag:yaml.org,2002:seq"})
_MAP_TAGS: frozenset[str | None] = frozenset({None, "tag:yaml.org,2002:map"})


def _yaml_documents(data: bytes) -> Iterator[Document | Fault]:
    composer = _Composer()
    start, line, last_fault = 0, 0, 0
    for _ in range(_FAULTS):
        fault: Fault
        try:
            yield from composer.documents(data[start:], line)
        except _UnreadableError as error:
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


def _fault(error: yaml.YAMLError, data: bytes, line: int) -> Fault:
    hint = ""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        message = ": ".join(part for part in (error.context, error.problem) if part)
        if "\\t" in message or "cannot start any token" in message:
            hint = "indent with spaces, and quote values that begin with @, ` or %"
        return Fault(line + error.problem_mark.line + 1, message, hint)
    place = getattr(error, "position", None)
    before = data.count(b"\n", 0, place) if isinstance(place, int) else 0
    return Fault(
        line + before + 1, "a character that YAML does not allow", "remove the control character"
    )


class _Composer:
    """YAML events to documents."""

    def __init__(self) -> None:
        self._repeated = 0
        self._tree = _Tree()
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
                self._tree, self._anchors = _Tree(), {}
            elif isinstance(event, yaml.DocumentEndEvent):
                yield from _finished(self._tree)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        _check_tag(event.tag, _TEXT_TAGS, line)
        text = event.value
        if not (text.isascii() or _encodable(text)):
            raise _UnreadableError(line, "a value has half of a surrogate pair")
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
            raise _UnreadableError(line, f"no anchor is called {excerpt(anchor)}")
        self._repeated += node.size
        if self._repeated > REPEATED_NODES:
            raise _UnreadableError(
                line, f"aliases repeat more than {REPEATED_NODES:,} values", "write them out"
            )
        self._tree.repeat(node, line)

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node


def _finished(tree: _Tree) -> Iterator[Document]:
    root = tree.root
    empty = isinstance(root, Scalar) and root.plain and not root.text
    if root is not None and not empty:
        yield Document(root, tuple(tree.duplicates))


def _check_tag(tag: str | None, allowed: frozenset[str | None], line: int) -> None:
    if tag not in allowed:
        raise _UnreadableError(
            line,
            f"the tag {excerpt(tag or '')} is not taken here",
            "write the value without a tag",
        )


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(
    r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![-+.\w])"
)


def _json_documents(text: str) -> Iterator[Document | Fault]:
    if not text.strip(" \t\r\n"):
        return
    try:
        yield from _finished(_JsonReader(text).read())
    except _UnreadableError as error:
        yield error.fault


class _JsonReader:
    """
    Strict JSON (RFC 8259) to one tree.

    The tree is the one that YAML would give, but YAML's scanner cannot be used for it: it
    refuses surrogate pairs in escapes and keys over 1,024 characters.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._strings = JSONDecoder()
        self._place = 0
        self._line = 1
        self._tree = _Tree()
        self._ends: list[str] = []
        """What closes each list and map that is open."""
        self._fresh = False
        """Whether the innermost of them has no member yet."""

    def read(self) -> _Tree:
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
            raise _UnreadableError(self._line, f"not JSON: {error.msg}") from error
        if not _encodable(text):
            raise _UnreadableError(self._line, "a string has half of a surrogate pair")
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

    def _expected(self, what: str) -> _UnreadableError:
        got = self._text[self._place : self._place + 20].partition("\n")[0]
        found = excerpt(got) if got else "the end"
        return _UnreadableError(self._line, f"not JSON: expected {what}, found {found}")
