"""Hostile events: a file of events may come from anybody, and callers word much of what events say."""

from __future__ import annotations

import json
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from federation.audit.delivered import events_in
from federation.cli import main
from federation.policy.replay import Kind, Report, Sample
from federation.replayed.replay import Replay
from tests.harness.broker import InProcess
from tests.harness.documents import DOCUMENTS, catalog_of

Json = dict[str, Any]
ESCAPE = "\x1b]0;owned\x07\x1b[2J"
COMMANDS = "\n::error::owned\n##vso[task.setvariable]x"


@pytest.fixture
def granted() -> Json:
    """The event of a grant."""
    broker = InProcess()
    assert broker.exchange().status_code == 200
    event: Json = json.loads(json.dumps(broker.journal.events[0].as_json()))
    return event


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    place = tmp_path / "documents.yaml"
    place.write_text(DOCUMENTS)
    return place


def run(documents: Path, written: str | bytes, *words: str) -> Result:
    arguments = ["replay", "--against", str(documents), "--events", "-", *words]
    return CliRunner().invoke(main, arguments, input=written)


def decided(*events: Json) -> Replay:
    replayed = Replay(catalog_of(DOCUMENTS))
    for event in events:
        replayed.add(event)
    return replayed


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("member", ["roles", "policies", "event_id", "time", "repository", "why"])
def test_no_text_of_an_event_commands_a_terminal_or_a_runner(
    documents: Path, granted: Json, form: str, member: str
) -> None:
    hostile = ESCAPE + COMMANDS
    if member == "repository":
        granted["claims"]["repository"] = hostile
    elif member == "why":
        granted |= {"reason": hostile, "response_code": 400}
    else:
        granted[member] = hostile if isinstance(granted[member], str) else [hostile]
    result = run(documents, json.dumps(granted), "--format", form)
    assert result.exit_code in {0, 1}, result.output
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    lines = result.stdout.splitlines()
    assert not [line for line in lines if line.lstrip().startswith("::")]
    assert "##vso[" not in result.stdout


LONG = "x" * 2000
LIES: dict[str, Json] = {
    "granted, and refused": {"response_code": 400},
    "refused, and granted": {"reason": "no_role_admits"},
    "granted by no Role": {"roles": []},
    "a reason that is a list": {"reason": ["no_role_admits"], "response_code": 400},
    "no code": {"response_code": "200"},
    "roles that are an object": {"roles": {"octo-deployer": True}},
    "a role that is a number": {"roles": ["octo-deployer", 1]},
    "thousands of roles": {"roles": [f"r{n}" for n in range(5000)]},
    "a long role": {"roles": [LONG]},
    "claims that are a list": {"claims": [1]},
    "cut claims that are text": {"claims_cut": "repository"},
    "an actor that is text": {"actor": "mallory"},
    "an actor without a subject": {"actor": {"issuer": "x", "fed_issuer": "y"}},
    "a long id": {"event_id": LONG},
    "no time": {"time": None},
    "a digest that is a number": {"token_sha256": 1},
    "claims without end": {"claims": {"iss": "x" * 100_000}},
    "an action that is none": {"resource": "dev:figlet", "actions": ["Function:Everything"]},
    "a resource that is none": {"resource": "../..", "actions": ["Function:Get"]},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_an_event_that_contradicts_itself_decides_nothing(granted: Json, lie: Json) -> None:
    replayed = decided({**granted, **lie})
    assert (replayed.events, replayed.unreadable) == (1, 1)
    assert not replayed.report.rows
    assert not replayed.report.loss


def test_a_claim_that_is_named_as_cut_is_not_believed(granted: Json) -> None:
    granted |= {"claims_cut": ["repository"]}
    replayed = decided(granted)
    assert replayed.report.undecided
    assert not replayed.report.rows


def test_names_of_roles_that_never_were_lose_and_gain_nothing_else(granted: Json) -> None:
    granted["roles"] = ["mallory"]
    replayed = decided(granted)
    changes = {(row.change.value, row.role) for row in replayed.report.rows}
    assert changes == {
        ("loses", "mallory"),
        ("gains", "octo-deployer"),
        ("gains", "octo-invoker"),
    }


DEEP = '{"a":' * 100_000
TEXTS: dict[str, bytes] = {
    "nested deeply": DEEP.encode(),
    "nested deeply, and closed": (DEEP + "1" + "}" * 100_000).encode(),
    "lists within lists": b"[" * 1_000_000,
    "a text without end": b'{"a": "' + b"x" * 3_000_000,
    "a number without end": b'{"a": ' + b"9" * 100_000 + b"}",
    "no JSON": b"\x00\xff" * 500_000,
    "one member twice": b'{"event_id": "1", "event_id": "2"}',
    "not a number": b'{"event_id": NaN}',
    "half a surrogate pair": b'{"event_id": "\\ud800"}',
    "a huge object": b'{"a": "' + b"x" * 3_000_000 + b'"}',
    "many objects that never end": b'{"a": \n' * 100_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_text_that_is_no_event_costs_little_and_does_not_hide_what_follows(
    text: bytes, granted: Json
) -> None:
    began = time.process_time()
    found = list(events_in(BytesIO(text + b"\n" + json.dumps(granted).encode())))
    assert found[-1] == granted
    assert all(event is None for event in found[:-1])
    assert time.process_time() - began < 5


def test_callers_without_end_take_memory_up_to_a_bound(
    granted: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.policy.replay._MOST_ROWS", 100)
    monkeypatch.setattr("federation.replayed.decider._KINDS", 10)
    monkeypatch.setattr("federation.replayed.replay._TOKENS", 10)
    replayed = Replay(catalog_of(DOCUMENTS))
    for number in range(150):  # two Roles admit each
        claims = {**granted["claims"], "repository": f"mallory/{number}"}
        digest = {"event_id": str(number), "issued_token_sha256": str(number)}
        replayed.add({**granted, **digest, "claims": claims})
    report = replayed.report
    assert len(report.rows) <= 103
    assert sum(count.events for count in report.rows.values()) == 300
    assert report.totals[Kind.EXCHANGE].decided == 150
    assert "(others)" in {row.who for row in report.rows}


def test_reasons_without_end_take_memory_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason may name claims, and whoever writes events chooses which of them were cut."""
    monkeypatch.setattr("federation.policy.replay._MOST_ROWS", 3)
    report = Report()
    for number in range(8):
        report.not_decided(f"claim {number}", Sample("1", "2"))
        report.leave_out(f"reason {number}", Sample("1", "2"))
    for counts in (report.undecided, report.left_out):
        assert len(counts) == 4
        assert counts["(others)"].events == 5
