"""
Find whether a browser can be opened on this machine, and open it.

The environment comes as a mapping. Where no browser can be opened, the reason is a sentence that a
person can read, and the sign-in goes by another device.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import which

_CI = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "JENKINS_URL", "TF_BUILD")
_SSH = ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY")
_DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY")
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_WSL_OPENERS = ("wslview", "explorer.exe", "cmd.exe", "powershell.exe")
_LINUX_OPENERS = (
    *("xdg-open", "gio", "x-www-browser", "gnome-open", "kde-open", "firefox", "chromium"),
    *("google-chrome", "chromium-browser", "microsoft-edge"),
)


def why_no_browser(
    environ: Mapping[str, str],
    platform: str,
    *,
    find: Callable[[str], str | None] = which,
    exists: Callable[[str], bool] = lambda path: Path(path).exists(),
) -> str:
    """
    Return why no browser can be opened here, empty if one can.

    *platform* is `sys.platform`. The variable BROWSER says that one can, wherever this is. In a
    container or over SSH a browser would open elsewhere than where the person sits, and its
    callback would not arrive here.
    """
    if environ.get("BROWSER"):
        return ""
    return _elsewhere(environ, exists) or _no_program(environ, platform, find)


def _elsewhere(environ: Mapping[str, str], exists: Callable[[str], bool]) -> str:
    """Return why a browser that opens here would not be in front of the person."""
    if name := _first(environ, _CI):
        return f"This is a CI job ({name} is set)."
    if environ.get("CODESPACES"):
        return "This is a codespace: its browser is on another machine."
    if name := _first(environ, _SSH):
        return f"This is an SSH session ({name} is set): its browser is on another machine."
    if environ.get("KUBERNETES_SERVICE_HOST") or any(map(exists, _CONTAINER_FILES)):
        return "This is a container: its browser is on another machine."
    return ""


def _no_program(
    environ: Mapping[str, str], platform: str, find: Callable[[str], str | None]
) -> str:
    """Return why no program opens a browser here."""
    if platform in {"darwin", "win32", "cygwin"}:
        return ""
    if environ.get("WSL_DISTRO_NAME") and any(map(find, _WSL_OPENERS)):
        return ""
    if not _first(environ, _DISPLAYS):
        return "There is no display (neither DISPLAY nor WAYLAND_DISPLAY is set)."
    return "" if any(map(find, _LINUX_OPENERS)) else "No browser was found (xdg-open)."


def open_browser(url: str, find: Callable[[str], str | None] = which) -> None:
    """
    Open *url* in the person's browser, without waiting for it.

    Give the address of `Callback.start_at`: the command line of a browser is visible to every
    person on the machine. A browser that cannot be opened is no error, since the address is shown
    too. A browser may write to its output, and BROWSER may name a program that stays until the
    page is closed. So it gets a process of its own: nothing of it reaches the output of this
    command, Ctrl-C does not end it, and it opens also if this command ends at once.
    """
    if command := _command(url, find):
        with suppress(OSError):
            process = subprocess.Popen(  # noqa: S603  our own words, and an address, without a shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            # Somebody has to take its exit code. The thread ends with this command.
            threading.Thread(target=process.wait, name="browser", daemon=True).start()


def _command(url: str, find: Callable[[str], str | None]) -> Sequence[str]:
    try:
        webbrowser.get()
    except webbrowser.Error:
        # Python knows nothing of WSL. wslview opens the browser of Windows.
        program = find("wslview") or find("explorer.exe")
        return [program, url] if program else []
    # -I: no module of the current folder is imported in the place of `webbrowser`.
    return [sys.executable, "-I", "-m", "webbrowser", url]


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((name for name in names if environ.get(name, "") not in {"", "false", "0"}), "")
