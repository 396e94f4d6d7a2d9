"""Permissions: the decision about an access, and the statement that settled it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.model import (
    ACTION_SETS,
    ACTIONS,
    BROKER_ACTIONS,
    Effect,
    Policy,
)
from federation.documents.resources import Resource
from federation.policy.permissions import Access, Decision, decide, granted_resources
from tests.harness import second_evaluator as naive
from tests.harness.builders import policy

NOBODY = Claims({})


def statement(sid: str, effect: str, action: str, *resource: str, **more: Any) -> dict[str, Any]:
    return {"sid": sid, "effect": effect, "action": [action], "resource": list(resource), **more}


def allow(action: str, *resource: str, **more: Any) -> dict[str, Any]:
    return statement("allow", "Allow", action, *resource, **more)


def deny(action: str, *resource: str, **more: Any) -> dict[str, Any]:
    return statement("deny", "Deny", action, *resource, **more)


def decided(
    policies: list[Policy], action: str, resource: str, claims: Claims = NOBODY
) -> tuple[bool, str | None, str | None, Effect | None]:
    decision = decide(policies, Access.parse(action, resource), claims)
    return decision.allowed, decision.policy, decision.sid, decision.effect


def allowed(written: str, asked: str, action: str = "Function:Get") -> bool:
    return decided([policy("p", allow("*", written))], action, asked)[0]


# Decisions


def test_without_a_matching_statement_the_answer_is_no_and_nothing_settled_it() -> None:
    nothing = (False, None, None, None)
    assert decided([], "Function:Get", "dev:fn") == nothing
    assert decided([policy("p")], "Function:Get", "dev:fn") == nothing
    p = policy("p", allow("Function:List", "dev:*"), deny("Function:Get", "prod:*"))
    assert decided([p], "Function:Get", "dev:fn") == nothing


@pytest.mark.parametrize("order", [1, -1], ids=["allow-first", "deny-first"])
def test_a_deny_beats_an_allow_in_any_order(order: int) -> None:
    both = [allow("Function:*", "*"), deny("Function:Delete", "prod:*")]
    in_one = [policy("p", *both[::order])]
    assert decided(in_one, "Function:Delete", "prod:fn") == (False, "p", "deny", Effect.DENY)
    in_two = [policy("yes", both[0]), policy("no", both[1])][::order]
    assert decided(in_two, "Function:Delete", "prod:fn") == (False, "no", "deny", Effect.DENY)
    assert decided(in_two, "Function:Delete", "dev:fn") == (True, "yes", "allow", Effect.ALLOW)
    assert decided(in_two, "Function:Get", "prod:fn") == (True, "yes", "allow", Effect.ALLOW)


def test_the_first_statement_that_matches_is_named() -> None:
    one = policy("one", statement("a", "Allow", "System:Info", "*"))
    two = policy(
        "two",
        statement("b", "Allow", "Function:Get", "dev:*"),
        statement("c", "Allow", "Function:*", "*"),
    )
    assert decided([one, two], "Function:Get", "dev:fn") == (True, "two", "b", Effect.ALLOW)
    assert decided([one, two], "Function:Get", "prod:fn") == (True, "two", "c", Effect.ALLOW)


def test_a_statement_whose_condition_does_not_hold_hides_no_later_one() -> None:
    on_main = {"condition": {"StringEqual": {"jwt:ref": "refs/heads/main"}}}
    p = [policy("p", allow("*", "*", **on_main), allow("*", "dev:*"), deny("*", "dev:b"))]
    assert decided(p, "Function:Get", "dev:a")[0]
    assert decided(p, "Function:Get", "dev:b")[3] is Effect.DENY


def test_a_statements_condition_reads_the_access_tokens_claims() -> None:
    on_main = {"condition": {"StringEqual": {"jwt:ref": "refs/heads/main"}}}
    p = [policy("p", allow("Function:*", "dev:*", **on_main))]
    assert decided(p, "Function:Get", "dev:fn", Claims({"ref": "refs/heads/main"}))[0]
    assert not decided(p, "Function:Get", "dev:fn", Claims({"ref": "refs/heads/x"}))[0]
    assert not decided(p, "Function:Get", "dev:fn")[0]


POSITIVE = [
    *("StringEqual", "StringEqualIgnoreCase", "StringLike"),
    *("ForAnyValue:StringEqual", "ForAnyValue:StringLike"),
]
NEGATIVE = ["StringNotEqual", "StringNotLike"]
ABSENT = object()
UNREADABLE = [ABSENT, None, "", [], {}, 1.5, {"a": "main"}, [""], [1, None], [["main"]]]
WRONG_SHAPE = [
    *((operator, claim) for operator in POSITIVE + NEGATIVE for claim in UNREADABLE),
    *((operator, ["main"]) for operator in POSITIVE[:3] + NEGATIVE),
    *((operator, claim) for operator in POSITIVE[3:] for claim in ("main", 1, True)),
]


def walled(operator: str, *values: str) -> list[Policy]:
    on_ref = {"condition": {operator: {"jwt:ref": list(values)}}}
    return [policy("p", allow("Function:*", "*"), deny("Function:*", "*", **on_ref))]


@pytest.mark.parametrize(("operator", "claim"), WRONG_SHAPE)
def test_a_deny_is_not_ended_by_a_claim_that_is_absent_or_of_the_wrong_shape(
    operator: str, claim: object
) -> None:
    claims = Claims({} if claim is ABSENT else {"ref": claim})
    for value in ("main", "x"):
        assert not decided(walled(operator, value), "Function:Get", "dev:fn", claims)[0]


@pytest.mark.parametrize(
    ("operator", "refuting"),
    [
        *((operator, "x") for operator in POSITIVE[:3]),
        *((operator, "main") for operator in NEGATIVE),
        *((operator, ["x"]) for operator in POSITIVE[3:]),
        *((operator, [1, "", "x"]) for operator in POSITIVE[3:]),
        *((operator, claim) for operator in POSITIVE[:3] for claim in (0, False)),
    ],
)
def test_a_deny_is_ended_by_a_claim_that_refutes_its_condition(
    operator: str, refuting: object
) -> None:
    claims = Claims({"ref": refuting})
    assert decided(walled(operator, "main"), "Function:Get", "dev:fn", claims)[0]


def test_each_condition_of_a_deny_is_refuted_on_its_own() -> None:
    two = {"condition": {"StringEqual": {"jwt:a": "1", "jwt:/b/c": "2"}}}
    p = [policy("p", allow("Function:*", "*"), deny("Function:*", "*", **two))]

    def denied(**claims: object) -> bool:
        return not decided(p, "Function:Get", "dev:fn", Claims(claims))[0]

    assert denied()
    assert denied(a="1")
    assert denied(b={"c": "2"})
    assert not denied(a="9")
    assert not denied(b={"c": "9"})
    assert not denied(a="1", b={"c": "9"})


# Resources


@pytest.mark.parametrize(
    ("written", "asked", "expected"),
    [
        pytest.param("*", "*", True, id="all-of-all"),
        pytest.param("*", "dev:*", True, id="all-of-a-namespace"),
        pytest.param("*", "dev:fn", True, id="all-of-a-function"),
        pytest.param("*:*", "*", True, id="both-halves-are-all"),
        pytest.param("**:*", "*", True, id="stars-are-all"),
        pytest.param("*:*", "dev:fn", True, id="both-halves-of-a-function"),
        pytest.param("dev:*", "*", False, id="a-namespace-is-not-all"),
        pytest.param("dev:*", "dev:*", True, id="namespace"),
        pytest.param("dev:*", "dev:fn", True, id="function-in-it"),
        pytest.param("dev:*", "dev-2:fn", False, id="longer-name"),
        pytest.param("dev:*", "my-dev:fn", False, id="longer-at-the-front"),
        pytest.param("dev:*", "Dev:fn", False, id="case"),
        pytest.param("dev:fn", "dev:fn", True, id="function"),
        pytest.param("dev:fn", "dev:fn-2", False, id="longer-function"),
        pytest.param("dev:fn", "dev:afn", False, id="function-longer-at-the-front"),
        pytest.param("dev:fn", "dev:*", False, id="a-function-is-not-its-namespace"),
        pytest.param("dev:f*", "dev:fn", True, id="star-in-the-name"),
        pytest.param("dev:f*", "dev:*", False, id="some-functions-are-not-all"),
        pytest.param("dev:f*", "dev:gn", False, id="another-name"),
        pytest.param("team-*:*", "team-a:fn", True, id="star-in-the-namespace"),
        pytest.param("team-*:*", "team:fn", False, id="shorter"),
        pytest.param("team-*:*", "my-team-a:fn", False, id="star-is-anchored"),
        pytest.param("team-*:*", "*", False, id="some-namespaces-are-not-all"),
        pytest.param("*:fn", "*", False, id="one-name-everywhere-is-not-all"),
        pytest.param("*:fn", "dev:fn", True, id="one-name-everywhere"),
        pytest.param("*:fn", "dev:*", False, id="one-name-is-not-a-namespace"),
        pytest.param("*-*:*", "*", False, id="stars-around-a-letter-are-not-all"),
        pytest.param("a.c:*", "abc:fn", False, id="a-dot-is-a-dot"),
    ],
)
def test_halves_are_matched_whole(written: str, asked: str, expected: bool) -> None:
    assert allowed(written, asked) is expected
    assert naive.reaches(written, asked) is expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "dev", "dev:", ":fn", "dev:fn:x", "dev/fn", "dev:fn\n", "dev: fn", "d?v:fn", "**"),
        *("dev:fn,prod:fn", "d\u00e9v:fn", "dev:[a]"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_resource_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Resource(text)


# Actions


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("*", naive.ACTIONS),
        *((f"{group}:*", [a for a in naive.ACTIONS if a.startswith(f"{group}:")])
          for group in ("Function", "Secret", "Namespace", "System")),
        *naive.LEGACY.items(),
        *((action, [action]) for action in naive.ACTIONS),
    ],
)  # fmt: skip
def test_an_action_set_stands_for_exactly_these_actions(written: str, expected: list[str]) -> None:
    assert ACTION_SETS[written] == set(expected)
    everything = [policy("p", allow(written, "*"))]
    granted = {
        action
        for action in ACTIONS
        if decided(everything, action, "*" if action in BROKER_ACTIONS else "dev:fn")[0]
    }
    assert granted == set(expected)


def test_there_are_no_other_actions() -> None:
    assert set(naive.ACTIONS) == ACTIONS
    groups = {f"{group}:*" for group in ("Function", "Secret", "Namespace", "System")}
    assert set(ACTION_SETS) == ACTIONS | groups | {"*"} | set(naive.LEGACY)


@pytest.mark.parametrize("action", sorted(BROKER_ACTIONS))
@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("*", True),
        pytest.param("*:*", True, id="everything-in-two-halves"),
        pytest.param("dev:*", False, id="a-namespace"),
        pytest.param("dev:fn", False, id="a-function"),
        pytest.param("*:fn", False, id="a-function-everywhere"),
        pytest.param("d*:*", False, id="a-pattern"),
    ],
)
def test_only_a_statement_on_everything_gives_what_the_broker_knows(
    action: str, written: str, given: bool
) -> None:
    for named in (action, "*"):
        assert decided([policy("p", allow(named, written))], action, "*")[0] is given
        both = [policy("p", allow("*", "*"), deny(named, written))]
        assert decided(both, action, "*")[0] is not given


# Accesses


@pytest.mark.parametrize(
    ("resource", "namespace", "name"),
    [
        ("*", "*", "*"),
        ("dev:*", "dev", "*"),
        ("dev:fn", "dev", "fn"),
        ("a.b_c:F-1", "a.b_c", "F-1"),
        ("a:1", "a", "1"),
        pytest.param("n" * 253 + ":" + "f" * 253, "n" * 253, "f" * 253, id="longest"),
    ],
)
def test_an_access_reads_as_it_is_written(resource: str, namespace: str, name: str) -> None:
    access = Access.parse("Function:Get", resource)
    assert (access.namespace, access.name) == (namespace, name)
    assert access.resource == resource


@pytest.mark.parametrize(
    "resource",
    [
        *("", ":", "dev", "dev:", ":fn", "*:*", "*:fn", "dev:f*", "d*:fn", "**", "dev:**", "dev:?"),
        *("dev:fn:x", "dev:fn\n", "dev\n:fn", " dev:fn", "dev:-fn", "dev:fn-", "dev:../x", ".:fn"),
        *("dev:\u00e9", "dev:" + "x" * 254, "x" * 254 + ":fn"),
    ],
)  # fmt: skip
def test_a_request_asks_for_one_thing_or_for_all_of_it(resource: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        Access.parse("Function:Get", resource)


@pytest.mark.parametrize("action", ["", "*", "Function:*", "Function:Read", "function:get", "Get"])
def test_a_request_asks_for_a_plain_action(action: str) -> None:
    with pytest.raises(ValueError, match="is not an action"):
        Access.parse(action, "dev:fn")


# Lists of grants


def granted(*statements: dict[str, Any], claims: Claims = NOBODY) -> list[str]:
    policies = [policy("p", *statements)]
    return [r.text for r in granted_resources(policies, "Function:Invoke", claims)]


@pytest.mark.parametrize(
    ("allows", "denies", "expected"),
    [
        pytest.param(["dev:a", "dev:a", "*"], [], ["dev:a", "*"], id="once-each-in-order"),
        pytest.param(["dev:*"], ["prod:*"], ["dev:*"], id="apart"),
        pytest.param(["dev:*"], ["dev:fn"], [], id="a-hole"),
        pytest.param(["dev:fn"], ["dev:*"], [], id="covered"),
        pytest.param(["dev:a", "dev:b"], ["dev:a"], ["dev:b"], id="one-of-two"),
        pytest.param(["*"], ["x:y"], [], id="all-with-a-hole"),
        pytest.param(["*:fn"], ["dev:*"], [], id="crossing"),
        pytest.param(["a*:fn"], ["*b:fn"], [], id="ab-is-in-both"),
        pytest.param(["a*:fn"], ["b*:fn"], ["a*:fn"], id="beginnings-differ"),
        pytest.param(["team-*:*"], ["team-a:*"], [], id="pattern-and-instance"),
        pytest.param(["team-*:a"], ["team-*:b"], ["team-*:a"], id="names-differ"),
        pytest.param(["ax*:fn"], ["a*b*:fn"], [], id="axb-is-in-both"),
        pytest.param(["a*b*:fn"], ["ax*:fn"], [], id="axb-is-in-both-the-other-way"),
        pytest.param(["ab*:fn"], ["a*:fn"], [], id="a-wider-beginning"),
        pytest.param(["a*:fn"], ["ab*:fn"], [], id="a-narrower-beginning"),
        pytest.param(["prod:fn"], ["p*x:fn"], ["prod:fn"], id="a-pattern-for-another-name"),
        pytest.param(["p*x:fn"], ["prod:fn"], ["p*x:fn"], id="a-pattern-that-misses-the-name"),
        pytest.param(["dev:*"], ["*"], [], id="denied-everything"),
        pytest.param(["dev:*"], ["*:*"], [], id="denied-everything-in-halves"),
    ],
)
def test_a_grant_that_a_deny_could_reach_is_left_out(
    allows: list[str], denies: list[str], expected: list[str]
) -> None:
    denying = [deny("Function:Invoke", *denies)] if denies else []
    assert granted(allow("Function:Invoke", *allows), *denying) == expected
    assert granted(*denying, allow("Function:Invoke", *allows)) == expected


def test_only_statements_for_the_action_and_the_token_count() -> None:
    on_main = {"condition": {"StringEqual": {"jwt:ref": "main"}}}
    statements = [
        allow("Function:Invoke", "dev:*", **on_main),
        allow("Function:Get", "get:*"),
        allow("Function:*", "any:*"),
        deny("Function:Delete", "*"),
        deny("Function:Invoke", "any:*", **on_main),
    ]
    assert granted(*statements, claims=Claims({"ref": "other"})) == ["any:*"]
    assert granted(*statements, claims=Claims({"ref": "main"})) == ["dev:*"]
    assert granted(*statements) == [], "without the claim, the Allow ends and the Deny does not"


def test_a_decision_is_about_the_access_that_was_asked() -> None:
    access = Access.parse("Function:Get", "dev:fn")
    assert decide([], access, NOBODY) == Decision(access, allowed=False)


@pytest.mark.parametrize("action", sorted(BROKER_ACTIONS))
def test_what_the_broker_knows_is_asked_for_as_a_whole(action: str) -> None:
    assert Access.parse(action, "*").resource == "*"
    for less in ("dev:*", "dev:fn", "*:*"):
        with pytest.raises(ValueError, match=rf"is not \*, the only resource of {action}"):
            Access.parse(action, less)
