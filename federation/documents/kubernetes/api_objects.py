"""
JwtIssuers, Policies and Roles as a Kubernetes API server has them, read one by one.

Every object is read, also a malformed one: the author of an object can put anything into it, also
past the checks of the API server. What is no document is an object with errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from federation.documents.codes import Code
from federation.documents.convert import AnyDocument
from federation.documents.model import JwtIssuer
from federation.documents.parse import Parsed, parse_value
from federation.errors import Problem, Severity

PATH = "kubernetes"
"""The path of problems of objects, which have no file."""
_WORD_CHARS = 253

Key: TypeAlias = tuple[str, str]
"""The kind and the name of an object, such as `("Role", "deployer")`."""
Identity: TypeAlias = tuple[str, str, str]
"""The kind, the name and the uid of an object."""


@dataclass(frozen=True, slots=True)
class ApiObject:
    """A JwtIssuer, Policy or Role as the API server has it."""

    kind: str
    name: str
    uid: str
    generation: int
    resource_version: str
    created: str
    """`metadata.creationTimestamp`, RFC 3339; such texts sort by time."""
    parsed: Parsed = field(repr=False)
    """Its spec as a document. Problems have the path `kubernetes` and the line 0."""

    @property
    def key(self) -> Key:
        """Identifies it among the objects of its namespace."""
        return self.kind, self.name

    @property
    def identity(self) -> Identity:
        """Identifies it among all objects of all times: another of its name has another uid."""
        return self.kind, self.name, self.uid

    @property
    def age(self) -> tuple[bool, str, str, str]:
        """Sorts the oldest first. One that does not say when it was made is the youngest."""
        return not self.created, self.created, self.uid, self.name

    @property
    def document(self) -> AnyDocument | None:
        """Its document, None if it has errors."""
        return next(iter(self.parsed.documents), None)

    @property
    def readable(self) -> AnyDocument | None:
        """As much of a document with errors as can be read, None if nothing can."""
        return next(iter(self.parsed.broken), None)


def read_object(raw: Mapping[str, object], parsed: Parsed | None = None) -> ApiObject:
    """
    Return the object that the API server sent as *raw*, JSON that was parsed.

    *parsed* is its document if that was read before, and has not changed since.
    """
    held = _metadata(raw)
    generation = held.get("generation")
    return ApiObject(
        kind=_word(raw.get("kind")),
        name=_word(held.get("name")),
        uid=_word(held.get("uid")),
        generation=generation if type(generation) is int else 0,
        resource_version=_word(held.get("resourceVersion")),
        created=_word(held.get("creationTimestamp")),
        parsed=parsed or _marked(parse_value(PATH, document_in(raw))),
    )


def document_in(raw: Mapping[str, object]) -> Mapping[str, object]:
    """
    Return the document in the object *raw*: all that its author says, and nothing else.

    Of its metadata only the name is part of it: the API server owns the rest, and may add to it.
    Its status is the broker's own word, and says nothing about it.
    """
    held = _metadata(raw)
    document = {field: value for field, value in raw.items() if field != "status"}
    document["metadata"] = {"name": held["name"]} if "name" in held else {}
    return document


def _metadata(raw: Mapping[str, object]) -> Mapping[str, object]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _marked(parsed: Parsed) -> Parsed:
    """Mark JwtIssuers as objects: less is believed of them than of those in files."""
    documents = tuple(
        replace(document, from_kubernetes=True) if isinstance(document, JwtIssuer) else document
        for document in parsed.documents
    )
    return replace(parsed, documents=documents)


def _word(value: object) -> str:
    """Return a short ASCII text, as the API server writes its own; empty if it is anything else."""
    fits = isinstance(value, str) and len(value) <= _WORD_CHARS and value.isascii()
    return str(value) if fits else ""


def problem_of(
    obj: ApiObject, code: Code | str, place: str, message: str, hint: str = ""
) -> Problem:
    """Return an error of *obj* at *place*, which is written as people write it."""
    return Problem(PATH, 0, str(code), Severity.ERROR, message, obj.kind, obj.name, place, hint)
