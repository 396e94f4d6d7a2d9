"""`documents`: all documents in force, with their problems and what keeps newer ones out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from federation.documents.assemble import assemble
from federation.documents.catalog import Catalog
from federation.documents.kubernetes.api_objects import Key
from federation.documents.kubernetes.verdicts import Standing, Verdict
from federation.documents.listing import listing, spec, written_actions, written_duration
from federation.documents.model import ACTION_SETS, ACTIONS, Role
from federation.documents.parse import parse
from federation.documents.values import duration
from federation.errors import Problem, Severity
from federation.web.api.documents import Documents
from tests.harness import builders as built
from tests.harness.api import DOCUMENTS, call
from tests.harness.broker import FakeSource
from tests.harness.gateway import Front
from tests.test_examples import with_issuer

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
READ = ("Documents:Read", "*")

ODD = """\
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {name: twice}
spec:
  policy: [p]
  tokenExpiry: 90s
  principal: {jwt:a: [one]}
  condition:
    StringEqual: {jwt:iss: [https://idp.example.com], jwt:a: [x], jwt:/a: [v], jwt:/a/b: [d]}
    StringEquals: {jwt:a: [z], jwt:/a: [w]}
    StringLike: {"jwt:x~y/z": [1, true]}
"""


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def catalog(text: str, path: str = "all.yaml") -> Catalog:
    """The catalog of *text*, whatever its warnings."""
    assembled = assemble([parse(path, text.encode())])
    assert assembled.catalog is not None, assembled.problems
    return assembled.catalog


def as_text(found: Catalog) -> str:
    """The documents of *found* again, as the listing writes them."""
    return yaml.safe_dump_all(
        [
            {
                "apiVersion": "iam.openfaas.com/v1",
                "kind": told["kind"],
                "metadata": {"name": told["name"]},
                "spec": told["spec"],
            }
            for told in map(plain, listing(found, ()))
        ],
        sort_keys=False,
    )


def plain(value: Any) -> Any:
    """*value* as JSON."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return str(value) if isinstance(value, str) else value


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_what_is_listed_means_what_was_read(path: Path) -> None:
    assembled = assemble([parse(str(one), one.read_bytes()) for one in with_issuer(path)])
    assert assembled.catalog is not None
    again = catalog(as_text(assembled.catalog))
    assert again.issuers == assembled.catalog.issuers
    assert set(again.roles) == set(assembled.catalog.roles)
    assert again.policies == assembled.catalog.policies


def test_no_condition_takes_the_place_of_another() -> None:
    (parsed,) = parse("r.yaml", ODD.encode()).documents
    written = yaml.safe_dump(
        {"apiVersion": "iam.openfaas.com/v1", "kind": "Role", "metadata": {"name": "twice"},
         "spec": plain(spec(parsed))}
    )  # fmt: skip
    (again,) = parse("r.yaml", written.encode()).documents
    assert isinstance(parsed, Role)
    assert isinstance(again, Role)
    assert sorted(map(str, again.conditions)) == sorted(map(str, parsed.conditions))
    assert again.token_expiry == timedelta(seconds=90)


@pytest.mark.parametrize("written", sorted(ACTION_SETS))
def test_actions_are_written_by_names_that_stand_for_the_same(written: str) -> None:
    names = written_actions(ACTION_SETS[written])
    assert frozenset().union(*(ACTION_SETS[name] for name in names)) == ACTION_SETS[written]
    if written.endswith("*"):
        assert names == [written]
    assert written_actions(ACTIONS - {"System:Info"})[:3] == [
        "Function:*",
        "Secret:*",
        "Namespace:*",
    ]


@pytest.mark.parametrize("text", ["1m", "90s", "1h30m", "24h", "12h", "1m0.5s", "61.000001s"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    length = duration(text)
    assert length is not None
    assert duration(written_duration(length)) == length


def test_every_document_is_listed_with_its_problems(front: Front) -> None:
    warned = Problem("r.yaml", 7, "W101", Severity.WARNING, "names", "Role", "people", "x", "ids")
    front.source.catalog = replace(front.source.catalog, warnings=(warned,))
    whole = front.source.catalog
    token = granted(front, whole)
    told = call(front, DOCUMENTS, token).json()
    assert told["degraded"] == []
    assert [(d["kind"], d["name"]) for d in told["documents"]] == [
        *(("JwtIssuer", issuer.name) for issuer in whole.issuers.values()),
        *(("Policy", name) for name in [*whole.policies, "reader"]),
        *(("Role", role.name) for role in whole.roles),
    ]
    by_name = {(d["kind"], d["name"]): d for d in told["documents"]}
    assert by_name["Role", "people"]["problems"] == [
        {"code": "W101", "severity": "warning", "field": "x", "message": "names", "hint": "ids"}
    ]


def granted(front: Front, whole: Catalog) -> str:
    """A token that may read the documents, which are *whole* and its policy."""
    policy = built.policy("reader", {"action": ["Documents:Read"], "resource": ["*"]})
    token = front.bearing(policy)
    front.source.catalog = replace(whole, policies={**whole.policies, "reader": policy})
    return token


def test_errors_of_a_newer_set_are_told_beside_the_old_one(front: Front) -> None:
    token = front.grant(READ)
    front.source.refused = (
        Problem("r.yaml", 3, "D014", Severity.ERROR, "no action", "Policy", "p", "x", "hint"),
    )
    told = call(front, DOCUMENTS, token).json()
    policy = told["documents"][-1]
    assert [p["severity"] for p in policy["problems"]] == ["error"]
    (sentence,) = told["degraded"]
    assert sentence.startswith("The newest files are not in force: r.yaml:3: error[D014]")


def test_thousands_of_errors_are_not_all_told(front: Front) -> None:
    token = front.grant(READ)
    problem = Problem("r.yaml", 3, "D014", Severity.ERROR, "no action")
    front.source.refused = (problem,) * 5000
    told = call(front, DOCUMENTS, token).json()["degraded"]
    assert len(told) == 201
    assert told[-1] == "There are 4800 more."


def test_it_is_one_event_with_the_action(front: Front) -> None:
    call(front, DOCUMENTS, front.grant(READ))
    (event,) = front.journal.events
    assert event.actions == ("Documents:Read",)
    assert (event.path, event.method, event.response_code) == (DOCUMENTS, "GET", 200)
    assert event.actor is not None
    assert event.actor.sub.startswith("fed:")


def test_a_change_is_listed_at_once_and_the_same_set_is_made_once(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    to_thread = asyncio.to_thread

    async def counted(work: Any, *args: Any) -> Any:
        made.append(work)
        return await to_thread(work, *args)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    token = front.grant(READ)
    first, second = (call(front, DOCUMENTS, token) for _ in range(2))
    assert first.content == second.content
    assert len(made) == 1
    policies = {**front.source.catalog.policies, "new": built.policy("new")}
    front.source.catalog = replace(front.source.catalog, policies=policies)
    names = [d["name"] for d in call(front, DOCUMENTS, token).json()["documents"]]
    assert names[-2:] == ["p", "new"]
    assert len(made) == 2


def test_ten_thousand_documents_do_not_hold_up_others(front: Front) -> None:
    policies = {
        f"p{n}": built.policy(f"p{n}", {"action": ["*"], "resource": [f"ns{n}:*"]})
        for n in range(10_000)
    }
    token = front.grant(READ)
    front.source.catalog = replace(
        front.source.catalog, policies={**front.source.catalog.policies, **policies}
    )
    held = []

    async def story(client: httpx2.AsyncClient) -> httpx2.Response:
        asking = asyncio.create_task(
            client.get(DOCUMENTS, headers={"authorization": f"Bearer {token}"})
        )
        loop = asyncio.get_running_loop()
        while not asking.done():
            began = loop.time()
            await asyncio.sleep(0.001)
            held.append(loop.time() - began)
        return asking.result()

    assert len(front.tell(story).json()["documents"]) > 10_000
    assert max(held) < 0.5


# -- objects of Kubernetes


def warned(kind: str, name: str, severity: Severity = Severity.ERROR) -> Problem:
    return Problem("kubernetes", 0, "D014", severity, "no action", kind, name, "x", "a hint")


def told_of(verdicts: Mapping[Key, Verdict], *trouble: str) -> dict[str, Any]:
    """What is listed of the policy `p` and these *verdicts*."""
    whole = built.catalog(policies=[built.policy("p")])
    source = FakeSource(whole)
    documents = Documents(source, lambda: verdicts, lambda: trouble)
    told: dict[str, Any] = json.loads(asyncio.run(documents.of(whole)))
    told["problems"] = told["documents"][-1]["problems"]
    return told


def test_an_object_whose_last_good_version_is_in_force_says_so() -> None:
    problem = warned("Policy", "p")
    said = "Its last good version is in force."
    told = told_of({("Policy", "p"): Verdict(Standing.INVALID, said, (problem,), held=True)})
    assert [each["code"] for each in told["problems"]] == ["D014"]
    assert told["degraded"] == [f"Policy/p: {said} D014: x: no action; a hint"]


def test_warnings_of_an_object_in_force_are_its_problems_and_nothing_is_degraded() -> None:
    problem = warned("Policy", "p", Severity.WARNING)
    told = told_of({("Policy", "p"): Verdict(Standing.ACCEPTED, "It is in force.", (problem,))})
    assert [each["severity"] for each in told["problems"]] == ["warning"]
    assert told["degraded"] == []


def test_an_object_that_another_document_stands_before_is_no_problem_of_that_one() -> None:
    problem = warned("Policy", "p")
    told = told_of({("Policy", "p"): Verdict(Standing.CONFLICT, "A file has it.", (problem,))})
    assert told["problems"] == []
    assert told["degraded"][0].startswith("Policy/p: A file has it.")


def test_an_api_server_that_is_away_is_told() -> None:
    assert told_of({}, "no answer for 60 s")["degraded"] == ["Kubernetes API: no answer for 60 s."]


def test_who_leaves_takes_the_documents_from_nobody_else() -> None:
    whole = built.catalog(policies=[built.policy(f"p{n}") for n in range(2000)])
    documents = Documents(FakeSource(whole), None, None)

    async def story() -> bytes:
        leaving = asyncio.create_task(documents.of(whole))
        staying = asyncio.create_task(documents.of(whole))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert b'"p1999"' in asyncio.run(story())
