"""
The trust errors T001 to T005: Roles that would admit strangers, so the documents are refused.

A signature proves only that some job ran somewhere. A Role is safe if it says whose job: it names
its issuers exactly, pins the owner of the code if its issuer is shared, has no wildcard within the
owner's name, rests on more than values that a stranger may set, and means one kind of issuer.
`docs/lint.md` has the attack behind each rule.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from federation.documents.rules.owners import fixed_owner, literal_prefix
from federation.documents.rules.role_facts import Fault, PlacedCondition, RoleFacts, RoleForm, yaml
from federation.policy.conditions import KEY_PREFIX, Condition, key_path
from federation.providers.table import PROFILES, Profile
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
    if facts.shared is None or facts.pins:
        return
    others = [placed.key for placed in facts.conditions if placed.key not in {"jwt:iss", "jwt:aud"}]
    but = f" ({', '.join(dict.fromkeys(others))} cannot)" if others else ""
    yield Fault(
        facts.block,
        f"anybody can get a token from {quoted(facts.shared.iss)}, and nothing pins who owns "
        f"the code{but}",
        f"add {_owner_pin(facts.profile)}",
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
    if condition.key not in facts.owner_keys.begin_with_owner or literal == value:
        return False
    if condition.key in facts.owner_keys.names:
        return True
    if condition.key in facts.owner_keys.composed:
        return fixed_owner(facts.profile, condition, value) is None
    if condition.key == "jwt:sub":
        # Where `sub` is one id it may begin with any text, unless it looks like a repository's.
        return facts.profile.ci or bool(_OWNER_LIKE.match(value))
    return literal.find("/") < 1


_OWNER_LIKE = re.compile(r"(?:repo|project_path|organization|system:serviceaccount):[^/:]*[*?]")


def may_be_free(form: RoleForm) -> bool:
    """Return whether a condition may be on a free value."""
    free, within = form.rule_keys.free | {"jwt:sub"}, form.rule_keys.free_within
    return form.names(free) or any(key.startswith(within) for key in form.keys)


def rests_on_free_values(facts: RoleFacts) -> Iterator[Fault]:
    """T004: only values that a stranger may set decide who is admitted."""
    free = [placed for placed in facts.conditions if placed.narrows and _is_free(facts, placed)]
    if not free or says_who(facts):
        return
    value, reason = _why_free(facts.profile, free[0])
    yield Fault(
        free[0].place,
        f"{quoted(value)} proves nothing by itself: {reason}",
        f"add {_owner_pin(facts.profile)}",
    )


def mixed_issuers(facts: RoleFacts) -> Iterator[Fault]:
    """T005: names and ids mean different things at each of the Role's issuers."""
    providers = sorted({issuer.provider for issuer in facts.issuers})
    shared = [issuer for issuer in facts.issuers if issuer.shared]
    own = [issuer for issuer in facts.issuers if not issuer.shared]
    if len(providers) > 1:
        why = (
            f"its issuers are of different providers ({', '.join(providers)}), whose "
            "claims mean different things"
        )
    elif shared and own:
        why = (
            f"anybody can get a token from {quoted(shared[0].iss)}, and the ids there are not "
            f"those of {quoted(own[0].iss)}"
        )
    else:
        return  # one issuer, or one service, as github.com is with an enterprise's path
    yield Fault(facts.exact["jwt:iss"].place, why, "write one Role for each issuer")


def says_who(facts: RoleFacts) -> bool:
    """Return whether some condition of the Role says whose tokens it means."""
    if facts.shared is not None:
        return bool(facts.pins)
    return any(_is_more_than_the_issuer(facts, pin) for pin in facts.pins) or any(
        placed.narrows and _names_people(facts, placed) for placed in facts.conditions
    )


def _is_more_than_the_issuer(facts: RoleFacts, pin: Condition) -> bool:
    """Return whether *pin* keeps out some tokens of an issuer that serves one owner alone."""
    if pin.key not in facts.rule_keys.whole_issuer:
        return True
    return all(
        literal_prefix(value) != fixed_owner(facts.profile, pin, value) for value in pin.values
    )


def _names_people(facts: RoleFacts, placed: PlacedCondition) -> bool:
    """Return whether *placed* names people, groups of them, or programs."""
    if facts.form.is_of_everybody(placed.condition):
        return False
    owner = facts.profile.owner
    if placed.key in facts.rule_keys.groups or (
        owner.more_groups and owner.more_groups.fullmatch(placed.claim)
    ):
        return all(map(_says_something, placed.values)) and not any(
            owner.everybody and owner.everybody.fullmatch(value) for value in placed.values
        )
    if placed.key in facts.rule_keys.people:
        return all(
            _says_something(value) or _says_something(value.rpartition("@")[2])
            for value in placed.values
        )
    return placed.key in facts.rule_keys.id_patterns and all(map(_says_something, placed.values))


def _says_something(value: str) -> bool:
    """Return whether *value* begins with a letter or digit before its first wildcard."""
    return bool(literal_prefix(value).strip(string.punctuation))


def nearest_issuer(iss: str, issuers: Iterable[str]) -> str:
    """A hint with the configured issuer that was probably meant, empty if none is similar."""
    near = nearest(iss, issuers, cutoff=0.7)
    return f"did you mean {quoted(near)}?" if near else ""


def _owner_pin(profile: Profile) -> str:
    """The condition that pins the caller's owner."""
    claim, value = profile.owner.pin
    return yaml("StringEqual", **{claim: value})


_SUB_FORMS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("repo:", "repository:", "project_path:", "namespace_path:"), "/"),
        **dict.fromkeys(("organization:", "system:serviceaccount:"), ":"),
    }
)
"""The beginnings of a `sub` after which an owner's name comes, each with what ends the name."""

_OWNER_NAME = re.compile(r"[^/:@\s]+")


def _owner_words(facts: RoleFacts, placed: PlacedCondition, value: str) -> tuple[str, str]:
    """The message about a misplaced wildcard, with a value that it admits, and the hint."""
    literal = literal_prefix(value)
    is_name = placed.key in facts.owner_keys.names
    begins, separator = "", "/"
    if placed.key in facts.owner_keys.composed or placed.key == "jwt:sub":
        sub_begins = facts.profile.owner.sub_begins
        begins = next(filter(literal.startswith, _SUB_FORMS), sub_begins)
        separator = _SUB_FORMS.get(begins, facts.profile.owner.separator)
    begun = literal.removeprefix(begins).rstrip("/") if literal.startswith(begins) else ""
    # A hint must not repeat what is no owner's name, such as `acme@` or `/acme`.
    shape = placed.shape if is_name else None
    form = shape.whole if shape else _OWNER_NAME
    owner = begun if value[len(literal)] == "*" and form.fullmatch(begun) else "<owner>"
    hint = f"write {quoted(begins + owner + separator + '*')}"
    if is_name:
        hint = f"write {yaml('StringEqual', **{placed.claim: owner})}"
    if not begun:
        return f"{quoted(value)} matches whoever owns the code", hint
    intruder = _intruder(is_name, separator, literal, value)
    return f"{quoted(value)} also matches {quoted(intruder)}", hint


def _intruder(is_name: bool, separator: str, literal: str, value: str) -> str:
    """A value from another owner that *value* matches too."""
    wildcard, rest = value[len(literal)], value[len(literal) + 1 :]
    if wildcard == "?":
        return literal + "x" + _elided(rest)
    part = rest.partition(":")[0] if separator == "/" else rest
    whole = is_name or separator in part
    return literal + ("-evil" if whole else f"-evil{separator}…") + _elided(rest)


def _elided(rest: str) -> str:
    return re.sub(r"[*?]+", "…", rest.lstrip("*"))


_FREE_IN_SUB: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        name: re.compile(rf"({'|'.join(map(re.escape, profile.free)) or '(?!)'}):")
        for name, profile in PROFILES.items()
    }
)
"""The beginning of a `sub` that shows a free claim first, by provider."""


def _is_free(facts: RoleFacts, placed: PlacedCondition) -> bool:
    """Return whether *placed* is on a free claim, or on a `sub` that may show only such a claim."""
    if placed.key in facts.rule_keys.free or placed.key.startswith(facts.rule_keys.free_within):
        return True
    # The values are ORed, so one that shows a free claim is enough.
    return placed.key == "jwt:sub" and any(_free_in_sub(facts.profile, placed))


def _free_in_sub(profile: Profile, placed: PlacedCondition) -> Iterator[tuple[str, str]]:
    """Each value of a `sub` that shows a free claim and no owner, with the claim."""
    for value in placed.values:
        found = _FREE_IN_SUB[profile.name].match(value)
        if found and not fixed_owner(profile, placed.condition, value):
            yield value, found[1]


def _why_free(profile: Profile, placed: PlacedCondition) -> tuple[str, str]:
    """A value of a free condition that proves nothing, and why."""
    for claim, reason in profile.free.items():
        path = key_path(KEY_PREFIX + claim)
        if placed.condition.path[: len(path)] == path:
            return placed.values[0], reason
    value, claim = next(_free_in_sub(profile, placed))
    return value, profile.free[claim]
