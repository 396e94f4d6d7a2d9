"""`federation audit` shows, verifies and resends the journal, and never changes it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from click.testing import CliRunner, Result

from federation.audit.event import Actor
from federation.audit.journal import FileJournal
from federation.audit.seals import SEAL_TYPE
from federation.audit.segments import OUTSIDERS, stored
from federation.cli import main
from federation.jose import jws
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import KeyFolder
from tests.harness.journal_writer import SIZE, event, sign
from tests.harness.webhook_receiver import Receiver, answer, receiving

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


def test_tail_shows_twenty_by_default(state: Path) -> None:
    assert shown("--state", state) == numbers(*range(20, 40))


def test_a_line_for_people_says_who_what_and_why(state: Path) -> None:
    line = run("tail", "--state", state, "-n", 1).stdout
    assert line == (
        "2027-01-15T08:00:39.000000Z 200 POST /oauth/token fed:repo:octo-org/octo-repo"
        " roles=deployer policies=deploy request_id=request-39\n"
    )


def test_a_line_for_people_holds_no_control_characters(tmp_path: Path) -> None:
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
def test_a_state_without_a_journal_is_an_error(tmp_path: Path, command: str) -> None:
    result = run(command, "--state", tmp_path)
    assert result.exit_code == 1
    assert "no audit journal under" in result.output


# verify


def test_a_whole_journal_is_called_whole(state: Path) -> None:
    result = run("verify", "--state", state)
    assert result.exit_code == 0
    assert result.output == f"40 events in {len(stored(state / 'audit'))} segments: whole\n"


Harm = Callable[[list[bytes]], list[bytes]]
HARMS: dict[str, tuple[Harm, str]] = {
    "changed": (lambda t: [*t[:2], t[2].replace(b'"response_code":200', b'"response_code":403'), *t[3:]], "was changed"),
    "one character": (lambda t: [*t[:2], t[2].replace(b"octo", b"0cto", 1), *t[3:]], "was changed"),
    "taken out": (lambda t: [*t[:2], *t[3:]], "was cut"),
    "exchanged": (lambda t: [*t[:2], t[3], t[2], *t[4:]], "was changed"),
    "doubled": (lambda t: [*t[:3], *t[2:]], "was changed"),
    "header changed": (lambda t: [t[0].replace(b'"journal":1', b'"journal":2'), *t[1:]], "was changed"),
    "header taken out": (lambda t: t[1:], "was cut"),
    "garbage": (lambda t: [*t[:2], b"x" * (len(t[2]) - 1) + b"\n", *t[3:]], "was changed"),
    "last taken out": (lambda t: t[:-1], "was cut"),
    "last but half": (lambda t: [*t[:-1], t[-1][:50]], "was cut"),
    "emptied": (lambda _: [], "was cut"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMS)
@pytest.mark.parametrize("which", [0, 3], ids=["first segment", "later segment"])
def test_a_segment_that_was_changed_or_cut_is_named(state: Path, name: str, which: int) -> None:
    harm, message = HARMS[name]
    segment = stored(state / "audit")[which].path
    text = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(harm(text)))
    result = run("verify", "--state", state)
    assert result.exit_code == 1, result.output
    assert f"{segment}: broken: {message}" in result.output
    assert "NOT whole" in result.output


def test_lines_added_to_a_sealed_segment_are_found(state: Path) -> None:
    segment = stored(state / "audit")[-1].path
    text = segment.read_bytes()
    segment.write_bytes(text + text.splitlines(keepends=True)[-1])
    result = run("verify", "--state", state)
    assert result.exit_code == 1
    assert f"{segment}: broken: has lines after byte {len(text)}" in result.output


@pytest.mark.parametrize("place", [0, 1, 2, -1])
def test_a_removed_segment_is_reported(state: Path, place: int) -> None:
    gone = stored(state / "audit")[place].path
    gone.unlink()
    result = run("verify", "--state", state)
    assert result.exit_code == 1
    assert f"{gone}: broken: was removed" in result.output


@pytest.mark.parametrize("place", [0, 2])
def test_a_segment_removed_with_its_seal_is_reported(state: Path, place: int) -> None:
    folder = state / "audit"
    gone = stored(folder)[place].path
    (seal,) = [path for path in folder.glob("*.seal") if names(path) == gone.name]
    gone.unlink()
    seal.unlink()
    result = run("verify", "--state", state)
    assert result.exit_code == 1
    assert f"follows seal {int(seal.stem)}, which is missing: it was removed" in result.output


def names(seal: Path) -> object:
    """The segment that *seal* is about."""
    closed = jws.parse(seal.read_text("ascii")).claims["closed"]
    assert isinstance(closed, dict)
    return closed["segment"]


def test_swapped_segments_are_found(state: Path) -> None:
    first, second = (segment.path for segment in stored(state / "audit")[:2])
    texts = first.read_bytes(), second.read_bytes()
    first.write_bytes(texts[1])
    second.write_bytes(texts[0])
    result = run("verify", "--state", state)
    assert result.exit_code == 1
    for path in (first, second):
        assert f"{path}: broken: was c" in result.output


# verify: whose keys


@pytest.fixture
def rotated(state: Path) -> dict[str, object]:
    """The JWKS that signed the seals. The state has other keys since."""
    folder = KeyFolder.under(state)
    before = folder.load().jwks()
    shutil.rmtree(state / "signing-keys")
    folder.ensure()
    return {**before}


def test_a_key_that_was_rotated_out_is_named_as_such(
    state: Path, rotated: dict[str, object], tmp_path: Path
) -> None:
    result = run("verify", "--state", state)
    assert result.exit_code == 1
    assert result.output.count("is signed by a key that is not in the JWKS") == 6
    (tmp_path / "old.json").write_text(json.dumps(rotated))
    (tmp_path / "new.json").write_text(json.dumps(KeyFolder.under(state).load().jwks()))
    both = ["--jwks", tmp_path / "new.json", "--jwks", tmp_path / "old.json"]
    assert run("verify", "--state", state, *both).exit_code == 0


def test_nothing_but_the_jwks_is_needed(state: Path, rotated: dict[str, object]) -> None:
    shutil.rmtree(state / "signing-keys")
    assert run("verify", "--state", state).exit_code == 1, "there are no keys"
    with serving(json.dumps(rotated).encode()) as url:
        result = run("verify", "--state", state, "--jwks", url)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{}", 200, "holds no JWKS"),
        (b'{"keys": []}', 200, "no list of keys, or an empty one"),
        (b"[", 200, "no public keys"),
        (b" " * 300_000, 200, "larger than 256 KiB"),
        (b'{"keys": []}', 404, "answered 404"),
        (b'{"keys": []}', 302, "answered 302"),
    ],
)
def test_a_jwks_that_cannot_be_used_is_an_error(
    state: Path, content: bytes, status: int, message: str
) -> None:
    with serving(content, status) as url:
        result = run("verify", "--state", state, "--jwks", url)
    assert result.exit_code == 1
    assert message in result.output


@pytest.mark.parametrize("url", ["http://keys.example.com/jwks", "ftp://127.0.0.1/", "http://"])
def test_a_jwks_is_fetched_over_tls_or_from_this_machine(state: Path, url: str) -> None:
    result = run("verify", "--state", state, "--jwks", url)
    assert result.exit_code == 1
    assert "must be https" in result.output


@contextmanager
def serving(content: bytes, status: int = 200) -> Iterator[str]:
    """The URL of a server that answers everything with *content*."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):  # the client does not read a long answer to its end
                self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/jwks"
    finally:
        server.shutdown()
        server.server_close()


# the part of outsiders


@pytest.fixture
def flooded(state: Path) -> Path:
    """The state of `state` with ten events of outsiders, too."""
    signs = KeyFolder.under(state).ensure().signs
    folder = state / "audit" / OUTSIDERS
    journal = FileJournal(
        folder, SIZE, sign=lambda payload: sign_jws(payload, signs, SEAL_TYPE), owed=False
    )

    async def story() -> None:
        for number in range(100, 110):
            await journal.record(event(number))
        await journal.aclose()

    asyncio.run(story())
    return state


def test_tail_shows_both_by_time(flooded: Path) -> None:
    result = run("tail", "--state", flooded, "-n", "12", "--format", "json")
    told = [json.loads(line)["request_id"] for line in result.output.splitlines()]
    assert told == numbers(38, 39, *range(100, 110))
    assert run("tail", "--state", flooded, "-n", "0").output == ""


def test_verify_checks_both(flooded: Path) -> None:
    result = run("verify", "--state", flooded)
    assert (result.exit_code, result.output.rpartition(" in ")[0]) == (0, "50 events")
    (segment,) = stored(flooded / "audit" / OUTSIDERS)
    segment.path.write_bytes(segment.path.read_bytes().replace(b"request-101", b"request-999"))
    result = run("verify", "--state", flooded)
    assert result.exit_code == 1
    assert f"{segment.path}: broken: was changed" in result.output


def test_resend_sends_both(flooded: Path, receiver: Receiver) -> None:
    result = run("resend", "--state", flooded, "--webhook", receiver.url)
    assert "50 events delivered" in result.output


# resend


def test_resend_delivers_everything_again(state: Path, receiver: Receiver) -> None:
    before = {path: path.read_bytes() for path in (state / "audit").iterdir()}
    secret = state / "secret"
    secret.write_text("s3cret")
    header = state / "header"
    header.write_text("Authorization: Bearer one")
    flags = ("--secret", secret, "--header", header)
    result = run("resend", "--state", state, "--webhook", receiver.url, *flags)
    assert result.exit_code == 0, result.output
    assert "40 events delivered" in result.output
    sent = [e["request_id"] for each in receiver.taken for e in each.events]
    assert sorted(sent) == sorted(numbers(*range(40)))
    assert "x-openfaas-signature-256" in receiver.taken[0].headers
    assert receiver.taken[0].headers["authorization"] == "Bearer one"
    assert {path: path.read_bytes() for path in (state / "audit").iterdir()} == before


@pytest.mark.parametrize(
    "since", ["2027-01-15T08:00:35Z", "2027-01-15T08:00:35", "2027-01-15T09:00:35+01:00"]
)
def test_resend_begins_at_since(state: Path, receiver: Receiver, since: str) -> None:
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
def test_wrong_use_exits_with_2(state: Path, arguments: list[str]) -> None:
    assert run("resend", "--state", state, *arguments).exit_code == 2
