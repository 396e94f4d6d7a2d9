"""
A file of documents to the documents themselves, with every problem found at once.

A document is taken whole or not at all, and nothing in it is guessed: what is not known, not
clear or not within its limits is a problem at its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from federation.documents.codes import Code
from federation.documents.parse.document import AnyDocument, Page, pages, read
from federation.documents.parse.fields import Report, TooManyError
from federation.documents.parse.from_json import json_documents
from federation.documents.parse.from_yaml import yaml_documents
from federation.documents.parse.nodes import Fault, Place
from federation.errors import Problem, Severity

__all__ = ["FILE_BYTES", "AnyDocument", "Parsed", "parse"]

FILE_BYTES = 16 * 1024 * 1024
_ERRORS = 1000
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a file holds."""

    documents: tuple[AnyDocument, ...] = ()
    problems: tuple[Problem, ...] = ()
    broken: tuple[AnyDocument, ...] = ()
    """Documents with errors, as far as they could be read. Others may refer to them."""
    found: int = 0
    """How many documents the file has, whole or not."""


def parse(path: str, data: bytes, places: dict[Place, Place] | None = None) -> Parsed:
    """
    The documents in *data*, with every problem.

    *path* says where they come from; where it ends in `.json` they are JSON, else YAML.
    Files of one set may share *places*, which then holds one copy of each place in them.
    """
    problem = _unreadable(path, data)
    if problem is not None:
        return Parsed(problems=(problem,))
    whole: list[AnyDocument] = []
    broken: list[AnyDocument] = []
    problems: list[Problem] = []
    found, errors = 0, 0
    shared = {} if places is None else places
    for page in _pages(path, data.removeprefix(_BOM)):
        report = Report(path, shared)
        document = _read(page, report)
        found += isinstance(page, Page)
        errors += report.errors
        problems += report.problems
        if document is not None:
            (broken if report.errors else whole).append(document)
        if errors >= _ERRORS:
            problems.append(_file_problem(path, "has very many errors; the rest is not told"))
            break
    return Parsed(tuple(whole), tuple(problems), tuple(broken), found)


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


def _pages(path: str, data: bytes) -> Iterator[Page | Fault]:
    for document in json_documents(data) if path.endswith(".json") else yaml_documents(data):
        if isinstance(document, Fault):
            yield document
        else:
            yield from pages(document)


def _read(page: Page | Fault, report: Report) -> AnyDocument | None:
    if isinstance(page, Fault):
        report.add(Code.BAD_SYNTAX, page.line, (), page.message, page.hint)
        return None
    try:
        return read(page, report)
    except TooManyError:
        return None
