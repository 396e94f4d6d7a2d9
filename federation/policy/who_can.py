"""
The evaluation behind `federation who-can`: which Roles give an access, and what a Role gives.

It reads documents and no token, so it says what a token must say to be admitted. Statements are
found by the index that decides requests. A Role is left out only if it is certain that no token
gets the access through it: its conditions contradict each other, or one of its Policies is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter

from federation.documents.asked import wider_than_a_request
from federation.documents.catalog import Catalog
from federation.documents.listing import written_conditions
from federation.documents.model import Effect, Policy, Role, Statement
from federation.documents.resources import Resource
from federation.policy.conditions import Condition
from federation.policy.index import CHOSEN_WITH_ROLE, PolicySet
from federation.policy.permissions import Access, may_overlap
from federation.policy.possible import (
    Held,
    Values,
    allow_can_hold,
    deny_holds,
    of_subject_token,
    one_of_issuers,
    possible_values,
)
from federation.policy.reaching import (
    TooMany,
    as_far_as_known,
    demanded,
    parts_asked,
    parts_demanded,
    taken,
)

_COMPARISONS = 50_000
"""Maximum number of pairs of Roles that are compared for a Deny of another Role."""


@dataclass(frozen=True, slots=True)
class Denial:
    """A Deny statement that takes the access away from some or all tokens of a Role."""

    policy: str
    sid: str
    always: bool
    """True if it applies to every token that gets the access by the Role."""
    role: str = ""
    """The other Role that brings it along, for tokens that both admit. Empty: the Role itself."""

    def as_json(self) -> dict[str, object]:
        """The denial for programs."""
        return {"policy": self.policy, "sid": self.sid, "always": self.always, "role": self.role}


@dataclass(frozen=True, slots=True)
class Way:
    """One way to an access: a Role, and the Allow statement by which it gives it."""

    role: Role
    policy: str
    statement: Statement
    denied_by: tuple[Denial, ...]
    reaches: tuple[Condition, ...] = ()
    """Conditions on the claims in resource variables, so that a resource reaches the access."""

    @property
    def open(self) -> bool:
        """True unless the Role is a shadow Role, or a Deny always takes the access away."""
        return not self.role.shadow and not any(denial.always for denial in self.denied_by)

    @property
    def unless_narrowed(self) -> bool:
        """True if a token loses the access when its job asks for some of its Roles."""
        read = (*self.statement.conditions, *self.reaches)
        return any(condition.path[0] in CHOSEN_WITH_ROLE for condition in read)

    def as_json(self) -> dict[str, object]:
        """The way for programs. Each condition says whether the Role, the statement or a resource has it."""
        role = written_conditions(self.role.conditions)
        statement = written_conditions(self.statement.conditions)
        resource = written_conditions(self.reaches)
        return {
            "name": self.role.name,
            "policy": self.policy,
            "sid": self.statement.sid,
            "conditions": [
                *(each | {"of": "role"} for each in role),
                *(each | {"of": "statement"} for each in statement),
                *(each | {"of": "resource"} for each in resource),
            ],
            "denied_by": [denial.as_json() for denial in self.denied_by],
            "unless_narrowed": self.unless_narrowed,
            "shadowed": self.role.shadow,
        }


@dataclass(frozen=True, slots=True)
class WhoCan:
    """Everybody who gets an access."""

    access: Access
    ways: tuple[Way, ...]
    notes: tuple[str, ...]
    """Further facts that decide about it, in sentences."""

    @property
    def anybody(self) -> bool:
        """True if a Role that admits gives the access and no Deny always takes it away."""
        return any(way.open for way in self.ways)

    def as_json(self) -> dict[str, object]:
        """The answer for programs."""
        return {
            "action": self.access.action,
            "resource": self.access.resource,
            "roles": [way.as_json() for way in self.ways],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class WhatCan:
    """Everything that a Role gives, and takes away."""

    role: Role
    statements: tuple[tuple[Policy, Statement], ...]
    notes: tuple[str, ...]
    values: Values = field(default_factory=dict)
    """The values that the Role's conditions list."""

    @property
    def anything(self) -> bool:
        """True if the Role admits, and gives something."""
        return not self.role.shadow and any(
            statement.effect is Effect.ALLOW for _, statement in self.statements
        )

    def filled(self, statement: Statement) -> list[str]:
        """The resources of *statement* with the Role's values for variables; empty if it has none."""
        if not any(resource.variables for resource in statement.resources):
            return []
        return as_far_as_known(statement, self.values)

    def as_json(self) -> dict[str, object]:
        """The answer for programs."""
        return {
            "role": self.role.name,
            "conditions": written_conditions(self.role.conditions),
            "grants": [
                {
                    "policy": policy.name,
                    "sid": statement.sid,
                    "effect": statement.effect,
                    "actions": sorted(statement.actions),
                    "resources": [resource.text for resource in statement.resources],
                    **({"filled": filled} if (filled := self.filled(statement)) else {}),
                    "conditions": written_conditions(statement.conditions),
                }
                for policy, statement in self.statements
            ],
            "notes": list(self.notes),
        }


def who_can(catalog: Catalog, access: Access) -> WhoCan:
    """Find every Role by which some token may do *access*, each with the statement that says so."""
    return _Search(catalog, access).found()


def what_can(catalog: Catalog, name: str) -> WhatCan:
    """List the statements of the Policies of the Role *name*. Raises: KeyError without such a Role."""
    role = next((role for role in catalog.all_roles if role.name == name), None)
    if role is None:
        raise KeyError(name)
    held = [catalog.policies[policy] for policy in role.policies if policy in catalog.policies]
    statements = tuple((policy, statement) for policy in held for statement in policy.statements)
    notes = list(_missing(catalog, [role]))
    values = possible_values(role.conditions, one_of_issuers(catalog.issuers))
    if values is None or not role.conditions:
        notes.append(f"Role {role.name} admits no token: no token satisfies its conditions.")
    if role.shadow:
        notes.append(f"Role {role.name} is a shadow Role: it is recorded, and admits nobody.")
    return WhatCan(role, statements, tuple(notes), values or {})


@dataclass(slots=True)
class _Candidate:
    """A Role that can admit tokens, with its statements about the access."""

    role: Role
    values: Values
    """The values that its conditions list."""
    allows: list[tuple[str, Statement]]
    denies: list[tuple[str, Statement]]


@dataclass(slots=True)
class _Search:
    catalog: Catalog
    access: Access
    _about: dict[str, list[Statement]] = field(default_factory=dict)
    """The statements of each Policy about the access."""
    _reached: dict[tuple[str, str], list[tuple[tuple[Condition, ...], list[Resource]]]] = field(
        default_factory=dict
    )
    """For each statement, what its variables demand."""
    _notes: list[str] = field(default_factory=list)
    _compared: int = 0
    _of_issuers: Condition = field(init=False)

    def __post_init__(self) -> None:
        self._of_issuers = one_of_issuers(self.catalog.issuers)

    def found(self) -> WhoCan:
        roles = sorted(self.catalog.all_roles, key=attrgetter("name"))
        candidates = [made for role in roles if (made := self._candidate(role)) is not None]
        denying = [each for each in candidates if each.denies and not each.role.shadow]
        ways = tuple(way for each in candidates for way in self._ways(each, denying))
        notes = [*_missing(self.catalog, roles), *self._refusing(), *self._notes]
        if self._compared > _COMPARISONS:
            notes.append(
                "There are too many Roles with a Deny about this access to compare all of them;"
                " some that other Roles bring along are not listed."
            )
        if not any(way.open for way in ways) and (wider := wider_than_a_request(self.access)):
            notes.append(f"{wider}.")
        return WhoCan(self.access, ways, tuple(notes))

    def _candidate(self, role: Role) -> _Candidate | None:
        """Return *role* with its statements, None if it says nothing or can never give anything."""
        if not role.conditions or any(p not in self.catalog.policies for p in role.policies):
            return None
        about = [(name, s) for name in dict.fromkeys(role.policies) for s in self._of(name)]
        values = possible_values(role.conditions, self._of_issuers) if about else None
        if values is None:
            return None
        return _Candidate(
            role,
            values,
            [(name, s) for name, s in about if s.effect is Effect.ALLOW],
            [(name, s) for name, s in about if s.effect is Effect.DENY],
        )

    def _of(self, policy: str) -> list[Statement]:
        if policy not in self._about:
            one = self.catalog.policies[policy]
            access = self.access
            if access.is_list_of_namespaces:  # a part of it is enough, and a Deny may take a part
                self._about[policy] = [s for s in one.statements if access.action in s.actions]
            else:
                found = PolicySet([one]).about(access.action, access.namespace, access.name)
                self._about[policy] = [statement for _, statement in found]
        return self._about[policy]

    def _ways(self, candidate: _Candidate, denying: Sequence[_Candidate]) -> Iterator[Way]:
        for policy, statement in candidate.allows:
            for reaches, parts in self._demanded(policy, statement):
                asked = (*statement.conditions, *reaches)
                read = [c for c in asked if of_subject_token(c)]
                conditions = (*candidate.role.conditions, *read)
                values = possible_values(conditions, self._of_issuers) if read else candidate.values
                rest = [c for c in asked if not of_subject_token(c)]
                if values is None or not all(allow_can_hold(c, values) for c in rest):
                    continue
                told = tuple(_left(c, values) for c in reaches)
                way = None
                asks = parts_asked(parts, values) if parts else [(self.access, values)]
                for access, made in asks:
                    own = self._own_denials(candidate, made, access)
                    brought = self._brought_denials(candidate, conditions, made, denying, access)
                    way = Way(candidate.role, policy, statement, (*own, *brought), told)
                    if way.open:
                        break
                if way:
                    yield way

    def _demanded(
        self, policy: str, statement: Statement
    ) -> list[tuple[tuple[Condition, ...], list[Resource]]]:
        """
        Return the ways in which a token's claims let *statement* reach the access.

        For the list of namespaces, each is beside the resources of which one is enough.
        """
        key = (policy, statement.sid)
        if key not in self._reached:
            try:
                self._reached[key] = (
                    parts_demanded(statement)
                    if self.access.is_list_of_namespaces
                    else [(each, []) for each in demanded(statement, self.access)]
                )
            except TooMany:
                self._reached[key] = [((), [])]
                self._notes.append(
                    f"Statement {policy}/{statement.sid} has so many variables and wildcards that"
                    " not all of their values are looked at; it may reach this for no token."
                )
        return self._reached[key]

    def _own_denials(
        self, candidate: _Candidate, values: Values, access: Access
    ) -> Iterator[Denial]:
        for policy, deny in candidate.denies:
            held = self._held(deny, values, candidate.role, access)
            if held is not Held.NEVER:
                yield Denial(policy, deny.sid, always=held is Held.ALWAYS)

    def _brought_denials(
        self,
        candidate: _Candidate,
        conditions: tuple[Condition, ...],
        values: Values,
        denying: Sequence[_Candidate],
        access: Access,
    ) -> Iterator[Denial]:
        """Yield each Deny of another Role that admits some of the same tokens, once."""
        told = {(policy, deny.sid) for policy, deny in candidate.denies}
        for other in denying:
            new = [(p, d) for p, d in other.denies if (p, d.sid) not in told]
            if other.role is candidate.role or not new:
                continue
            self._compared += 1
            if self._compared > _COMPARISONS:
                return
            if _apart(values, other.values):
                continue
            both = possible_values((*conditions, *other.role.conditions), self._of_issuers)
            if both is None:
                continue
            for policy, deny in new:
                held = self._held(deny, both, other.role, access)
                if held is not Held.NEVER:
                    always = held is Held.ALWAYS and self._admits_all_of(
                        other.role, conditions, values
                    )
                    told.add((policy, deny.sid))
                    yield Denial(policy, deny.sid, always=always, role=other.role.name)

    def _held(self, deny: Statement, values: Values, role: Role, access: Access) -> Held:
        """Return how far *deny* applies to access tokens of *role*: all of its conditions must hold."""
        each = {deny_holds(c, values, role.name, role.policies) for c in deny.conditions}
        reached = taken(deny, access, values)
        if reached is Held.NEVER and access.namespace != self.access.namespace:
            # In a part of the list, `*` may stand for the value of a variable, which a Deny names.
            widest = (resource.at_most(taking=True) for resource in deny.resources)
            if may_overlap(Resource(access.resource), widest):
                reached = Held.SOMETIMES
        each.add(reached)
        if Held.NEVER in each:
            return Held.NEVER
        return Held.SOMETIMES if Held.SOMETIMES in each else Held.ALWAYS

    def _admits_all_of(self, other: Role, conditions: Sequence[Condition], values: Values) -> bool:
        """
        Return whether *other* admits every token that satisfies *conditions*, for certain.

        *values* are those that the conditions leave.
        """
        left = set(other.conditions).difference(conditions)
        if not all(_implied(condition, values) for condition in left):
            return False
        # It may not name what a token's situation demands, such as an event of outsiders.
        profiles = (issuer.profile for issuer in self.catalog.issuers.values())
        demands = (demand for profile in profiles for demand in profile.demands)
        return all(other.names(d.keys) for d in demands if any(c.key in d.keys for c in conditions))

    def _refusing(self) -> Iterator[str]:
        for role in self.catalog.refusing:
            yield (
                f"Role {role.name}, or a Policy that it names, cannot be read, so a token that it"
                " would admit is refused."
            )


def _apart(some: Values, others: Values) -> bool:
    """Return whether a claim has values in *some* and none of them in *others*. It is a quick look."""
    return any(
        key in others and set(values).isdisjoint(others[key]) for key, values in some.items()
    )


def _implied(condition: Condition, values: Values) -> bool:
    """Return whether every token with *values* satisfies *condition*."""
    known = values.get(condition.key)
    return (
        known is not None and not condition.operator.of_list and all(map(condition.accepts, known))
    )


def _left(condition: Condition, values: Values) -> Condition:
    """Return *condition*, of a variable, with the values that the other conditions leave."""
    left = values.get(condition.key) if of_subject_token(condition) else None
    return condition if left is None else replace(condition, values=left)


def _missing(catalog: Catalog, roles: Iterable[Role]) -> Iterator[str]:
    for role in roles:
        for policy in dict.fromkeys(role.policies):
            if policy not in catalog.policies:
                yield (
                    f"Role {role.name} names the Policy {policy}, which is not in force, so a token"
                    " that it admits is allowed nothing."
                )
