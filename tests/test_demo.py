"""The demo, run as a new user runs it, and the small gateway that it starts."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import httpx2
import pytest

from federation.demo.issuer import LocalIssuer
from federation.demo.upstream import DemoGateway

ROOT = Path(__file__).parents[1]


def test_one_job_is_admitted_and_one_refused_and_nothing_is_left(tmp_path: Path) -> None:
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    done = subprocess.run(
        [sys.executable, "-m", "federation", "demo"],
        cwd=tmp_path,
        env={**environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "admitted" in done.stdout
    assert "refused" in done.stdout
    assert "No policies found for subject" in done.stdout
    assert "All as it should be." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # Neither a token nor anything that a next run could trip over stays behind.
    assert not re.search(r"eyJ[A-Za-z0-9_-]{20,}\.", done.stdout + done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_does_not_wait_for_the_servers_to_be_imported() -> None:
    code = "import sys, federation.cli.demo; print({'federation.app', 'uvicorn'} & {*sys.modules})"
    done = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[str]:
    """Return the output of `federation demo --keep` until it stays up."""
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    with subprocess.Popen(
        [sys.executable, "-u", "-m", "federation", "demo", "--keep"],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        deadline = Timer(30, process.kill)
        deadline.start()
        printed = ""
        for line in process.stdout:
            printed += line
            if "staging   #" in line:
                break
        yield printed
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        deadline.cancel()


FAAS_CLI = """#!/bin/sh
# Sends the requests of `faas-cli deploy` and `faas-cli list`, with the login that it finds.
token=$(sed -n 's/^ *token: *//p' "$OPENFAAS_CONFIG/config.yml")
case $1 in
  list) curl -s --noproxy '*' -H "Authorization: Bearer $token" "$OPENFAAS_URL/system/functions?namespace=$3" ;;
  deploy) curl -s --noproxy '*' -o /dev/null -w 'deploy %{http_code}' -X PUT -H "Authorization: Bearer $token" \\
    -H 'Content-Type: application/json' -d "{\\"service\\":\\"$3\\",\\"image\\":\\"$5\\",\\"namespace\\":\\"$7\\"}" \\
    "$OPENFAAS_URL/system/functions" ;;
esac
echo
"""


def test_each_command_to_try_does_what_its_title_says(kept: str, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "faas-cli").write_text(FAAS_CLI)
    (tools / "faas-cli").chmod(0o755)
    blocks = re.split(r"^    # ", kept.partition("In another shell:")[2], flags=re.MULTILINE)[1:]
    titled = (block.split("\n", 1) for block in blocks)
    script = "\n".join(f"echo {shlex.quote(f'=== {title}')}\n{lines}" for title, lines in titled)
    done = subprocess.run(  # noqa: S603  the demo's own lines
        ["bash", "-c", script],  # noqa: S607
        cwd=tmp_path,
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    parts = dict(part.split("\n", 1) for part in done.stdout.split("=== ")[1:])
    granted, refused, gitlab, claims, records, faas_cli = parts.values()
    assert granted.startswith("eyJ")
    assert refused.strip() == ""
    assert "no_role_admits" in done.stderr
    assert "jwt:ref (the token has refs/heads/feature/login)" in done.stderr
    assert gitlab.startswith("eyJ"), done.stderr
    assert '"jwt:repository_id": ["412890077"]' in claims
    assert "5 documents: no problems" in records
    assert "reason=no_role_admits" in records
    assert "deploy 202" in faas_cli
    assert '"figlet"' in faas_cli
    assert "deploy 403" in faas_cli
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".openfaas").exists(), "the login of the user stays as it was"


def test_an_unknown_job_is_answered_with_those_that_there_are() -> None:
    issuer = LocalIssuer("http://issuer.test")
    transport = httpx2.ASGITransport(issuer.app)

    async def ask(provider: str) -> httpx2.Response:
        async with httpx2.AsyncClient(transport=transport, base_url="http://issuer.test") as client:
            headers = {"Authorization": f"bearer {issuer.request_token}"}
            return await client.get(f"/{provider}/token?job=mian", headers=headers)

    answer = asyncio.run(ask("github"))
    assert answer.status_code == 404
    assert answer.json()["message"].endswith("its jobs are main, environment, feature, stranger")
    assert "ask for github or gitlab" in asyncio.run(ask("gitlub")).json()["message"]


def test_make_demo_says_what_it_does_from_the_first_second(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    (programs / "python").write_text("#!/bin/sh\nsleep 2.2\n")
    (programs / "federation").write_text('#!/bin/sh\necho "demo $*"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    with subprocess.Popen(
        ["make", "demo"],  # noqa: S607
        cwd=tmp_path,
        env=_environment_without_make(),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        began = time.monotonic()
        first = process.stdout.readline()
        assert time.monotonic() - began < 1.5
        rest = process.stdout.read()
    assert process.returncode == 0
    assert first.startswith(b"Installing what the demo needs")
    assert re.fullmatch(rb"\.{2,}\ndemo demo\n", rest)


def _environment_without_make() -> dict[str, str]:
    """The environment of a shell. Within `make test`, make would say where it works."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


def test_make_demo_shows_why_an_installation_failed(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (tmp_path / ".venv" / "pyvenv.cfg").touch()
    (programs / "python").write_text("#!/bin/sh\necho no index >&2\nexit 1\n")
    (programs / "python").chmod(0o755)
    done = subprocess.run(
        ["make", "demo"],  # noqa: S607
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "no index" in done.stderr


FIGLET = {"service": "figlet", "image": "figlet:1", "namespace": "dev"}


class TestGateway:
    @staticmethod
    def asked(*requests: tuple[Any, ...], given: str = "secret") -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(DemoGateway("admin", "secret").app)

        async def ask() -> list[httpx2.Response]:
            auth = ("admin", given)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://gateway.test", auth=auth
            ) as client:
                return [
                    await client.request(method, target, json=body[0] if body else None)
                    for method, target, *body in requests
                ]

        return asyncio.run(ask())

    def test_a_function_is_created_updated_and_listed_in_its_namespace(self) -> None:
        *changes, there, elsewhere = self.asked(
            ("PUT", "/system/functions", FIGLET),
            ("POST", "/system/functions", FIGLET),
            ("POST", "/system/functions", FIGLET),
            ("PUT", "/system/functions", {**FIGLET, "image": "figlet:2"}),
            ("GET", "/system/functions?namespace=dev"),
            ("GET", "/system/functions"),
        )
        assert [answer.status_code for answer in changes] == [404, 202, 409, 202]
        assert changes[0].text == "function figlet not found"
        assert [function["image"] for function in there.json()] == ["figlet:2"]
        assert elsewhere.json() == []

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_a_caller_without_the_password_is_refused(self, method: str) -> None:
        (answer,) = self.asked((method, "/system/functions", FIGLET), given="guessed")
        assert answer.status_code == 401

    def test_it_says_that_it_is_healthy(self) -> None:
        (answer,) = self.asked(("GET", "/healthz"), given="")
        assert (answer.status_code, answer.text) == (200, "OK")
