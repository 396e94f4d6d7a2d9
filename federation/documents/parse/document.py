"""
One document: its head, its place among others, and the reader that knows its kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from federation.documents import shape
from federation.documents.codes import Code
from federation.documents.model import JwtIssuer, Origin, Policy, Role
from federation.documents.parse.fields import Field, Report, is_null
from federation.documents.parse.kinds import read_issuer, read_policy, read_role
from federation.documents.parse.nodes import Document, Fields, Items, Node, Place, Scalar
from federation.documents.parse.values import Sort, is_name, sort
from federation.errors import Severity
from federation.text import did_you_mean, printable, quoted

__all__ = ["AnyDocument", "Page", "pages", "read"]

_NAME_CHARS = 253

AnyDocument: TypeAlias = JwtIssuer | Policy | Role


@dataclass(frozen=True, slots=True)
class Page:
    """The node of one document, and the places in it where a key stands twice."""

    node: Node
    line: int
    duplicates: tuple[tuple[Place, int], ...]


def pages(document: Document) -> Iterator[Page]:
    """The document alone, or each of the documents in a List as `kubectl get` writes it."""
    items = _list_items(document)
    if items is None:
        yield Page(document.root, document.root.line, document.duplicates)
        return
    for index, node in enumerate(items):
        duplicates = [(p[2:], line) for p, line in document.duplicates if p[1] == index]
        yield Page(node, node.line, tuple(duplicates))


def _list_items(document: Document) -> list[Node] | None:
    """The members of a List; None where the document is not one, or holds more than that."""
    root = document.root
    if not isinstance(root, Fields) or root.entries.keys() - _LIST_FIELDS:
        return None
    if (_word(root, "apiVersion"), _word(root, "kind")) != ("v1", "List"):
        return None
    if any(len(place) < 3 or place[0] != "items" for place, _ in document.duplicates):
        return None
    items = root.entries.get("items")
    return items[1].nodes if items is not None and isinstance(items[1], Items) else None


def read(page: Page, report: Report) -> AnyDocument | None:
    """The document on *page* as far as it can be read; None where it is not one of ours."""
    root = Field(page.node, page.line, (), report)
    if not isinstance(page.node, Fields):
        root.wrong(Code.NOT_OURS, "is not a document", "write apiVersion, kind, metadata, spec")
        return None
    report.kind = printable(_word(page.node, "kind"), _NAME_CHARS)
    report.name = printable(_name_as_written(page.node), _NAME_CHARS)
    for place, line in page.duplicates:
        report.add(Code.DUPLICATE_KEY, line, place, "stands here a second time")
    kind = _kind(root, page.node)
    if kind is None:
        return None
    found = root.known(shape.DOCUMENT)
    name = _metadata(found["metadata"]) if "metadata" in found else None
    if "spec" not in found:
        return None
    origin = Origin(report.path, page.line, _lines(found))
    return _READERS[kind](name or "", found["spec"], origin)


_READERS: Mapping[str, Callable[[str, Field, Origin], AnyDocument]] = {
    "JwtIssuer": read_issuer,
    "Policy": read_policy,
    "Role": read_role,
}
_LIST_FIELDS = frozenset({"apiVersion", "kind", "metadata", "items"})


def _kind(root: Field, node: Fields) -> str | None:
    """Which of our documents this is."""
    version, kind = _word(node, "apiVersion"), _word(node, "kind")
    if (version, kind) == ("v1", "List"):
        root.wrong(Code.NOT_OURS, "is a List with more than items", "write the documents alone")
    elif version not in {shape.API_VERSION, shape.OLD_API_VERSION}:
        shown = f"apiVersion {quoted(version)}" if version else "no apiVersion"
        root.wrong(
            Code.NOT_OURS,
            f"has {shown}; only documents of this broker may stand here",
            f"write apiVersion: {shape.API_VERSION}, or move it elsewhere",
        )
    elif kind not in shape.KINDS:
        shown = f"kind {quoted(kind)}, which is unknown" if kind else "no kind"
        root.wrong(Code.NOT_OURS, f"has {shown}", did_you_mean(kind, shape.KINDS))
    else:
        if version == shape.OLD_API_VERSION:
            _warn_of_version(root, node)
        return kind
    return None


def _warn_of_version(root: Field, node: Fields) -> None:
    root.report.add(
        Code.OLD_API_VERSION,
        node.entries["apiVersion"][0],
        ("apiVersion",),
        f"{quoted(shape.OLD_API_VERSION)} is the older apiVersion",
        f"write {shape.API_VERSION}",
        severity=Severity.WARNING,
    )


def _metadata(field: Field) -> str | None:
    """The document's name. What Kubernetes keeps beside it is carried by the file alone."""
    found = field.known(shape.METADATA)
    if "namespace" in found:
        found["namespace"].text()
    for name in ("labels", "annotations"):
        if name in found:
            _check_text_map(found[name])
    if "name" not in found:
        return None
    name_field = found["name"]
    written = name_field.text()
    if written is None or is_name(written):
        return written
    name_field.wrong(
        Code.BAD_VALUE,
        f"{quoted(written)} is not a name",
        "use lower-case letters, digits, - and ., at most 253, a letter or digit at both ends",
    )
    return None


def _check_text_map(field: Field) -> None:
    if not isinstance(field.node, Fields):
        if not is_null(field.node):
            field.wrong(Code.BAD_VALUE, "is not a map")
        return
    for key, (line, node) in field.node.entries.items():
        if not (isinstance(node, Scalar) and sort(node.text, node.plain) is Sort.TEXT):
            value = Field(node, line, (*field.place, key), field.report)
            value.wrong(Code.BAD_VALUE, "is not a string", "put it in quotes")


def _word(node: Fields, key: str) -> str:
    """The string at *key*, empty where there is none."""
    value = node.entries.get(key, (0, node))[1]
    return value.text if isinstance(value, Scalar) else ""


def _name_as_written(node: Fields) -> str:
    metadata = node.entries.get("metadata", (0, node))[1]
    return _word(metadata, "name") if isinstance(metadata, Fields) else ""


def _lines(found: Mapping[str, Field]) -> Mapping[Place, int]:
    """The line of the name and of every place in the spec, pinned keys aside."""
    spec = found["spec"]
    lines = {spec.place: spec.line}
    _note_lines(spec, spec.node, spec.place, lines)
    metadata = found.get("metadata", spec).node
    if isinstance(metadata, Fields) and "name" in metadata.entries:
        lines[spec.report.one(("metadata", "name"))] = metadata.entries["name"][0]
    return lines


def _note_lines(spec: Field, node: Node, place: Place, lines: dict[Place, int]) -> None:
    # Nesting is bounded when the tree is built, so this recursion is too.
    one = spec.report.one
    if isinstance(node, Items):
        for index, item in enumerate(node.nodes):
            here = one((*place, index))
            lines[here] = item.line
            if not isinstance(item, Scalar):
                _note_lines(spec, item, here, lines)
    elif isinstance(node, Fields) and place != ("spec", "jwks"):
        for key, (line, value) in node.entries.items():
            here = one((*place, key))
            lines[here] = line
            if not isinstance(value, Scalar):
                _note_lines(spec, value, here, lines)
