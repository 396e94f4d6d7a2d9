"""Messages of each command when the environment names a proxy or CA that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import ROOT, Server, free_port

PASSWORD = "s3cr3t"
DOCUMENTS = """\
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {name: local}
spec: {iss: "https://issuer.example", aud: ["https://broker.example"], tokenExpiry: 15m}
"""


def run(*words: str, folder: Path, **environ: str) -> tuple[int, str]:
    """Exit code and standard error of a command, in a bare environment."""
    documents = folder / "documents.yaml"
    documents.write_text(DOCUMENTS)
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)}
    done = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-m", "federation", *words],
        cwd=folder,
        env={**bare, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr
    return done.returncode, done.stderr


SERVE = ("serve", "--documents", "documents.yaml", "--port", "0")
EXCHANGE = ("exchange", "--url", "https://broker.example", "--token", "-")
BROKEN = {
    "SOCKS": (
        {"ALL_PROXY": f"socks5://alice:{PASSWORD}@proxy.example:1080"},
        (
            "ALL_PROXY is a SOCKS proxy, and the Python package socksio, which speaks to those, is not"
            " installed. Install it, or set HTTPS_PROXY to a proxy that speaks HTTP: write"
            " http://host:port"
        ),
    ),
    "scheme": (
        {"HTTPS_PROXY": "ftp://proxy.example"},
        (
            "HTTPS_PROXY has a scheme that is not http, https, socks5 or socks5h: write"
            " http://host:port"
        ),
    ),
    "password": (
        {"https_proxy": f"http://alice:12/{PASSWORD}@proxy.example:3128"},
        (
            "https_proxy has a user or a password with a character that must be percent-encoded: / as"
            " %2F, ? as %3F, # as %23"
        ),
    ),
    "missing file": (
        {"SSL_CERT_FILE": "/nowhere/ca.pem"},
        (
            "SSL_CERT_FILE: /nowhere/ca.pem: No such file or directory. Set SSL_CERT_FILE to a file"
            " with the trusted CAs in PEM, or unset it to trust the machine's own"
        ),
    ),
    "empty file": ({"SSL_CERT_FILE": "/dev/null"}, "SSL_CERT_FILE: /dev/null is not a file"),
    "documents as CAs": (
        {"SSL_CERT_FILE": "documents.yaml"},
        "SSL_CERT_FILE: documents.yaml holds no certificate in PEM (-----BEGIN CERTIFICATE-----)",
    ),
    "missing folder": (
        {"SSL_CERT_DIR": "/nowhere"},
        "SSL_CERT_DIR: /nowhere: No such file or directory",
    ),
}
broken = pytest.mark.parametrize(("environ", "told"), BROKEN.values(), ids=BROKEN)


@broken
def test_the_broker_does_not_start(tmp_path: Path, environ: dict[str, str], told: str) -> None:
    code, said = run(*SERVE, folder=tmp_path, **environ)
    assert code == 2
    assert told in said
    assert not (tmp_path / ".federation").exists()


@pytest.mark.parametrize("case", ["SOCKS", "missing file"])
def test_a_job_is_told_before_anything_is_sent(tmp_path: Path, case: str) -> None:
    environ, told = BROKEN[case]
    code, said = run(*EXCHANGE, folder=tmp_path, **environ)
    assert code == 1
    assert told in said


def test_the_dashboard_does_not_start(tmp_path: Path) -> None:
    words = ["dashboard", "--port", str(free_port()), "--gateway", "https://gateway.example"]
    words += ["--issuer", "https://idp.example", "--client-id", "dashboard"]
    words += ["--public-url", "https://dashboard.example"]
    code, said = run(*words, folder=tmp_path, SSL_CERT_FILE="/nowhere/ca.pem")
    assert (code, "SSL_CERT_FILE: /nowhere/ca.pem: No such file" in said) == (2, True)


def first_lines(*words: str, folder: Path, **environ: str) -> list[dict[str, object]]:
    """What a server logs until it listens."""
    server = Server(["federation", *words, "--port", "0"], folder, environ)
    with server.running():
        lines = server.log.read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_what_is_passed_over_is_logged_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "documents.yaml").write_text(DOCUMENTS)
    environ = {"NO_PROXY": "10.0.0.*,.svc", "FEDERATION_PORT": "tcp://10.96.0.12:8080"}
    words = ["serve", "--documents", str(tmp_path / "documents.yaml"), "--log-format", "json"]
    state = ["--state", str(tmp_path / "state"), "--issuer-url", "https://broker.example"]
    logged = first_lines(*words, *state, folder=tmp_path / "run", **environ)
    (note,) = [str(line["note"]) for line in logged if "note" in line]
    assert note.startswith("NO_PROXY: 10.0.0.* is no name, address or range, and is passed over")
    assert [line["variable"] for line in logged if "variable" in line] == ["FEDERATION_PORT"]


def test_commands_that_ask_nobody_do_not_look(tmp_path: Path) -> None:
    code, said = run("check", "documents.yaml", folder=tmp_path, ALL_PROXY="socks5://x")
    assert (code, said) == (0, "")


def test_the_walk_through_on_this_machine_asks_no_proxy(tmp_path: Path) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    code, said = run("demo", folder=tmp_path, HTTP_PROXY=proxy, ALL_PROXY="socks5://x")
    assert code == 0, said
