"""
The immutable snapshot of all documents. A request uses one snapshot from beginning to end.

Roles are indexed by issuer and by one value that they pin, so that a token is compared with few
of thousands of Roles. The index may only leave out Roles whose pinned condition the token cannot
satisfy: it saves time and never decides.

Where one document of several authors is bad, a catalog holds the others, and Roles that refuse
instead of admitting: `documents.kubernetes.unite` says which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from federation.claims import Claims, at, text
from federation.documents.model import JwtIssuer, Policy, Role
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.rules.owners import (
    OWNER_KEYS,
    literal_prefix,
    lowered_owner,
    owner_pins,
    owners_of,
)
from federation.errors import Problem, Reason, Refusal
from federation.policy.conditions import KEY_PREFIX, Condition, Operator
from federation.providers.table import Profile


@dataclass(frozen=True, slots=True)
class Catalog:
    """All documents as they were at one moment."""

    issuers: Mapping[str, JwtIssuer] = field(default_factory=dict)
    """By `iss`."""
    roles: tuple[Role, ...] = ()
    """The Roles that admit. No shadow Role is among them, so nothing that reads them admits by one."""
    shadow_roles: tuple[Role, ...] = ()
    """The shadow Roles, which only record that they would have admitted."""
    policies: Mapping[str, Policy] = field(default_factory=dict)
    """By name."""
    warnings: tuple[Problem, ...] = ()
    digest: str = ""
    """A digest of the files' content in lower-case hex. Equal digests mean equal documents."""
    refusing: tuple[Role, ...] = ()
    """
    Roles that refuse whom they would admit, because what they take away is not known.

    One without conditions refuses everybody.
    """
    incomplete: bool = False
    """
    True if a Role or one of its policies is left out, so that tokens do not tell all of them.

    Also if that may have been so before a restart, after which the Role refuses.
    """
    awaited: str = ""
    """The source that must be read before this is a catalog at all; empty if it was."""
    before: InitVar[Catalog | None] = None
    """
    An earlier catalog. Of the Roles that it has too, nothing is computed again.

    Only a catalog that was given one remembers what the next needs, which costs 0.4 KiB a Role.
    """
    pause: InitVar[Pause | None] = None
    """It is called before each Role is filed."""
    _index: _RoleIndex = field(init=False, repr=False, compare=False)
    _shadow: _RoleIndex = field(init=False, repr=False, compare=False)
    _refusing: _RoleIndex = field(init=False, repr=False, compare=False)
    _refusing_anywhere: tuple[Role, ...] = field(init=False, repr=False, compare=False)
    """Those of *refusing* that name no issuer, so that they are about the tokens of all."""

    def __post_init__(self, before: Catalog | None, pause: Pause | None) -> None:
        if any(role.shadow for role in (*self.roles, *self.refusing)):
            raise ValueError("a shadow Role neither admits nor refuses")
        pause = pause or go_on
        known = None if before is None else before._index.entries
        index = _RoleIndex.of(self.roles, self.issuers, known, pause)
        object.__setattr__(self, "_index", index)
        known = None if before is None else before._shadow.entries
        shadow = _RoleIndex.of(self.shadow_roles, self.issuers, known, pause)
        object.__setattr__(self, "_shadow", shadow)
        anywhere = tuple(role for role in self.refusing if not role_issuers(role))
        object.__setattr__(self, "_refusing", _RoleIndex.of(self.refusing, self.issuers))
        object.__setattr__(self, "_refusing_anywhere", anywhere)

    @property
    def all_roles(self) -> tuple[Role, ...]:
        """The Roles that admit, then the shadow Roles: those that the documents have."""
        return self.roles + self.shadow_roles  # no copy where one of them is empty

    def parts(self) -> Iterator[object]:
        """Yield everything of which there is one for each Role, so that it can be freed one by one."""
        yield from self.all_roles
        yield from self._index.parts()
        yield from self._shadow.parts()

    def check_read(self) -> None:
        """Raises: Refusal with `documents_unavailable` if this is not a catalog yet."""
        if self.awaited:
            raise Refusal(Reason.DOCUMENTS_UNAVAILABLE, evidence={"awaited": self.awaited})

    def candidates(self, claims: Claims) -> Iterator[Role]:
        """The Roles that *claims* could satisfy, each once. They cannot satisfy any other."""
        return self._index.candidates(claims)

    def shadow_candidates(self, claims: Claims) -> Iterator[Role]:
        """The shadow Roles that *claims* could satisfy, each once."""
        return self._shadow.candidates(claims)

    def may_refuse(self, claims: Claims) -> Iterator[Role]:
        """The Roles of *refusing* that *claims* could satisfy, each once."""
        yield from self._refusing_anywhere
        yield from self._refusing.candidates(claims)

    def neighbours(self, claims: Claims) -> Iterator[Role]:
        """The Roles that pin the owner of *claims*, or no owner at all. Some come twice."""
        iss = text(claims.get("iss")) or ""
        issuer = self.issuers.get(iss)
        if issuer is None:
            return
        for key in sorted(OWNER_KEYS[issuer.provider].all):
            for owner in sorted(owners_of(issuer.profile, key, claims)):
                yield from self._index.of_owner(iss, key, owner)
        yield from self._index.of_owner(iss, "", "")

    def may_deny(self, name: str) -> bool:
        """True if the Policy *name* has a Deny statement, or is missing, so that it might have."""
        policy = self.policies.get(name)
        return policy is None or policy.denies


def role_issuers(role: Role) -> frozenset[str]:
    """The issuers whose tokens *role* can admit, from its exact conditions on `jwt:iss`."""
    exact = [
        frozenset(condition.values)
        for condition in role.conditions
        if condition.key == "jwt:iss" and condition.operator.exact
    ]
    return frozenset.intersection(*exact) if exact else frozenset()


class _Filing(NamedTuple):
    """A way to file Roles: by a claim's whole text, or by its part up to the `/`."""

    claim: str
    by_owner: bool

    def label(self, value: str) -> str:
        """The label of a Role that pins *value*, and of a token that has it."""
        return value.partition("/")[0] + "/" if self.by_owner else value


class _Shelf(dict[str, tuple[Role, ...]]):
    """The Roles of each label, in the order in which they were added."""

    __slots__ = ("_more",)

    def __init__(self) -> None:
        super().__init__()
        self._more: dict[str, list[Role]] = {}

    def add(self, label: str, role: Role) -> None:
        """Add *role*. Most labels have one, so no list is made for them."""
        if label in self:
            self._more.setdefault(label, []).append(role)
        else:
            self[label] = (role,)

    def frozen(self) -> Mapping[str, tuple[Role, ...]]:
        """All that was added."""
        for label, roles in self._more.items():
            self[label] += tuple(roles)
        self._more = {}
        return MappingProxyType(self)


class _Entry(NamedTuple):
    """The place of Roles with certain conditions among those of one issuer."""

    conditions: Sequence[Condition]
    """They are kept alive here, as they are known by their identity."""
    filing: _Filing
    labels: Sequence[str]
    keys: tuple[str, ...]
    """The keys on which the Roles pin an owner. Entries share them."""
    owners: tuple[str, ...]
    """The owner on each of *keys*."""


_Entries: TypeAlias = dict[int, _Entry]
"""The entries at one issuer, by the identity of a Role's conditions."""


@dataclass(frozen=True, slots=True)
class _RoleIndex:
    """The Roles by what they pin."""

    filed: Mapping[str, tuple[tuple[_Filing, Mapping[str, tuple[Role, ...]]], ...]]
    """By issuer: each way to file, with the Roles by label."""
    by_owner: Mapping[str, Mapping[str, Mapping[str, tuple[Role, ...]]]]
    """By issuer, key and owner."""
    entries: Mapping[tuple[str, str], _Entries]
    """By issuer and provider, what the next index can take over; empty if nobody asked for it."""

    @classmethod
    def of(
        cls,
        roles: Iterable[Role],
        issuers: Mapping[str, JwtIssuer],
        known: Mapping[tuple[str, str], _Entries] | None = None,
        pause: Pause = go_on,
    ) -> _RoleIndex:
        """
        The index of *roles* that can admit tokens of *issuers*.

        With *known*, the entries of an earlier index, those of this one are kept as well.
        """
        filing = {iss: _Cabinet(iss, issuer.profile) for iss, issuer in issuers.items()}
        entries: dict[tuple[str, str], _Entries] = {}
        if known is not None:
            entries = {(iss, cabinet.profile.name): {} for iss, cabinet in filing.items()}
        for role in paced(roles, pause):
            identity = id(role.conditions)
            for iss in role_issuers(role) & issuers.keys():
                cabinet = filing[iss]
                place = iss, cabinet.profile.name
                entry = known[place].get(identity) if known and place in known else None
                entry = entry or cabinet.entry(role)
                cabinet.file(role, entry)
                if known is not None:
                    entries[place][identity] = entry
        used = {iss: cabinet for iss, cabinet in filing.items() if cabinet.labels}
        filed = {iss: cabinet.filed() for iss, cabinet in used.items()}
        by_owner = {iss: cabinet.by_owner() for iss, cabinet in used.items()}
        return cls(filed, by_owner, entries)

    def parts(self) -> Iterator[object]:
        """Yield what is there for each Role."""
        for entries in self.entries.values():
            yield from entries.values()
        for filings in self.filed.values():
            for _, labels in filings:
                yield from labels.values()
        for keys in self.by_owner.values():
            for owners in keys.values():
                yield from owners.values()

    def of_owner(self, iss: str, key: str, owner: str) -> Iterable[Role]:
        """The Roles that pin *owner* on *key* at *iss*."""
        return self.by_owner.get(iss, {}).get(key, {}).get(owner, ())

    def candidates(self, claims: Claims) -> Iterator[Role]:
        """The Roles that *claims* could satisfy, each once."""
        iss = text(claims.get("iss")) or ""
        for filing, labels in self.filed.get(iss, ()):
            claim = text(at(claims, filing.claim))
            if claim is not None:
                yield from labels.get(filing.label(claim), ())


class _Cabinet:
    """The Roles of one issuer while they are filed."""

    def __init__(self, iss: str, profile: Profile) -> None:
        self.profile = profile
        self.labels: dict[_Filing, _Shelf] = {}
        self._owners: dict[str, _Shelf] = {}
        self._iss = iss
        self._ways: dict[_Filing, _Filing] = {}
        self._keys: dict[tuple[str, ...], tuple[str, ...]] = {}

    def entry(self, role: Role) -> _Entry:
        """The place of *role*, which holds no text that the Role has already."""
        pin = _filing_condition(role, self.profile)
        # A Role without a condition to file it by is a candidate for the whole issuer.
        filing, labels = _filing(pin) if pin else (_Filing("iss", by_owner=False), (self._iss,))
        filing = self._ways.setdefault(filing, filing)
        keys, owners = zip(*_owners(role, self.profile), strict=True)
        keys = self._keys.setdefault(keys, keys)
        return _Entry(role.conditions, filing, labels, keys, owners)

    def file(self, role: Role, entry: _Entry) -> None:
        """File *role* where *entry* says."""
        shelf = self.labels.setdefault(entry.filing, _Shelf())
        for label in entry.labels:
            shelf.add(label, role)
        for key, owner in zip(entry.keys, entry.owners, strict=True):
            self._owners.setdefault(key, _Shelf()).add(owner, role)

    def filed(self) -> tuple[tuple[_Filing, Mapping[str, tuple[Role, ...]]], ...]:
        """All that was filed, by label."""
        return tuple([(way, shelf.frozen()) for way, shelf in self.labels.items()])

    def by_owner(self) -> Mapping[str, Mapping[str, tuple[Role, ...]]]:
        """All that was filed, by the key and the owner that it pins."""
        return {key: shelf.frozen() for key, shelf in self._owners.items()}


def _owners(role: Role, profile: Profile) -> list[tuple[str, str]]:
    """The owners that *role* pins, as (key, owner), or one empty pair if it pins none."""
    owners = {
        (pin.key, lowered_owner(profile, pin, value))
        for pin in owner_pins(role, profile)
        for value in pin.values
    }
    return sorted(owners) or [("", "")]


def _filing(pin: Condition) -> tuple[_Filing, Sequence[str]]:
    """The way to file a Role with *pin*, and the labels to file it under, each once."""
    filing = _Filing(pin.key.removeprefix(KEY_PREFIX), by_owner=not pin.operator.exact)
    if not filing.by_owner and len(pin.values) == len(set(pin.values)):
        return filing, pin.values
    prefixes = map(literal_prefix, pin.values) if filing.by_owner else pin.values
    return filing, tuple({filing.label(value) for value in prefixes})


def _filing_condition(role: Role, profile: Profile) -> Condition | None:
    """The condition to file *role* by: an exact one, if it has any, on the most selective claim."""
    selective = profile.selective
    conditions = [
        (not made.operator.exact, selective.index(claim), number)
        for number, made in enumerate(role.conditions)
        if (claim := made.key.removeprefix(KEY_PREFIX)) in selective and _can_file(made)
    ]
    return role.conditions[min(conditions)[2]] if conditions else None


def _can_file(condition: Condition) -> bool:
    """Return whether only tokens with a label of *condition* can satisfy it."""
    return condition.operator.exact or (
        condition.operator is Operator.STRING_LIKE
        and all("/" in literal_prefix(value) for value in condition.values)
    )
