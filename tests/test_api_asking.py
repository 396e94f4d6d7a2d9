"""`explain`, `who-can` and `audit`: the API answers as the commands do."""

from __future__ import annotations

import json
from pathlib import Path
from socket import gethostname
from typing import Any

import httpx2
import pytest
import yaml
from click.testing import CliRunner

from federation.cli import main
from federation.cli.explain import explain as command
from federation.demo.issuer import LocalIssuer
from federation.policy.roles import evaluate
from tests.harness import documents as written
from tests.harness.api import AUDIT, EXPLAIN, WHO_CAN, call, refused
from tests.harness.asking import READERS, Asking
from tests.harness.broker import URL, Served, local_issuer, started
from tests.harness.builders import GITHUB, role, sample
from tests.harness.documents import DOCUMENTS, catalog_of
from tests.test_shadow_roles import SHADOW

SAMPLES = sorted(path.stem for path in (Path(__file__).parent / "vectors/claims").glob("*.json"))
MAIN = "github-push-main"


@pytest.fixture
def front(tmp_path: Path) -> Asking:
    return Asking(tmp_path)


@pytest.fixture(scope="module")
def asked_often(tmp_path_factory: pytest.TempPathFactory) -> Asking:
    """A broker for many questions, of which none changes it."""
    return Asking(tmp_path_factory.mktemp("asked"))


# -- explain


def by_command(folder: Path, claims: object, accesses: list[str]) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `federation explain`."""
    documents = folder / "all.yaml"
    documents.write_text(DOCUMENTS + READERS, "utf-8")
    (folder / "claims.json").write_text(json.dumps(claims), "utf-8")
    words = [f"--documents={documents}", f"--claims={folder / 'claims.json'}", "--format=json"]
    ran = CliRunner().invoke(command, [*words, *(f"--access={access}" for access in accesses)])
    told: dict[str, Any] = json.loads(ran.stdout)
    return ran.exit_code, told


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"aud": URL}) for name in SAMPLES),
    *((name, {}) for name in SAMPLES),
    (MAIN, {"aud": URL, "ref": "refs/heads/other"}),
    (MAIN, {"aud": URL, "event_name": "pull_request_target"}),
    (MAIN, {"aud": URL, "event_name": None}),
    (MAIN, {"aud": [URL, "other"]}),
    (MAIN, {"aud": None}),
    (MAIN, {"aud": URL, "sub": 5}),
    (MAIN, {"aud": URL, "iat": "x"}),
    (MAIN, {"aud": URL, "azp": "stranger"}),
    (MAIN, {"aud": URL, "events": {}}),
    (MAIN, {"aud": URL, "repository": ["octo-org/octo-repo"]}),
    (MAIN, {"aud": URL, "big": 10**30}),
    ("semaphore-branch-main", {"ref_type": ["branch"]}),
    ("spacelift-tracked", {"runType": {}}),
]
ASKED = ["Function:Create=dev:figlet", "Function:Invoke=dev:vault", "Secret:List=*"]


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
@pytest.mark.parametrize("asked", [[], ASKED], ids=["alone", "with accesses"])
def test_the_api_and_the_command_explain_alike(
    asked_often: Asking,
    tmp_path: Path,
    name: str,
    changes: dict[str, object],
    asked: list[str],
) -> None:
    claims = {n: v for n, v in {**sample(name), **changes}.items() if v is not None}
    code, expected = by_command(tmp_path, claims, asked)
    accesses = [dict(zip(("action", "resource"), a.split("="), strict=True)) for a in asked]
    body: dict[str, Any] = {"access": accesses} if accesses else {}
    told = dict(asked_often.explained(claims=claims, **body))
    assert told.pop("claims") == claims
    assert ("rule" in told) == (not expected["admitted"])
    told.pop("rule", None)
    told.pop("rule_notes", None)
    assert told == expected
    yes = expected["admitted"] and all(access["allowed"] for access in expected["access"])
    assert code == (0 if yes else 1)


def test_where_no_role_admits_the_rule_to_write_is_offered(front: Asking) -> None:
    claims = {**sample(MAIN, ref="refs/heads/feature"), "aud": URL}
    told = front.explained(claims=claims)
    assert not told["admitted"]
    spec = yaml.safe_load(told["rule"])["spec"]
    (evaluation,) = evaluate([role("r", **spec)], "github", sample(MAIN, ref="refs/heads/feature"))
    assert evaluation.admits
    assert told["rule_notes"] == []
    told = front.explained(claims={"iss": GITHUB, "sub": "s"})
    assert told["rule"] is None
    assert "it lacks repository" in told["rule_notes"][0]


def test_a_refused_job_is_explained_by_the_id_of_its_event(front: Asking) -> None:
    assert front.exchange(front.job(ref="refs/heads/other")).status_code == 400
    (event_id,) = front.keep()
    told = front.explained(event_id=event_id)
    failed = {
        (each["name"], c["key"], c["claim"])
        for each in told["roles"]
        for c in each["conditions"]
        if not c["holds"]
    }
    assert ("octo-deployer", "jwt:ref", "refs/heads/other") in failed
    assert told["claims"]["ref"] == "refs/heads/other"
    assert told["event"]["event_id"] == event_id
    assert "claims" not in told["event"]
    assert told["notes"][0].startswith("It was refused with no_role_admits.")
    assert "They may have changed since" in told["notes"][0]
    assert 'jwt:ref": ["refs/heads/other"]' in told["rule"]


def test_an_event_is_explained_by_the_documents_of_now(front: Asking) -> None:
    front.exchange(front.job(ref="refs/heads/other"))
    (event_id,) = front.keep()
    changed = DOCUMENTS.replace("refs/heads/main", "refs/heads/other")
    front.source.catalog = catalog_of(changed + READERS)
    told = front.explained(event_id=event_id)
    assert told["admitted"]
    assert "rule" not in told
    assert "The documents in force now admit it." in told["notes"][0]


@pytest.mark.parametrize(
    ("changes", "reason"), [({"exp": 1, "iat": 0, "nbf": 0}, "expired")], ids=str
)
def test_a_refusal_that_is_not_about_roles_is_told_as_one(
    front: Asking, changes: dict[str, Any], reason: str
) -> None:
    assert front.exchange(front.job(**changes)).json()["reason"] == reason
    (event_id,) = front.keep()
    told = front.explained(event_id=event_id)
    assert told["admitted"]
    assert any(note.startswith(f"{reason} does not follow from claims") for note in told["notes"])


def test_a_token_that_was_used_before_is_told_as_such(front: Asking) -> None:
    token = front.job()
    assert front.exchange(token).status_code == 200
    assert front.exchange(token).status_code == 400
    _, second = front.keep()
    assert any(
        "already_used does not follow" in n for n in front.explained(event_id=second)["notes"]
    )


def test_a_claim_that_the_trail_leaves_out_or_cut_is_told(front: Asking) -> None:
    big = ["x" * 100] * 90
    front.exchange(front.job(ref="refs/heads/other", repo_property_big=big))
    (event_id,) = front.keep()
    documents = DOCUMENTS.replace(
        "jwt:ref: [refs/heads/main]", "jwt:ref: [refs/heads/main]\n      jwt:actor: [octocat]", 1
    )
    front.source.catalog = catalog_of(documents + READERS)
    notes = front.explained(event_id=event_id)["notes"]
    assert any("repo_property_big" in note and "too large" in note for note in notes)
    assert any("does not keep these claims" in note and "actor" in note for note in notes)


def test_an_event_without_claims_says_so(tmp_path: Path) -> None:
    front = Asking(tmp_path, audit_claims="none")
    front.exchange(front.job())
    front.call("DELETE", "/system/functions", front.holding("deploy"), json={"functionName": "x"})
    exchange, gateway = front.keep()
    token = front.holding("documents", "trail")
    told = refused(call(front, EXPLAIN, token, json={"event_id": exchange}), 400)
    assert "audit-claims" in told["error_description"]
    told = refused(call(front, EXPLAIN, token, json={"event_id": gateway}), 400)
    assert "not one of an exchange" in told["error_description"]


@pytest.mark.parametrize(
    "body",
    [{}, {"claims": []}, {"claims": {}, "event_id": "a"}, {"event_id": 5}, {"event_id": None},
     {"claims": {}, "access": []}, {"claims": {}, "access": [{"action": "Function:List"}]},
     {"claims": {}, "more": 1}, {"event_id": "f" * 32}, {"event_id": "../../etc/passwd"}],
    ids=str,
)  # fmt: skip
def test_a_body_that_asks_nothing_is_refused(front: Asking, body: object) -> None:
    assert refused(call(front, EXPLAIN, front.holding("documents", "trail"), json=body), 400)


def test_a_request_is_one_event_with_its_actions(front: Asking) -> None:
    front.exchange(front.job())
    (event_id,) = front.keep()
    front.explained(claims={"iss": GITHUB, "sub": "s"})
    front.explained(event_id=event_id)
    front.events()
    assert [event.actions for event in front.journal.events] == [
        ("Documents:Read",),
        ("Documents:Read", "Audit:Read"),
        ("Audit:Read",),
    ]


# -- who-can


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?action=Function:Create&resource=dev:figlet", ["Function:Create", "dev:figlet"]),
        ("?action=Function:Invoke&resource=dev:vault", ["Function:Invoke", "dev:vault"]),
        ("?action=Audit:Read&resource=*", ["Audit:Read", "*"]),
        ("?role=octo-deployer", ["--role", "octo-deployer"]),
    ],
)
def test_the_api_and_the_command_say_alike_who_can(
    front: Asking, tmp_path: Path, query: str, words: list[str]
) -> None:
    documents = tmp_path / "all.yaml"
    documents.write_text(DOCUMENTS + READERS, "utf-8")
    ran = CliRunner().invoke(main, ["who-can", *words, "--format=json", f"--documents={documents}"])
    answer = call(front, WHO_CAN, front.holding("documents"), query=query)
    assert answer.json() == json.loads(ran.stdout)


@pytest.mark.parametrize(
    "query",
    ["", "?action=Function:Create", "?role=x&action=y", "?role=nobody", "?action=No&resource=*",
     "?action=Function:Create&resource=a:b:c", "?action=Function:Create&resource=dev:*&x=1",
     "?role=a&role=b", f"?role={'x' * 5000}", f"?action={'x' * 5000}&resource=*"],
)  # fmt: skip
def test_a_malformed_question_is_refused(front: Asking, query: str) -> None:
    answer = call(front, WHO_CAN, front.holding("documents"), query=query)
    assert refused(answer, 400)
    assert len(answer.content) < 1000


# -- audit


def test_the_trail_is_shown_the_newest_first_and_by_pages(front: Asking) -> None:
    for number in range(7):
        front.clock.now += 1
        front.exchange(front.job(**({"ref": "refs/heads/other"} if number % 2 else {})))
    made = front.keep()
    first = front.events("?limit=3")
    assert first["replica"] == gethostname()
    assert first["note"] == "This replica's trail; other replicas have their own."
    front.exchange(front.job())
    front.keep()
    second = front.events(f"?limit=50&before={first['next']}")
    found = [e["event_id"] for e in [*first["events"], *second["events"]]]
    assert found == made[::-1]
    assert second["next"] is None


def test_events_are_filtered(front: Asking) -> None:
    front.exchange(front.job())
    front.exchange(front.job(ref="refs/heads/other"))
    deploy = front.holding("deploy")
    figlet = {"service": "figlet", "namespace": "dev", "image": "i"}
    front.call("PUT", "/system/functions", deploy, json=figlet)
    front.call("POST", "/system/functions", deploy, json={**figlet, "service": "cows"})
    front.call("DELETE", "/system/functions", deploy, json={"functionName": "figlet", "namespace": "prod"})  # fmt: skip
    front.post("/oauth/revoke", {"token": front.signed({**front.said(), "jti": "theirs"})})
    made = front.keep()

    def found(query: str) -> list[int]:
        return sorted(made.index(event["event_id"]) for event in front.events(query)["events"])

    assert found("?kind=exchange") == [0, 1]
    assert found("?kind=gateway") == [2, 3, 4]
    assert found("?kind=other") == [5]
    assert found("?outcome=refused") == [1, 4]
    assert found("?outcome=granted&kind=exchange") == [0]
    assert found("?function=dev:Figlet") == [2]
    assert found("?function=prod:figlet&outcome=refused") == [4]
    assert found("?kind=all&outcome=all") == [0, 1, 2, 3, 4, 5]


def test_the_exchanges_that_a_shadow_role_would_have_admitted_are_found(front: Asking) -> None:
    front.source.catalog = catalog_of(DOCUMENTS + READERS + SHADOW)
    front.exchange(front.job())
    front.exchange(front.job(ref="refs/heads/other"))
    front.exchange(front.job(repository="octo-org/other"))
    made = front.keep()

    def found(query: str) -> list[int]:
        return sorted(made.index(event["event_id"]) for event in front.events(query)["events"])

    assert found("?shadow_role=octo-next") == [0, 1]
    assert found("?shadow_role=octo-next&outcome=refused") == [1]
    assert found("?shadow_role=octo-next&kind=gateway") == []
    assert found("?shadow_role=OCTO-NEXT") == [], "names of Roles have regard to case"
    assert found("?shadow_role=") == [0, 1, 2]


@pytest.mark.parametrize(
    "query",
    ["?limit=0", "?limit=201", "?limit=x", "?limit=-1", "?limit=1e2", "?kind=x", "?outcome=no",
     "?before=x", "?before=W10", f"?before={'A' * 30_000}", "?function=dev", "?function=dev:a/b",
     "?function=..:x%00", "?more=1", "?limit=1&limit=2", "?limit=%D9%A1"],
)  # fmt: skip
def test_a_malformed_page_is_refused(front: Asking, query: str) -> None:
    answer = call(front, AUDIT, front.holding("trail"), query=query)
    assert refused(answer, 400)
    assert len(answer.content) < 1000


def test_a_broker_without_any_event_has_an_empty_trail(front: Asking) -> None:
    page = front.events()
    assert (page["events"], page["next"]) == ([], None)


# -- `federation serve` with two workers


def served_documents(issuer: LocalIssuer) -> str:
    """Documents by which the jobs on main may read the documents and the trail."""
    iss = issuer.iss("github")
    reads = {"action": ["Documents:Read", "Audit:Read"], "resource": ["*"]}
    return written.as_text(
        written.issuer("local", iss),
        written.policy("read", reads),
        written.role("reader", iss, policy="read"),
    )


def test_two_workers_show_one_trail_and_explain_each_others_events(tmp_path: Path) -> None:
    with (
        local_issuer() as issuer,
        started(tmp_path, issuer, "--workers=2", written=served_documents) as broker,
    ):
        headers = {"authorization": f"Bearer {broker.access_token()}"}
        refused_ids = {_refused_request(broker) for _ in range(6)}
        for _ in range(4):  # whichever worker answers
            with httpx2.Client(base_url=broker.url, headers=headers, timeout=20) as client:
                page = client.get(f"{AUDIT}?kind=exchange&outcome=refused&limit=200").json()
                assert {event["request_id"] for event in page["events"]} == refused_ids
                event_id = page["events"][-1]["event_id"]
                told = client.post(EXPLAIN, json={"event_id": event_id}).json()
                assert told["claims"]["ref"] != "refs/heads/main"
                assert [role["name"] for role in told["roles"]] == ["reader"]
                assert "jwt:ref" in told["rule"]
        assert broker.unexpected_errors() == []


def _refused_request(broker: Served) -> str:
    answer = broker.exchange(broker.job("feature"))
    assert answer.json()["reason"] == "no_role_admits", answer.text
    return str(answer.json()["request_id"])
