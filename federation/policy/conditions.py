"""
The condition block shared by Roles and Policy statements.

A block is `{operator: {key: [values]}}`: operators are ANDed, keys within an operator are
ANDed, the values of a key are ORed. A claim that the token lacks never matches, not even a
negative operator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import assert_never

from federation.claims import Claims, lookup, pointer, text

__all__ = [
    "ALIASES",
    "KEY_PREFIX",
    "PATTERN_CHARS",
    "Condition",
    "Finding",
    "Match",
    "Operator",
    "ascii_lower",
    "compile_pattern",
    "findings",
    "holds",
]

KEY_PREFIX = "jwt:"
PATTERN_CHARS = 1024
"""The longest pattern that a document may hold, so that matching stays within milliseconds."""


class Operator(StrEnum):
    """How a claim is compared. `principal` is what a Role's principal shows as."""

    PRINCIPAL = "principal"
    STRING_EQUAL = "StringEqual"
    STRING_EQUAL_IGNORE_CASE = "StringEqualIgnoreCase"
    STRING_LIKE = "StringLike"
    STRING_NOT_EQUAL = "StringNotEqual"
    STRING_NOT_LIKE = "StringNotLike"
    ANY_STRING_EQUAL = "ForAnyValue:StringEqual"
    ANY_STRING_LIKE = "ForAnyValue:StringLike"

    @property
    def exact(self) -> bool:
        """Whether a value stands for itself alone."""
        return self in _EXACT

    @property
    def negative(self) -> bool:
        """Whether it holds for what is *not* among the values."""
        return self in _NEGATIVE

    @property
    def of_list(self) -> bool:
        """Whether it reads a claim that is a list."""
        return self in _OF_LIST

    @property
    def pattern(self) -> bool:
        """Whether `*` and `?` in a value are wildcards."""
        return self in _PATTERN


_EXACT = frozenset({Operator.PRINCIPAL, Operator.STRING_EQUAL})
_NEGATIVE = frozenset({Operator.STRING_NOT_EQUAL, Operator.STRING_NOT_LIKE})
_OF_LIST = frozenset({Operator.ANY_STRING_EQUAL, Operator.ANY_STRING_LIKE})
_PATTERN = frozenset({Operator.STRING_LIKE, Operator.STRING_NOT_LIKE, Operator.ANY_STRING_LIKE})


ALIASES: Mapping[str, Operator] = MappingProxyType(
    {
        "StringEquals": Operator.STRING_EQUAL,
        "StringEqualsIgnoreCase": Operator.STRING_EQUAL_IGNORE_CASE,
        "StringNotEquals": Operator.STRING_NOT_EQUAL,
    }
)

Match = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Condition:
    """
    One operator applied to one claim. *key* has its `jwt:` prefix.

    Raises: ValueError where *key* has no prefix, or is not a JSON Pointer where it begins so.
    """

    operator: Operator
    key: str
    values: tuple[str, ...]
    path: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _matches: Match = field(init=False, repr=False, compare=False)
    _of_list: bool = field(init=False, repr=False, compare=False)
    _negative: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", key_path(self.key))
        object.__setattr__(self, "_matches", _matcher(self.operator, self.values))
        # An operator's own answers are looked up in sets, which is much for so small a question.
        object.__setattr__(self, "_of_list", self.operator.of_list)
        object.__setattr__(self, "_negative", self.operator.negative)

    def claim(self, claims: Claims) -> object:
        """The claim that this condition reads, None where the token lacks it."""
        return claims.get(self.path[0]) if len(self.path) == 1 else lookup(claims, self.path)

    def satisfied(self, claims: Claims) -> bool:
        """Whether the claim is present and compares as the operator asks."""
        return self._satisfied_by(self.claim(claims))

    def finding(self, claims: Claims) -> Finding:
        """The claim with whether it satisfies the condition."""
        value = self.claim(claims)
        return Finding(self, value, self._satisfied_by(value))

    def accepts(self, value: str) -> bool:
        """Whether a claim of this one text would satisfy the condition."""
        return value != "" and self._matches(value) != self._negative

    def _satisfied_by(self, value: object) -> bool:
        if self._of_list:
            return isinstance(value, list) and any(
                isinstance(item, str) and item != "" and self._matches(item) for item in value
            )
        present = text(value)
        return present is not None and self._matches(present) != self._negative


@dataclass(frozen=True, slots=True)
class Finding:
    """What one condition found in one token: the evidence for every "why"."""

    condition: Condition
    claim: object
    holds: bool


def holds(conditions: Iterable[Condition], claims: Claims) -> bool:
    """Whether every condition is satisfied by *claims*."""
    return all(condition.satisfied(claims) for condition in conditions)


def findings(conditions: Iterable[Condition], claims: Claims) -> tuple[Finding, ...]:
    """Each condition with the claim it read and whether it holds."""
    return tuple([condition.finding(claims) for condition in conditions])


def key_path(key: str) -> tuple[str, ...]:
    """
    Where a condition key points: `jwt:<claim>` to a top-level claim, `jwt:/a/b` further in.

    A claim's name may itself hold `:`, `/` or `#`; only a leading `/` makes a pointer.
    """
    if not key.startswith(KEY_PREFIX) or key == KEY_PREFIX:
        raise ValueError(key)
    name = key.removeprefix(KEY_PREFIX)
    return pointer(name) if name.startswith("/") else (name,)


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(value: str) -> str:
    """*value* with A to Z lowered and every other character as it is (U+017F and U+212A included)."""
    return value.translate(_ASCII_LOWER)


def compile_pattern(pattern: str) -> Match:
    """
    Whether a whole value matches *pattern*: `*` any run, `?` exactly one, all else literal.

    The pattern is cut at its stars. The first piece must begin the value, the last must end
    it, and each in between is taken at its leftmost place after the one before; that choice
    never needs to be undone, so the time is at worst linear in pattern times value.
    """
    first, *rest = re.sub(r"\*+", "*", pattern).split("*")
    if not rest:
        return _anchored(first)
    *middle, last = rest
    begins, ends = _anchored(first), _anchored(last)
    finders = tuple(_finder(piece) for piece in middle)
    at_least = len(first) + len(last) + sum(map(len, middle))

    def matches(value: str) -> bool:
        stop = len(value) - len(last)
        if len(value) < at_least or not begins(value[: len(first)]) or not ends(value[stop:]):
            return False
        place = len(first)
        for find in finders:
            place = find(value, place, stop)
            if place < 0:
                return False
        return True

    return matches


def _anchored(piece: str) -> Match:
    """Whether a value of the same length is *piece*, `?` standing for any one character."""
    if "?" not in piece:
        return piece.__eq__
    return lambda value: (
        len(value) == len(piece)
        and all(want in {"?", got} for want, got in zip(piece, value, strict=True))
    )


def _finder(piece: str) -> Callable[[str, int, int], int]:
    """Where the leftmost *piece* within `value[start:stop]` ends, or -1."""
    if "?" not in piece:

        def find(value: str, start: int, stop: int) -> int:
            place = value.find(piece, start, stop)
            return place if place < 0 else place + len(piece)

        return find

    # Only literals and single-character dots: nothing here can backtrack beyond one piece.
    expression = re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL)

    def search(value: str, start: int, stop: int) -> int:
        found = expression.search(value, start, stop)
        return found.end() if found else -1

    return search


def _matcher(operator: Operator, values: tuple[str, ...]) -> Match:
    """Whether a text equals, or is like, one of *values*; negation is left to the caller."""
    match operator:
        case (
            Operator.PRINCIPAL
            | Operator.STRING_EQUAL
            | Operator.STRING_NOT_EQUAL
            | Operator.ANY_STRING_EQUAL
        ):
            return frozenset(values).__contains__
        case Operator.STRING_EQUAL_IGNORE_CASE:
            lowered = frozenset(map(ascii_lower, values))
            return lambda value: ascii_lower(value) in lowered
        case Operator.STRING_LIKE | Operator.STRING_NOT_LIKE | Operator.ANY_STRING_LIKE:
            patterns = tuple(map(compile_pattern, values))
            if len(patterns) == 1:
                return patterns[0]
            return lambda value: any(matches(value) for matches in patterns)
        case _:
            assert_never(operator)
