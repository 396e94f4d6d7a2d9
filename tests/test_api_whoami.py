"""`whoami`: the caller's own token, and the statements that it holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import builders as built
from tests.harness.api import WHOAMI, call
from tests.harness.broker import URL
from tests.harness.builders import NOW
from tests.harness.gateway import Front


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def test_it_tells_the_token(front: Front) -> None:
    token = front.grant(("Function:List", "dev:*"))
    told = call(front, WHOAMI, token).json()
    assert told["sub"] == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
    assert (told["issuer"], told["fed_issuer"]) == (URL, built.GITHUB)
    assert (told["roles"], told["policies"], told["policies_missing"]) == (["deployer"], ["p"], [])
    assert (told["issued"], told["expires"]) == (int(NOW), int(NOW) + 900)
    assert told["claims"]["repository"] == "octo-org/octo-repo"
    assert not {"iss", "aud", "exp", "jti", "policy", "fed:iss"} & told["claims"].keys()


def test_it_tells_each_statement_and_whether_it_applies(front: Front) -> None:
    on_main = {"StringEqual": {"jwt:ref": ["refs/heads/main"]}}
    elsewhere = {"StringEqual": {"jwt:ref": ["refs/heads/other"]}}
    token = front.grant(
        {"sid": "a", "action": ["Function:*", "Secret:List"], "resource": ["dev:*"],
         "condition": on_main},
        {"sid": "b", "action": ["*"], "resource": ["*"], "condition": elsewhere},
        {"sid": "c", "effect": "Deny", "action": ["Secret:*"], "resource": ["prod:*"],
         "condition": {"StringEqual": {"jwt:absent": ["x"]}}},
    )  # fmt: skip
    statements = call(front, WHOAMI, token).json()["statements"]
    assert [(s["sid"], s["effect"], s["applies"]) for s in statements] == [
        ("a", "Allow", True),
        ("b", "Allow", False),
        ("c", "Deny", True),  # in a Deny, an absent claim counts as matching
    ]
    assert statements[0] == {
        "policy": "p",
        "sid": "a",
        "effect": "Allow",
        "actions": ["Function:*", "Secret:List"],
        "resources": ["dev:*"],
        "conditions": [
            {"operator": "StringEqual", "key": "jwt:ref", "values": ["refs/heads/main"]}
        ],
        "applies": True,
    }
    assert statements[1]["actions"] == ["*"]


def test_a_policy_that_is_gone_is_told_and_leaves_nothing(front: Front) -> None:
    token = front.bearing(
        built.policy("p", {"action": ["*"], "resource": ["*"]}), policy=["p", "q"]
    )
    told = call(front, WHOAMI, token).json()
    assert told["policies_missing"] == ["q"]
    assert told["statements"] == []


def test_it_makes_no_event_and_needs_no_permission(front: Front) -> None:
    answer = call(front, WHOAMI, front.bearing())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert front.journal.events == []
    assert front.received == []


def test_a_narrowed_token_shows_what_is_left_of_its_policies(front: Front) -> None:
    token = front.bearing(
        built.policy(
            "p",
            {"sid": "a", "action": ["*"], "resource": ["*"]},
            {"sid": "d", "effect": "Deny", "action": ["*"], "resource": ["prod:*"]},
        ),
        **{"fed:deny_only": ["p"]},
    )
    assert [s["sid"] for s in call(front, WHOAMI, token).json()["statements"]] == ["d"]
