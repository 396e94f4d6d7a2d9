"""
The `status` of an object: what a Verdict says, in the form that kubectl, Flux and Argo CD read.

The conditions follow kstatus. `Ready` says whether the object is in force as it is written.
`Stalled` is True if only a change of an object can help, which Flux and Helm count as failed;
an object that waits for another one is in progress instead. A status is a function of the object
and its Verdict, so that every replica comes to the same one. It is bounded, since it is written
into every object, and its text comes from the authors of objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from federation.documents.kubernetes.unite import ApiObject, Standing, Verdict
from federation.documents.kubernetes.verdicts import (
    CODE_CHARS,
    FIELD_CHARS,
    PROBLEM_CHARS,
    PROBLEMS,
)
from federation.errors import Problem, Severity
from federation.text import counted, printable

PROBLEMS_BYTES = 32 * 1024
"""All problems of an object, as JSON."""
RECORDED = "%Y-%m-%dT%H:%M:%SZ"
"""Kubernetes' form of a time."""

Status: TypeAlias = Mapping[str, object]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_STALLED = frozenset({Standing.INVALID, Standing.REFUSED, Standing.CONFLICT})
"""The other standings that are not Ready end when another object comes or changes."""
_OURS = ("status", "reason", "message", "observedGeneration")
"""The fields of a condition that follow from the Verdict alone."""


def desired_status(found: ApiObject, verdict: Verdict, old: Status, now: datetime) -> Status | None:
    """
    Return the status that *found* should have, or None if *old* says the same already.

    `lastTransitionTime` is *now* for a condition whose `status` changes, else that of *old*.
    Conditions of other types and fields of other owners are left alone.
    """
    listed = _problems(verdict.problems)
    wanted = _conditions(found.generation, verdict, len(listed))
    before = conditions_of(old)
    if (
        _is_number(old.get("observedGeneration"), found.generation)
        and old.get("problems", []) == listed
        and all(_agrees(before.get(kind, {}), each) for kind, each in wanted.items())
    ):
        return None
    return {
        "observedGeneration": found.generation,
        "conditions": [
            {"type": kind, **each, "lastTransitionTime": _since(before.get(kind, {}), each, now)}
            for kind, each in wanted.items()
        ],
        "problems": listed,
    }


def conditions_of(status: Status) -> Mapping[str, Mapping[str, object]]:
    """The conditions in *status* by their type. Anything may stand there."""
    listed = status.get("conditions")
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return {each["type"]: each for each in found if isinstance(each.get("type"), str)}


def is_stalled(verdict: Verdict) -> bool:
    """True if nothing but a change of this object, or of the one it conflicts with, can help."""
    return verdict.standing in _STALLED


def _conditions(
    generation: int, verdict: Verdict, listed: int
) -> Mapping[str, Mapping[str, object]]:
    """`Ready` and `Stalled`, without the time."""
    more = len(verdict.problems) - listed
    rest = f" {counted(more, 'more problem')} not listed." if more else ""
    facts = {
        "reason": verdict.standing.value,
        "message": printable(verdict.explained, PROBLEM_CHARS - len(rest)) + rest,
        "observedGeneration": generation,
    }
    ready = verdict.standing is Standing.ACCEPTED
    return {
        "Ready": {"status": _word(ready), **facts},
        "Stalled": {"status": _word(is_stalled(verdict)), **facts},
    }


def _word(value: bool) -> str:
    return "True" if value else "False"


def _problems(problems: Iterable[Problem]) -> list[dict[str, str]]:
    """The first of *problems* that fit, errors before warnings, each made safe to show."""
    ordered = sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)
    return list(_within(map(_listed, ordered[:PROBLEMS]), PROBLEMS_BYTES))


def _within(entries: Iterable[dict[str, str]], left: int) -> Iterator[dict[str, str]]:
    for entry in entries:
        left -= len(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace"))
        if left < 0:
            return
        yield entry


def _listed(problem: Problem) -> dict[str, str]:
    texts = {
        "code": printable(problem.code, CODE_CHARS),
        "severity": problem.severity.value,
        "field": printable(problem.field, FIELD_CHARS),
        "message": printable(problem.message, PROBLEM_CHARS),
        "hint": printable(problem.hint, PROBLEM_CHARS),
    }
    return {name: text for name, text in texts.items() if text or name == "message"}


def _agrees(before: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    same = all(before.get(name) == wanted[name] for name in _OURS)
    # `True == 1` in Python, but not in JSON.
    return same and _is_number(before["observedGeneration"]) and _has_time(before)


def _is_number(value: object, expected: int | None = None) -> bool:
    return type(value) is int and (expected is None or value == expected)


def _has_time(condition: Mapping[str, object]) -> bool:
    since = condition.get("lastTransitionTime")
    return isinstance(since, str) and bool(_TIME.fullmatch(since))


def _since(before: Mapping[str, object], wanted: Mapping[str, Any], now: datetime) -> object:
    """Return since when the condition has its `status`."""
    if before.get("status") == wanted["status"] and _has_time(before):
        return before["lastTransitionTime"]
    return now.strftime(RECORDED)
