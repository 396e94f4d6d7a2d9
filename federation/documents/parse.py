"""
Parses a file of documents, with every problem found at once.

A document is taken whole or not at all, and nothing in it is guessed: a field that is unknown,
unclear or beyond its limits is a problem at its line.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import PurePath
from types import MappingProxyType
from typing import NamedTuple

from pydantic import ValidationError

from federation.documents import convert, field_types, schema
from federation.documents.codes import Code
from federation.documents.convert import AnyDocument, Shared
from federation.documents.load_json import json_documents, plain_document
from federation.documents.load_yaml import Repeated, whole_documents, yaml_documents
from federation.documents.messages import Complaint, Report, complaints
from federation.documents.model import NO_LINES, Origin, Role
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.pieces import PIECE_BYTES, JsonLines, Piece, json_text, pieces
from federation.documents.plain_roles import PlainRoles
from federation.documents.platforms import owner_of, template_near
from federation.documents.tree import Bare, Document, Fault, Fields, Items, Place, Value, is_null
from federation.errors import Problem, Severity
from federation.text import did_you_mean, printable, quoted

FILE_BYTES = 16 * 1024 * 1024
_BATCH = 32
_NAME_CHARS = 253
_BOM = b"\xef\xbb\xbf"
_LIST_FIELDS = frozenset({"apiVersion", "kind", "metadata", "items"})
_LISTS = frozenset(f"{kind}List" for kind in schema.MODELS)
"""The kinds of the lists that an API server answers with."""
_CLAIMS = frozenset({"iss", "sub"})
_HEAD = frozenset({("apiVersion",), ("kind",)})
_SPECS = frozenset({"iss", "policy", "statement"})
"""One key of the spec of each kind, by which it is known with mistakes in its head."""
_KINDS_IN_LOWER_CASE = frozenset(kind.lower() for kind in schema.MODELS)


@dataclass(frozen=True, slots=True)
class Parsed:
    """The documents and problems of one file."""

    documents: tuple[AnyDocument, ...] = ()
    problems: tuple[Problem, ...] = ()
    broken: tuple[AnyDocument, ...] = ()
    """Documents with errors, as far as others may refer to them."""
    found: int = 0
    """The number of documents in the file, with errors or without."""
    passed_over: tuple[str, ...] = ()
    """A sentence about the file if it is another program's, and so was not read."""
    remembered: Mapping[bytes, Remembered] = field(default_factory=dict, repr=False)
    """Documents without problems, by the digest of their text, so that none is read again."""


class Remembered(NamedTuple):
    """A document, and how many lines below the beginning of its text it begins."""

    document: AnyDocument
    below: int

    def at(self, line: int) -> AnyDocument:
        """Return the document, with its text at *line* of the file."""
        origin = self.document.origin
        if origin.line == line + self.below:
            return self.document
        return replace(self.document, origin=replace(origin, line=line + self.below))


def parse(
    path: str,
    data: bytes,
    shared: Shared | None = None,
    *,
    known: Mapping[bytes, Remembered] = MappingProxyType({}),
    pause: Pause = go_on,
) -> Parsed:
    """
    Return the documents in *data*, with every problem.

    *path* is named in problems; where it ends in `.json`, the file is JSON, else YAML. Files of
    one set may share what is *shared* to save memory. What is *known* from an earlier text of the
    file is not read again. *pause* is called before each document.
    """
    problem = _unreadable(path, data)
    if problem is not None:
        return Parsed(problems=(problem,))
    shared = shared or Shared()
    if not path.endswith(".json"):
        in_pieces = _parsed_in_pieces(path, data, shared, known, pause)
        if in_pieces is not None:
            return in_pieces
    reading = _Reading(path, shared, PlainRoles(path, shared))
    for page in paced(pages(path, data), pause):
        if not reading.take(page):
            break
    return reading.parsed()


def _parsed_in_pieces(
    path: str,
    data: bytes,
    shared: Shared,
    known: Mapping[bytes, Remembered],
    pause: Pause,
) -> Parsed | None:
    """Return what is in *data*, one piece after the other; None if it must be read as a whole."""
    reading = _Reading(path, shared, PlainRoles(path, shared))
    json_lines, repeated = JsonLines(), Repeated()
    for piece, digest, role in _looked_at(data.removeprefix(_BOM), known, reading.plain, pause):
        if len(piece.text) > PIECE_BYTES:
            return None
        if old := known.get(digest):
            reading.keep(digest, old, piece.line)
            continue
        if role is not None:
            reading.add(role)
            reading.remembered[digest] = Remembered(role, role.origin.line - piece.line)
            continue
        before = len(reading.whole), len(reading.problems), reading.found, repeated.nodes
        quick = json_lines.document(piece)
        documents = [quick] if quick else whole_documents(piece.text, piece.line, repeated)
        if documents is None or not all(map(reading.take, chain(*map(_taken_apart, documents)))):
            return None
        after = len(reading.whole) - 1, len(reading.problems), reading.found - 1, repeated.nodes
        if after == before:
            document = reading.whole[-1]
            reading.remembered[digest] = Remembered(document, document.origin.line - piece.line)
    return reading.parsed() if reading.found else None


def _looked_at(
    data: bytes, known: Mapping[bytes, Remembered], plain: PlainRoles, pause: Pause
) -> Iterator[tuple[Piece, bytes, Role | None]]:
    """Yield each piece of *data*, its digest, and the Role that it is, if that is a plain one."""
    found = pieces(data)
    while batch := list(islice(found, _BATCH)):
        digests = [hashlib.sha256(piece.text).digest() for piece in paced(batch, pause)]
        new = [
            None if digest in known else piece for digest, piece in zip(digests, batch, strict=True)
        ]
        texts = [piece and json_text(piece) for piece in paced(new, pause)]
        yield from zip(batch, digests, plain.of_texts(texts, pause), strict=True)


@dataclass(slots=True)
class _Reading:
    """The documents and problems found in a file so far."""

    path: str
    shared: Shared
    plain: PlainRoles
    whole: list[AnyDocument] = field(default_factory=list)
    broken: list[AnyDocument] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    remembered: dict[bytes, Remembered] = field(default_factory=dict)
    found: int = 0
    errors: int = 0

    def keep(self, digest: bytes, old: Remembered, line: int) -> None:
        """Add a document that was read before, and whose text is at *line* now."""
        document = old.at(line)
        self.add(document)
        self.remembered[digest] = (
            old if document is old.document else old._replace(document=document)
        )

    def add(self, document: AnyDocument) -> None:
        """Add a document without problems."""
        self.found += 1
        self.whole.append(document)

    def take(self, page: Document | Fault) -> bool:
        """Add what is on *page*. Return False if there are too many errors to go on."""
        role = self.plain.of_page(page) if isinstance(page, Document) else None
        if role is not None:
            self.add(role)
        if role is not None or is_rule_test(page):
            return True
        report = Report(self.path)
        document = _read(page, report, self.shared)
        self.found += isinstance(page, Document)
        self.errors += report.errors
        self.problems += report.problems
        if document is not None and not report.full:
            (self.broken if report.errors else self.whole).append(document)
        if self.errors < field_types.ERRORS:
            return True
        very_many = "has very many errors; the rest is not listed"
        self.problems.append(_file_problem(self.path, very_many))
        return False

    def parsed(self) -> Parsed:
        """Return all that was found."""
        whole, broken = tuple(self.whole), tuple(self.broken)
        problems, remembered = tuple(self.problems), self.remembered
        return Parsed(whole, problems, broken, self.found, remembered=remembered)


def parse_value(path: str, value: object) -> Parsed:
    """
    Return the one document that *value* is, JSON that was parsed, with every problem.

    Problems have the line 0. However many errors it has, it is among the broken ones as far as it
    can be read, if it has a spec.
    """
    report = Report(path)
    page = plain_document(value)
    document = _read(page, report, Shared())
    made = () if document is None else (document,)
    problems = tuple(report.problems)
    return Parsed((), problems, made, 1) if report.errors else Parsed(made, problems, (), 1)


def _unreadable(path: str, data: bytes) -> Problem | None:
    if len(data) > FILE_BYTES:
        return _file_problem(path, f"is larger than {FILE_BYTES // 1024**2} MiB")
    try:
        if not data.isascii():
            data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _file_problem(path, "is not UTF-8", "save it as UTF-8", line)
    return None


def _file_problem(path: str, message: str, hint: str = "", line: int = 0) -> Problem:
    code = Code.FILE_UNREADABLE.value
    return Problem(path, line, code, Severity.ERROR, message, hint=hint)


def pages(path: str, data: bytes) -> Iterator[Document | Fault]:
    """
    Yield each document of a file.

    Lists are taken apart: a `List` as `kubectl get` writes it, that of one kind as the API server
    writes it, and a plain list of documents.
    """
    data = data.removeprefix(_BOM)
    if path.endswith(".json"):
        read = json_documents(data)
    else:
        read = map(partial(_template_named, data), yaml_documents(data))
    for page in read:
        yield from _taken_apart(page)


def _template_named(data: bytes, page: Document | Fault) -> Document | Fault:
    """Return *page*, but where a template near it made its fault, that fault in better words."""
    found = template_near(data, page.line) if isinstance(page, Fault) else None
    return page if found is None else Fault(*found)


def is_rule_test(page: Document | Fault) -> bool:
    """
    Return whether *page* is a rule test, which decides nothing and is read by `federation test`.

    One with two kinds is none: another reader could find a Policy in it, with a Deny.
    """
    if isinstance(page, Fault) or not isinstance(page.root, Fields):
        return False
    version, kind = _word(page.root, "apiVersion"), _word(page.root, "kind")
    return (
        kind == schema.RULE_TEST
        and version in {schema.API_VERSION, schema.OLD_API_VERSION}
        and not any(place in _HEAD for place, _ in page.duplicates)
    )


def _taken_apart(page: Document | Fault) -> Iterator[Document | Fault]:
    """Yield the documents in *page*, which may be a list of them, or lists of lists."""
    # The loader bounds nesting, so this recursion is bounded too.
    found = _list_items(page) if isinstance(page, Document) else None
    if isinstance(page, Fault) or found is None:
        yield page
        return
    items, depth = found
    # Sorted once: a hostile file has as many of them as members.
    duplicates = defaultdict[object, list[tuple[Place, int]]](list)
    for place, line in page.duplicates:
        duplicates[place[depth - 1]].append((place[depth:], line))
    for index, item in enumerate(items):
        line = item.line if isinstance(item, Fields | Items) else items.lines[index]
        repeats = tuple(duplicates.get(index, ()))
        yield from _taken_apart(Document(item, line, repeats, page.one_line))


def _list_items(document: Document) -> tuple[Items, int] | None:
    """
    Return the members of a list and how deep they are; None if the document is not one.

    A List that holds more than its members is none: what it holds besides would be dropped.
    """
    root = document.root
    if isinstance(root, Items):
        # An empty list, or one of texts, is a mistake.
        return (root, 1) if any(isinstance(item, Fields) for item in root) else None
    if not isinstance(root, Fields) or root.keys() - _LIST_FIELDS or not _is_list(root):
        return None
    if any(len(place) < 3 or place[0] != "items" for place, _ in document.duplicates):
        return None
    items = root.get("items")
    return (items, 2) if isinstance(items, Items) else None


def _is_list(root: Fields) -> bool:
    version, kind = _word(root, "apiVersion"), _word(root, "kind")
    return (version, kind) == ("v1", "List") or (version == schema.API_VERSION and kind in _LISTS)


def passed_over(path: str, data: bytes) -> str:
    """
    Return whose file *path* is if it is another program's and holds no document, else nothing.

    A file that says anything of ours, or that cannot be read, is none: a Deny in it would be lost.
    Such files are mappings, so one that is a text or a list holds something else.
    """
    owner = owner_of(PurePath(path).name) or _claims_of_tests(path, data)
    if not owner or _unreadable(path, data):
        return ""
    return "" if any(map(_may_be_ours, pages(path, data))) else owner


def _claims_of_tests(path: str, data: bytes) -> str:
    """Return whose the JSON file *path* is if it is the claims of one token, else nothing."""
    if not path.endswith(".json") or b'"iss"' not in data or _unreadable(path, data):
        return ""
    roots = [page.root if isinstance(page, Document) else None for page in pages(path, data)]
    # A JwtIssuer without its head has no `sub`.
    claims = any(isinstance(root, Fields) and root.keys() >= _CLAIMS for root in roots)
    return "rule tests" if claims else ""


def _may_be_ours(page: Document | Fault) -> bool:
    """Return whether *page* is a document or a list of them, or was meant as one."""
    if isinstance(page, Fault):
        return True
    root = page.root
    if not isinstance(root, Fields):
        return not is_null(root)
    return (
        _of_ours(root)
        or (kind := _word(root, "kind").lower()) in _KINDS_IN_LOWER_CASE
        or kind.endswith("list")
        or (
            "spec" in root
            and not (_word(root, "apiVersion") and _SPECS.isdisjoint(_keys(root["spec"])))
        )
        or any(place in _HEAD for place, _ in page.duplicates)
        or any(map(_holds_ours, root.values()))
    )


def _holds_ours(value: Value) -> bool:
    """Return whether a document of ours is somewhere within *value*."""
    if isinstance(value, Fields):
        # The kind alone is no sign here: patches of Kustomize name it as their target.
        return _of_ours(value) or any(map(_holds_ours, value.values()))
    return isinstance(value, Items) and any(map(_holds_ours, value))


def _keys(value: Value) -> Iterable[str]:
    return value if isinstance(value, Fields) else ()


def _of_ours(root: Fields) -> bool:
    return "openfaas.com" in _word(root, "apiVersion").lower()


def _read(page: Document | Fault, report: Report, shared: Shared) -> AnyDocument | None:
    """Return the document on *page* as far as it can be read, None if it is not one of ours."""
    if isinstance(page, Fault):
        report.add(Complaint((), Code.BAD_SYNTAX, page.message, page.hint), page.line)
        return None
    root = page.root
    if not isinstance(root, Fields):
        hint = "write apiVersion, kind, metadata, spec"
        report.add(Complaint((), Code.NOT_OURS, "is not a document", hint), page.line)
        return None
    report.kind = printable(_word(root, "kind"), _NAME_CHARS)
    report.name = printable(_word(root.get("metadata"), "name"), _NAME_CHARS)
    for place, line in page.duplicates:
        report.add(Complaint(place, Code.DUPLICATE_KEY, "stands here a second time"), line)
    if complaint := _not_ours(root):
        report.add_at(complaint, root)
        return None
    if _word(root, "apiVersion") == schema.OLD_API_VERSION:
        _warn_of_version(root, report)
    return _checked(page, root, report, shared)


def _checked(page: Document, root: Fields, report: Report, shared: Shared) -> AnyDocument | None:
    kind = _word(root, "kind")
    written = None
    wrong_names = False
    try:
        written = schema.MODELS[kind].model_validate(root, context=field_types.Budget())
    except ValidationError as error:
        for complaint in complaints(error, kind, root):
            report.add_at(complaint, root)
            wrong_names |= complaint.place == ("metadata", "name")
    for complaint in convert.contradictions(kind, root):
        report.add_at(complaint, root)
    if "spec" not in root:
        return None
    # A document of an API server has no lines at all.
    one_line = page.one_line or not root.line
    below = NO_LINES if one_line else convert.lines_below(root, shared)
    origin = Origin(report.path, root.line, below)
    if written is not None:
        return convert.document(written, root, origin, shared)
    name = "" if wrong_names else _word(root.get("metadata"), "name")
    return convert.broken(kind, name, root, origin)


def _not_ours(root: Fields) -> Complaint | None:
    """Return why the document is not one of ours, None if it is."""
    version, kind = _word(root, "apiVersion"), _word(root, "kind")
    if _is_list(root):
        message, hint = "is a List with more than items", "write the documents alone"
    elif version not in {schema.API_VERSION, schema.OLD_API_VERSION}:
        shown = f"apiVersion {quoted(version)}" if version else "no apiVersion"
        message = f"has {shown}; only documents of this broker may stand here"
        hint = f"write apiVersion: {schema.API_VERSION}, or move it elsewhere"
    elif kind not in schema.MODELS:
        shown = f"kind {quoted(kind)}, which is unknown" if kind else "no kind"
        message, hint = f"has {shown}", did_you_mean(kind, [*schema.MODELS, schema.RULE_TEST])
    else:
        return None
    return Complaint((), Code.NOT_OURS, message, hint)


def _warn_of_version(root: Fields, report: Report) -> None:
    old = f"{quoted(schema.OLD_API_VERSION)} is the older apiVersion"
    hint = f"write {schema.API_VERSION}"
    complaint = Complaint(("apiVersion",), Code.OLD_API_VERSION, old, hint)
    report.add(complaint, root.lines["apiVersion"], Severity.WARNING)


def _word(value: Value | None, key: str) -> str:
    """Return the scalar at *key* as it was written, empty if there is none."""
    found = value.get(key) if isinstance(value, Fields) else None
    return found.text if isinstance(found, Bare) else found if isinstance(found, str) else ""
