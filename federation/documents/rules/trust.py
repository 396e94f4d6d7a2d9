"""
The trust errors T001 to T004: Roles that would admit strangers, so the documents are refused.

A signature proves only that some job ran somewhere. A Role is safe if it says whose job: it names
its issuers exactly, pins the owner of the code if its issuer is shared, has no wildcard within the
owner's name, and rests on more than values that a stranger may set. `docs/lint.md` has the attack
behind each rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from federation.documents.rules.owners import (
    NAME_KEYS,
    OWNER_FORM,
    OWNER_PATH_KEYS,
    fixed_owner,
    literal_prefix,
    owner_pins,
)
from federation.documents.rules.role_facts import Fault, PlacedCondition, RoleFacts, yaml
from federation.policy.conditions import Condition, keys
from federation.providers.table import PROFILES, Provider, all_claims
from federation.text import nearest, quoted


def without_issuer(facts: RoleFacts) -> Iterator[Fault]:
    """T001: no exact condition names a configured issuer."""
    if facts.issuers:
        return
    about = [placed for placed in facts.conditions if placed.key == "jwt:iss"]
    exact = [placed for placed in about if placed.operator.exact]
    place = next((placed.place for placed in (*exact, *about)), facts.block)
    named = [value for placed in exact for value in placed.values]
    if not exact:
        message = "no StringEqual on jwt:iss, so a token of any issuer could be admitted"
        if about:
            message = f"{about[0].operator} on jwt:iss does not name an issuer exactly"
        only = len(facts.configured) == 1
        iss = next(iter(facts.configured)) if only else "<iss of the JwtIssuer>"
        hint = f"write {yaml('StringEqual', iss=iss)}"
    elif any(value in facts.configured for value in named):
        message = "the conditions on jwt:iss leave no configured issuer over"
        hint = "name the issuer once"
    else:
        message = f"no JwtIssuer is configured for {', '.join(map(quoted, named[:3]))}"
        hint = (
            nearest_issuer(named[0], facts.configured) or "add a JwtIssuer document with this iss"
        )
    yield Fault(place, message, hint)


def unpinned(facts: RoleFacts) -> Iterator[Fault]:
    """T002: an issuer gives tokens to strangers too, and no condition pins the code's owner."""
    open_to_all = [issuer for issuer in facts.issuers if issuer.shared]
    if not open_to_all or owner_pins(facts.role):
        return
    others = [placed.key for placed in facts.conditions if placed.key not in {"jwt:iss", "jwt:aud"}]
    but = f" ({', '.join(dict.fromkeys(others))} cannot)" if others else ""
    yield Fault(
        facts.block,
        f"anybody can get a token from {quoted(open_to_all[0].iss)}, and nothing pins who owns "
        f"the code{but}",
        f"add {_owner_pin(issuer.provider for issuer in open_to_all)}",
    )


def misplaced_wildcards(facts: RoleFacts) -> Iterator[Fault]:
    """T003: a wildcard is in or before the owner's name, so that other owners match too."""
    for placed in facts.patterns:
        for place, value in placed.placed_values:
            if reaches_the_owner(facts, placed.condition, value):
                yield Fault(place, *_owner_words(facts, placed, value))


def reaches_the_owner(facts: RoleFacts, condition: Condition, value: str) -> bool:
    """Return whether *value* has a wildcard in or before the owner's name."""
    literal = literal_prefix(value)
    if condition.key not in OWNER_PATH_KEYS or literal == value:
        return False
    if condition.key in NAME_KEYS:
        return True
    if condition.key == "jwt:sub":
        names_owner = facts.of_ci or value.startswith(_SUB_BEGINNINGS)
        return names_owner and fixed_owner(condition, value) is None
    return literal.find("/") < 1


def rests_on_free_values(facts: RoleFacts) -> Iterator[Fault]:
    """T004: only values that a stranger may set decide who is admitted."""
    if facts.narrowed.isdisjoint(_MAYBE_FREE):
        return
    narrowing = [placed for placed in facts.conditions if placed.narrows]
    free = [placed for placed in narrowing if _is_free(facts, placed)]
    firm = (p for p in narrowing if p.key not in _CIRCUMSTANCES and p not in free)
    if not free or any(firm):
        return
    first = free[0]
    yield Fault(
        first.place,
        f"{quoted(first.values[0])} proves nothing by itself: {_FREE[_free_claim(first)]}",
        f"add {_owner_pin(facts.providers)}",
    )


def nearest_issuer(iss: str, issuers: Iterable[str]) -> str:
    """A hint with the configured issuer that was probably meant, empty if none is similar."""
    near = nearest(iss, issuers, cutoff=0.7)
    return f"did you mean {quoted(near)}?" if near else ""


def _owner_pin(providers: Iterable[Provider]) -> str:
    """The condition that pins the caller's owner, for each of *providers*."""
    pins = [PROFILES[each].owner.pin for each in sorted(set(providers)) or [Provider.GENERIC]]
    return " or ".join(yaml("StringEqual", **{claim: value}) for claim, value in pins)


_SUB_BEGINNINGS = tuple(profile.sub_begins for profile in PROFILES.values())


def _owner_words(facts: RoleFacts, placed: PlacedCondition, value: str) -> tuple[str, str]:
    """The message about a misplaced wildcard, with a value that it admits, and the hint."""
    literal = literal_prefix(value)
    if placed.key != "jwt:sub":
        begins, begun = "", literal.rstrip("/")
    elif form := OWNER_FORM.match(literal):
        begins, begun = form[0], literal.removeprefix(form[0]).rstrip("/")
    else:
        provider = min(facts.providers, default=Provider.GENERIC)
        begins, begun = PROFILES[provider].sub_begins, ""
    owner = begun if begun and value[len(literal)] == "*" else "<owner>"
    hint = f"write {quoted(begins + owner + '/*')}"
    if placed.key in NAME_KEYS:
        hint = f"write {yaml('StringEqual', **{placed.claim: owner})}"
    if not begun:
        return f"{quoted(value)} matches whoever owns the code", hint
    return f"{quoted(value)} also matches {quoted(_intruder(placed.key, literal, value))}", hint


def _intruder(key: str, literal: str, value: str) -> str:
    """A value from another owner that *value* matches too."""
    wildcard, rest = value[len(literal)], value[len(literal) + 1 :]
    if wildcard == "?":
        return literal + "x" + _elided(rest)
    whole = key in NAME_KEYS or "/" in rest.partition(":")[0]
    return literal + ("-evil" if whole else "-evil/…") + _elided(rest)


def _elided(rest: str) -> str:
    return re.sub(r"[*?]+", "…", rest.lstrip("*"))


_FREE = {claim: why for profile in PROFILES.values() for claim, why in profile.free.items()}
_FREE_KEYS = keys(*_FREE)
_MAYBE_FREE = keys(*_FREE, "sub")
_FREE_IN_SUB = re.compile(rf"({'|'.join(_FREE)}):")
_CIRCUMSTANCES = keys(
    *("iss", "aud", "jti", "exp", "iat", "nbf"), *all_claims(lambda profile: profile.circumstances)
)


def _is_free(facts: RoleFacts, placed: PlacedCondition) -> bool:
    """Return whether *placed* is on a free claim, or on a `sub` that shows only such a claim."""
    if placed.key in _FREE_KEYS:
        return True
    return (
        facts.of_ci
        and placed.key == "jwt:sub"
        and all(
            _FREE_IN_SUB.match(value) and not fixed_owner(placed.condition, value)
            for value in placed.values
        )
    )


def _free_claim(placed: PlacedCondition) -> str:
    found = _FREE_IN_SUB.match(placed.values[0]) if placed.key == "jwt:sub" else None
    return found[1] if found else placed.claim
