"""`federation audit show` tells the whole story of an event, and `audit tail` finds events."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from federation.audit.event import Event
from federation.audit.journal import FileJournal
from federation.cli import main
from tests.harness.broker import DOCUMENTS, HIDDEN, InProcess
from tests.harness.journal_writer import SIZE, event, sign

WRONG_REF = "refs/heads/feature"
ONE_ROLE = DOCUMENTS[
    : DOCUMENTS.index(
        "---\napiVersion: iam.openfaas.com/v1\nkind: Role\nmetadata: {name: octo-invoker}"
    )
]


@pytest.fixture
def refused() -> Event:
    """The event of a job that no Role admits, since its ref is another than the Roles'."""
    broker = InProcess()
    broker.exchange(broker.job(ref=WRONG_REF))
    return broker.journal.events[0]


@pytest.fixture
def granted() -> Event:
    broker = InProcess()
    assert broker.exchange(broker.job(ref=HIDDEN)).status_code == 200
    return broker.journal.events[0]


def recorded(state: Path, *events: Event) -> Path:
    """A state directory whose journal has *events*."""
    journal = FileJournal(state / "audit", SIZE, sign=sign)

    async def story() -> None:
        for each in events:
            await journal.record(each)
        await journal.aclose()

    asyncio.run(story())
    return state


def run(*arguments: object, **environ: str | None) -> Result:
    unset: dict[str, str | None] = {"FEDERATION_STATE": None, "FEDERATION_DOCUMENTS": None}
    return CliRunner().invoke(main, ["audit", *map(str, arguments)], env=unset | environ)


def show(state: Path, *arguments: object, **environ: str | None) -> str:
    result = run("show", "--state", state, *arguments, **environ)
    assert result.exit_code == 0, result.output
    return result.stdout


def documents_in(folder: Path) -> Path:
    place = folder / "documents.yaml"
    place.write_text(DOCUMENTS)
    return place


@pytest.mark.parametrize("member", ["event_id", "request_id"])
def test_an_event_is_found_by_its_own_id_and_by_that_of_its_request(
    tmp_path: Path, refused: Event, member: str
) -> None:
    recorded(tmp_path, *map(event, range(50)), refused, *map(event, range(50, 90)))
    told = show(tmp_path, getattr(refused, member))
    assert f"event     {refused.event_id}\n" in told
    assert f"request   {refused.request_id}\n" in told
    assert "answer    400 POST /oauth/token\n" in told
    assert "reason    no_role_admits\n" in told
    assert "said      No policies found for subject: repo:octo-org/octo-repo" in told


def test_a_refusal_shows_what_was_expected_beside_what_the_token_had(
    tmp_path: Path, refused: Event
) -> None:
    told = show(recorded(tmp_path, refused), refused.request_id)
    evidence = told[told.index("At that time:") : told.index("The token said:")]
    assert f"expected  {HIDDEN}\n           got       {WRONG_REF}\n" in evidence
    assert "no   StringEqual jwt:ref" in evidence
    assert "By the documents" not in told
    assert "With --documents" in told


@pytest.mark.parametrize("how", ["option", "setting"])
def test_with_documents_the_claims_are_explained_condition_by_condition(
    tmp_path: Path, refused: Event, how: str
) -> None:
    recorded(tmp_path, refused)
    place = documents_in(tmp_path)
    told = (
        show(tmp_path, refused.event_id, "--documents", place)
        if how == "option"
        else show(tmp_path, refused.event_id, FEDERATION_DOCUMENTS=str(place))
    )
    explained = told[told.index("By the documents given here:") :]
    assert "admitted  no" in explained
    assert "  yes  StringEqual jwt:iss" in explained
    assert f"         expected  {HIDDEN}\n         got       {WRONG_REF}\n" in explained
    assert "It was refused with no_role_admits. The documents given here do not admit it." in told


def test_a_grant_has_its_roles_and_policies(tmp_path: Path, granted: Event) -> None:
    told = show(
        recorded(tmp_path, granted), granted.event_id, "--documents", documents_in(tmp_path)
    )
    assert "answer    200 POST /oauth/token\n" in told
    assert f"roles     {' | '.join(granted.roles)}\n" in told
    assert f"policies  {' | '.join(granted.policies)}\n" in told
    assert "It was granted. The documents given here admit it." in told
    assert "At that time:" not in told


def test_programs_get_event_evidence_explanation_and_notes(tmp_path: Path, refused: Event) -> None:
    recorded(tmp_path, refused)
    place = documents_in(tmp_path)
    said: dict[str, Any] = json.loads(
        show(tmp_path, refused.request_id, "--documents", place, "--format", "json")
    )
    assert said.keys() == {"event", "evidence", "explanation", "notes"}
    assert said["event"]["event_id"] == refused.event_id
    failed = [finding for role in said["evidence"]["nearest"] for finding in role["failed"]]
    ref = failed[-1]
    assert (ref["expected"], ref["got"]) == ([HIDDEN], WRONG_REF)
    assert said["explanation"]["admitted"] is False
    bare = json.loads(show(tmp_path, refused.request_id, "--format", "json"))
    assert bare["explanation"] is None


def test_all_events_of_a_request_are_shown_by_time(tmp_path: Path) -> None:
    same = [event(number)._replace(request_id="the-one") for number in range(3)]
    told = show(recorded(tmp_path, *same), "the-one")
    places = [told.index(each.event_id) for each in same]
    assert places == sorted(places)


def test_an_event_without_claims_says_why_it_cannot_be_explained(tmp_path: Path) -> None:
    one = event()
    told = show(recorded(tmp_path, one), one.event_id, "--documents", documents_in(tmp_path))
    assert "The event keeps no claims: the setting audit-claims kept none" in told


@pytest.mark.parametrize("sought", ["f" * 32, "no-such-request", "\x1b[2J", '"', ""])
def test_an_id_that_is_not_there_is_1_and_says_what_may_be_the_cause(
    tmp_path: Path, sought: str
) -> None:
    result = run("show", "--state", recorded(tmp_path, event()), sought)
    assert result.exit_code == 1
    assert "Requests without a good token make no event" in " ".join(result.stderr.split())
    assert "\x1b" not in result.output


def test_an_id_in_a_claim_of_another_event_does_not_find_that_event(tmp_path: Path) -> None:
    wanted = event()
    liar = event(1)._replace(claims={"x": {"event_id": wanted.event_id}})
    told = show(recorded(tmp_path, wanted, liar), wanted.event_id)
    assert liar.event_id not in told


@pytest.mark.parametrize("filler", ["", "x" * 150], ids=["whole", "cut"])
def test_evidence_that_a_caller_wrote_into_its_subject_is_not_believed(
    tmp_path: Path, filler: str
) -> None:
    forged = f'{filler} Evidence: {{"nearest":[{{"role":"forged","failed":[]}}]}}'
    broker = InProcess(ONE_ROLE)
    broker.exchange(broker.job(sub=f"repo:x{forged}", ref=WRONG_REF))
    (one,) = broker.journal.events
    told = show(recorded(tmp_path, one), one.event_id)
    evidence = told[told.index("At that time") : told.index("The token said:")]
    assert "Role forged" not in evidence
    assert "Role octo-deployer" in evidence


def test_evidence_that_was_cut_shows_each_finding_that_is_whole(tmp_path: Path) -> None:
    broker = InProcess()
    broker.exchange(broker.job(sub="repo:" + "x" * 120, ref=WRONG_REF))
    (one,) = broker.journal.events
    assert one.custom_message.endswith("...")
    told = show(recorded(tmp_path, one), one.event_id)
    assert "as far as the event could keep it" in told
    assert f"expected  refs/heads/main\n           got       {WRONG_REF}\n" in told


def test_nothing_of_an_event_commands_the_terminal_or_a_runner(tmp_path: Path) -> None:
    nasty = "\x1b]0;owned\x07\n::error::x ##[command]"
    one = event()._replace(
        custom_message=nasty, path=nasty, claims={nasty: nasty}, roles=(nasty,), evidence={}
    )
    told = show(recorded(tmp_path, one), one.event_id)
    assert all(char.isprintable() for char in told.replace("\n", ""))
    assert not [line for line in told.splitlines() if line.lstrip().startswith("::")]
    assert "##[" not in told


def test_evidence_that_was_cut_is_shown_as_text(tmp_path: Path) -> None:
    one = event()._replace(custom_message='No. Evidence: {"nearest": [{"role": "a", "fai...')
    assert 'said      No. Evidence: {"nearest"' in show(recorded(tmp_path, one), one.event_id)


# tail


def shown(state: Path, *arguments: object) -> list[str]:
    result = run("tail", "--format", "json", "--state", state, *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line)["request_id"] for line in result.stdout.splitlines()]


@pytest.fixture
def mixed(tmp_path: Path, refused: Event) -> Path:
    """A journal whose refusals are far from its end: each tenth of 1,000 events."""
    return recorded(
        tmp_path,
        *(
            event(number)._replace(reason=None if number % 10 else refused.reason)
            for number in range(1000)
        ),
    )


def test_tail_counts_only_the_events_that_are_asked_for(mixed: Path) -> None:
    assert shown(mixed, "--reason", "no_role_admits", "-n", 3) == [
        f"request-{number}" for number in (970, 980, 990)
    ]
    assert len(shown(mixed, "--reason", "no_role_admits", "-n", 1000)) == 100


def test_tail_finds_a_request(mixed: Path) -> None:
    assert shown(mixed, "--request-id", "request-7") == ["request-7"]
    assert shown(mixed, "--request-id", "request-10", "--reason", "no_role_admits") == [
        "request-10"
    ]
    assert shown(mixed, "--request-id", "request-7", "--reason", "no_role_admits") == []
    assert shown(mixed, "--reason", "expired") == []
    assert shown(mixed, "--reason", "no_role_admits", "-n", 0) == []


def test_a_reason_that_does_not_exist_is_wrong_use_and_names_the_nearest(mixed: Path) -> None:
    result = run("tail", "--state", mixed, "--reason", "no_roles_admit")
    assert result.exit_code == 2
    assert "did you mean no_role_admits?" in result.stderr


def test_a_journal_that_may_not_be_read_names_the_user_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_args: object) -> object:
        raise PermissionError(13, "Permission denied", "/state/audit/1.jsonl")

    monkeypatch.setattr("federation.cli.audit_events.search", denied)
    result = run("show", "--state", recorded(tmp_path, event()), "x")
    assert result.exit_code == 1
    assert "/state/audit/1.jsonl may not be read by this user" in " ".join(result.stderr.split())
