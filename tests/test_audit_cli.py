"""`federation audit`: the journal is read, doubted and delivered again, and never changed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from federation.audit.event import Actor
from federation.audit.journal import FileJournal
from federation.audit.seals import SEAL_TYPE
from federation.audit.segments import stored
from federation.cli import main
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import KeyFolder
from tests.harness.receiver import Receiver, answer, receiving
from tests.harness.recording import SIZE, event, sign

SMALL = 32 * 1024


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as up:
        yield up


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory whose journal has forty events of two processes, taken turns."""
    signs = KeyFolder.under(tmp_path).ensure().signs

    def sign(payload: Mapping[str, object]) -> str:
        return sign_jws(payload, signs, SEAL_TYPE)

    journals = [FileJournal(tmp_path / "audit", SMALL, sign=sign) for _ in range(2)]

    async def story() -> None:
        for number in range(40):
            await journals[number % 2].record(event(number))
        for journal in journals:
            await journal.aclose()

    asyncio.run(story())
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["audit", *map(str, arguments)])


def shown(*arguments: object) -> list[str]:
    result = run("tail", "--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    return [json.loads(line)["request_id"] for line in result.stdout.splitlines()]


def numbers(*which: int) -> list[str]:
    return [f"request-{number}" for number in which]


# tail


@pytest.mark.parametrize("count", [0, 1, 7, 39, 40, 41, 1000])
def test_tail_shows_the_last_events_of_all_processes_by_time(state: Path, count: int) -> None:
    assert shown("--state", state, "-n", count) == numbers(*range(max(0, 40 - count), 40))


def test_tail_shows_twenty_where_it_is_not_told(state: Path) -> None:
    assert shown("--state", state) == numbers(*range(20, 40))


def test_a_line_for_people_says_who_what_and_why(state: Path) -> None:
    line = run("tail", "--state", state, "-n", 1).stdout
    assert line == (
        "2027-01-15T08:00:39.000000Z 200 POST /oauth/token fed:repo:octo-org/octo-repo"
        " roles=deployer policies=deploy request_id=request-39\n"
    )


def test_a_line_for_people_holds_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "audit", SIZE, sign=sign)
    nasty = "fed:\x1b]0;owned\x07\r\n2030 200 POST \u202e"

    async def story() -> None:
        await journal.record(event(actor=Actor(nasty, "iss", "fed"), message=nasty))
        await journal.aclose()

    asyncio.run(story())
    text = run("tail", "--state", tmp_path).stdout
    assert text.count("\n") == 1
    assert all(char.isprintable() for char in text.rstrip("\n"))


@pytest.mark.e2e
def test_follow_shows_events_as_they_come(state: Path) -> None:
    command = [sys.executable, "-m", "federation", "audit", "tail"]
    options = ["--state", str(state), "--follow", "-n", "1", "--format", "json"]
    with subprocess.Popen(  # noqa: S603  our own program
        [*command, *options], stdout=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        journal = FileJournal(state / "audit", SIZE, sign=sign)

        async def story() -> None:
            for number in (100, 101):
                await journal.record(event(number))
            await journal.aclose()

        asyncio.run(story())
        rest = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
    assert [e["request_id"] for e in (first, *rest)] == numbers(39, 100, 101)


@pytest.mark.parametrize("command", ["tail", "verify"])
def test_a_state_without_a_journal_is_told(tmp_path: Path, command: str) -> None:
    result = run(command, "--state", tmp_path)
    assert result.exit_code == 1
    assert "no audit journal under" in result.output


# verify


def test_a_whole_journal_is_called_whole(state: Path) -> None:
    result = run("verify", "--state", state)
    assert result.exit_code == 0
    assert result.output == f"40 events in {len(stored(state / 'audit'))} segments: whole\n"


Harm = Callable[[list[bytes]], list[bytes]]
HARMS: dict[str, tuple[Harm, int]] = {
    "changed": (lambda t: [*t[:2], t[2].replace(b'"response_code":200', b'"response_code":403'), *t[3:]], 3),
    "one character": (lambda t: [*t[:2], t[2].replace(b"octo", b"0cto", 1), *t[3:]], 3),
    "taken out": (lambda t: [*t[:2], *t[3:]], 3),
    "exchanged": (lambda t: [*t[:2], t[3], t[2], *t[4:]], 3),
    "doubled": (lambda t: [*t[:3], *t[2:]], 4),
    "header changed": (lambda t: [t[0].replace(b'"journal":1', b'"journal":2'), *t[1:]], 1),
    "header taken out": (lambda t: t[1:], 1),
    "garbage": (lambda t: [*t[:2], b"garbage\n", *t[3:]], 3),
    "last taken out": (lambda t: t[:-1], -1),
    "last but half": (lambda t: [*t[:-1], t[-1][:50]], -1),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMS)
def test_what_was_changed_or_taken_out_is_named_by_file_and_line(state: Path, name: str) -> None:
    harm, line = HARMS[name]
    segment = stored(state / "audit")[0].path
    text = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(harm(text)))
    result = run("verify", "--state", state)
    assert result.exit_code == 1, result.output
    line = line if line > 0 else len(text) + line
    assert f"{segment}:{line}: broken: " in result.output
    assert "NOT whole" in result.output


def test_a_segment_taken_out_of_the_middle_is_missed(state: Path) -> None:
    segments = stored(state / "audit")
    own = [segment for segment in segments if segment.process == segments[0].process]
    assert len(own) >= 3
    own[1].path.unlink()
    result = run("verify", "--state", state)
    assert result.exit_code == 1
    assert f"{own[2].path}:1: broken: follows {own[1].path.name}" in result.output


def test_an_oldest_segment_that_is_gone_is_told_and_is_no_fault(state: Path) -> None:
    oldest = stored(state / "audit")[0].path
    oldest.unlink()
    result = run("verify", "--state", state)
    assert result.exit_code == 0
    assert f"note: follows {oldest.name}, which was dropped for room, or removed" in result.output


# resend


def test_resend_delivers_everything_again(state: Path, receiver: Receiver) -> None:
    before = {path: path.read_bytes() for path in (state / "audit").iterdir()}
    secret = state / "secret"
    secret.write_text("s3cret")
    result = run("resend", "--state", state, "--webhook", receiver.url, "--secret", secret)
    assert result.exit_code == 0, result.output
    assert "40 events delivered" in result.output
    sent = [e["request_id"] for each in receiver.taken for e in each.events]
    assert sorted(sent) == sorted(numbers(*range(40)))
    assert "x-openfaas-signature-256" in receiver.taken[0].headers
    assert all("chain" not in e for each in receiver.taken for e in each.events)
    assert {path: path.read_bytes() for path in (state / "audit").iterdir()} == before


@pytest.mark.parametrize(
    "since", ["2027-01-15T08:00:35Z", "2027-01-15T08:00:35", "2027-01-15T09:00:35+01:00"]
)
def test_resend_begins_where_it_is_told(state: Path, receiver: Receiver, since: str) -> None:
    result = run("resend", "--state", state, "--webhook", receiver.url, "--since", since)
    assert result.exit_code == 0, result.output
    sent = [e["request_id"] for each in receiver.taken for e in each.events]
    assert sorted(sent) == numbers(*range(35, 40))


def test_resend_tries_again_and_then_fails(state: Path, receiver: Receiver) -> None:
    receiver.next = [answer(500)]
    assert run("resend", "--state", state, "--webhook", receiver.url).exit_code == 0
    receiver.next = [answer(500)] * 3
    result = run("resend", "--state", state, "--webhook", receiver.url)
    assert result.exit_code == 1
    assert "did not take a batch: HTTP 500" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--webhook", "http://receiver.example.com/"], id="in clear"),
        pytest.param(["--webhook", "ftp://127.0.0.1/"], id="no http"),
        pytest.param(["--webhook", "https://user:password@example.com/"], id="password"),
        pytest.param(["--webhook", "http://127.0.0.1:1/", "--since", "yesterday"], id="no time"),
        pytest.param([], id="no webhook"),
    ],
)
def test_wrong_use_is_told(state: Path, arguments: list[str]) -> None:
    assert run("resend", "--state", state, *arguments).exit_code == 2
