"""`can-i`: what the caller's token would be allowed, as the gateway decides it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.documents.model import ACTIONS, BROKER_ACTIONS
from tests.harness import builders as built
from tests.harness.api import CAN_I, call, refused
from tests.harness.gateway import Front


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def ask(front: Front, token: str, *accesses: tuple[str, str]) -> list[dict[str, Any]]:
    body = {"access": [{"action": action, "resource": resource} for action, resource in accesses]}
    answer = call(front, CAN_I, token, json=body)
    assert answer.status_code == 200, answer.text
    told: list[dict[str, Any]] = answer.json()["access"]
    return told


def test_it_answers_in_order_with_the_statement_that_settled_it(front: Front) -> None:
    token = front.grant(
        {"sid": "a", "action": ["Function:*"], "resource": ["dev:*"]},
        {"sid": "d", "effect": "Deny", "action": ["Function:Delete"], "resource": ["dev:*"]},
    )
    told = ask(
        front,
        token,
        ("Function:Delete", "dev:fn"),
        ("Function:Create", "dev:fn"),
        ("Secret:List", "dev:*"),
    )
    assert told == [
        {"action": "Function:Delete", "resource": "dev:fn", "allowed": False, "policy": "p",
         "sid": "d", "effect": "Deny"},
        {"action": "Function:Create", "resource": "dev:fn", "allowed": True, "policy": "p",
         "sid": "a", "effect": "Allow"},
        {"action": "Secret:List", "resource": "dev:*", "allowed": False, "policy": None,
         "sid": None, "effect": None},
    ]  # fmt: skip
    assert front.journal.events == []


def test_with_a_policy_that_is_gone_nothing_is_allowed(front: Front) -> None:
    token = front.bearing(
        built.policy("p", {"action": ["*"], "resource": ["*"]}), policy=["p", "q"]
    )
    assert not any(a["allowed"] for a in ask(front, token, ("Function:Get", "dev:fn")))


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_every_action_can_be_asked_for(front: Front, action: str) -> None:
    resource = "*" if action in BROKER_ACTIONS else "dev:fn"
    (told,) = ask(front, front.grant(("*", "*")), (action, resource))
    assert told["allowed"]


def test_a_thousand_accesses_are_answered(front: Front) -> None:
    body = {"access": [{"action": "Secret:List", "resource": "a:b"}] * 1000}
    assert len(call(front, CAN_I, front.bearing(), json=body).json()["access"]) == 1000


@pytest.mark.parametrize(
    "statements",
    [
        [],
        [("Namespace:List", "*")],
        [("Namespace:List", "dev:*")],
        [("Namespace:List", "team-*:*")],
        [("Function:Get", "dev:*")],
        [("*", "*"), {"effect": "Deny", "action": ["Namespace:List"], "resource": ["*"]}],
        [("*", "*"), {"effect": "Deny", "action": ["Namespace:List"], "resource": ["prod:*"]}],
        [("*", "dev:*"), {"effect": "Deny", "action": ["Namespace:List"], "resource": ["dev:*"]}],
    ],
    ids=str,
)
def test_the_list_of_namespaces_is_answered_as_the_gateway_answers_it(
    front: Front, statements: list[Any]
) -> None:
    token = front.grant(*statements)
    (told,) = ask(front, token, ("Namespace:List", "*"))
    assert told["allowed"] == (front.call("GET", "/system/namespaces", token).status_code == 200)


GOOD = {"action": "Function:Get", "resource": "dev:fn"}


@pytest.mark.parametrize(
    ("body", "saying"),
    [
        ({}, "list of 1 to 1000"),
        ({"access": []}, "list of 1 to 1000"),
        ({"access": [GOOD] * 1001}, "list of 1 to 1000"),
        ({"access": {}}, "list of 1 to 1000"),
        ({"access": [GOOD, "x"]}, "access[1] must have the strings"),
        ({"access": [{"action": 1, "resource": "*"}]}, "access[0] must have the strings"),
        ({"access": [{"action": "Function:Get"}]}, "access[0] must have the strings"),
        ({"access": [{**GOOD, "more": 1}]}, 'access[0] has no member "more"'),
        ({"access": [GOOD], "more": 1}, 'The body has no member "more"'),
        ({"access": [{**GOOD, "action": "Function:Fly"}]}, "'Function:Fly' is not an action"),
        ({"access": [{**GOOD, "action": "Function:*"}]}, "is not an action"),
        ({"access": [{**GOOD, "resource": "dev"}]}, "is not *, <namespace>:*"),
        ({"access": [{**GOOD, "resource": "d*:*"}]}, "is not *, <namespace>:*"),
        ({"access": [{"action": "Audit:Read", "resource": "dev:*"}]}, "only resource of Audit:Read"),
    ],
)  # fmt: skip
def test_a_body_that_is_none_is_refused(front: Front, body: object, saying: str) -> None:
    told = refused(call(front, CAN_I, front.bearing(), json=body), 400)
    assert told["error"] == "invalid_request"
    assert saying in told["error_description"]
