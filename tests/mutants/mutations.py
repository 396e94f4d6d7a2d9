"""
The mutants of a module: copies of its source, each with one small change that may be a bug.

A change replaces the source of one syntax node, so every other character stays as it was. Type
annotations, decorators, docstrings and the inside of f-strings are not changed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change."""

    line: int
    where: str
    """The dotted name of the function or class that holds the change, `""` for none."""
    original: str
    """The changed lines as they were, with runs of blanks as one space."""
    mutated: str
    source: str
    """The whole module with the change."""


def mutants(source: str) -> list[Mutant]:
    """Every mutant of *source* that is a valid program, in the order of its lines."""
    text = _Text(source)
    found: dict[str, Mutant] = {}
    for where, node, replacement in _changes(ast.parse(source), ""):
        mutant = text.with_change(where, node, replacement)
        if mutant.source != source and _compiles(mutant.source):
            found.setdefault(mutant.source, mutant)
    return sorted(found.values(), key=lambda mutant: mutant.line)


_Place = ast.expr | ast.stmt | ast.pattern
_Change = tuple[_Place, str]


class _Text:
    """A module's source, addressed as `ast` does: by lines, and by bytes within a line."""

    def __init__(self, source: str) -> None:
        self._raw = source.encode()
        self._starts = [0]
        for line in self._raw.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def with_change(self, where: str, node: _Place, replacement: str) -> Mutant:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        first, last = self._starts[node.lineno - 1], self._starts[node.end_lineno]
        start = first + node.col_offset
        stop = self._starts[node.end_lineno - 1] + node.end_col_offset
        new = self._raw[first:start] + replacement.encode() + self._raw[stop:last]
        source = self._raw[:first] + new + self._raw[last:]
        original = _one_line(self._raw[first:last])
        return Mutant(node.lineno, where, original, _one_line(new), source.decode())


def _one_line(raw: bytes) -> str:
    return " ".join(raw.decode().split())


def _compiles(source: str) -> bool:
    try:
        compile(source, "<mutant>", "exec")
    except SyntaxError:
        return False
    return True


def _changes(node: ast.AST, where: str) -> Iterator[tuple[str, _Place, str]]:
    """Every change within *node*: the place that changes and its new source."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        where = f"{where}.{node.name}".lstrip(".")
    for of_kind in _OPERATORS:
        for place, replacement in of_kind(node):
            yield where, place, replacement
    for child in _children(node):
        yield from _changes(child, where)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of *node* that may change: no annotation, decorator, docstring or type."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            yield from (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body)
        case ast.ClassDef():
            yield from node.body
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")) | ast.JoinedStr():
            return
        case ast.AnnAssign():
            yield from filter(None, [node.value])
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Subscript(value=ast.Name(id=name)) if _is_type(name):
            return  # such as Callable[[str], bool]
        case ast.Call(func=ast.Name(id="TypeVar" | "NewType" | "cast" | "assert_never")):
            return
        case ast.keyword(arg="strict"):
            return  # of zip, where it only guards against our own mistakes
        case (
            ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Assign(targets=[ast.Name(id="__all__")])
        ):
            return  # which only type checkers read
        case ast.Set(elts=elements) | ast.Tuple(elts=[_, _, _, *_] as elements):
            # Each constant is left out. To change it would do the same once more.
            yield from (each for each in elements if not isinstance(each, ast.Constant))
        case _:
            yield from ast.iter_child_nodes(node)


def _is_type(name: str) -> bool:
    named = name[:1].isupper() and not name.isupper()
    return named or name in {"dict", "frozenset", "list", "set", "tuple", "type"}


# -- the kinds of change

_COMPARISONS: dict[type[ast.cmpop], tuple[str, ...]] = {
    ast.Lt: ("<=", ">="),
    ast.LtE: ("<", ">"),
    ast.Gt: (">=", "<="),
    ast.GtE: (">", "<"),
    ast.Eq: ("!=",),
    ast.NotEq: ("==",),
    ast.Is: ("is not",),
    ast.IsNot: ("is",),
    ast.In: ("not in",),
    ast.NotIn: ("in",),
}
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.Div: "*",
    ast.Mod: "//",
    ast.BitOr: "&",
    ast.BitAnd: "|",
}
_NAMES = {
    "all": "any",
    "any": "all",
    "min": "max",
    "max": "min",
    "startswith": "endswith",
    "endswith": "startswith",
    "removeprefix": "removesuffix",
    "removesuffix": "removeprefix",
    "partition": "rpartition",
    "rpartition": "partition",
    "rstrip": "lstrip",
    "lstrip": "rstrip",
    "fullmatch": "match",
    "match": "search",
    "find": "rfind",
}


def _conditions(node: ast.AST) -> Iterator[_Change]:
    """Comparisons at and beyond the boundary; `and`, `or`, `not`; each operand left out."""
    match node:
        case ast.Compare(left=left, ops=operators, comparators=operands):
            for place, operator in enumerate(operators):
                for other in _COMPARISONS[type(operator)]:
                    signs = [_sign(each) for each in operators]
                    signs[place] = other
                    pairs = zip(signs, operands, strict=True)
                    text = " ".join(f"{sign} {_source(operand)}" for sign, operand in pairs)
                    yield node, f"{_source(left)} {text}"
        case ast.BoolOp(op=operator, values=operands):
            word, other = ("and", "or") if isinstance(operator, ast.And) else ("or", "and")
            yield node, f"({f' {other} '.join(map(_source, operands))})"
            for rest in _each_left_out(operands):
                yield node, f"({f' {word} '.join(map(_source, rest))})"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield node, _source(operand)
        case ast.IfExp(body=body, orelse=orelse):
            yield node, _source(body)
            yield node, _source(orelse)
        case ast.comprehension(ifs=tests):
            yield from ((test, "True") for test in tests)
        case ast.match_case(guard=ast.expr() as guard):
            yield guard, "True"
        case ast.MatchOr(patterns=patterns):
            for kept in _each_left_out(patterns):
                yield node, " | ".join(map(ast.unparse, kept))


def _branches(node: ast.AST) -> Iterator[_Change]:
    """Conditions of `if` turned round or never true; statements left out."""
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
        case ast.If(test=test, body=[*_, last]):
            if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                yield test, f"not {_source(test)}"
            if isinstance(last, ast.Raise | ast.Return | ast.Continue | ast.Break):
                yield test, "False"
        case ast.Raise() | ast.AugAssign():
            yield node, "pass"
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))):
            return
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom() | ast.Await()):
            yield node, "pass"
        case ast.Assign(targets=[ast.Subscript() | ast.Attribute()]):
            yield node, "pass"
        case ast.Continue():
            yield node, "break"
        case ast.Break():
            yield node, "continue"


def _values(node: ast.AST) -> Iterator[_Change]:
    """Other constants, an arithmetic of its own, a slice without an end."""
    match node:
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, f"({value + 1})"
            yield node, f"({value - 1})"
        case ast.Constant(value=str(value) | bytes(value)):
            yield node, repr(type(value)()) if value else repr("x" if value == "" else b"x")
        case ast.JoinedStr():
            yield node, "''"
        case ast.BinOp(op=operator, left=left, right=right) if type(operator) in _ARITHMETIC:
            yield node, f"({_source(left)} {_ARITHMETIC[type(operator)]} {_source(right)})"
            if isinstance(operator, ast.BitOr | ast.BitAnd):
                yield from ((node, _source(left)), (node, _source(right)))
        case ast.Slice(lower=lower, upper=upper):
            yield from ((end, "None") for end in (lower, upper) if end is not None)


def _calls(node: ast.AST) -> Iterator[_Change]:
    """The opposite function, and lists of words without one of them."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=[_, *_]) if name in _NAMES:
            yield node.func, _NAMES[name]
        case ast.Call(func=ast.Attribute(value=owner, attr=name) as method) if name in _NAMES:
            yield method, f"{_source(owner)}.{_NAMES[name]}"
        case ast.Call(func=ast.Attribute(value=ast.Constant() as words, attr="split"), args=[]):
            if isinstance(words.value, str):
                for texts in _each_left_out(words.value.split()):
                    yield words, repr(" ".join(texts))
            elif isinstance(words.value, bytes):
                for raws in _each_left_out(words.value.split()):
                    yield words, repr(b" ".join(raws))


def _collections(node: ast.AST) -> Iterator[_Change]:
    """Literal collections without one of their elements."""
    match node:
        case ast.Tuple(elts=elements, ctx=ast.Load()) if elements:
            for kept in _each_left_out(elements):
                yield node, f"({''.join(f'{_source(element)}, ' for element in kept)})"
        case ast.List(elts=elements, ctx=ast.Load()):
            for kept in _each_left_out(elements):
                yield node, f"[{', '.join(map(_source, kept))}]"
        case ast.Set(elts=elements):
            for kept in _each_left_out(elements):
                yield node, f"{{{', '.join(map(_source, kept))}}}" if kept else "set()"
        case ast.Dict(keys=keys, values=values):
            items = [
                f"{_source(key)}: {_source(value)}" if key else f"**{_source(value)}"
                for key, value in zip(keys, values, strict=True)
            ]
            for items_kept in _each_left_out(items):
                yield node, f"{{{', '.join(items_kept)}}}"


_REGEX_CHANGES = (
    (re.compile(r"\\[AZ]|\^|\$"), ""),  # an anchor left out
    (re.compile(r"\\\."), "."),  # a dot that is any character
    (re.compile(r"(?<=[\])\w.])\+"), "*"),
    (re.compile(r"(?<=[\])\w.])\*"), "+"),
    (re.compile(r"(?<=[\])\w.])\?"), ""),
    (re.compile(r"\[\^"), "["),
)
_ALTERNATIVE = re.compile(r"(?:(?<=[(|])|^)((?:\\.|\[[^\]]*\]|[^()|\\\[])+)(?:\||$|(?=\)))")


def _regular_expressions(node: ast.AST) -> Iterator[_Change]:
    """Looser expressions, and expressions without one of their alternatives."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="re")),
            args=[ast.Constant(value=str() | bytes() as value) as place, *_],
        ):
            text = value if isinstance(value, str) else value.decode("latin-1")
            for changed in _regex_changes(text):
                mutated = changed if isinstance(value, str) else changed.encode("latin-1")
                if _is_regex(mutated):
                    yield place, repr(mutated)


def _regex_changes(text: str) -> Iterator[str]:
    for part, other in _REGEX_CHANGES:
        for found in part.finditer(text):
            yield text[: found.start()] + other + text[found.end() :]
    if "|" in text:
        for found in _ALTERNATIVE.finditer(text):
            yield text[: found.start()] + text[found.end() :]


def _is_regex(expression: str | bytes) -> bool:
    try:
        re.compile(expression)
    except re.error:
        return False
    return True


_OPERATORS: tuple[Callable[[ast.AST], Iterable[_Change]], ...] = (
    _conditions,
    _branches,
    _values,
    _calls,
    _collections,
    _regular_expressions,
)


def _source(node: ast.expr) -> str:
    """The source of *node*, in brackets unless it is one word or a call."""
    text = ast.unparse(node)
    simple = ast.Constant | ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Starred
    closed = ast.List | ast.Set | ast.Dict | ast.JoinedStr
    return text if isinstance(node, simple | closed) else f"({text})"


def _sign(operator: ast.cmpop) -> str:
    return ast.unparse(ast.Compare(ast.Name("a"), [operator], [ast.Name("b")]))[2:-2]


_Item = TypeVar("_Item")


def _each_left_out(items: list[_Item]) -> Iterator[list[_Item]]:
    for place in range(len(items)):
        yield items[:place] + items[place + 1 :]
