"""
Parses a file of documents, with every problem found at once.

A document is taken whole or not at all, and nothing in it is guessed: a field that is unknown,
unclear or beyond its limits is a problem at its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from federation.documents import convert, schema
from federation.documents.codes import Code
from federation.documents.convert import AnyDocument, Places
from federation.documents.load import (
    Bare,
    Document,
    Fault,
    Fields,
    Items,
    Value,
    json_documents,
    plain_document,
    yaml_documents,
)
from federation.documents.messages import Complaint, Report, complaints
from federation.documents.model import Origin
from federation.errors import Problem, Severity
from federation.text import did_you_mean, printable, quoted

FILE_BYTES = 16 * 1024 * 1024
_NAME_CHARS = 253
_BOM = b"\xef\xbb\xbf"
_LIST_FIELDS = frozenset({"apiVersion", "kind", "metadata", "items"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """The documents and problems of one file."""

    documents: tuple[AnyDocument, ...] = ()
    problems: tuple[Problem, ...] = ()
    broken: tuple[AnyDocument, ...] = ()
    """Documents with errors, as far as others may refer to them."""
    found: int = 0
    """The number of documents in the file, with errors or without."""


def parse(path: str, data: bytes, places: Places | None = None) -> Parsed:
    """
    Return the documents in *data*, with every problem.

    *path* is named in problems; where it ends in `.json`, the file is JSON, else YAML. Files of
    one set may share *places* to save memory.
    """
    problem = _unreadable(path, data)
    if problem is not None:
        return Parsed(problems=(problem,))
    whole: list[AnyDocument] = []
    broken: list[AnyDocument] = []
    problems: list[Problem] = []
    found, errors = 0, 0
    shared = {} if places is None else places
    for page in pages(path, data):
        report = Report(path)
        document = _read(page, report, shared)
        found += isinstance(page, Document)
        errors += report.errors
        problems += report.problems
        if document is not None and not report.full:
            (broken if report.errors else whole).append(document)
        if errors >= schema.ERRORS:
            problems.append(_file_problem(path, "has very many errors; the rest is not listed"))
            break
    return Parsed(tuple(whole), tuple(problems), tuple(broken), found)


def parse_value(path: str, value: object) -> Parsed:
    """
    Return the one document that *value* is, JSON that was parsed, with every problem.

    Problems have the line 0. However many errors it has, it is among the broken ones as far as it
    can be read, if it has a spec.
    """
    report = Report(path)
    page = plain_document(value)
    document = _read(page, report, {})
    made = () if document is None else (document,)
    problems = tuple(report.problems)
    return Parsed((), problems, made, 1) if report.errors else Parsed(made, problems, (), 1)


def _unreadable(path: str, data: bytes) -> Problem | None:
    if len(data) > FILE_BYTES:
        return _file_problem(path, f"is larger than {FILE_BYTES // 1024**2} MiB")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _file_problem(path, "is not UTF-8", "save it as UTF-8", line)
    return None


def _file_problem(path: str, message: str, hint: str = "", line: int = 0) -> Problem:
    code = Code.FILE_UNREADABLE.value
    return Problem(path, line, code, Severity.ERROR, message, hint=hint)


def pages(path: str, data: bytes) -> Iterator[Document | Fault]:
    """Yield each document of a file; a List as `kubectl get` writes it is taken apart."""
    data = data.removeprefix(_BOM)
    for page in json_documents(data) if path.endswith(".json") else yaml_documents(data):
        items = _list_items(page) if isinstance(page, Document) else None
        if isinstance(page, Fault) or items is None:
            yield page
            continue
        for index, item in enumerate(items):
            duplicates = [(p[2:], line) for p, line in page.duplicates if p[1] == index]
            line = item.line if isinstance(item, Fields | Items) else items.lines[index]
            yield Document(item, line, tuple(duplicates))


def _list_items(document: Document) -> Items | None:
    """Return the members of a List; None if the document is not one, or holds more than that."""
    root = document.root
    if not isinstance(root, Fields) or root.keys() - _LIST_FIELDS:
        return None
    if (_word(root, "apiVersion"), _word(root, "kind")) != ("v1", "List"):
        return None
    if any(len(place) < 3 or place[0] != "items" for place, _ in document.duplicates):
        return None
    items = root.get("items")
    return items if isinstance(items, Items) else None


def _read(page: Document | Fault, report: Report, places: Places) -> AnyDocument | None:
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
    return _checked(root, report, places)


def _checked(root: Fields, report: Report, places: Places) -> AnyDocument | None:
    kind = _word(root, "kind")
    written = None
    wrong_names = False
    try:
        written = schema.MODELS[kind].model_validate(root, context=schema.Budget())
    except ValidationError as error:
        for complaint in complaints(error, kind, root):
            report.add_at(complaint, root)
            wrong_names |= complaint.place == ("metadata", "name")
    for complaint in convert.contradictions(kind, root):
        report.add_at(complaint, root)
    if "spec" not in root:
        return None
    lines = convert.lines(root, places) if root.line else {}
    origin = Origin(report.path, root.line, lines)
    if written is not None:
        return convert.document(written, root, origin, places)
    name = "" if wrong_names else _word(root.get("metadata"), "name")
    return convert.broken(kind, name, root, origin)


def _not_ours(root: Fields) -> Complaint | None:
    """Return why the document is not one of ours, None if it is."""
    version, kind = _word(root, "apiVersion"), _word(root, "kind")
    if (version, kind) == ("v1", "List"):
        message, hint = "is a List with more than items", "write the documents alone"
    elif version not in {schema.API_VERSION, schema.OLD_API_VERSION}:
        shown = f"apiVersion {quoted(version)}" if version else "no apiVersion"
        message = f"has {shown}; only documents of this broker may stand here"
        hint = f"write apiVersion: {schema.API_VERSION}, or move it elsewhere"
    elif kind not in schema.MODELS:
        shown = f"kind {quoted(kind)}, which is unknown" if kind else "no kind"
        message, hint = f"has {shown}", did_you_mean(kind, schema.MODELS)
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
