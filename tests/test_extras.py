"""The plain install and its extras: which commands work without which libraries, and the messages."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

_HIDING = """\
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv[0] = "federation"
from federation.cli import main
main()
"""


def libraries(requirements: list[str]) -> set[str]:
    """The names to import for *requirements*."""
    names = (re.split(r"[\[<>=;]", requirement)[0] for requirement in requirements)
    return {name.replace("-", "_") for name in names}


def without(hidden: set[str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run `federation` on a machine that lacks the libraries *hidden*."""
    return subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-c", _HIDING.format(hidden=hidden), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SERVER = libraries(EXTRAS["server"])
DASHBOARD = libraries(EXTRAS["dashboard"]) - libraries([PROJECT["name"]])


@pytest.mark.parametrize(
    "command",
    [
        *("init", "check", "test", "explain", "who-can", "replay", "role", "claims", "exchange"),
        *("keys", "audit", "convert", "crds", "completion"),
        *("login", "token", "whoami", "logout"),
    ],
)
def test_the_plain_install_has_every_command_but_the_server(command: str) -> None:
    # authlib brings joserfc.
    hidden = SERVER | DASHBOARD - {"joserfc"} | {"redis"}
    assert without(hidden, command, "--help").returncode == 0


@pytest.mark.parametrize("library", ["httptools", "starlette", "uvicorn", *sorted(DASHBOARD)])
def test_a_dashboard_without_its_libraries_says_how_to_install_them(
    library: str, tmp_path: Path
) -> None:
    ran = without(
        {library},
        *("dashboard", "--public-url", "http://localhost", "--gateway", "http://127.0.0.1:1"),
        *("--issuer", "http://127.0.0.1:2", "--client-id", "dashboard", "--port", "0"),
        *("--state", str(tmp_path)),
    )
    assert ran.returncode == 1
    assert f"federation dashboard needs {library}, which is not installed" in ran.stderr
    assert "Run: pip install 'federation-broker[dashboard]' (in a checkout: pip" in ran.stderr


def test_the_plain_install_checks_documents() -> None:
    ran = without(SERVER | {"redis"}, "check", str(ROOT / "federation" / "demo"))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("command", "hidden"),
    [
        ("demo", SERVER),
        ("serve", SERVER),
        *(("serve", {name}) for name in sorted(SERVER - {"uvloop"})),
    ],
)
def test_a_server_without_its_libraries_says_how_to_install_them(
    command: str, hidden: set[str]
) -> None:
    ran = without(hidden, command)
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert re.fullmatch(
        rf"Error: federation {command} needs \w+, which is not installed\. "
        r"Run: pip install 'federation-broker\[server\]' \(in a checkout: pip install '\.\[server\]'\)",
        line,
    )


def test_shared_state_without_redis_says_how_to_install_it(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "key.pem").chmod(0o600)
    ran = without(
        {"redis"},
        *("serve", "--documents", str(ROOT / "federation" / "demo"), "--port", "0"),
        *("--issuer-url", "http://127.0.0.1:8080", "--state", str(tmp_path)),
        *("--shared-state", "redis://127.0.0.1:1/0"),
        *("--signing-key", str(tmp_path / "key.pem")),
    )
    assert ran.returncode == 2
    assert "shared-state: redis is not installed." in ran.stderr
    assert "pip install 'federation-broker[redis,server]'" in ran.stderr


def test_a_server_without_shared_state_needs_no_redis() -> None:
    assert without({"redis"}, "serve", "--help").returncode == 0


def test_no_other_missing_module_is_taken_for_an_extra() -> None:
    ran = without({"yaml"}, "check", "--help")
    assert "ModuleNotFoundError" in ran.stderr


def test_the_newest_job_asks_for_every_library_without_an_upper_bound() -> None:
    ran = subprocess.run(  # noqa: S603  our own program
        [sys.executable, str(ROOT / ".ci" / "newest"), str(ROOT / "pyproject.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    asked = ran.stdout.split("\n")
    assert "<" not in ran.stdout
    assert {"uvicorn>=0.54", "uvloop>=0.21; sys_platform != 'win32'"} <= set(asked)
    every = [*PROJECT["dependencies"], *EXTRAS["redis"], *EXTRAS["server"]]
    assert libraries(every) < libraries(asked)
