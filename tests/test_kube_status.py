"""The status of an object says what became of it, to people, to kstatus and to Argo CD."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.documents.kubernetes.unite import ApiObject, Standing, Verdict
from federation.documents.kubernetes.verdicts import FIELD_CHARS, PROBLEM_CHARS, PROBLEMS
from federation.errors import Problem, Severity
from federation.sources.kubernetes.events import NOTE_BYTES, event, is_told
from federation.sources.kubernetes.status import (
    PROBLEMS_BYTES,
    Status,
    conditions_of,
    desired_status,
)
from tests.harness.kube_status import kstatus
from tests.harness.kube_writes import BAD, GOOD, an_object

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def problem(message: str = "it is wrong", **more: Any) -> Problem:
    facts: dict[str, Any] = {"path": "kubernetes", "line": 0, "code": "T002", "field": "condition"}
    return Problem(severity=more.pop("severity", Severity.ERROR), message=message, **(facts | more))


def written(verdict: Verdict, old: Status | None = None, now: datetime = NOON) -> Any:
    """The status that is written for *verdict*."""
    status = desired_status(an_object(), verdict, old or {}, now)
    assert status is not None
    return status


def is_changed(old: Status, verdict: Verdict = GOOD, found: ApiObject | None = None) -> bool:
    return desired_status(found or an_object(), verdict, old, LATER) is not None


# What it says


def test_an_object_in_force_is_ready_and_not_stalled() -> None:
    assert written(GOOD) == {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": "Accepted",
                "message": "It is in force.",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T12:00:00Z",
            }
            for kind, status in (("Ready", "True"), ("Stalled", "False"))
        ],
        "problems": [],
    }


@pytest.mark.parametrize(
    ("standing", "shown"),
    [
        (Standing.ACCEPTED, "Current"),
        (Standing.INVALID, "Failed"),
        (Standing.REFUSED, "Failed"),
        (Standing.CONFLICT, "Failed"),
        # Another object may come, and objects are applied in any order.
        (Standing.POLICY_MISSING, "InProgress"),
        (Standing.PENDING, "InProgress"),
    ],
)
def test_kstatus_reads_each_standing(standing: Standing, shown: str) -> None:
    metadata = {"generation": 1}
    status = written(Verdict(standing, "So it stands."))
    assert kstatus({"metadata": metadata, "status": status}) == shown
    changed = {"metadata": {"generation": 2}, "status": status}
    assert kstatus(changed) == "InProgress"


def test_every_standing_has_a_reason_that_a_condition_may_have() -> None:
    for standing in Standing:
        reason = written(Verdict(standing, "m"))["conditions"][0]["reason"]
        assert reason.isalpha()
        assert reason == standing


def test_the_message_has_the_first_error_and_what_to_do() -> None:
    """`kubectl get -o wide`, Argo CD and Flux show nothing else."""
    warning = problem("a warning", severity=Severity.WARNING)
    verdict = replace(BAD, problems=(warning, problem(hint="pin it"), problem("more")))
    messages = {each["message"] for each in written(verdict)["conditions"]}
    assert messages == {"It is not in force. T002: condition: it is wrong; pin it"}


def test_the_message_says_nothing_twice() -> None:
    taken = problem("b has this iss", hint="keep one")
    verdict = Verdict(Standing.CONFLICT, "Not in force: b has this iss.", (taken,))
    ready = conditions_of(written(verdict))["Ready"]
    assert ready["message"] == "Not in force: b has this iss. T002: keep one"
    accepted = replace(GOOD, problems=(problem("a warning", severity=Severity.WARNING),))
    assert conditions_of(written(accepted))["Ready"]["message"] == "It is in force."


def test_problems_have_only_the_fields_that_say_something() -> None:
    verdict = replace(BAD, problems=(problem(hint="pin it"), problem(field="")))
    assert written(verdict)["problems"] == [
        {
            "code": "T002",
            "severity": "error",
            "field": "condition",
            "message": "it is wrong",
            "hint": "pin it",
        },
        {"code": "T002", "severity": "error", "message": "it is wrong"},
    ]


# Bounds


def test_errors_come_first_and_the_rest_is_counted() -> None:
    warnings = [problem(str(n), severity=Severity.WARNING) for n in range(PROBLEMS)]
    status = written(replace(BAD, problems=(*warnings, problem("an error"))))
    assert len(status["problems"]) == PROBLEMS
    assert status["problems"][0]["message"] == "an error"
    assert str(conditions_of(status)["Ready"]["message"]).endswith(" 1 more problem not listed.")


def test_texts_are_cut_to_what_the_crds_allow() -> None:
    long = problem("m" * 9000, field="f" * 9000, hint="h" * 9000)
    status = written(Verdict(Standing.REFUSED, "v" * 9000, (long,)))
    (only,) = status["problems"]
    assert len(only["field"]) == FIELD_CHARS
    assert len(only["message"]) == len(only["hint"]) == PROBLEM_CHARS
    assert len(str(conditions_of(status)["Ready"]["message"])) == PROBLEM_CHARS


def test_a_status_is_small_however_much_is_wrong() -> None:
    many = tuple(problem("ﷺ" * 9000, hint="ﷺ" * 9000) for _ in range(100))
    size = len(json.dumps(written(replace(BAD, problems=many)), ensure_ascii=False).encode())
    assert size < PROBLEMS_BYTES + 20_000


def test_text_of_authors_is_printable() -> None:
    evil = "\x1b[2J\u202e\nDONE"
    text = json.dumps(
        written(Verdict(Standing.REFUSED, evil, (problem(evil, field=evil, hint=evil),))),
        ensure_ascii=False,
    )
    assert text.isprintable()


# What is written again


def test_nothing_is_written_where_the_status_says_the_same() -> None:
    for verdict in (GOOD, replace(BAD, problems=(problem(),))):
        assert not is_changed(written(verdict), verdict)


def test_a_status_that_differs_is_written() -> None:
    status = written(GOOD)
    assert is_changed({})
    assert is_changed(status, BAD)
    assert is_changed(status, replace(GOOD, message="Held."))
    assert is_changed(status, replace(GOOD, problems=(problem(),)))
    assert is_changed(status, found=an_object(generation=2))
    assert is_changed({**status, "observedGeneration": True})
    assert is_changed({**status, "conditions": status["conditions"][:1]})


def test_what_others_keep_in_the_status_is_no_difference() -> None:
    status = written(GOOD)
    theirs = {"type": "Healthy", "status": "True"}
    status["conditions"].insert(0, theirs)
    assert not is_changed({**status, "theirs": 1})


def test_the_time_of_a_transition_changes_with_the_status_of_the_condition_only() -> None:
    old = written(GOOD)
    same = conditions_of(written(replace(GOOD, message="Held."), old, LATER))
    assert same["Ready"]["lastTransitionTime"] == "2026-01-01T12:00:00Z"
    pending = conditions_of(written(Verdict(Standing.PENDING, "It waits."), old, LATER))
    assert pending["Ready"]["lastTransitionTime"] == "2026-01-01T13:00:00Z"
    assert pending["Stalled"]["lastTransitionTime"] == "2026-01-01T12:00:00Z"


def test_a_time_that_cannot_be_read_is_repaired() -> None:
    old = written(GOOD)
    old["conditions"][0]["lastTransitionTime"] = "yesterday"
    mended = conditions_of(written(GOOD, old, LATER))
    assert mended["Ready"]["lastTransitionTime"] == "2026-01-01T13:00:00Z"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("Ready"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "status", "lastTransitionTime", "conditions", "problems", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["conditions", "problems", "observedGeneration"]), _JSON))
def test_any_status_that_somebody_wrote_is_mended_by_one_write(old: Mapping[str, object]) -> None:
    status = desired_status(an_object(), BAD, old, NOON)
    assert status is not None
    assert desired_status(an_object(), BAD, status, LATER) is None


# Events


def told(verdict: Verdict, found: ApiObject | None = None) -> dict[str, Any]:
    return event(
        found or an_object(),
        verdict,
        namespace="openfaas",
        instance="host_1",
        unique="0123456789abcdef",
        now=NOON,
    )


def test_an_event_names_the_object_the_standing_and_the_first_error() -> None:
    warning = problem("a warning", severity=Severity.WARNING)
    made = told(replace(BAD, problems=(warning, problem("an error"))))
    assert (made["type"], made["reason"]) == ("Warning", "Refused")
    assert made["note"] == "It is not in force. T002: condition: an error"
    assert made["regarding"]["uid"] == "uid-of-deployer"
    assert made["metadata"]["name"] == "deployer.0123456789abcdef"


def test_an_event_is_bounded_in_bytes_and_printable() -> None:
    evil = told(Verdict(Standing.REFUSED, "\x1b[2J" + "é" * 3000), an_object("r" * 253))
    assert len(evil["note"].encode()) <= NOTE_BYTES
    assert evil["note"].isprintable()
    assert len(evil["metadata"]["name"]) <= 253


def test_refusals_are_told_and_waiting_is_not() -> None:
    silent = {standing for standing in Standing if not is_told(Verdict(standing, "m"))}
    assert silent == {Standing.ACCEPTED, Standing.PENDING}
