"""
Turns pydantic's errors into problems with our codes, messages, hints and lines.

`_MESSAGES` is the one table from pydantic's error types to our codes. A type that is not in it is
the code of a check in `documents.schema` or `documents.field_types`, which wrote its own message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from federation.documents import field_types, schema
from federation.documents.codes import Code
from federation.documents.model import field_text
from federation.documents.platforms import unrendered
from federation.documents.resources import RESOURCE
from federation.documents.suggest import resource_hint, variable_hint
from federation.documents.tree import Bare, Fields, Items, Place, Value, is_null
from federation.errors import Problem, Severity
from federation.policy.conditions import PATTERN_CHARS
from federation.text import did_you_mean, listed, printable, quoted

_PLACE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something wrong with the value at *place* of a document."""

    place: Place
    code: Code
    message: str
    hint: str = ""


class Report:
    """Collects the problems of one document, at most `field_types.ERRORS` errors."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.kind = ""
        self.name = ""
        self.problems: list[Problem] = []
        self.errors = 0

    @property
    def full(self) -> bool:
        """Return whether no more errors are collected."""
        return self.errors >= field_types.ERRORS

    def add(self, complaint: Complaint, line: int, severity: Severity = Severity.ERROR) -> None:
        """Add a problem at *line*, unless the report is full."""
        if self.full:
            return
        self.errors += severity is Severity.ERROR
        self.problems.append(
            Problem(
                self.path,
                line,
                complaint.code.value,
                severity,
                complaint.message,
                self.kind,
                self.name,
                printable(field_text(complaint.place), _PLACE_CHARS),
                complaint.hint,
            )
        )

    def add_at(self, complaint: Complaint, root: Fields) -> None:
        """Add a problem at the line of its place in the document *root*."""
        self.add(complaint, _located(root, complaint.place)[1])


def complaints(error: ValidationError, kind: str, root: Fields) -> Iterator[Complaint]:
    """Yield what *error* says about the document *root*, in its order."""
    for details in error.errors(include_url=False):
        location, what = details["loc"], details["type"]
        place, _ = _located(root, location)
        context = details.get("ctx", {})
        if what == "missing":
            place = (*place, location[-1])
        if what == "extra_forbidden":
            code, message, hint = _unknown(kind, place)
        elif what in _MESSAGES:
            code, message, hint = _MESSAGES[what](details["input"], context)
        elif "message" in context:
            code, message, hint = Code(what), context["message"], context["hint"]
        else:  # a type that a later version of pydantic may add
            code, message, hint = Code.BAD_VALUE, printable(details["msg"]), ""
        if code is not Code.BAD_RESOURCE and (filled := _unfilled(details["input"])):
            hint = filled
        yield Complaint(place, code, message, hint)


def _unfilled(value: object) -> str:
    """Return what to do about a template or placeholder in a wrong *value*, empty if none is."""
    text = value.text if isinstance(value, Bare) else value
    found = unrendered(text) if isinstance(text, str) else None
    return f"it {found[0]}; {found[1]}" if found else ""


def _located(root: Fields, location: Place) -> tuple[Place, int]:
    """
    Return as much of *location* as there is in the document *root*, and the line it leads to.

    pydantic adds steps of its own, which lead to nothing: `[key]` where a key is wrong, an index
    where a single value was read as a list.
    """
    place: list[str | int] = []
    line = root.line
    value: Value = root
    for step in location:
        member = _member(value, step)
        if member is None:
            break
        line, value = member
        place.append(step)
    return tuple(place), line


def _member(value: Value, step: str | int) -> tuple[int, Value] | None:
    """Return the line and the value that *step* leads to, None if it leads to nothing."""
    if isinstance(value, Fields) and isinstance(step, str) and step in value:
        return value.lines[step], value[step]
    if isinstance(value, Items) and isinstance(step, int):
        return value.lines[step], value[step]
    return None


_Explained = tuple[Code, str, str]
_Context = Mapping[str, Any]


def _not_a_string(value: object, _context: _Context) -> _Explained:
    if is_null(value):
        return Code.BAD_VALUE, "is null, not a string", "leave it out or write a value"
    if isinstance(value, Bare):
        shown = quoted(value.text)
        message = f"{shown} is {value.sort.value}, not a string"
        return Code.BAD_VALUE, message, f"quote it: {shown}"
    return Code.BAD_VALUE, f"is {field_types.what(value)}, not a string", ""


def _not_a_list(value: object, context: _Context) -> _Explained:
    if is_null(value):
        return _too_short(value, context)
    text = value.text if isinstance(value, Bare) else value
    hint = (listed(text) or f"write [{quoted(text)}]") if isinstance(text, str) else ""
    return Code.BAD_VALUE, f"is {field_types.what(value)}, not a list", hint


def _not_a_map(value: object, _context: _Context) -> _Explained:
    if is_null(value):
        return Code.EMPTY, "is empty", ""
    return Code.BAD_VALUE, f"is {field_types.what(value)}, not a map", ""


def _too_short(value: object, _context: _Context) -> _Explained:
    if isinstance(value, dict):
        return Code.EMPTY, "is empty", ""
    return Code.EMPTY, "is empty; at least one entry is needed", ""


def _too_long(value: Sized, context: _Context) -> _Explained:
    message = f"has {len(value):,} entries; at most {context['max_length']:,}"
    return Code.TOO_LARGE, message, ""


def _long_string(value: str, context: _Context) -> _Explained:
    most = context["max_length"]
    has = "a pattern of" if most == PATTERN_CHARS else "has"
    return Code.TOO_LARGE, f"{has} {len(value):,} characters; at most {most:,}", ""


def _bad_name(name: str) -> _Explained:
    hint = "use lower-case letters, digits, - and ., at most 253, a letter or digit at both ends"
    return Code.BAD_VALUE, f"{quoted(name)} is not a name", hint


def _bad_resource(resource: str) -> _Explained:
    return (
        Code.BAD_RESOURCE,
        f"{quoted(resource)} is not *, <namespace>:* or <namespace>:<function>",
        listed(resource) or variable_hint(resource) or resource_hint(resource),
    )


_PATTERNS: Mapping[str, Callable[[str], _Explained]] = {
    field_types.NAME: _bad_name,
    RESOURCE: _bad_resource,
    field_types.BASE64URL: lambda _text: (Code.BAD_KEY_MATERIAL, "is not base64url", ""),
    field_types.ABSOLUTE_PATH: lambda path: (
        Code.BAD_VALUE,
        f"{quoted(path)} is not an absolute path",
        "begin it with /",
    ),
}
_MESSAGES: Mapping[str, Callable[[Any, _Context], _Explained]] = {
    "dict_type": _not_a_map,
    "missing": lambda _value, _context: (Code.MISSING_FIELD, "is required and missing", ""),
    "string_pattern_mismatch": lambda value, context: _PATTERNS[context["pattern"]](value),
    "string_too_long": _long_string,
    "string_too_short": lambda _value, _context: (Code.BAD_VALUE, "is an empty string", ""),
    "string_type": _not_a_string,
    "too_long": _too_long,
    "too_short": _too_short,
    "list_type": _not_a_list,
}


def _unknown(kind: str, place: Place) -> _Explained:
    """Explain a key that the model has no field for."""
    written = str(place[-1])
    match place[:-1]:
        case (*_, "condition"):
            return _unknown_operator(written)
        case ("metadata",):
            known = schema.Metadata.names()
        case ("spec", "statement", int()):
            known = schema.Statement.names()
        case ("spec", "expect"):
            known = schema.Expect.names()
        case ("spec",):
            known = _spec(kind).names()
        case _:
            known = schema.RuleTest.names()  # the same for every kind
    hint = _home(kind, written) or did_you_mean(written, [one for one in known if one != "status"])
    return Code.UNKNOWN_FIELD, "is not a field here", hint


def _home(kind: str, written: str) -> str:
    """Return where a document has the field *written*, this *kind* first; empty if nowhere."""
    for other in (kind, *schema.MODELS):
        homes = {"metadata": schema.Metadata.names(), "spec": _spec(other).names()}
        if other == "Policy":
            homes["spec.statement"] = schema.Statement.names()
        if other == schema.RULE_TEST:
            homes["spec.expect"] = schema.Expect.names()
        if where := next((home for home, names in homes.items() if written in names), ""):
            return f"it belongs under {where}" + (f" of a {other}" if other != kind else "")
    return ""


def _spec(kind: str) -> type[schema.Written]:
    return schema.RuleTestSpec if kind == schema.RULE_TEST else schema.SPECS[kind]


def _unknown_operator(written: str) -> _Explained:
    if written.startswith("ForAllValues"):
        message = f"{quoted(written)} is not offered: it also holds where the token lacks the claim"
        hint = "write ForAnyValue:StringEqual or ForAnyValue:StringLike"
    else:
        message = f"{quoted(written)} is not an operator"
        hint = did_you_mean(written, schema.OPERATORS)
    return Code.UNKNOWN_OPERATOR, message, hint
