"""
T001 to T004: the Roles that are refused, because they let in people nobody meant to let in.

A signature proves "some job, somewhere". A Role is safe only if it says whose: it names its
issuers exactly, it pins who owns the code where strangers get tokens too, no wildcard reaches
into the owner's name, and the identity does not rest on a value that its owner may set.
`docs/lint.md` holds the attack behind each rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from federation.documents.model import JwtIssuer
from federation.documents.rules.owners import (
    OWNER_PATH_KEYS,
    fixed_owner,
    literal_prefix,
    owner_pins,
)
from federation.documents.rules.role_facts import Reading, Written, keys, yaml
from federation.errors import Problem
from federation.policy.conditions import Condition
from federation.providers.table import Provider
from federation.text import nearest, quoted

__all__ = [
    "misplaced_wildcards",
    "nearest_issuer",
    "rests_on_free_values",
    "unpinned",
    "without_issuer",
]

_OWNER_ID = "<id of the owner>"
_GROUP_ID = "<id of the group>"


def without_issuer(reading: Reading, issuers: Mapping[str, JwtIssuer]) -> Iterator[Problem]:
    """T001: no exact condition names a configured issuer."""
    if reading.issuers:
        return
    about = [written for written in reading.conditions if written.condition.key == "jwt:iss"]
    exact = [w for w in about if w.condition.operator.exact and w.condition.key == "jwt:iss"]
    place = next((w.place for w in (*exact, *about)), reading.block)
    named = [value for written in exact for value in written.values]
    if not exact:
        message = "no StringEqual on jwt:iss, so a token of any issuer could be admitted"
        if about:
            message = f"{about[0].condition.operator} on jwt:iss does not name an issuer exactly"
        hint = f"write {yaml('StringEqual', iss=_issuers_to_name(issuers))}"
    elif any(iss in issuers for iss in named):
        message = "the conditions on jwt:iss leave no configured issuer over"
        hint = "name the issuer once"
    else:
        message = f"no JwtIssuer is configured for {', '.join(map(quoted, named[:3]))}"
        hint = nearest_issuer(named[0], issuers) or "add a JwtIssuer document with this iss"
    yield reading.problem("T001", place, message, hint)


def unpinned(reading: Reading) -> Iterator[Problem]:
    """T002: an issuer serves strangers too, and nothing pins who owns the code."""
    everybodys = [issuer for issuer in reading.issuers if issuer.shared]
    if not everybodys or owner_pins(reading.role):
        return
    vain = [
        written.condition.key
        for written in reading.conditions
        if written.condition.key not in _SAYS_NOTHING
    ]
    but = f" ({', '.join(dict.fromkeys(vain))} cannot)" if vain else ""
    yield reading.problem(
        "T002",
        reading.block,
        f"anybody can get a token from {quoted(everybodys[0].iss)}, and nothing pins who owns "
        f"the code{but}",
        f"add {_caller_pin(issuer.provider for issuer in everybodys)}",
    )


def misplaced_wildcards(reading: Reading) -> Iterator[Problem]:
    """T003: a wildcard stands in or before the owner, so that other owners match as well."""
    for written in reading.patterns:
        condition = written.condition
        for number, value in enumerate(condition.values):
            if reaches_the_owner(reading, condition, value):
                message, hint = _owner_words(reading, condition.key, value)
                yield reading.problem("T003", written.place, message, hint, value=number)


def reaches_the_owner(reading: Reading, condition: Condition, value: str) -> bool:
    """Whether a wildcard in *value* reaches into or before the owner that the key begins with."""
    literal = literal_prefix(value)
    if condition.key not in OWNER_PATH_KEYS or literal == value:
        return False
    if condition.key == "jwt:repository_owner":
        return True
    if condition.key == "jwt:sub":
        judged = reading.of_ci or value.startswith(("repo:", "project_path:"))
        return judged and fixed_owner(condition, value) is None
    return literal.find("/") < 1


def rests_on_free_values(reading: Reading) -> Iterator[Problem]:
    """T004: who is admitted rests only on values that somebody else may set."""
    if reading.narrowed.isdisjoint(_MAYBE_FREE):
        return
    narrowing = [written for written in reading.conditions if written.narrows]
    free = [written for written in narrowing if _free(reading, written)]
    firm = (w for w in narrowing if w.condition.key not in _CONTEXT and w not in free)
    if not free or any(firm):
        return
    first = free[0]
    claim = _free_claim(first)
    yield reading.problem(
        "T004",
        first.place,
        f"{quoted(first.values[0])} proves nothing by itself: {_FREE[claim]}",
        f"add {_caller_pin(reading.providers)}",
    )


def nearest_issuer(iss: str, issuers: Iterable[str]) -> str:
    """The question which configured issuer was meant, empty where none is near."""
    near = nearest(iss, issuers, cutoff=0.7)
    return f"did you mean {quoted(near)}?" if near else ""


def _issuers_to_name(issuers: Mapping[str, JwtIssuer]) -> str:
    return next(iter(issuers)) if len(issuers) == 1 else "<iss of the JwtIssuer>"


_SAYS_NOTHING = keys("iss", "aud")


def _caller_pin(providers: Iterable[Provider]) -> str:
    """The condition that pins the caller's owner, for each of *providers*."""
    pins = {
        Provider.GITHUB: yaml("StringEqual", repository_owner_id=_OWNER_ID),
        Provider.GITLAB: yaml("StringEqual", namespace_id=_GROUP_ID),
        Provider.GENERIC: yaml("StringEqual", sub="<the caller's sub>"),
    }
    return " or ".join(pins[provider] for provider in sorted(set(providers)) or [Provider.GENERIC])


_OWNER_FORM = re.compile(r"(?:repo|repository|project_path|namespace_path):")


def _owner_words(reading: Reading, key: str, value: str) -> tuple[str, str]:
    """What a misplaced wildcard lets in, and what to write."""
    claim = key.removeprefix("jwt:")
    literal = literal_prefix(value)
    form = _OWNER_FORM.match(literal) if claim == "sub" else None
    begun = literal.removeprefix(form[0] if form else "").rstrip("/")
    hint = _whole_owner(reading, claim, form, begun if value[len(literal)] == "*" else "")
    if not begun or (claim == "sub" and not form):
        return f"{quoted(value)} matches whoever owns the code", hint
    return f"{quoted(value)} also matches {quoted(_intruder(claim, literal, value))}", hint


def _whole_owner(reading: Reading, claim: str, form: re.Match[str] | None, owner: str) -> str:
    """The condition with the whole of *owner*; with a placeholder where nobody can guess it."""
    if claim == "repository_owner":
        return f"write {yaml('StringEqual', repository_owner=owner or '<owner>')}"
    if claim != "sub":
        return f"write {quoted((owner or '<owner>') + '/*')}"
    if form:
        return f"write {quoted(form[0] + (owner or '<owner>') + '/*')}"
    begins = "project_path:" if reading.providers == {Provider.GITLAB} else "repo:"
    return f"write {quoted(begins + '<owner>/*')}"


def _intruder(claim: str, literal: str, value: str) -> str:
    """A value from another owner that *value* matches too."""
    wildcard, rest = value[len(literal)], value[len(literal) + 1 :]
    if wildcard == "?":
        return literal + "x" + _elided(rest)
    whole = claim == "repository_owner" or "/" in rest.partition(":")[0]
    return literal + ("-evil" if whole else "-evil/…") + _elided(rest)


def _elided(rest: str) -> str:
    return re.sub(r"[*?]+", "…", rest.lstrip("*"))


_FREE: Mapping[str, str] = MappingProxyType(
    {
        "workflow": "it is a display name, and any repository can have a workflow called so",
        "actor": "it names who started the run, not whose code runs",
        "user_login": "it names who started the pipeline, and the user can change it",
        "user_email": "it names who started the pipeline, and the user can change it",
        "job_workflow_ref": "it names the workflow that was called, and any repository may call it",
    }
)
"""Claims that others may set freely, each with the reason."""

_FREE_KEYS = keys(*_FREE)
_MAYBE_FREE = keys(*_FREE, "sub")
_FREE_IN_SUB = re.compile(rf"({'|'.join(_FREE)}):")

_CONTEXT = keys(
    "iss",
    "aud",
    "ref",
    "ref_type",
    "ref_path",
    "ref_protected",
    "base_ref",
    "head_ref",
    "environment",
    "environment_protected",
    "environment_action",
    "environment_node_id",
    "deployment_tier",
    "event_name",
    "pipeline_source",
    "job_source",
    "runner_environment",
    "runner_id",
    "repository_visibility",
    "project_visibility",
    "user_access_level",
    "sha",
    "workflow_sha",
    "job_workflow_sha",
    "ci_config_sha",
    "run_id",
    "run_number",
    "run_attempt",
    "check_run_id",
    "pipeline_id",
    "job_id",
    "jti",
    "exp",
    "iat",
    "nbf",
    "target_audience",
)
"""Keys that say under which circumstances a job runs: a stranger's own project has them all."""


def _free(reading: Reading, written: Written) -> bool:
    """Whether *written* is on a free claim, or on a `sub` that shows nothing but one."""
    if written.condition.key in _FREE_KEYS:
        return True
    return (
        reading.of_ci
        and written.condition.key == "jwt:sub"
        and all(
            _FREE_IN_SUB.match(value) and not fixed_owner(written.condition, value)
            for value in written.values
        )
    )


def _free_claim(written: Written) -> str:
    found = _FREE_IN_SUB.match(written.values[0]) if written.condition.key == "jwt:sub" else None
    return found[1] if found else written.condition.key.removeprefix("jwt:")
