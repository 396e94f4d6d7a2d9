"""
Documents as the rest of the house sees them: frozen, complete, already checked.

Only `documents.parse` makes these. Lists are tuples, durations are timedeltas, defaults are
filled in, aliases are resolved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from federation.policy.conditions import Condition, Match, compile_pattern
from federation.providers.table import PROFILES, Profile, Provider, shared

__all__ = [
    "ACTIONS",
    "ACTION_SETS",
    "Effect",
    "JwtIssuer",
    "Origin",
    "Policy",
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
