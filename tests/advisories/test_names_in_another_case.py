"""
Names in another case: a function is called by a DNS name, and DNS makes no difference.

`/function/VAULT.dev` reaches the function `vault`, so a Deny on one spelling must hold for all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.claims import Claims
from federation.policy.permissions import Access, decide, granted_resources
from tests.harness import builders
from tests.harness.broker import refusal, said
from tests.harness.gateway import Front

EVERYTHING = {"action": ["Function:*"], "resource": ["dev:*"]}
SPELLINGS = ["vault", "VAULT", "Vault", "vaulT"]


def wall(resource: str) -> dict[str, object]:
    return {"effect": "Deny", "action": ["Function:*"], "resource": [resource]}


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path, functions="authorize")


@pytest.mark.parametrize("written", ["dev:vault", "dev:Vault", "dev:VA*", "DEV:*lt", "*:vault"])
def test_a_deny_on_calls_holds_in_every_spelling(front: Front, written: str) -> None:
    token = front.grant(EVERYTHING, wall(written))
    for name in SPELLINGS:
        for path in (f"/function/{name}.dev", f"/function/{name}.dev/x", f"/function/{name}.dev?q"):
            assert front.call("POST", path, token).status_code == 403
        assert front.call("POST", f"/async-function/{name}.dev", token).status_code == 403
        answer = front.exchange(token, scope="function", audience=f"dev:{name}")
        assert refusal(answer) == (400, "invalid_target")
    assert front.call("POST", "/function/figlet.dev", token).status_code != 403


def test_a_grant_on_calls_holds_in_every_spelling_too(front: Front) -> None:
    token = front.grant({"action": ["Function:Invoke"], "resource": ["dev:Figlet"]})
    function_token = front.exchange(token, scope="function").json()["access_token"]
    assert said(function_token)["function"] == {"permissions": ["dev:Figlet"]}
    for bearer in (token, function_token):
        for name in ("figlet", "FIGLET"):
            assert front.call("POST", f"/function/{name}.dev", bearer).status_code != 403
        assert front.call("POST", "/function/figle.dev", bearer).status_code == 403


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_list_of_grants_leaves_out_what_is_denied_in_another_spelling(name: str) -> None:
    allowing = {"action": ["Function:Invoke"], "resource": [f"dev:{name}", "dev:app"]}
    policies = [builders.policy("p", allowing, wall("Dev:vAult"))]
    found = granted_resources(policies, "Function:Invoke", Claims({}))
    assert [resource.text for resource in found] == ["dev:app"]


def test_all_other_actions_are_about_names_as_they_are_written() -> None:
    policies = [builders.policy("p", {"action": ["Function:*"], "resource": ["dev:App"]})]
    for action, name, expected in (
        ("Function:Get", "App", True),
        ("Function:Get", "app", False),
        ("Function:Invoke", "App", True),
        ("Function:Invoke", "app", True),
    ):
        asked = Access.parse(action, f"dev:{name}")
        assert decide(policies, asked, Claims({})).allowed is expected, (action, name)


def test_only_the_letters_of_ascii_have_another_case() -> None:
    policies = [builders.policy("p", EVERYTHING, wall("dev:k"))]
    sent = Access("Function:Invoke", "dev", "\u212a")  # the Kelvin sign, which no name holds
    assert decide(policies, sent, Claims({})).allowed
