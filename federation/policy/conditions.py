"""
The condition block shared by Roles and Policy statements.

A block is `{operator: {key: [values]}}`: operators are ANDed, keys within an operator are
ANDed, the values of a key are ORed. A claim that the token lacks never satisfies a condition, not
even a negative one. A Deny statement asks the opposite question: whether the claim refutes the
condition. A claim that the token lacks refutes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeGuard, assert_never

from federation.claims import Claims, lookup, pointer, text

KEY_PREFIX = "jwt:"
PATTERN_CHARS = 1024
"""The longest pattern that a document may hold, so that matching stays within milliseconds."""


class Operator(StrEnum):
    """The comparisons of a claim with values. `principal` is that of a Role's principal."""

    PRINCIPAL = "principal"
    STRING_EQUAL = "StringEqual"
    STRING_EQUAL_IGNORE_CASE = "StringEqualIgnoreCase"
    STRING_LIKE = "StringLike"
    STRING_NOT_EQUAL = "StringNotEqual"
    STRING_NOT_LIKE = "StringNotLike"
    ANY_STRING_EQUAL = "ForAnyValue:StringEqual"
    ANY_STRING_LIKE = "ForAnyValue:StringLike"

    exact: bool
    """True if a claim must be equal to a value, byte for byte."""
    negative: bool
    """True if the claim must *not* be among the values."""
    of_list: bool
    """True if the claim must be a list, of which one member matches."""
    pattern: bool
    """True if `*` and `?` in a value are wildcards."""

    def __init__(self, name: str) -> None:
        # Worked out once: the trust rules ask a hundred times for each Role.
        self.exact = name in {"principal", "StringEqual"}
        self.negative = name in {"StringNotEqual", "StringNotLike"}
        self.of_list = name in {"ForAnyValue:StringEqual", "ForAnyValue:StringLike"}
        self.pattern = name in {"StringLike", "StringNotLike", "ForAnyValue:StringLike"}


ALIASES: Mapping[str, Operator] = MappingProxyType(
    {
        "StringEquals": Operator.STRING_EQUAL,
        "StringEqualsIgnoreCase": Operator.STRING_EQUAL_IGNORE_CASE,
        "StringNotEquals": Operator.STRING_NOT_EQUAL,
    }
)

Match = Callable[[str], bool]

_FEW = 8
"""Among so few values a tuple is searched as quickly as a set, which takes 200 bytes and more."""


@dataclass(frozen=True, slots=True)
class Condition:
    """
    One operator applied to one claim. *key* has its `jwt:` prefix.

    A pointer to a top-level claim is read as the claim's name: `jwt:/ref` becomes `jwt:ref`, so
    that no rule about the claim can be passed by in another spelling. The test is compiled once,
    when the documents are loaded, because every token runs it.
    Raises: ValueError if *key* has no prefix, or begins as a JSON Pointer and is none.
    """

    operator: Operator
    key: str
    values: tuple[str, ...]
    like: InitVar[Condition | None] = None
    """Another condition. If it is on the same key, the two share the key and its path."""
    path: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The steps from the claims to the one that *key* names."""
    _wanted: Collection[str] | Match = field(init=False, repr=False, compare=False)
    _test: Callable[..., bool] = field(init=False, repr=False, compare=False)
    """Tells whether a whole claim is as `_wanted`. Conditions share it, as there are thousands."""

    def __post_init__(self, like: Condition | None) -> None:
        if like is not None and like.key == self.key:
            key, path = like.key, like.path
        else:
            path = key_path(self.key)
            key = plain_key(self.key, path)
        test, wanted = _claim_test(self.operator, self.values)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "_wanted", wanted)
        object.__setattr__(self, "_test", test)

    def claim(self, claims: Claims) -> object:
        """The claim that this condition reads, or None if the token lacks it."""
        return claims.get(self.path[0]) if len(self.path) == 1 else lookup(claims, self.path)

    def satisfied(self, claims: Claims) -> bool:
        """Return whether the claim is there and compares as the operator demands."""
        return self._test(self._wanted, self.claim(claims))

    def refuted(self, claims: Claims) -> bool:
        """
        Return whether the claim is there, in the shape that the operator compares, and does not fit.

        An absent claim, or one of the wrong shape, neither satisfies nor refutes a condition.
        """
        value = self.claim(claims)
        comparable = _usable_list if self.operator.of_list else _has_text
        return not self._test(self._wanted, value) and comparable(value)

    def finding(self, claims: Claims) -> Finding:
        """The claim that was read, and whether it satisfies the condition."""
        value = self.claim(claims)
        return Finding(self, value, self._test(self._wanted, value))

    def accepts(self, value: str) -> bool:
        """Return whether a claim of this one text would satisfy the condition."""
        return self._test(self._wanted, [value] if self.operator.of_list else value)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one condition for one token: the evidence for every "why"."""

    condition: Condition
    claim: object
    holds: bool


def holds(conditions: Iterable[Condition], claims: Claims) -> bool:
    """Return whether *claims* satisfy every condition."""
    return all(condition.satisfied(claims) for condition in conditions)


def holds_unless_refuted(conditions: Iterable[Condition], claims: Claims) -> bool:
    """
    Return whether *claims* refute no condition. This is the rule for Deny statements.

    A Deny must not be avoided by a token that lacks the claim. Jobs can often choose what their
    token lacks: GitHub and GitLab send no `environment` if a job names none.
    """
    return not any(condition.refuted(claims) for condition in conditions)


def findings(conditions: Iterable[Condition], claims: Claims) -> tuple[Finding, ...]:
    """Each condition with the claim it read and whether it holds."""
    return tuple([condition.finding(claims) for condition in conditions])


def keys(*claims: str) -> frozenset[str]:
    """The condition keys of top-level *claims*."""
    return frozenset(KEY_PREFIX + claim for claim in claims)


def key_path(key: str) -> tuple[str, ...]:
    """
    The path of a condition key: `jwt:<claim>` is a top-level claim, `jwt:/a/b` one further in.

    A claim's name may itself hold `:`, `/` or `#`; only a leading `/` makes a pointer.
    """
    if not key.startswith(KEY_PREFIX) or key == KEY_PREFIX:
        raise ValueError(key)
    name = key.removeprefix(KEY_PREFIX)
    return pointer(name) if name.startswith("/") else (name,)


def plain_key(key: str, path: tuple[str, ...]) -> str:
    """
    The usual form of *key*, which has this *path*: `jwt:/ref` is `jwt:ref`.

    A claim has one form, so no rule about the claim can be passed by in another spelling.
    """
    plain = len(path) == 1 and path[0] and not path[0].startswith("/")
    return KEY_PREFIX + path[0] if plain else key


_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def ascii_lower(value: str) -> str:
    """
    *value* with A to Z lowered and every other character as it is.

    `str.lower` would make `k` of U+212A (the Kelvin sign), so that a name from another alphabet
    would pass for an ASCII one.
    """
    lowered = value.lower() if value.isascii() else value.translate(_ASCII_LOWER)
    return value if lowered == value else lowered  # the index keeps thousands of these


def compile_pattern(pattern: str) -> Match:
    """
    A function that tells whether a whole value matches *pattern*.

    `*` stands for any run of characters, `?` for exactly one, and all else for itself. The
    pattern is cut at its stars. The first piece must begin the value, the last must end it, and
    each piece in between is found at its leftmost place after the one before. That choice never
    has to be undone, so the time is at worst linear in pattern times value. A regular expression
    with several `.*` could take exponential time on a hostile claim.
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
    """A function that compares a whole value with *piece*, in which `?` is any one character."""
    if "?" not in piece:
        return piece.__eq__
    return lambda value: (
        len(value) == len(piece)
        and all(want in {"?", got} for want, got in zip(piece, value, strict=True))
    )


def _finder(piece: str) -> Callable[[str, int, int], int]:
    """A function that returns where the leftmost *piece* in `value[start:stop]` ends, or -1."""
    if "?" not in piece:

        def find(value: str, start: int, stop: int) -> int:
            place = value.find(piece, start, stop)
            return place if place < 0 else place + len(piece)

        return find

    # Only literals and single-character dots: this cannot backtrack beyond one piece.
    expression = re.compile(re.escape(piece).replace(r"\?", "."), re.DOTALL)

    def search(value: str, start: int, stop: int) -> int:
        found = expression.search(value, start, stop)
        return found.end() if found else -1

    return search


def _claim_test(
    operator: Operator, values: tuple[str, ...]
) -> tuple[Callable[..., bool], Collection[str] | Match]:
    """The function that tests a whole claim as *operator* demands, and what it compares it with."""
    if operator.exact:
        return _among, values if len(values) <= _FEW else frozenset(values)
    if operator is Operator.STRING_LIKE and all(map(_is_beginning, values)):
        return _begins, tuple([value.removesuffix("*") for value in values])
    matches = _matcher(operator, values)
    if operator.of_list:
        return _any_member, matches
    return _other_text if operator.negative else _text, matches


def _is_beginning(pattern: str) -> bool:
    """True if *pattern* is text and one star at its end, as most patterns are."""
    return pattern.endswith("*") and not re.search(r"[*?]", pattern[:-1])


def _among(wanted: Collection[str], claim: object) -> bool:
    return text(claim) in wanted


def _begins(wanted: tuple[str, ...], claim: object) -> bool:
    value = text(claim)
    return value is not None and value.startswith(wanted)


def _text(matches: Match, claim: object) -> bool:
    value = text(claim)
    return value is not None and matches(value)


def _other_text(matches: Match, claim: object) -> bool:
    value = text(claim)
    # `StringNotEqual` must not admit a token because it lacks the claim.
    return value is not None and not matches(value)


def _any_member(matches: Match, claim: object) -> bool:
    return isinstance(claim, list) and any(map(matches, filter(_is_member, claim)))


def _is_member(item: object) -> TypeGuard[str]:
    """True if an item of a list can be compared."""
    return isinstance(item, str) and item != ""


def _has_text(claim: object) -> bool:
    return text(claim) is not None


def _usable_list(claim: object) -> bool:
    return isinstance(claim, list) and any(map(_is_member, claim))


def _matcher(operator: Operator, values: tuple[str, ...]) -> Match:
    """A function that finds a text among *values*. The caller applies a negation."""
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
