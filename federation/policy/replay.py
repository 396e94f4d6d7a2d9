"""
Compares what was decided with what other documents would decide, and counts who loses or gains what.

A comparison is of names: which Roles gave something, and which policies a token got. What the
statements of a policy say shows in the requests that were made with the token. The memory that a
report takes grows with the different changes, not with the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import NamedTuple

_MOST_ROWS = 20_000
_OTHERS = "(others)"
"""The row that counts all further callers after so many rows."""


class Change(StrEnum):
    """The change of a Role's effect on a caller."""

    LOSES = "loses"
    GAINS = "gains"
    SHADOW = "shadow"
    """A shadow Role would have admitted it. It gains nothing."""
    KEEPS = "keeps"


class Kind(StrEnum):
    """The kind of decision."""

    EXCHANGE = "exchange"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The Roles and policies that an exchange gets, or the reason of its refusal."""

    roles: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    reason: str = ""
    """The reason of the refusal; empty if it is granted."""
    shadow_roles: tuple[str, ...] = ()

    @property
    def granted(self) -> bool:
        """True if the exchange is granted."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class Given:
    """The facts that one set of documents has about the names in an outcome."""

    policies_of: Mapping[str, frozenset[str]]
    """By Role. Without it, all of a token's policies may come from each of its Roles."""
    only_denies: Callable[[str], bool]
    """Return whether a policy is known to give nothing."""


class Difference(NamedTuple):
    """One line of a report: what changes for one caller by one Role."""

    change: Change
    kind: Kind
    role: str
    who: str
    access: str = ""
    """The accesses asked for, as ACTION=RESOURCE; empty for an exchange."""
    refused: bool = False
    """True if what was granted would be refused, or what was refused would be granted."""
    why: str = ""
    policies: tuple[str, ...] = ()
    """The policies that are lost or gained, or that a shadow Role would give."""
    shadow: bool = False
    """True if the Role is a shadow Role, or, where it gives something now, was one."""


def of_exchange(
    who: str, before: Outcome, after: Outcome, old: Given, new: Given
) -> Iterator[Difference]:
    """Yield what changes for *who* by each Role; nothing if it is refused before and after."""
    for role in after.shadow_roles:
        would_give = tuple(sorted(new.policies_of.get(role, ())))
        yield _exchange(Change.SHADOW, role, who, would_give, shadow=True)
    if before.granted and not after.granted:
        for role in before.roles:
            lost = _part(before.policies, old.policies_of.get(role))
            yield _exchange(Change.LOSES, role, who, lost, refused=True, why=after.reason)
    elif after.granted and not before.granted:
        for role in after.roles:
            gained = _part(after.policies, new.policies_of.get(role))
            was_shadow = role in before.shadow_roles
            yield _exchange(
                *(Change.GAINS, role, who, gained),
                refused=True,
                why=before.reason,
                shadow=was_shadow,
            )
    elif before.granted:
        yield from _both_granted(who, before, after, old, new)


def _both_granted(
    who: str, before: Outcome, after: Outcome, old: Given, new: Given
) -> Iterator[Difference]:
    lost = tuple(name for name in before.policies if name not in after.policies)
    gained = tuple(name for name in after.policies if name not in before.policies)
    gone = [role for role in before.roles if role not in after.roles]
    for role in gone:
        yield _exchange(Change.LOSES, role, who, _part(lost, old.policies_of.get(role)))
    for role in after.roles:
        more = _part(gained, new.policies_of.get(role))
        if role not in before.roles:
            was_shadow = role in before.shadow_roles
            yield _exchange(Change.GAINS, role, who, more, shadow=was_shadow)
            continue
        # If a Role is gone, the policies that are gone with it are not those of the others.
        less = _part(lost, old.policies_of.get(role, frozenset() if gone else None))
        if less:
            yield _exchange(Change.LOSES, role, who, less)
        if more:
            yield _exchange(Change.GAINS, role, who, more)
        if not less and not more:
            yield _exchange(Change.KEEPS, role, who, ())


def _exchange(
    change: Change,
    role: str,
    who: str,
    policies: tuple[str, ...],
    *,
    refused: bool = False,
    why: str = "",
    shadow: bool = False,
) -> Difference:
    return Difference(change, Kind.EXCHANGE, role, who, "", refused, why, policies, shadow)


def _part(names: tuple[str, ...], known: frozenset[str] | None) -> tuple[str, ...]:
    return names if known is None else tuple(name for name in names if name in known)


def of_request(
    who: str, roles: tuple[str, ...], access: str, allowed: tuple[bool, bool], why: str
) -> Iterator[Difference]:
    """Yield what changes for *who* that asked for *access*, *allowed* before and after."""
    match allowed:
        case (True, False):
            change = Change.LOSES
        case (False, True):
            change = Change.GAINS
        case (True, True):
            change, why = Change.KEEPS, ""
        case _:
            return
    changed = change is not Change.KEEPS
    for role in roles or ("",):
        yield Difference(change, Kind.REQUEST, role, who, access, refused=changed, why=why)


class Sample(NamedTuple):
    """The event that stands for others like it."""

    event_id: str
    time: str


@dataclass(slots=True)
class Count:
    """A count of events, and one of them as a sample."""

    events: int = 0
    sample: Sample | None = None

    def add(self, sample: Sample) -> None:
        """Count one more. The newest is the sample."""
        self.events += 1
        if self.sample is None or sample.time >= self.sample.time:
            self.sample = sample


@dataclass(slots=True)
class Totals:
    """The changes of all decisions of one kind. An event may both lose and gain."""

    decided: int = 0
    lose: int = 0
    gain: int = 0
    keep: int = 0
    stay_refused: int = 0


@dataclass(slots=True)
class Report:
    """The differences that other documents make to a trail's decisions."""

    totals: dict[Kind, Totals] = field(default_factory=lambda: {kind: Totals() for kind in Kind})
    rows: dict[Difference, Count] = field(default_factory=dict)
    undecided: dict[str, Count] = field(default_factory=dict)
    """By the sentence that says why."""
    left_out: dict[str, Count] = field(default_factory=dict)
    """Events of which the documents decided nothing, by what decided."""
    loss: bool = False
    """True if something that was granted would be refused."""

    def add(
        self,
        kind: Kind,
        differences: Iterator[Difference],
        sample: Sample,
        only_denies: Callable[[str], bool],
    ) -> None:
        """Count the *differences* of one event. To lose a policy that *only_denies* is no loss."""
        found = list(differences)
        totals, changes = self.totals[kind], {difference.change for difference in found}
        totals.decided += 1
        totals.lose += Change.LOSES in changes
        totals.gain += Change.GAINS in changes
        totals.keep += Change.KEEPS in changes and not changes & {Change.LOSES, Change.GAINS}
        totals.stay_refused += changes <= {Change.SHADOW}
        for each in found:
            self.loss = self.loss or _is_loss(each, only_denies)
            self._count(each).add(sample)

    def _count(self, difference: Difference) -> Count:
        count = self.rows.get(difference)
        if count is None:
            if len(self.rows) >= _MOST_ROWS:
                difference = Difference(difference.change, difference.kind, _OTHERS, _OTHERS)
            count = self.rows.setdefault(difference, Count())
        return count

    def not_decided(self, why: str, sample: Sample) -> None:
        """Count an event that cannot be decided again."""
        _counted_by(self.undecided, why).add(sample)

    def leave_out(self, why: str, sample: Sample) -> None:
        """Count an event of which the documents decided nothing."""
        _counted_by(self.left_out, why).add(sample)

    def sorted_rows(self) -> list[tuple[Difference, Count]]:
        """The rows: who loses, who gains, shadow Roles, what stays; then by Role and caller."""
        order = {change: place for place, change in enumerate(Change)}
        return sorted(
            self.rows.items(), key=lambda row: (order[row[0].change], row[0].role, row[0])
        )

    def as_json(self) -> dict[str, object]:
        """The report for programs."""
        return {
            "loss": self.loss,
            **{f"{kind}s": _totals(totals) for kind, totals in self.totals.items()},
            "changes": [{**_row(row), **_counted(count)} for row, count in self.sorted_rows()],
            "undecided": [
                {"why": why, **_counted(count)}
                for why, count in sorted(self.undecided.items(), key=itemgetter(0))
            ],
            "left_out": [
                {"why": why, **_counted(count)}
                for why, count in sorted(self.left_out.items(), key=itemgetter(0))
            ],
        }


def _counted_by(counts: dict[str, Count], why: str) -> Count:
    """Return the count for *why*. Events word some of the reasons, so their number has a limit."""
    if why not in counts and len(counts) >= _MOST_ROWS:
        why = _OTHERS
    return counts.setdefault(why, Count())


def _is_loss(difference: Difference, only_denies: Callable[[str], bool]) -> bool:
    return difference.change is Change.LOSES and (
        difference.refused or not all(map(only_denies, difference.policies))
    )


def _totals(totals: Totals) -> dict[str, int]:
    return {
        "decided": totals.decided,
        "lose": totals.lose,
        "gain": totals.gain,
        "keep": totals.keep,
        "stay_refused": totals.stay_refused,
    }


def _row(row: Difference) -> dict[str, object]:
    return {
        "change": row.change,
        "kind": row.kind,
        "role": row.role,
        "who": row.who,
        "access": row.access or None,
        "refused": row.refused,
        "why": row.why or None,
        "policies": list(row.policies),
        "shadow": row.shadow,
    }


def _counted(count: Count) -> dict[str, object]:
    return {
        "events": count.events,
        "sample": count.sample and count.sample._asdict(),
    }
