"""`federation serve --check-config`: all that a start would find, and nothing started or made."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from federation.tokens.signing_keys import SigningKey
from tests.harness.broker import DOCUMENTS, Served
from tests.harness.process import ROOT, free_port
from tests.harness.redis import ask_redis, redis_server


def checked(folder: Path, *flags: str, documents: str = DOCUMENTS) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command in *folder*."""
    (folder / "documents.yaml").write_text(documents, "utf-8")
    words = [
        *("-m", "federation", "serve", "--check-config", "--log-format=json"),
        *(f"--documents={folder / 'documents.yaml'}", f"--state={folder / 'state'}", *flags),
    ]
    ended = subprocess.run(  # noqa: S603  our own words
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_good_settings_are_told_with_the_documents_and_nothing_is_made(tmp_path: Path) -> None:
    code, said, errors = checked(tmp_path)
    assert code == 0, errors
    assert re.fullmatch(
        r"the broker could start with this: 3 JwtIssuers, \d+ Roles, \d+ Policies; \d+ warnings?\n",
        said,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["documents.yaml"]


def test_it_runs_beside_a_broker_that_has_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        assert checked(tmp_path, f"--port={taken.getsockname()[1]}")[0] == 0


def test_every_wrong_file_and_setting_is_told_at_once(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no PEM", "utf-8")
    text.chmod(0o600)
    code, said, errors = checked(
        tmp_path,
        f"--signing-key={text}",
        "--audit-webhook=https://receiver.example.com/",
        f"--audit-webhook-ca={text}",
        "--upstream=https://gateway.example.com",
        f"--upstream-ca={text}",
        documents=DOCUMENTS.replace("tokenExpiry", "tokenExpirry", 1),
    )
    assert (code, said) == (2, "")
    for part in (
        "signing-key: ",
        "audit-webhook-ca: ",
        "upstream-ca",
        "tokenExpirry",
        "did you mean tokenExpiry?",
    ):
        assert part in errors


def test_errors_of_documents_alone_end_with_the_code_of_a_start(tmp_path: Path) -> None:
    code, _, errors = checked(tmp_path, documents="apiVersion: v1\nkind: ConfigMap\n")
    assert code == 1
    assert "the documents have errors; nothing was started" in errors


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key.pem"
    path.write_bytes(SigningKey.generate().pem())
    path.chmod(0o600)
    return f"--signing-key={path}"


def test_a_shared_state_that_cannot_be_used_is_found(tmp_path: Path, key: str) -> None:
    with redis_server(tmp_path / "redis") as port:
        assert ask_redis(port, "ACL SETUSER limited on >pw ~* +@all -eval") == "+OK"
        code, _, errors = checked(
            tmp_path,
            key,
            "--issuer-url=https://broker.example.com",
            f"--shared-state=redis://limited:pw@127.0.0.1:{port}",
        )
    assert code == 2
    assert "shared-state: " in errors
    assert "eval" in errors.lower()


def test_a_shared_state_that_is_away_is_told_and_keeps_nothing_from_starting(
    tmp_path: Path, key: str
) -> None:
    code, said, errors = checked(
        tmp_path,
        key,
        "--issuer-url=https://broker.example.com",
        f"--shared-state=redis://user:hunter2@127.0.0.1:{free_port()}",
    )
    assert code == 0
    assert said.startswith("the broker could start with this: ")
    *_, last = map(json.loads, errors.splitlines())
    assert last["event"].startswith("the shared state does not answer")
    assert "hunter2" not in errors


def test_a_start_tells_what_is_served_and_which_variables_it_passed_over(tmp_path: Path) -> None:
    environ = {"FEDERATION_PORT": "tcp://10.96.0.12:8080", "NO_PROXY": "10.0.0.0/99"}
    upstream = f"--upstream=http://127.0.0.1:{free_port()}"
    broker = Served(tmp_path, DOCUMENTS, upstream, "--functions=closed", environ=environ)
    with broker.running():
        lines = [json.loads(line) for line in broker.output().splitlines()]
    told = {line["event"]: line for line in lines}
    listening = told["listening"]
    assert {name: listening[name] for name in ("mode", "functions", "issuers", "policies")} == {
        "mode": "gateway",
        "functions": "closed",
        "issuers": 3,
        "policies": 3,
    }
    assert listening["upstream"] in upstream
    passed_over = told["a variable that Kubernetes wrote is no setting and is passed over"]
    assert passed_over["variable"] == "FEDERATION_PORT"
    assert "10.0.0.0/99" in told["a variable about proxies or CAs needs a look"]["note"]


def test_a_start_warns_of_proxies_that_anybody_could_be(tmp_path: Path) -> None:
    broker = Served(tmp_path, DOCUMENTS, "--trusted-proxies=10.0.0.0/8,0.0.0.0/0")
    with broker.running():
        lines = [json.loads(line) for line in broker.output().splitlines()]
    (warned,) = [line for line in lines if line["event"].startswith("trusted-proxies has every")]
    assert warned["level"] == "warning"


def test_settings_and_the_environment_are_told_together(tmp_path: Path) -> None:
    (tmp_path / "documents.yaml").write_text(DOCUMENTS, "utf-8")
    words = ["-m", "federation", "serve", "--port=eighty", f"--documents={tmp_path}"]
    ended = subprocess.run(  # noqa: S603  our own words
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False,
        env={**os.environ, "ALL_PROXY": "socks5://user:hunter2@proxy.example.com:1080"},
    )  # fmt: skip
    assert ended.returncode == 2
    assert "port: " in ended.stderr
    assert "ALL_PROXY" in ended.stderr
    assert "hunter2" not in ended.stderr
