"""
The values that a token can have where given conditions hold, as far as the documents tell them.

Conditions on one claim are solved together: `StringEqual` lists the values, and the others on the
same claim take some away. Nothing is assumed of a claim that no condition lists. So a *contradiction*
is certain, and what is not one may still be impossible for a reason that only a token shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

from federation.claims import Claims, is_copied
from federation.policy.conditions import KEY_PREFIX, Condition, Operator
from federation.policy.index import CHOSEN_WITH_ROLE

Values = Mapping[str, tuple[str, ...]]
"""By condition key: the only texts that the claim can be. Other claims can be anything."""

_NEVER_A_LIST = frozenset({"jwt:iss", "jwt:sub"})
_BROKERS_OWN = frozenset({"iss", "aud", "iat", "nbf", "exp", "jti", "fed:iss", "fed:jti"})
"""Claims that every access token has."""


class Held(Enum):
    """A condition's result for tokens with certain values, as far as the documents decide it."""

    ALWAYS = "always"
    SOMETIMES = "sometimes"
    NEVER = "never"


def one_of_issuers(issuers: Iterable[str]) -> Condition:
    """Return the condition that a token is of one of the configured *issuers*."""
    return Condition(Operator.STRING_EQUAL, "jwt:iss", tuple(issuers))


def possible_values(conditions: Iterable[Condition], of_issuers: Condition) -> Values | None:
    """
    Return the values of subject tokens for which all *conditions* and *of_issuers* can hold.

    None means that the conditions contradict each other, so that no token satisfies them.
    """
    by_key: dict[str, list[Condition]] = defaultdict(list)
    for condition in conditions:
        by_key[condition.key].append(condition)
    by_key["jwt:iss"].append(of_issuers)
    found: dict[str, tuple[str, ...]] = {}
    for key, about in by_key.items():
        if len(about) == 1 and about[0].operator.exact and all(about[0].values):
            found[key] = about[0].values  # as most conditions are
            continue
        of_list = {condition.operator.of_list for condition in about}
        if len(of_list) == 2 or (of_list == {True} and key in _NEVER_A_LIST):
            return None  # a claim is one value or a list, and never both
        if any(not c.operator.negative and not any(c.values) for c in about):
            return None  # an empty claim satisfies nothing
        if of_list == {True}:
            continue  # each condition may be satisfied by another member
        values = _common(about)
        if values is not None:
            if not values:
                return None
            found[key] = values
    return MappingProxyType(found)


def _common(about: Sequence[Condition]) -> tuple[str, ...] | None:
    """Return the values that all conditions on one claim accept, None if nothing lists them."""
    exact = [condition for condition in about if condition.operator.exact]
    if exact:
        listed = dict.fromkeys(exact[0].values)
        return tuple(v for v in listed if all(condition.accepts(v) for condition in about))
    # A condition that ignores case accepts more spellings than it lists, so it lists nothing. Only
    # another of its kind can contradict it for certain.
    blind = [c for c in about if c.operator is Operator.STRING_EQUAL_IGNORE_CASE]
    if blind and not any(all(c.accepts(v) for c in blind) for v in blind[0].values):
        return ()
    return None


def of_subject_token(condition: Condition) -> bool:
    """Return whether *condition*, of a statement, reads a claim that the subject token has too."""
    return is_copied(condition.path[0])


def allow_can_hold(condition: Condition, values: Values) -> bool:
    """
    Return whether *condition* of an Allow can hold for an access token.

    It is one of those for which `of_subject_token` is false.
    """
    name, whole = condition.path[0], len(condition.path) == 1
    if whole and name in {"role", "policy"}:
        return condition.operator.of_list
    if whole and (known := _told(condition, values)) is not None:
        return any(map(condition.accepts, known))
    if condition.key == "jwt:sub" and condition.operator.exact:
        return any(value.startswith("fed:") for value in condition.values)
    return name in _BROKERS_OWN | CHOSEN_WITH_ROLE or name == "sub"


def deny_holds(condition: Condition, values: Values, role: str, policies: Sequence[str]) -> Held:
    """
    Return how far *condition* of a Deny holds for access tokens of the Role *role*.

    A Deny counts an absent claim, or one of the wrong kind, as holding.
    """
    name, whole = condition.path[0], len(condition.path) == 1
    if whole and name in {"role", "policy"}:
        if not condition.operator.of_list:
            return Held.ALWAYS
        own = (role,) if name == "role" else policies
        return Held.ALWAYS if any(map(condition.accepts, own)) else Held.SOMETIMES
    known = values.get(condition.key) if of_subject_token(condition) else None
    if known is None and whole:
        known = _told(condition, values)
    if known is not None:
        refuted = [condition.refuted(_claims(condition, value)) for value in known]
        if all(refuted):
            return Held.NEVER
        return Held.SOMETIMES if any(refuted) else Held.ALWAYS
    there = is_copied(name) or name in _BROKERS_OWN | CHOSEN_WITH_ROLE or name == "sub"
    return Held.SOMETIMES if there else Held.ALWAYS


def _told(condition: Condition, values: Values) -> tuple[str, ...] | None:
    """Return the texts that a claim of the access token has by *values*, None if they do not tell."""
    if condition.key == "jwt:sub" and "jwt:sub" in values:
        return tuple(f"fed:{subject}" for subject in values["jwt:sub"])
    if condition.key == f"{KEY_PREFIX}fed:iss":
        return values.get("jwt:iss")
    return None


def _claims(condition: Condition, value: str) -> Claims:
    """Return claims in which the one that *condition* reads is *value*."""
    made: object = value
    for step in reversed(condition.path):
        made = {step: made}
    assert isinstance(made, dict)  # noqa: S101  a path has at least one step
    return Claims(made)
