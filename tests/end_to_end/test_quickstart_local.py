"""docs/quickstart-local.md works as printed: each block is run, in order, on free ports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import ROOT, free_port

pytestmark = pytest.mark.e2e

PAGE = ROOT / "docs" / "quickstart-local.md"
ISSUER = "python -m federation.demo.local try"
BROKER = "federation serve"


@pytest.fixture(scope="module", name="said")
def _said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each block printed, after its exit code, by the block."""
    folder = tmp_path_factory.mktemp("reader")
    text = PAGE.read_text("utf-8")
    ports = {port: str(free_port()) for port in ("8080", "9000", "9001")}
    for port, free in ports.items():
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free}")
    # The two programs that stay up take these ports, and the rest of the page follows.
    stays_up = {
        ISSUER: (
            f" --issuer-port {ports['9000']} --gateway-port {ports['9001']}",
            f"http://127.0.0.1:{ports['9000']}/github/jwks",
        ),
        BROKER: (f" --port {ports['8080']}", f"http://127.0.0.1:{ports['8080']}/livez"),
    }
    found: list[str] = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    script = ["pids=", "trap 'kill $pids; wait' EXIT"]
    for number, block in enumerate(found):
        script.append(f"echo '=== {number}'")
        up = next((each for start, each in stays_up.items() if block.startswith(start)), None)
        if up:
            waits = f"for i in $(seq 600); do curl -sf {up[1]} >/dev/null && break; sleep 0.1; done"
            script.append(f'{block.strip()}{up[0]} >>servers.log 2>&1 & pids="$pids $!"\n{waits}')
        else:
            own = f" --port {ports['8080']}" if block.startswith("federation doctor") else ""
            script.append(f"{block.rstrip()}{own}\ncode=$?; echo; echo $code")
    done = subprocess.run(  # noqa: S603  the page's own words
        ["bash", "-c", "\n".join(script)],  # noqa: S607  the reader's shell
        cwd=folder,
        env=_environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    parts = re.split(r"^=== \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(parts) == len(found), done.stdout
    return {block: part.rstrip() for block, part in zip(found, parts, strict=True)}


def _environment(folder: Path) -> dict[str, str]:
    """An environment with the programs of the installation, and without a CI job's variables."""
    (folder / "bin").mkdir()
    for name, words in {"python": "", "federation": "-m federation "}.items():
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
        program.chmod(0o755)
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def block(said: dict[str, str], *parts: str) -> tuple[str, str]:
    """What the only block with *parts* printed, and its exit code."""
    (printed,) = [out for each, out in said.items() if all(part in each for part in parts)]
    output, _, code = printed.rpartition("\n")
    return output, code


@pytest.mark.parametrize(
    ("part", "printed"),
    [
        ("cat >try", ""),
        ("federation check", "octo-repo-main"),
        ("federation doctor", "1 JwtIssuer, 1 Role, 1 Policy"),
        ("TOKEN=$(", ""),
        ("whoami", "octo-repo-main"),
        ("audit tail", "no_role_admits"),
    ],
    ids=lambda value: value[:12],
)
def test_a_block_works(said: dict[str, str], part: str, printed: str) -> None:
    output, code = block(said, part)
    assert code == "0", output
    assert printed in output


def test_the_job_deploys_to_dev_and_not_to_prod(said: dict[str, str]) -> None:
    output, code = block(said, '"namespace": "dev"')
    assert code == "0", output
    assert [each["name"] for each in json.loads(output.strip().splitlines()[-1])] == ["figlet"]
    output, _ = block(said, '"namespace": "prod"')
    assert "Function:Create on prod:figlet is not allowed" in output


@pytest.mark.parametrize(
    ("job", "told"),
    [("feature", "jwt:ref"), ("stranger", "no_role_admits"), ("gitlab", "untrusted_issuer")],
)
def test_another_job_is_refused(said: dict[str, str], job: str, told: str) -> None:
    output, code = block(said, f"try/{job}.env")
    assert code == "1", output
    assert told in output


def test_a_stranger_learns_nothing_about_the_role(said: dict[str, str]) -> None:
    output, _ = block(said, "try/stranger.env")
    assert "jwt:" not in output
