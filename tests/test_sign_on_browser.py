"""Finding out if a browser can be opened, and the reason that people read if not."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from federation.sign_on.browser import open_browser, why_no_browser
from tests.harness.process import until

DESKTOP = {"DISPLAY": ":0"}
SSH = {"SSH_CONNECTION": "192.0.2.1 5000 192.0.2.2 22"}


def why(
    environ: dict[str, str], platform: str = "linux", *, programs: str = "xdg-open", file: str = ""
) -> str:
    known = programs.split()
    return why_no_browser(
        environ,
        platform,
        find=lambda name: f"/usr/bin/{name}" if name in known else None,
        exists=lambda path: path == file,
    )


@pytest.mark.parametrize(
    ("environ", "platform"),
    [
        (DESKTOP, "linux"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux"),
        ({}, "darwin"),
        ({}, "win32"),
        ({"BROWSER": "firefox"}, "linux"),
        ({"BROWSER": "code-helper", **SSH}, "linux"),
        ({"BROWSER": "script", "CI": "true"}, "linux"),
        ({**DESKTOP, "CI": "false"}, "linux"),
        ({**DESKTOP, "CI": ""}, "linux"),
    ],
    ids=str,
)
def test_a_browser_can_be_opened(environ: dict[str, str], platform: str) -> None:
    assert why(environ, platform) == ""


@pytest.mark.parametrize(
    ("environ", "platform", "reason"),
    [
        ({**DESKTOP, "CI": "true"}, "linux", "CI job (CI is set)"),
        ({**DESKTOP, "GITHUB_ACTIONS": "true"}, "linux", "CI job"),
        ({"TF_BUILD": "True"}, "win32", "CI job"),
        ({**DESKTOP, **SSH}, "linux", "SSH session (SSH_CONNECTION is set)"),
        (SSH, "darwin", "SSH session"),
        ({"SSH_TTY": "/dev/pts/0"}, "linux", "SSH session"),
        ({"CODESPACES": "true"}, "linux", "codespace"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "linux", "container"),
        ({}, "linux", "no display"),
        ({"BROWSER": ""}, "linux", "no display"),
        ({"WSL_DISTRO_NAME": "Ubuntu"}, "linux", "no display"),
    ],
    ids=str,
)
def test_no_browser_can_be_opened_and_the_reason_is_told(
    environ: dict[str, str], platform: str, reason: str
) -> None:
    assert reason in why(environ, platform)


@pytest.mark.parametrize("file", ["/.dockerenv", "/run/.containerenv"])
def test_a_container_is_known_by_its_file(file: str) -> None:
    assert "container" in why(DESKTOP, file=file)


@pytest.mark.parametrize("program", ["wslview", "explorer.exe"])
def test_wsl_opens_the_browser_of_windows(program: str) -> None:
    assert why({"WSL_DISTRO_NAME": "Ubuntu"}, programs=program) == ""


def test_a_display_without_a_browser_is_told() -> None:
    assert "No browser was found" in why(DESKTOP, programs="")


def test_the_browser_is_started_without_waiting_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program in BROWSER may stay until the person has signed in."""
    opened, closed, ended = (tmp_path / name for name in ("opened", "closed", "ended"))
    script = tmp_path / "browser.py"
    script.write_text(
        "import sys, time, pathlib\n"
        f"pathlib.Path({str(opened)!r}).write_text(sys.argv[1])\n"
        "until = time.monotonic() + 20\n"
        f"while not pathlib.Path({str(closed)!r}).exists() and time.monotonic() < until:\n"
        "    time.sleep(0.05)\n"
        f"pathlib.Path({str(ended)!r}).touch()\n"
    )
    monkeypatch.setenv("BROWSER", f"{sys.executable} {script} %s")
    open_browser("http://127.0.0.1:31111/oauth/start/x")
    assert not ended.exists()
    assert until(lambda: opened.exists() and opened.read_text() != "", 20)
    assert opened.read_text() == "http://127.0.0.1:31111/oauth/start/x"
    closed.touch()
    assert until(ended.exists, 20)


def test_a_browser_that_cannot_be_started_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "/no/such/browser %s")
    open_browser("http://127.0.0.1:31111/oauth/start/x")
    for thread in threading.enumerate():
        if thread.name == "browser":
            thread.join(20)
            assert not thread.is_alive()
