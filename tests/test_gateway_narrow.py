"""Callers see only the namespaces in which they may do something."""

from __future__ import annotations

import json

import pytest

from federation.claims import Claims
from federation.gateway.narrow import UnreadableList, narrow, visible
from federation.policy.permissions import Access, decide
from tests.harness.builders import Document, policy

CLAIMS = Claims({"sub": "fed:someone", "environment": "production"})
THE_LIST = Access("Namespace:List", "*", "*")
ALL = ["openfaas-fn", "dev", "prod", "team-a", "team-b"]


def allow(*resource: str, action: str = "Function:Get", **more: object) -> Document:
    return {"action": [action], "resource": list(resource), **more}


def deny(*resource: str, action: str = "*") -> Document:
    return allow(*resource, action=action, effect="Deny")


def shown(*statements: Document) -> list[str]:
    answer: list[str] = json.loads(
        narrow(json.dumps(ALL).encode(), [policy("p", *statements)], CLAIMS)
    )
    return answer


NARROWED = [
    pytest.param([], [], id="no statement shows nothing"),
    pytest.param([allow("dev:*")], ["dev"], id="one namespace"),
    pytest.param([allow("dev:figlet")], ["dev"], id="one function is something"),
    pytest.param([allow("team-*:*")], ["team-a", "team-b"], id="a pattern"),
    pytest.param([allow("*")], ALL, id="everything"),
    pytest.param([allow("*:figlet")], ALL, id="one function anywhere"),
    pytest.param([allow("dev:*"), allow("prod:x")], ["dev", "prod"], id="two statements"),
    pytest.param([allow("*", action="Namespace:List")], ALL, id="listing is something"),
    pytest.param([allow("*", action="Documents:Read")], [], id="documents are in no namespace"),
    pytest.param([allow("*", action="Audit:Read")], [], id="the trail is in no namespace"),
    pytest.param(
        [allow("*"), deny("prod:*")], ["openfaas-fn", "dev", "team-a", "team-b"], id="deny"
    ),
    pytest.param(
        [allow("dev:*", "prod:*"), deny("prod:*", action="Function:Get")],
        ["dev"],
        id="the only action is denied",
    ),
    pytest.param(
        [allow("dev:*", action="Function:*"), deny("dev:*", action="Function:Get")],
        ["dev"],
        id="another action is left",
    ),
    pytest.param([allow("dev:a"), deny("dev:a")], [], id="the only function is denied"),
    pytest.param([allow("dev:a*"), deny("dev:a*")], [], id="the only pattern is denied"),
    pytest.param([allow("dev:a*"), deny("dev:ab")], ["dev"], id="a part is denied"),
    pytest.param(
        [allow("*", action="*"), deny("prod:*", action="Namespace:List")],
        ["openfaas-fn", "dev", "team-a", "team-b"],
        id="what may not be listed is hidden",
    ),
    pytest.param([deny("dev:*")], [], id="a deny alone grants nothing"),
    pytest.param(
        [allow("dev:*", condition={"StringEqual": {"jwt:environment": "staging"}})],
        [],
        id="a condition that does not hold",
    ),
    pytest.param(
        [allow("dev:*", condition={"StringEqual": {"jwt:environment": "production"}})],
        ["dev"],
        id="a condition that holds",
    ),
]


@pytest.mark.parametrize(("statements", "expected"), NARROWED)
def test_namespaces_are_narrowed_to_those_with_a_grant(
    statements: list[Document], expected: list[str]
) -> None:
    assert shown(*statements) == expected


def test_the_upstreams_order_is_kept() -> None:
    answer = narrow(b'["prod", "dev"]', [policy("p", allow("*"))], CLAIMS)
    assert answer == b'["prod","dev"]'


LISTING = [
    pytest.param([], False, None, id="no statement"),
    pytest.param([allow("*")], False, None, id="other actions alone"),
    pytest.param([allow("*", action="Namespace:List")], True, "s0", id="on the cluster"),
    pytest.param([allow("dev:*", action="Namespace:List")], True, "s0", id="on one namespace"),
    pytest.param(
        [allow("dev:*"), allow("team-*:*", action="Namespace:*")], True, "s1", id="on a pattern"
    ),
    pytest.param(
        [allow("dev:*", action="Namespace:List"), deny("*", action="Namespace:List")],
        False,
        "s1",
        id="denied everywhere",
    ),
    pytest.param(
        [allow("dev:*", action="Namespace:List"), deny("dev:*")], False, None, id="denied there"
    ),
    pytest.param(
        [allow("*", action="Namespace:List"), deny("prod:*")], True, "s0", id="denied elsewhere"
    ),
]


@pytest.mark.parametrize(("statements", "allowed", "sid"), LISTING)
def test_a_caller_who_may_list_one_namespace_may_ask_for_the_list(
    statements: list[Document], allowed: bool, sid: str | None
) -> None:
    decision = decide([policy("p", *statements)], THE_LIST, CLAIMS)
    assert decision.allowed is allowed
    assert decision.access.action == "Namespace:List"
    assert decision.access.resource == "*"
    assert decision.sid == sid
    assert decision.policy == ("p" if sid else None)


def test_a_namespace_is_visible_by_any_of_the_policies() -> None:
    policies = [policy("one", allow("dev:*")), policy("two", allow("prod:*"))]
    assert visible(policies, CLAIMS, "dev")
    assert visible(policies, CLAIMS, "prod")
    assert not visible(policies, CLAIMS, "devprod")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not found", id="text"),
        pytest.param(b'{"namespaces":["dev"]}', id="object"),
        pytest.param(b'["dev", 1]', id="number"),
        pytest.param(b'["dev", null]', id="null inside"),
        pytest.param(b'["dev"', id="cut"),
        pytest.param(b'["dev"]["prod"]', id="two lists"),
        pytest.param(b'["../x"]', id="no namespace's name"),
        pytest.param(b'["*"]', id="wildcard"),
        pytest.param(b"\x1f\x8b\x08", id="compressed"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"[" + b'"dev",' * 200_000 + b'"dev"]', id="too large"),
    ],
)
def test_a_response_that_is_not_a_list_of_namespaces_is_a_failure(answer: bytes) -> None:
    with pytest.raises(UnreadableList):
        narrow(answer, [policy("p", allow("*", action="*"))], CLAIMS)


def test_an_upstream_without_namespaces_may_say_null() -> None:
    assert narrow(b"null\n", [policy("p", allow("*"))], CLAIMS) == b"[]"


def test_namespaces_that_follow_a_claim_are_shown_to_the_token_that_names_them() -> None:
    own = policy(
        "own",
        allow("team-${jwt:team}:*", "${jwt:absent}:*"),
        allow("${jwt:stage}:f-${jwt:team}", action="Namespace:List"),
        deny("${jwt:stage}:${jwt:team}"),
    )
    claims = Claims({"team": "a", "stage": "dev"})
    assert [name for name in ALL if visible([own], claims, name)] == ["dev", "team-a"]
    assert decide([own], THE_LIST, claims).allowed
    assert not decide([own], THE_LIST, Claims({"team": "*", "stage": "dev"})).allowed
    walled = policy("wall", allow("*"), deny("${jwt:stage}:*"))
    assert not any(visible([walled], Claims({"stage": "DEV"}), name) for name in ALL)
    assert "prod" not in [
        name for name in ALL if visible([walled], Claims({"stage": "prod"}), name)
    ]
