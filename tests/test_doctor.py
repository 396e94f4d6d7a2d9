"""
`federation doctor` in broken environments: real processes, and real servers that are wrong.

Each test breaks one thing, and looks for the line that names it, the advice below, and the exit
code: 1 only where an exchange could not be answered. No password may be in any output.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from federation.doctor.finding import Word, fail, with_docs_at
from federation.doctor.issuers import compared
from federation.issuers.dates import difference
from federation.tokens.signing_keys import KeyFolder, SigningKey
from tests.harness import documents
from tests.harness.broker import Served
from tests.harness.certificates import Authority
from tests.harness.issuer import FakeIssuer, FakeKey
from tests.harness.process import ROOT, free_port, in_thread
from tests.harness.raw_server import http_answer, raw_server
from tests.harness.redis import ask_redis, empty_redis, redis_server
from tests.harness.webhook_receiver import receiving

PASSWORD = "hunter2-of-the-operator"
_SECONDS = 40.0


@dataclass(frozen=True)
class Report:
    """What the command printed as JSON, and its exit code."""

    code: int
    said: Mapping[str, Any]
    seconds: float

    def of(self, check: str) -> list[tuple[str, str, str]]:
        """Word, message and advice of each finding of *check*."""
        return [
            (each["status"], each["message"], each["advice"] or "")
            for each in self.said["checks"]
            if each["check"] == check
        ]

    def wrong(self) -> set[str]:
        """The checks that found something wrong, without what root in a container is told."""
        return {
            each["check"]
            for each in self.said["checks"]
            if each["status"] != "ok" and each["check"] != "process"
        }


def ran(
    folder: Path, *flags: str, environ: Mapping[str, str] | None = None, **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command with the documents and the state in *folder*."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.search("^FEDERATION_|_PROXY$|CERT|CA_BUNDLE", name.upper())
    }
    words = [f"--documents={folder / 'documents.yaml'}", f"--state={folder / 'state'}"]
    return subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-m", "federation", "doctor", *words, *flags],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**kept, **(environ or {})},
        timeout=_SECONDS,
        check=False,
        **how,
    )


def examined(
    folder: Path, *flags: str, environ: Mapping[str, str] | None = None, **how: Any
) -> Report:
    """Return the report of the command."""
    began = time.monotonic()
    port = f"--port={free_port()}"
    ended = ran(folder, port, *flags, "--format=json", environ=environ, **how)
    seconds = time.monotonic() - began
    assert ended.stderr == ""
    assert PASSWORD not in ended.stdout
    report = Report(ended.returncode, json.loads(ended.stdout), seconds)
    assert report.said["exchanges_answered"] is (report.code == 0)
    for each in report.said["checks"]:
        assert (each["status"] == "ok") is (each["advice"] is None), each
    return report


def pinned(folder: Path) -> None:
    """Write documents that need no network."""
    issuer = FakeIssuer("https://ci.example.com")
    write(folder, documents.issuer("ci", issuer.iss, jwks=issuer.jwks()))


def write(folder: Path, *issuers: Mapping[str, Any]) -> None:
    """Write documents that trust *issuers*."""
    roles = [documents.role(f"r{n}", each["spec"]["iss"]) for n, each in enumerate(issuers)]
    text = documents.as_text(*issuers, documents.DEPLOY, *roles)
    (folder / "documents.yaml").write_text(text, "utf-8")


@contextmanager
def issuer_that(
    folder: Path,
    discovery: Callable[[FakeIssuer], bytes] | None = None,
    key_set: Callable[[FakeIssuer], bytes] | None = None,
    wait_seconds: float = 0,
) -> Iterator[str]:
    """Serve an issuer that documents in *folder* trust, and yield its `iss`."""

    @asynccontextmanager
    async def served() -> AsyncIterator[str]:
        async def reply(path: str, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(wait_seconds)
            is_discovery = path.endswith("openid-configuration")
            answers = discovery if is_discovery else key_set
            right = fake.metadata() if is_discovery else fake.jwks()
            date = f"Date: {formatdate(usegmt=True)}"
            writer.write(
                answers(fake) if answers else http_answer(json.dumps(right), "200 OK", date)
            )

        async with raw_server(reply) as (url, _):
            fake = FakeIssuer(url)
            write(folder, documents.issuer("ci", url))
            yield url

    with in_thread(served) as iss:
        yield iss


# Nothing is wrong


def test_where_all_is_well_it_says_so_and_changes_nothing(tmp_path: Path) -> None:
    with issuer_that(tmp_path) as iss, receiving() as receiver:
        report = examined(tmp_path, f"--audit-webhook={receiver.url}")
        assert receiver.seen == []
    assert report.code == 0
    assert report.wrong() == set()
    assert report.of("issuer ci") == [("ok", f"{iss}: 1 key fetched", "")]
    assert report.of("clock") == [("ok", "it agrees with 127.0.0.1", "")]
    assert report.of("documents") == [("ok", "1 JwtIssuer, 1 Role, 1 Policy", "")]
    assert report.of("proxies")[0][1].startswith("none")
    assert report.of("webhook")[0][1].endswith("connected; no event was sent")
    assert not (tmp_path / "state").exists()


def test_beside_a_broker_that_runs_it_says_how_that_is(tmp_path: Path) -> None:
    pinned(tmp_path)
    broker = Served(tmp_path, tmp_path / "documents.yaml")
    with broker.running():
        before = sorted(path.name for path in broker.state.rglob("*.pem"))
        report = examined(tmp_path, f"--port={broker.port}")
        assert sorted(path.name for path in broker.state.rglob("*.pem")) == before
        assert broker.exchange("no token").status_code == 400
    assert (report.code, report.wrong()) == (0, set())
    assert report.of("port")[0][1].startswith(f"a broker runs at 127.0.0.1:{broker.port}")
    assert report.of("store") == [("ok", "a token can be spent, and given back", "")]
    assert report.of("signing keys")[0][1].startswith("1 key, ")


# Issuers and the clock


def test_1_an_issuer_that_is_away(tmp_path: Path) -> None:
    write(tmp_path, documents.issuer("ci", f"http://127.0.0.1:{free_port()}"))
    report = examined(tmp_path)
    assert (report.code, report.wrong()) == (1, {"issuer ci"})
    ((word, said, advice),) = report.of("issuer ci")
    assert word == "fail"
    assert said.startswith("no keys of http://127.0.0.1:")
    assert said.endswith("nothing listens there (connection refused)")
    assert advice == "check host and port"


def test_2_an_issuer_that_wants_to_know_who_asks(tmp_path: Path) -> None:
    with issuer_that(tmp_path, lambda _: http_answer("", "401 Unauthorized")):
        report = examined(tmp_path)
    assert (report.code, report.wrong()) == (1, {"issuer ci"})
    ((_, said, advice),) = report.of("issuer ci")
    assert "401" in said
    assert "bearerTokenFile" in advice


def test_3_an_issuer_that_answers_with_a_page(tmp_path: Path) -> None:
    page = http_answer("<html>Sign in</html>", "200 OK", "Content-Type: text/html")
    with issuer_that(tmp_path, lambda _: page):
        report = examined(tmp_path)
    assert (report.code, report.wrong()) == (1, {"issuer ci"})
    assert "Expecting value" not in json.dumps(report.said)


def test_4_a_key_set_without_a_usable_key(tmp_path: Path) -> None:
    weak = FakeKey("weak", bits=1024)
    with issuer_that(tmp_path, None, lambda _: http_answer(json.dumps({"keys": [weak.jwk()]}))):
        report = examined(tmp_path)
    assert (report.code, report.wrong()) == (1, {"issuer ci"})
    (_, none, _), (_, passed_over, _) = report.of("issuer ci")
    assert none.endswith("none that it publishes can be used")
    assert passed_over.startswith("key weak is passed over: ")


def test_5_a_key_that_is_passed_over_beside_a_good_one(tmp_path: Path) -> None:
    keys = [FakeKey("weak", bits=1024).jwk(), FakeKey("good").jwk()]
    with issuer_that(tmp_path, None, lambda _: http_answer(json.dumps({"keys": keys}))):
        report = examined(tmp_path)
    assert (report.code, report.wrong()) == (0, {"issuer ci"})
    found = report.of("issuer ci")
    assert [word for word, *_ in found] == ["ok", "warn"]
    assert found[1][1].startswith("key weak is passed over: ")


def test_6_a_clock_that_is_wrong(tmp_path: Path) -> None:
    later = f"Date: {formatdate(time.time() + 3600, usegmt=True)}"

    def key_set(fake: FakeIssuer) -> bytes:
        return http_answer(json.dumps(fake.jwks()), "200 OK", later)

    def discovery(fake: FakeIssuer) -> bytes:
        return http_answer(json.dumps(fake.metadata()), "200 OK", later)

    with issuer_that(tmp_path, discovery, key_set):
        report = examined(tmp_path)
    assert (report.code, report.wrong()) == (1, {"clock"})
    ((_, said, advice),) = report.of("clock")
    assert said.endswith("s behind 127.0.0.1, so new tokens seem to be of the future")
    assert "time server" in advice


def test_7_an_issuer_that_is_silent_keeps_nobody_waiting(tmp_path: Path) -> None:
    with issuer_that(tmp_path, wait_seconds=120):
        report = examined(tmp_path)
        assert report.seconds < 60
    assert (report.code, report.wrong()) == (1, {"issuer ci"})
    assert "no complete answer" in report.of("issuer ci")[0][1]


@pytest.mark.parametrize(
    ("began", "ended", "date", "ahead"),
    [(100.0, 100.2, 100.0, 0.0), (100.9, 104.0, 103.0, 0.0), (200.0, 200.1, 100.0, 99.0),
     (50.0, 51.0, 100.0, -49.0)],
)  # fmt: skip
def test_what_a_slow_answer_explains_is_no_difference_of_clocks(
    began: float, ended: float, date: float, ahead: float
) -> None:
    assert difference(began, ended, date) == ahead


@pytest.mark.parametrize(
    ("ahead", "word"),
    [
        ({}, Word.OK),
        ({"a": 0.0}, Word.OK),
        ({"a": 6.0}, Word.WARN),
        ({"a": 60.0}, Word.WARN),
        ({"a": 400.0}, Word.FAIL),
        ({"a": -29.0}, Word.WARN),
        ({"a": -31.0}, Word.FAIL),
        ({"a": -3600.0, "b": 0.0}, Word.WARN),
    ],
)
def test_a_clock_is_judged_by_the_issuer_that_agrees_best(
    ahead: Mapping[str, float], word: Word
) -> None:
    assert compared(ahead).word is word


# State and files


@pytest.fixture
def shared(tmp_path: Path) -> list[str]:
    """The settings that a shared state needs."""
    pinned(tmp_path)
    key = tmp_path / "key.pem"
    key.write_bytes(SigningKey.generate().pem())
    key.chmod(0o600)
    return [f"--signing-key={key}", "--issuer-url=https://broker.example.com"]


def test_8_a_user_of_redis_who_may_not_run_scripts(tmp_path: Path, shared: list[str]) -> None:
    with redis_server(tmp_path / "redis") as port:
        empty_redis(port)
        assert ask_redis(port, f"ACL SETUSER limited on >{PASSWORD} ~* +@all -eval") == "+OK"
        url = f"redis://limited:{PASSWORD}@127.0.0.1:{port}/0"
        report = examined(tmp_path, *shared, environ={"FEDERATION_SHARED_STATE": url})
        good = examined(tmp_path, *shared, f"--shared-state=redis://127.0.0.1:{port}/0")
        assert ask_redis(port, "DBSIZE") == ":1"  # the epoch, which was there
    assert not (tmp_path / "state").exists()  # the memory of it is the broker's
    assert (report.code, report.wrong()) == (1, {"shared state"})
    ((_, said, advice),) = report.of("shared state")
    assert said.startswith(f"127.0.0.1:{port}: its user lacks a right")
    assert advice
    assert (good.code, good.wrong()) == (0, set())


def test_9_a_redis_that_is_away(tmp_path: Path, shared: list[str]) -> None:
    url = f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0"
    report = examined(tmp_path, *shared, environ={"FEDERATION_SHARED_STATE": url})
    assert (report.code, report.wrong()) == (1, {"shared state"})


def test_10_a_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    pinned(tmp_path)
    report = examined(tmp_path, "--state=/proc/federation")
    assert report.code == 1
    ((word, said, advice),) = [each for each in report.of("state") if each[0] != "ok"]
    assert word == "fail"
    assert "cannot write to /proc" in said
    assert "--state" in advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_11_root_is_told_as_whom_to_run_it_and_not_to_take_the_files(tmp_path: Path) -> None:
    pinned(tmp_path)
    KeyFolder.under(tmp_path / "state").ensure()
    for path in (tmp_path / "state", *(tmp_path / "state").rglob("*")):
        os.chown(path, 1234, 1234)
    report = examined(tmp_path)
    assert report.code == 1
    (told,) = [each for each in report.of("process") if each[0] == "fail"]
    assert "belongs to uid 1234" in told[1]
    assert "sudo -E -u '#1234' federation doctor" in told[2]
    assert "chown" not in json.dumps(report.said)


def test_12_a_signing_key_that_others_can_read(tmp_path: Path, shared: list[str]) -> None:
    (tmp_path / "key.pem").chmod(0o644)
    report = examined(tmp_path, *shared)
    assert (report.code, report.wrong()) == (1, {"settings"})
    assert report.of("issuer ci")[0][0] == "ok"  # what else there is to find out is found out
    ((_, said, advice),) = [each for each in report.of("settings") if each[0] == "fail"]
    assert "others can read or write the key" in said
    assert advice.startswith("run: chmod 600 ")


def test_13_a_document_with_an_error(tmp_path: Path) -> None:
    pinned(tmp_path)
    text = (tmp_path / "documents.yaml").read_text("utf-8").replace('"aud"', '"audd"')
    (tmp_path / "documents.yaml").write_text(text, "utf-8")
    report = examined(tmp_path)
    assert (report.code, report.wrong()) == (1, {"documents"})
    assert ("fail", "did you mean aud?") in {
        (word, advice) for word, _, advice in report.of("documents")
    }


def test_14_a_port_that_another_program_has(tmp_path: Path) -> None:
    pinned(tmp_path)
    with receiving() as other:
        port = urlsplit(other.url).port
        report = examined(tmp_path, f"--port={port}")
    assert (report.code, report.wrong()) == (1, {"port"})
    ((_, said, advice),) = report.of("port")
    assert said == f"127.0.0.1:{port} is taken by another program"
    assert "ss -ltnp" in advice


# The environment and other servers


def test_15_variables_that_cannot_be_used(tmp_path: Path) -> None:
    pinned(tmp_path)
    environ = {
        "ALL_PROXY": f"socks5://user:{PASSWORD}@proxy.example.com:1080",
        "SSL_CERT_FILE": "/nonexistent/ca.pem",
        "SSL_CERT_DIR": "/nonexistent",
    }
    report = examined(tmp_path, environ=environ)
    assert (report.code, report.wrong()) == (1, {"environment"})
    found = report.of("environment")
    assert [word for word, *_ in found] == ["fail"] * 3
    for name, (_, said, advice) in zip(environ, found, strict=True):
        assert name in said
        assert advice


def test_16_a_proxy_that_is_away_is_named_without_its_password(tmp_path: Path) -> None:
    write(tmp_path, documents.issuer("ci", "https://ci.example.com"))
    proxy = f"127.0.0.1:{free_port()}"
    environ = {
        "HTTPS_PROXY": f"http://user:{PASSWORD}@{proxy}",
        "NO_PROXY": "10.0.0.0/8,[::1]",
    }
    report = examined(tmp_path, environ=environ)
    assert (report.code, report.wrong()) == (1, {"issuer ci"})
    assert f"https://ci.example.com through http://{proxy}" in report.of("issuer ci")[0][1]
    (proxies,) = report.of("proxies")
    assert f"https by http://{proxy} (HTTPS_PROXY); except 10.0.0.0/8" in proxies[1]


def test_17_an_upstream_that_is_away_only_warns(tmp_path: Path) -> None:
    pinned(tmp_path)
    report = examined(tmp_path, f"--upstream=http://127.0.0.1:{free_port()}")
    assert (report.code, report.wrong()) == (0, {"upstream"})
    ((word, said, advice),) = report.of("upstream")
    assert (word, advice) == ("warn", "check host and port")
    assert said.endswith("nothing listens there (connection refused)")


def test_18_a_webhook_whose_ca_nobody_knows_gets_nothing(tmp_path: Path) -> None:
    pinned(tmp_path)
    authority = Authority(tmp_path / "authority")
    with receiving(tls=authority.server()) as receiver:
        url = f"{receiver.url}?key={PASSWORD}"
        report = examined(tmp_path, f"--audit-webhook={url}")
        known = examined(
            tmp_path, f"--audit-webhook={url}", f"--audit-webhook-ca={authority.certificate}"
        )
        assert receiver.seen == []
    assert (report.code, report.wrong()) == (0, {"webhook"})
    ((word, said, advice),) = report.of("webhook")
    assert word == "warn"
    assert "certificate is not trusted" in said
    assert "audit-webhook-ca" in advice
    assert (known.code, known.wrong()) == (0, set())


def test_19_a_variable_that_is_misspelt(tmp_path: Path) -> None:
    pinned(tmp_path)
    report = examined(tmp_path, environ={"FEDERATION_ISSUERURL": "https://x.example.com"})
    assert (report.code, report.wrong()) == (0, {"settings"})
    assert report.of("settings")[1][2] == "did you mean FEDERATION_ISSUER_URL?"


def test_20_a_kubernetes_api_that_is_away(tmp_path: Path) -> None:
    pinned(tmp_path)
    server = f"http://127.0.0.1:{free_port()}"
    config = {
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": PASSWORD}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config), "utf-8")
    path.chmod(0o600)
    report = examined(tmp_path, "--kubernetes-namespace=apps", f"--kubeconfig={path}")
    assert report.code == 1
    assert "kubernetes" in report.wrong()
    assert server in json.dumps(report.of("kubernetes"))


# How it is printed


def test_as_text_each_check_is_one_line_with_its_advice_below(tmp_path: Path) -> None:
    pinned(tmp_path)
    ended = ran(tmp_path, f"--port={free_port()}", f"--upstream=http://127.0.0.1:{free_port()}")
    assert (ended.returncode, ended.stderr) == (0, "")
    *lines, empty, last = ended.stdout.splitlines()
    assert empty == ""
    assert last.endswith("an exchange would be answered")
    assert {line[:4].strip() for line in lines} <= {"ok", "warn", "fail", ""}
    column = lines[0].index("http://")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines)
    wrong = next(n for n, line in enumerate(lines) if "upstream" in line)
    assert lines[wrong + 1].strip() == "-> check host and port"
    assert "\x1b" not in ended.stdout


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_that_want_them(
    tmp_path: Path, environ: Mapping[str, str], coloured: bool
) -> None:
    pinned(tmp_path)
    ours, theirs = pty.openpty()
    try:
        words = [f"--documents={tmp_path / 'documents.yaml'}", f"--state={tmp_path / 'state'}"]
        subprocess.run(  # noqa: S603  our own words
            [sys.executable, "-m", "federation", "doctor", f"--port={free_port()}", *words],
            stdout=theirs,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", **environ},
            timeout=_SECONDS,
            check=False,
        )
        assert (b"\x1b[32m" in os.read(ours, 65536)) is coloured
    finally:
        os.close(ours)
        os.close(theirs)


def test_wrong_use_is_2(tmp_path: Path) -> None:
    assert ran(tmp_path, "--nonsense").returncode == 2


def test_pages_of_the_docs_are_named_where_they_are() -> None:
    found = [fail("kubernetes", "no CRDs", "see docs/kubernetes.md: the CRDs, and docs/x")]
    (told,) = with_docs_at("https://docs.example.com/federation", found)
    assert (
        told.advice == "see https://docs.example.com/federation/kubernetes.md: the CRDs, and docs/x"
    )
