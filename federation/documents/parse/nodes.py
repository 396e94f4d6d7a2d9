"""
Trees of nodes that know their line, and how one grows.

Nothing here knows what a document means. Whatever a file holds, the work is bounded by its
size: nesting ends at 50 levels, a value that is repeated counts as often as it stands there,
and nothing is called recursively.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Document",
    "Fault",
    "Fields",
    "Items",
    "Node",
    "Place",
    "Scalar",
    "Tree",
    "UnreadableError",
    "encodable",
    "finished",
]

DEPTH = 50
DOCUMENT_NODES = 500_000
_KEY_CHARS = 4096

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


class UnreadableError(Exception):
    """A document that has to be given up."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.fault = Fault(line, message, hint)


class Tree:
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
            raise UnreadableError(line, "an alias refers to the value it stands in")
        if len(self._open) + node.height > DEPTH:
            raise _too_deep(line)
        self.add(node)
        if self._open:
            self._open[-1].height = max(self._open[-1].height, node.height + 1)

    def _attach(self, node: Node) -> str | int:
        """The key or index under which *node* is now found."""
        self._count += node.size
        if self._count > DOCUMENT_NODES:
            raise UnreadableError(
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
        raise UnreadableError(node.line, "a key is a list or a map", "write a string")
    if len(node.text) > _KEY_CHARS:
        raise UnreadableError(node.line, f"a key is longer than {_KEY_CHARS:,} characters")
    # The same few keys stand in every document; one copy of each is enough.
    return Scalar(node.line, sys.intern(node.text), node.plain)


def _too_deep(line: int) -> UnreadableError:
    return UnreadableError(line, f"lists and maps are nested more than {DEPTH} deep")


def finished(tree: Tree) -> Iterator[Document]:
    """The document that *tree* holds, unless it is empty."""
    root = tree.root
    empty = isinstance(root, Scalar) and root.plain and not root.text
    if root is not None and not empty:
        yield Document(root, tuple(tree.duplicates))


def encodable(text: str) -> bool:
    """Whether *text* is without halves of surrogate pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
