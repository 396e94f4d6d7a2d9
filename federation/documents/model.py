"""
Frozen types for JwtIssuers, Roles and Policies.

Only `documents.convert` makes them, from documents that were checked. Lists are tuples, durations
are timedeltas, defaults are filled in, operator aliases are resolved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from federation.claims import Claims, audiences
from federation.documents.resources import Resource
from federation.policy.conditions import Condition
from federation.providers.table import PROFILES, Profile, shared

_GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Function": ("List", "Get", "Create", "Update", "Delete", "Logs", "Scale", "Invoke"),
        "Secret": ("List", "Create", "Update", "Delete"),
        "Namespace": ("List", "Get", "Create", "Update", "Delete"),
        "System": ("Info",),
    }
)
GATEWAY_ACTIONS: frozenset[str] = frozenset(
    f"{group}:{verb}" for group, verbs in _GROUPS.items() for verb in verbs
)
"""The actions of requests to the gateway."""

READ_DOCUMENTS = "Documents:Read"
READ_AUDIT = "Audit:Read"
BROKER_ACTIONS: frozenset[str] = frozenset({READ_DOCUMENTS, READ_AUDIT})
"""The actions of requests for what the broker itself knows. Their only resource is `*`."""

ACTIONS: frozenset[str] = GATEWAY_ACTIONS | BROKER_ACTIONS
"""Every action that a request can need."""

CLUSTER_ACTIONS: frozenset[str] = BROKER_ACTIONS | {"System:Info"}
"""The actions on the whole cluster. None of them is about a namespace."""

LIST_NAMESPACES = "Namespace:List"
"""The action of the request that is answered with a part of what it asks for."""

INVOKE = "Function:Invoke"
"""The action of a call. Its function is found by a DNS name."""

ACTION_SETS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "*": ACTIONS,
        **{f"{group}:*": frozenset(f"{group}:{v}" for v in _GROUPS[group]) for group in _GROUPS},
        # Names from OpenFaaS's first IAM documents, which articles still show.
        "Function:Read": frozenset({"Function:List", "Function:Get", "Function:Logs"}),
        "Function:Admin": frozenset(
            {"Function:Create", "Function:Update", "Function:Delete", "Function:Scale"}
        ),
        "Secret:Read": frozenset({"Secret:List"}),
        "Secret:Admin": frozenset({"Secret:Create", "Secret:Update", "Secret:Delete"}),
        **{action: frozenset({action}) for action in sorted(ACTIONS)},
    }
)
"""For each action that a statement may name, the actions it grants."""


_PLAIN_STEP = re.compile(r"[A-Za-z][A-Za-z0-9]*")


NO_LINES: Mapping[tuple[str | int, ...], int] = MappingProxyType({})
"""The lines of a document whose fields are all on its first one."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The file and line of a document, and how far below that line each of its fields is."""

    path: str = ""
    line: int = 0
    below: Mapping[tuple[str | int, ...], int] = field(default_factory=lambda: NO_LINES, repr=False)
    """
    Of documents of one shape there is one. Fields on the first line are left out.

    A document that moves within its file keeps it.
    """

    def line_of(self, *place: str | int) -> int:
        """Return the line of the field at *place*, or of the nearest field around it."""
        for length in range(len(place), 0, -1):
            if below := self.below.get(place[:length]):
                return self.line + below
        return self.line


def field_text(place: Sequence[str | int]) -> str:
    """Return a place as people write it: `condition.StringLike["jwt:repository"][0]`."""
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
    """The audiences of tokens of jobs and other workloads."""
    provider: str
    """The name of a profile in the provider table."""
    token_expiry: timedelta
    single_use: bool
    """True if a workload's token may be exchanged once."""
    internal_url: str | None = None
    jwks_uri: str | None = None
    jwks: Mapping[str, object] | None = None
    ca_bundle: str | None = field(default=None, repr=False)
    provider_named: bool = True
    """True if the document says which provider this is, or its `iss` does."""
    bearer_token_file: str | None = None
    from_kubernetes: bool = False
    """True if it is an object of Kubernetes. Its author may not make the broker send any file."""
    clients: tuple[str, ...] = ()
    """The OAuth clients whose ID tokens of people may be exchanged."""
    people_once: bool = False
    """True if a person's token may be exchanged once. A person's client keeps it for its lifetime."""
    authorized_parties: tuple[str, ...] = ()
    """The values that a workload's `azp` may have. Empty: the rule of `issuers.verify` holds."""
    origin: Origin = field(default=Origin(), compare=False, repr=False)
    profile: Profile = field(init=False, compare=False, repr=False)
    """The provider's rules for this issuer's tokens."""
    shared: bool = field(init=False, compare=False, repr=False)
    """True if this issuer gives tokens to everybody, as github.com does."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "profile", PROFILES[self.provider])
        object.__setattr__(self, "shared", shared(self.iss))

    def clients_of(self, claims: Mapping[str, object]) -> tuple[str, ...]:
        """Return those of `clients` that a token is meant for. If any, it is a person's token."""
        if not self.clients:
            return ()
        meant = audiences(claims)
        return tuple([client for client in self.clients if client in meant])

    def taken_once(self, claims: Mapping[str, object]) -> bool:
        """Return whether a token with these *claims* may be exchanged only once."""
        return self.people_once if self.clients_of(claims) else self.single_use


class RoleEffect(StrEnum):
    """The effect of a Role whose conditions hold."""

    ADMIT = "Admit"
    SHADOW = "Shadow"
    """It admits nobody. Events name it where it would have admitted."""


@dataclass(frozen=True, slots=True)
class Role:
    """The callers that are given certain policies."""

    name: str
    policies: tuple[str, ...]
    conditions: tuple[Condition, ...]
    """Those of the principal, then those of the condition block. All must hold."""
    token_expiry: timedelta | None = None
    shadow: bool = False
    """True if its effect is `Shadow`."""
    places: tuple[tuple[str | int, ...], ...] = field(default=(), compare=False, repr=False)
    """The place in the document of each of *conditions*."""
    origin: Origin = field(default=Origin(), compare=False, repr=False)

    def names(self, keys: frozenset[str]) -> bool:
        """Return whether a positive condition is on one of *keys*."""
        return any(
            condition.key in keys and not condition.operator.negative
            for condition in self.conditions
        )


class Effect(StrEnum):
    """The effect of a statement that matches."""

    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True)
class Statement:
    """One rule of a Policy. *actions* has single actions; sets such as `Function:*` are resolved."""

    sid: str
    effect: Effect
    actions: frozenset[str]
    resources: tuple[Resource, ...]
    conditions: tuple[Condition, ...] = ()

    def reached(self, claims: Claims) -> Iterator[Resource]:
        """Yield the resources as they count for a token with *claims*: with values for variables."""
        for resource in self.resources:
            filled = resource.filled(claims, taking=self.effect is Effect.DENY)
            if filled is not None:
                yield filled


@dataclass(frozen=True, slots=True)
class Policy:
    """A named list of statements."""

    name: str
    statements: tuple[Statement, ...]
    origin: Origin = field(default=Origin(), compare=False, repr=False)
    unread: bool = False
    """True if it has errors and a resource that cannot be read, which may name any claim."""
    variables: bool = field(init=False, compare=False, repr=False)
    """True if a resource names a claim."""

    def __post_init__(self) -> None:
        resources = (resource for s in self.statements for resource in s.resources)
        object.__setattr__(self, "variables", any(resource.variables for resource in resources))

    @property
    def denies(self) -> bool:
        """True if it has a Deny statement."""
        return any(statement.effect is Effect.DENY for statement in self.statements)
