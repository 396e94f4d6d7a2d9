"""
The dashboard explains as `federation explain` does: the same answer for each case of a table.

The page is made of the answer of a whole broker, and read back from its HTML.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from federation.cli import main
from federation.dashboard import words
from tests.harness import builders
from tests.harness.broker import DOCUMENTS, catalog_of
from tests.harness.builders import ABSENT, NOW, good
from tests.harness.dashboard import FakeBroker, running
from tests.harness.gateway import Front
from tests.harness.html import Page, read

READER = """
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: reader}
spec:
  statement:
    - {sid: read, effect: Allow, action: ["Documents:Read"], resource: ["*"]}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {name: outsiders}
spec:
  policy: [reader]
  condition:
    StringEqual:
      jwt:iss: ["https://token.actions.githubusercontent.com"]
      jwt:repository_owner_id: ["13420041"]
    StringLike:
      jwt:ref: ["refs/pull/*", "refs/tags/v?"]
    StringNotEqual:
      jwt:runner_environment: [self-hosted]
    ForAnyValue:StringEqual:
      jwt:labels: [linux, "<b>bold</b>"]
"""
TEXT = DOCUMENTS + READER
ACCESSES = (
    ("Function:Create", "dev:figlet"),
    ("Function:Invoke", "dev:vault"),
    ("Function:Invoke", "prod:cows"),
    ("Function:List", "*"),
)


class WholeBroker(FakeBroker):
    """A broker with its API, asked with the token of somebody who may read the documents."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.front = Front(folder, documents=TEXT)
        self.front.source.catalog = catalog_of(TEXT)
        token = self.front.signed({**self.front.said(), "policy": ["reader"]})
        self._bearer = f"Bearer {token}"
        self._transport = httpx2.ASGITransport(self.front.app)

    async def answer(self, request: httpx2.Request) -> httpx2.Response:  # type: ignore[override]
        request.headers["authorization"] = self._bearer
        response = await self._transport.handle_async_request(request)
        return httpx2.Response(
            response.status_code, headers=response.headers, content=await response.aread()
        )


@pytest.fixture(name="pages", scope="module")
def _pages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Page]:
    """The what-if page about each case and `ACCESSES`."""
    folder = tmp_path_factory.mktemp("dashboard")
    chosen: dict[str, str] = {}
    for number, (action, resource) in enumerate(ACCESSES, 1):
        chosen |= {f"action-{number}": action, f"resource-{number}": resource}

    async def told() -> dict[str, Page]:
        async with running(folder, broker=WholeBroker(folder)) as dashboard:
            browser = await dashboard.signed_in()
            chosen["csrf"] = await browser.csrf("/what-if")
            pages = {}
            for name, claims in CASES.items():
                form = {**chosen, "claims": json.dumps(claims)}
                answer = await browser.post("/what-if", form)
                assert answer.status_code == 200, answer.text
                pages[name] = read(answer.text)
            await browser.aclose()
            return pages

    return asyncio.run(told())


def ask_command(folder: Path, claims: Mapping[str, object]) -> Mapping[str, Any]:
    """What `federation explain --format json` says about the same."""
    documents, file = folder / "documents.yaml", folder / "claims.json"
    documents.write_text(TEXT, "utf-8")
    file.write_text(json.dumps(claims), "utf-8")
    accesses = [f"--access={action}={resource}" for action, resource in ACCESSES]
    given = ["explain", f"--documents={documents}", f"--claims={file}", "--format=json", *accesses]
    result = CliRunner().invoke(main, given)
    assert result.exit_code in {0, 1}, result.output
    answer: Mapping[str, Any] = json.loads(result.stdout)
    return answer


CASES: Mapping[str, Mapping[str, object]] = {
    "admitted by two Roles": good("github-push-main", NOW),
    "another branch": good("github-push-main", NOW, ref="refs/heads/feature"),
    "a claim is absent": good("github-push-main", NOW, repository=ABSENT),
    "a claim is empty": good("github-push-main", NOW, ref=""),
    "a claim is a list": good("github-push-main", NOW, ref=["refs/heads/main"]),
    "a claim is an object": good("github-push-main", NOW, ref={"name": "refs/heads/main"}),
    "a claim is a number": good("github-push-main", NOW, repository_owner_id=13420041),
    "a claim is a truth": good("github-push-main", NOW, ref=True),
    "a claim is markup": good("github-push-main", NOW, ref="<img src=x onerror=alert(1)>"),
    "a claim has what nobody sees": good("github-push-main", NOW, ref="refs/\u202eheads\u200b\n"),
    "a list with a value that fits": good(
        "github-push-main", NOW, ref="refs/tags/v1", labels=["linux", 7]
    ),
    "a value that must not be": good(
        "github-push-main", NOW, ref="refs/tags/v1", labels=["linux"], runner_environment="self-hosted"
    ),
    "markup that must be": good("github-push-main", NOW, ref="refs/tags/v1", labels=["<b>bold</b>"]),
    "an event of outsiders": good("github-pull-request", NOW, labels=["linux"]),
    "another audience": good("github-push-main", NOW, aud="https://elsewhere.example.com"),
    "an issuer nobody trusts": good("github-push-main", NOW, iss="https://other.example.com"),
    "no issuer": good("github-push-main", NOW, iss=ABSENT),
    "a stranger": good("github-push-main", NOW, repository_owner_id="999", repository="mallory/x"),
    "GitLab": good("gitlab-branch-main", NOW, namespace_path="octo-group", ref_path="refs/heads/main"),
    "a person": good("keycloak-user", NOW, iss=builders.GENERIC, aud=builders.AUDIENCE, sub="someone"),
    "no person": good("keycloak-user", NOW, iss=builders.GENERIC, aud=builders.AUDIENCE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_page_and_the_command_agree(
    tmp_path: Path, pages: Mapping[str, Page], case: str
) -> None:
    command, page = ask_command(tmp_path, CASES[case]), pages[case]

    verdict = "✓ The token is admitted." if command["admitted"] else "✗ The token is not admitted."
    assert verdict in page.text("main")
    shown = {d["data-role"]: d["data-admitted"] == "true" for d in page.all("details")}
    assert shown == {role["name"]: role["admitted"] for role in command["roles"]}
    for role in command["roles"]:
        assert page.rows(f"Conditions of the Role {role['name']} beside the token") == [
            [
                "✓ holds" if condition["holds"] else "✗ fails",
                words.claim_name(condition["key"]),
                _must_be(condition),
                _joined(words.value_in_words(condition["claim"])),
            ]
            for condition in role["conditions"]
        ]
    assert page.rows("What it may do") == [
        [
            "✓ allowed" if access["allowed"] else "✗ refused",
            access["action"],
            access["resource"],
            f"{access['effect']} {access['policy']}/{access['sid']}"
            if access["policy"]
            else "No statement matches.",
        ]
        for access in command["access"]
    ]
    if command["policies"]:
        assert f"Policies: {', '.join(command['policies'])}." in page.text("main")
    if command["token"]:
        assert (command["token"]["reason"] or "") in page.text("main")


def test_the_table_has_every_outcome(tmp_path: Path) -> None:
    answers = [ask_command(tmp_path, claims) for claims in CASES.values()]
    assert {answer["admitted"] for answer in answers} == {True, False}
    assert {a["effect"] for answer in answers for a in answer["access"]} == {"Allow", "Deny", None}
    assert len({role["refusal"] for answer in answers for role in answer["roles"]}) >= 5


def _must_be(condition: Mapping[str, Any]) -> str:
    values = " or ".join(words.value_in_words(value) for value in condition["values"])
    return _joined(
        f"{words.operator_in_words(condition['operator'], len(condition['values']))} {values}"
    )


def _joined(text: str) -> str:
    return " ".join(text.split())
