"""
A person in Chromium. Nothing that the browser asks for leaves this machine.

`sign_in` fills in the pages of Keycloak and of `oidc-provider`. `browser_command` makes a program
for the variable `BROWSER`, so that an unmodified command line opens Chromium:
`python -m tests.harness.browser NAME SEEN URL` is what it runs.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.harness import sign_on_programs
from tests.harness.process import ROOT, until
from tests.harness.sign_on_parts import password

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

_HERE = ("127.0.0.1", "[::1]", "localhost", "*.localhost")
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    f"--host-resolver-rules=MAP * ~NOTFOUND, {', '.join(f'EXCLUDE {host}' for host in _HERE)}",
)
_STEPS = 10


class Person:
    """
    Somebody with a browser profile of their own: cookies, history and one page.

    *left* are the addresses outside of this machine that the browser asked for in vain.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.left: list[str] = []
        self.asked: list[str] = []
        """The addresses of all requests, in their order."""
        self.errors: list[str] = []
        """What the pages' scripts and their Content-Security-Policy complained of."""
        context.on("request", lambda request: self._note(request.url))
        context.on("console", self._note_line)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page = context.new_page()

    def _note(self, address: str) -> None:
        self.asked.append(address)
        if not _is_here(address):
            self.left.append(address)

    def _note_line(self, line: ConsoleMessage) -> None:
        if line.type == "error":
            self.errors.append(line.text)

    def sign_in(self, name: str = "alice") -> None:
        """Sign in on the page that is open. See `sign_in`."""
        sign_in(self.page, name)


def _is_here(address: str) -> bool:
    place = urlsplit(address)
    host = place.hostname or ""
    return place.scheme in {"data", "blob", "about", "chrome-error"} or (
        host in {"127.0.0.1", "::1", "localhost"} or host.endswith(".localhost")
    )


@contextmanager
def chromium_running() -> Iterator[Browser]:
    """Run a Chromium inside the `with` block."""
    sign_on_programs.need("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = str(sign_on_programs.chromium())
        browser = playwright.chromium.launch(executable_path=path, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def person_in(browser: Browser, **options: object) -> Iterator[Person]:
    """
    A person with a profile of their own inside the `with` block.

    *options* are those of Playwright's contexts, as `java_script_enabled=False`. Raises:
    AssertionError at the end if the browser asked for anything outside of this machine.
    """
    context = browser.new_context(**options)  # type: ignore[arg-type]  # its options
    try:
        person = Person(context)
        yield person
        assert not person.left, f"the browser asked for {person.left}"
    finally:
        context.close()


def sign_in(page: Page, name: str = "alice") -> None:
    """
    Sign *name* in on the provider's page that is open, and agree to what the client asks for.

    It ends on the first page that asks for nothing more: the client's, most often. The page of a
    device's code is one of the provider's too.
    """
    for _ in range(_STEPS):
        submit = _filled_in(page, name)
        if submit is None:
            return
        with page.expect_navigation():
            page.click(submit)
    raise AssertionError(f"the provider asks again and again: {page.url}")


def _filled_in(page: Page, name: str) -> str | None:
    """Fill in the form on the page, and return the selector of its button; None if it has none."""
    if page.query_selector("#kc-form-login"):  # Keycloak
        if page.query_selector("#username"):  # not where it knows who it is
            page.fill("#username", name)
        page.fill("#password", password(name))
        return "#kc-login"
    if page.query_selector("#kc-login[name=accept]"):
        return "#kc-login"
    if page.query_selector("input[name=prompt][value=login]"):  # oidc-provider
        page.fill("[name=login]", name)
        page.fill("[name=password]", password(name))
        return "button[type=submit]"
    if page.query_selector("input[name=prompt][value=consent]"):
        return "button[type=submit]"
    if page.query_selector("#op\\.deviceConfirmForm"):
        return "button[type=submit]"
    return None


# For an unmodified command line


def browser_command(folder: Path, name: str = "alice", *, headless: bool = False) -> str:
    """
    A value for the variable `BROWSER`: Chromium, in which *name* signs in and leaves.

    It returns at once, as a desktop's browser does. With *headless*, the forms are posted without
    a browser, which is faster. `last_page` waits for the end.
    """
    sign_on_programs.need(*([] if headless else ["chromium"]))
    folder.mkdir(parents=True, exist_ok=True)
    python, seen = shlex.quote(sys.executable), shlex.quote(str(folder / "seen"))
    log = shlex.quote(str(folder / "browser.log"))
    script = folder / "browser"
    runs = (
        f'{python} -m tests.harness.headless_sign_in {name} "$1" && echo >{seen}'
        if headless
        else f'{python} -m tests.harness.browser {name} {seen} "$1"'
    )
    script.write_text(
        f"#!/bin/sh\nrm -f {seen}\ncd {shlex.quote(str(ROOT))}\n"
        f"{{ {runs}; }} </dev/null >{log} 2>&1 &\n",
        "utf-8",
    )
    script.chmod(0o755)
    return f"{shlex.quote(str(script))} %s"


def last_page(folder: Path, seconds: float = 60) -> str:
    """
    The last page that the browser of `browser_command` saw: its address, then its words.

    Empty where it ran headless. Raises: AssertionError with what it printed if it failed.
    """
    seen = folder / "seen"
    assert until(seen.exists, seconds), (folder / "browser.log").read_text("utf-8")
    return seen.read_text("utf-8")


def _sign_in_and_leave(name: str, seen: Path, address: str) -> None:
    from playwright.sync_api import Error

    with chromium_running() as browser, person_in(browser) as person:
        person.page.goto(address)
        try:
            person.sign_in(name)
        except Error as error:
            # The provider's page for form_post posts itself, while `sign_in` still looks at it.
            if "context was destroyed" not in str(error):
                raise
        if "/oauth/start/" in address:
            person.page.wait_for_url("**/oauth/done")
        text = f"{person.page.url}\n{person.page.inner_text('body')}"
        part = seen.with_suffix(".part")
        part.write_text(text, "utf-8")
        part.rename(seen)


if __name__ == "__main__":
    _sign_in_and_leave(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
