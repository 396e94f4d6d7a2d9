"""
Documents as the rest of the house sees them: frozen, complete, already checked.

Only `documents.parse` makes these. Lists are tuples, durations are timedeltas, defaults are
filled in, aliases are resolved.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Generic, TypeVar

from federation.policy.conditions import Condition, Match, compile_pattern
from federation.providers.table import PROFILES, Profile, Provider, shared

__all__ = [
    "ACTIONS",
    "ACTION_SETS",
    "Effect",
    "JwtIssuer",
    "Origin",
    "Policy",
    "PolicySet",
    "Resource",
    "Role",
    "Statement",
    "field_text",
]

_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Function": ("List", "Get", "Create", "Update", "Delete", "Logs", "Scale", "Invoke"),
        "Secret": ("List", "Create", "Update", "Delete"),
        "Namespace": ("List", "Get", "Create", "Update", "Delete"),
        "System": ("Info",),
    }
)
ACTIONS: frozenset[str] = frozenset(
    f"{group}:{verb}" for group, verbs in _GROUPS.items() for verb in verbs
)
"""Every action that a request can ask for."""

ACTION_SETS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "*": ACTIONS,
        **{f"{group}:*": frozenset(f"{group}:{v}" for v in _GROUPS[group]) for group in _GROUPS},
        # The names of OpenFaaS's first IAM documents, still found in articles.
        "Function:Read": frozenset({"Function:List", "Function:Get", "Function:Logs"}),
        "Function:Admin": frozenset(
            {"Function:Create", "Function:Update", "Function:Delete", "Function:Scale"}
        ),
        "Secret:Read": frozenset({"Secret:List"}),
        "Secret:Admin": frozenset({"Secret:Create", "Secret:Update", "Secret:Delete"}),
        **{action: frozenset({action}) for action in ACTIONS},
    }
)
"""What each action a statement may write stands for."""


_PLAIN_STEP = re.compile(r"[A-Za-z][A-Za-z0-9]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document was written: its file, its line, and the line of each of its fields."""

    path: str = ""
    line: int = 0
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, repr=False)

    def line_of(self, *place: str | int) -> int:
        """The line of the field at *place*, or of the nearest field around it that is known."""
        for length in range(len(place), 0, -1):
            if line := self.lines.get(place[:length]):
                return line
        return self.line


def field_text(place: Sequence[str | int]) -> str:
    """A field's place as people write it: `condition.StringLike["jwt:repository"][0]`."""
    steps = place[1:] if len(place) > 1 and place[0] == "spec" else place
    written = "".join(
        f"[{step}]"
        if isinstance(step, int)
        else f".{step}"
        if _PLAIN_STEP.fullmatch(step)
        else f'["{step}"]'
        for step in steps
    )
    return written.removeprefix(".")


@dataclass(frozen=True, slots=True)
class JwtIssuer:
    """An issuer whose tokens may be exchanged."""

    name: str
    iss: str
    audiences: tuple[str, ...]
    provider: Provider
    token_expiry: timedelta
    single_use: bool
    internal_url: str | None = None
    jwks_uri: str | None = None
    jwks: Mapping[str, object] | None = None
    ca_bundle: str | None = field(default=None, repr=False)
    origin: Origin = field(default=Origin(), compare=False, repr=False)
    profile: Profile = field(init=False, compare=False, repr=False)
    """What this issuer's tokens look like."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "profile", PROFILES[self.provider])

    @property
    def shared(self) -> bool:
        """Whether strangers get tokens from this issuer too."""
        return shared(self.iss)


@dataclass(frozen=True, slots=True)
class Role:
    """Who may have which policies."""

    name: str
    policies: tuple[str, ...]
    conditions: tuple[Condition, ...]
    """The principal's first, then the condition block's. All must hold."""
    token_expiry: timedelta | None = None
    places: tuple[tuple[str | int, ...], ...] = field(default=(), compare=False, repr=False)
    """Where in the document each of *conditions* was written."""
    origin: Origin = field(default=Origin(), compare=False, repr=False)

    def names(self, keys: frozenset[str]) -> bool:
        """Whether a positive condition is on one of *keys*."""
        return any(
            condition.key in keys and not condition.operator.negative
            for condition in self.conditions
        )


class Effect(StrEnum):
    """What a matching statement does."""

    ALLOW = "Allow"
    DENY = "Deny"


_HALF = re.compile(r"[-a-zA-Z0-9_.*]+")


@dataclass(frozen=True, slots=True)
class Resource:
    """
    What a statement reaches: `*`, `<namespace>:*` or `<namespace>:<function>`.

    `*` may also stand inside either half. Halves are matched whole, never as a substring.
    Raises: ValueError where *text* is none of these.
    """

    text: str
    halves: tuple[str, str] = field(init=False, repr=False, compare=False)
    """The patterns of the namespace and of the name."""
    _namespace: Match = field(init=False, repr=False, compare=False)
    _name: Match = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        namespace, colon, name = ("*", ":", "*") if self.text == "*" else self.text.partition(":")
        if not (colon and _HALF.fullmatch(namespace) and _HALF.fullmatch(name)):
            raise ValueError(self.text)
        object.__setattr__(self, "halves", (namespace, name))
        object.__setattr__(self, "_namespace", compile_pattern(namespace))
        object.__setattr__(self, "_name", compile_pattern(name))

    def covers(self, namespace: str, name: str) -> bool:
        """
        Whether `<namespace>:<name>` lies within.

        The whole of a namespace is the name `*`, the whole cluster the namespace `*`; only a
        pattern that is open there covers them.
        """
        return self._namespace(namespace) and self._name(name)


@dataclass(frozen=True, slots=True)
class Statement:
    """One rule of a Policy. *actions* holds plain actions only; sets are resolved."""

    sid: str
    effect: Effect
    actions: frozenset[str]
    resources: tuple[Resource, ...]
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """Named statements about what may be done."""

    name: str
    statements: tuple[Statement, ...]
    origin: Origin = field(default=Origin(), compare=False, repr=False)


_REMEMBERED = 64
File = TypeVar("File")


class PolicySet(tuple[Policy, ...]):
    """
    The policies of one token, in their order.

    Their statements are filed by what they reach when they are first asked for, so that a
    decision looks at the few that may matter.
    """

    def forget(self) -> None:
        """What was asked lately is as if it were not."""
        self._found.clear()

    def speaking_of(
        self, action: str, namespace: str, name: str
    ) -> tuple[tuple[Policy, Statement], ...]:
        """
        The statements whose actions and resources hold this access, their conditions unread.

        What was asked lately is remembered: a deploy asks about one function many times.
        """
        asked = action, namespace, name
        if asked not in self._found:
            if len(self._found) >= _REMEMBERED:
                self.forget()
            found = {
                place: (policy, statement)
                for names in self._filed.near(namespace)
                for filed in names.near(name)
                for place, policy, statement, resource in filed
                if action in statement.actions and resource.covers(namespace, name)
            }
            self._found[asked] = tuple(found[place] for place in sorted(found))
        return self._found[asked]

    @cached_property
    def _found(self) -> dict[tuple[str, str, str], tuple[tuple[Policy, Statement], ...]]:
        return {}

    @cached_property
    def _filed(self) -> _Files[_Files[list[tuple[int, Policy, Statement, Resource]]]]:
        """Resources by namespace and name, each with its statement and that one's place."""
        files: _Files[_Files[list[tuple[int, Policy, Statement, Resource]]]]
        files = _Files(lambda: _Files(list))
        statements = [(policy, statement) for policy in self for statement in policy.statements]
        for place, (policy, statement) in enumerate(statements):
            for resource in statement.resources:
                namespace, name = resource.halves
                files.of(namespace).of(name).append((place, policy, statement, resource))
        return files


class _Files(Generic[File]):
    """
    A file for the patterns with one literal beginning, and one for each text without a `*`.

    Of all files only those *near* a text can have a pattern that matches it.
    """

    def __init__(self, empty: Callable[[], File]) -> None:
        self._files: defaultdict[str, File] = defaultdict(empty)
        self._lengths: set[int] = set()
        """Of the literal beginnings."""

    def of(self, pattern: str) -> File:
        """The file of *pattern*, empty where there was none."""
        literal, star, _ = pattern.partition("*")
        if star:
            self._lengths.add(len(literal))
        return self._files[literal + star]

    def near(self, text: str) -> list[File]:
        """The files of patterns that may match *text*."""
        labels = {text, *(text[:length] + "*" for length in self._lengths)}
        return [self._files[label] for label in labels if label in self._files]
