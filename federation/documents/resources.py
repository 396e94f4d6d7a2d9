"""
Resources of statements: patterns of functions, in which claims of the access token may stand.

A variable, `${jwt:<claim>}`, stands for the text of that claim. Callers can often choose what a
claim says, so a value is never read as a pattern or as another variable, and it counts only if a
namespace or a function could be called so. With any other value, an Allow matches nothing, and a
Deny matches as if `*` stood in place of the half.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias

from federation.claims import Claims, is_copied, lookup, text
from federation.policy.conditions import (
    Match,
    ascii_lower,
    compile_pattern,
    key_path,
    plain_key,
)

_CLAIM = r"[^/${}\x00-\x1f\x7f][^${}\x00-\x1f\x7f]*|(/([^/~${}\x00-\x1f\x7f]|~[01])*)+"
_HALF = r"([-a-zA-Z0-9_.*]|\$\{jwt:(" + _CLAIM + r")\})+"
RESOURCE = rf"^(\*|{_HALF}:{_HALF})$"
"""The form of a resource. Python, an API server and editors read it alike."""
_WHOLE = re.compile(RESOURCE.removeprefix("^").removesuffix("$"))
_PLAIN = re.compile(r"\*|[-a-zA-Z0-9_.*]+:[-a-zA-Z0-9_.*]+")
_PIECE = re.compile(r"\$\{([^}]*)\}|([^:$]+)|:")

_VALUE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
"""The values that count: RFC 1123 labels, as namespaces and functions have."""

_ALWAYS_LISTS = frozenset({"role", "policy", "fed:deny_only"})
_OF_EACH_TOKEN = frozenset({"iat", "nbf", "exp", "jti", "fed:jti"})


@dataclass(frozen=True, slots=True)
class Variable:
    """A claim of the access token that stands in a resource."""

    written: str
    """As in the document: `${jwt:<claim>}`."""
    key: str = field(init=False)
    """The claim as a condition names it. Two ways to write one claim have the same key."""
    path: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = self.written[2:-1]
        path = key_path(key)
        object.__setattr__(self, "key", plain_key(key, path))
        object.__setattr__(self, "path", path)

    def claim(self, claims: Claims) -> object:
        """Return the claim itself, None if the token lacks it."""
        return claims.get(self.path[0]) if len(self.path) == 1 else lookup(claims, self.path)

    def value(self, claims: Claims) -> str | None:
        """Return the text that stands in the resource, None if there is none that counts."""
        return usable(text(self.claim(claims)))

    @property
    def copied(self) -> bool:
        """True if the access token has the claim as the subject token has it."""
        return is_copied(self.path[0])

    @property
    def possible(self) -> bool:
        """
        True unless no access token has a value here that counts.

        Its `iss` and `aud` are URLs, its `sub` begins `fed:`, and the claims that belong to one
        sign-in are not copied.
        """
        if self.path[0] in _ALWAYS_LISTS:
            return len(self.path) == 2
        return self.copied or (self.path[0] in _OF_EACH_TOKEN and len(self.path) == 1)


def usable(value: str | None) -> str | None:
    """Return *value* if a namespace or a function could be called so, else None."""
    return value if value is not None and _VALUE.fullmatch(value) else None


Piece: TypeAlias = str | Variable
"""A part of a half: text with wildcards, or a variable."""
Pieces: TypeAlias = tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Resource:
    """
    A pattern of functions: `*`, `<namespace>:*` or `<namespace>:<function>`.

    `*` and variables may also be part of either half. A half matches a whole name, never a
    substring. The patterns have `*` for each variable. What the resource matches for a token, its
    `filled` form tells.
    Raises: ValueError if *text* has another form.
    """

    text: str
    pieces: tuple[Pieces, ...] = field(init=False, repr=False, compare=False)
    """The parts of the namespace and of the name. Empty without variables, as most resources are."""
    variables: tuple[Variable, ...] = field(init=False, repr=False, compare=False)
    halves: tuple[str, str] = field(init=False, repr=False, compare=False)
    """The patterns of the namespace and of the name."""
    _namespace: Match = field(init=False, repr=False, compare=False)
    _name: Match = field(init=False, repr=False, compare=False)
    _lowered: tuple[Match, Match] = field(init=False, repr=False, compare=False)
    """The patterns without regard to case; they match texts in lower case."""

    def __post_init__(self) -> None:
        pieces = () if _PLAIN.fullmatch(self.text) else _pieces(self.text)
        found = [piece for piece in chain(*pieces) if isinstance(piece, Variable)]
        widest = ":".join(map(_widest, pieces)) if pieces else self.text
        namespace, _, name = ("*", ":", "*") if widest == "*" else widest.partition(":")
        object.__setattr__(self, "pieces", pieces)
        object.__setattr__(self, "variables", tuple(dict.fromkeys(found)) if found else ())
        object.__setattr__(self, "halves", (namespace, name))
        object.__setattr__(self, "_namespace", compile_pattern(namespace))
        object.__setattr__(self, "_name", compile_pattern(name))
        lowered = ascii_lower(namespace), ascii_lower(name)
        same = lowered == self.halves
        matches = (self._namespace, self._name) if same else tuple(map(compile_pattern, lowered))
        object.__setattr__(self, "_lowered", matches)

    def covers(self, namespace: str, name: str) -> bool:
        """
        Return whether the pattern matches `<namespace>:<name>`.

        A request for a whole namespace has the name `*`, one for the whole cluster has the
        namespace `*`. Only a pattern with a wildcard there matches them.
        """
        return self._namespace(namespace) and self._name(name)

    def may_reach_into(self, namespace: str) -> bool:
        """Return whether the pattern may match something in *namespace*, if case does not count."""
        return self._lowered[0](ascii_lower(namespace))

    def covers_call(self, namespace: str, name: str) -> bool:
        """
        Return whether the pattern matches the function that a call of `<name>.<namespace>` reaches.

        DNS ignores case. With `covers`, a call of `VAULT` would pass by a Deny on `vault`.
        """
        of_namespace, of_name = self._lowered
        return of_namespace(ascii_lower(namespace)) and of_name(ascii_lower(name))

    def filled(self, claims: Claims, *, taking: bool) -> Resource | None:
        """
        Return the resource with the values of *claims* in place of its variables.

        None means that it matches nothing. Where it takes away, half of it without a value that
        counts becomes `*`: a token must not avoid a Deny by what it lacks.
        """
        if not self.variables:
            return self
        filled = [_filled(half, claims) for half in self.pieces]
        if not taking and None in filled:
            return None
        return Resource(":".join("*" if half is None else half for half in filled))

    def reaches(self, claims: Claims, *asked: str, taking: bool, call: bool) -> bool:
        """
        Return whether the resource covers the two halves *asked* for a token with *claims*.

        It asks only about halves with variables. The caller knows that `at_most` covers the rest,
        as `covers` has it, or for a *call*, `covers_call`.
        """
        for half, name in zip(self.pieces, asked, strict=True):
            if not _is_filled(half):
                continue
            pattern = _filled(half, claims)
            if pattern is None:
                if taking:
                    continue
                return False
            if not _matches(pattern, name, call=call):
                return False
        return True

    def at_most(self, *, taking: bool) -> Resource:
        """Return a resource whose patterns match all that this one can match for any token."""
        if not self.variables or not taking:
            return self
        # `team-${jwt:x}` takes away more than `team-*` if the claim is absent.
        return Resource(
            ":".join("*" if _is_filled(half) else _written(half) for half in self.pieces)
        )

    def without(self, claims: Set[str], *, taking: bool) -> Resource | None:
        """Return the resource for tokens that lack the top-level *claims*, None if it matches nothing."""
        lacking = [_lacks(half, claims) for half in self.pieces]
        if not any(lacking):
            return self
        if not taking:
            return None
        halves = zip(self.pieces, lacking, strict=True)
        return Resource(":".join("*" if lacks else _written(half) for half, lacks in halves))


def is_resource(text: str) -> bool:
    """Return whether *text* is a resource."""
    return bool(_PLAIN.fullmatch(text) or _WHOLE.fullmatch(text))


def _pieces(written: str) -> tuple[Pieces, Pieces]:
    if not _WHOLE.fullmatch(written):
        raise ValueError(written)
    halves: tuple[list[Piece], list[Piece]] = ([], [])
    half = 0
    for found in _PIECE.finditer(written):
        if found[0] == ":":
            half = 1
        else:
            halves[half].append(Variable(found[0]) if found[1] else found[0])
    return tuple(halves[0]), tuple(halves[1])


def _filled(half: Pieces, claims: Claims) -> str | None:
    filled = ""
    for piece in half:
        value = piece if isinstance(piece, str) else piece.value(claims)
        if value is None:
            return None
        filled += value
    return filled


def _widest(half: Pieces) -> str:
    return "".join("*" if isinstance(piece, Variable) else piece for piece in half)


def _matches(pattern: str, name: str, *, call: bool) -> bool:
    if call:
        pattern, name = ascii_lower(pattern), ascii_lower(name)
    # Most patterns hold no wildcard, and a comparison costs a tenth of compiling one.
    return compile_pattern(pattern)(name) if "*" in pattern else pattern == name


def _is_filled(half: Pieces) -> bool:
    """Return whether *half* has a variable."""
    return len(half) > 1 or isinstance(half[0], Variable)


def _lacks(half: Pieces, claims: Set[str]) -> bool:
    """Return whether *half* has a variable on one of *claims*."""
    return any(isinstance(piece, Variable) and piece.path[0] in claims for piece in half)


def _written(half: Pieces) -> str:
    return "".join(piece if isinstance(piece, str) else piece.written for piece in half)
