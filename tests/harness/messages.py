"""
Every message that a user can meet, collected from the code itself.

A message is the text of an error that leaves the program: the first argument of each call of an
error class that users see, wherever in `federation/` it is made. Parts that are filled in at run
time are `…`. A class is one that users see if it inherits from `ClientError` or `HttpError`, or is
in `ERRORS`. So a new message is found without being listed anywhere.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "federation"
ANY = "…"
"""Stands for what is filled in when a message is made."""

ROOTS = {"ClientError", "HttpError", "BrokerError"}
"""Errors whose subclasses are shown as well."""
ERRORS = {
    *("ClickException", "UsageError", "BadParameter"),
    *("SettingsRefused", "OutboundError", "NotTrusted", "Unusable"),
    *("FetchFailed", "NotDelivered", "NoWorkerLeft", "_NotSignedIn", "Ended"),
    *("KubeconfigRefused", "AccessUnreadable", "Trouble"),
}
"""Errors beside them that end in front of a user, in a log or in `/readyz`."""
VALUE_ERRORS = ("config", "ownership")
"""Rooms whose `ValueError` is a problem of a setting."""
SENTENCES = ("issuers/answers", "outbound/failures", "jose/mistakes")
"""Modules that make nothing but sentences: each is a message, or the part of one."""
_MADE_ELSEWHERE = {
    "Refusal",  # docs/refusals.md, by reason
    "SignInAgain",
}
_SHORTEST = 4


class Message(NamedTuple):
    """A text, and where in the code it is made."""

    text: str
    place: str


def messages() -> list[Message]:
    """Return every message of `federation/`, each text once, in the order of the code."""
    trees = {
        str(path.relative_to(PACKAGE).with_suffix("")): ast.parse(path.read_text("utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    shown = _shown_classes(trees.values()) | ERRORS
    found: dict[str, Message] = {}
    for name, tree in trees.items():
        calls = shown | ({"ValueError"} if name.partition("/")[0] in VALUE_ERRORS else set())
        texts = _sentences(tree) if name in SENTENCES else _of_calls(tree, calls)
        for text, line in texts:
            for one in text.split("\n"):
                if len(one.replace(ANY, "").strip(" .:,;()")) >= _SHORTEST:
                    found.setdefault(one, Message(one, f"{name}.py:{line}"))
    return list(found.values())


def _shown_classes(trees: Iterable[ast.Module]) -> set[str]:
    """The names of all classes below `ROOTS`, whose constructors take a text."""
    bases: dict[str, list[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, []).extend(_name(base) for base in node.bases)
    shown = set(ROOTS)
    while more := {n for n, of in bases.items() if n not in shown and shown & set(of)}:
        shown |= more
    return shown - _MADE_ELSEWHERE


def _of_calls(tree: ast.Module, shown: set[str]) -> Iterator[tuple[str, int]]:
    """The first argument of each call of a class in *shown*, and of `super().__init__` in one."""
    named = dict(_assigned(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) in shown and node.args:
            for text in _texts(node.args[0], named):
                yield text, node.lineno
        if isinstance(node, ast.ClassDef) and node.name in shown:
            for text in _of_constructor(node, named):
                yield text, node.lineno


def _of_constructor(defined: ast.ClassDef, named: Mapping[str, list[str]]) -> Iterator[str]:
    for node in ast.walk(defined):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "__init__"
            and node.args
        ):
            yield from _texts(node.args[0], named)


def _assigned(tree: ast.Module) -> Iterator[tuple[str, list[str]]]:
    """Each name of a module with the texts that it is given anywhere in it."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).extend(_texts(node.value, {}))
    yield from found.items()


def _texts(node: ast.expr, named: Mapping[str, list[str]]) -> list[str]:  # noqa: PLR0911  kinds of nodes
    """The texts that *node* may be, with `…` for what is filled in; none if that is all."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=values):
            parts = [v.value if isinstance(v, ast.Constant) else ANY for v in values]
            return ["".join(map(str, parts))]
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            lefts, rights = _texts(left, named) or [ANY], _texts(right, named) or [ANY]
            return [a + b for a in lefts for b in rights]
        case ast.IfExp(body=body, orelse=orelse):
            return _texts(body, named) + _texts(orelse, named)
        case ast.BoolOp(values=values):
            return [text for value in values for text in _texts(value, named)]
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [text for element in elements for text in _texts(element, named)]
        case ast.Name(id=name):
            return named.get(name, [])
    return []


def _sentences(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The texts of a module with a space within, its docstrings aside."""
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr) and id(node) not in docs | inner:
            for text in _texts(node, {}):
                if " " in text.strip() and text[:1] not in "([\\":
                    yield text, node.lineno


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
