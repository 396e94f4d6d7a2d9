"""
The dashboard's pages in Chromium: usable by everybody, and doing what the broker allows.

Every page is looked at signed in, wide and narrow, light and dark: axe finds nothing, the page does
not scroll sideways, and the Content-Security-Policy has nothing to complain of. `person_in` fails
if the browser asks for anything outside of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx2
import pytest

from tests.harness.browser import Person, person_in
from tests.harness.dashboard_stage import Stage, stage_for
from tests.harness.oidc_provider import oidc_provider_running
from tests.harness.process import until
from tests.harness.sign_on_parts import MARKUP

if TYPE_CHECKING:
    from playwright.sync_api import Browser, StorageState

pytestmark = pytest.mark.e2e

Scheme = Literal["light", "dark"]

PAGES = {
    "you": "/",
    "functions": "/functions",
    "function": "/functions/dev/figlet",
    "scaling": "/functions/dev/figlet/scaling",
    "delete": "/functions/dev/figlet/delete",
    "delete, refused": "/functions/dev/payments/delete",
    "invoke": "/functions/dev/figlet/invoke",
    "logs": "/functions/dev/figlet/logs",
    "events": "/events",
    "events, none": "/events?function=dev:nobody",
    "documents": "/documents",
    "a document": "/documents/Role/deployer",
    "what if": "/what-if",
    "what if of a sample": "/what-if?sample=github+main",
    "who can": "/who-can?action=Function:Create&resource=dev:figlet",
    "what a Role gives": "/who-can?role=operators",
    "a question that is none": "/who-can?action=Function:Create&resource=a/b",
    "not found": "/functions/dev/nobody",
    "no page": "/nowhere",
}


@pytest.fixture(name="stage", scope="module")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    with (
        oidc_provider_running(folder / "provider") as provider,
        stage_for(folder, provider) as stage,
    ):
        stage.refuse()
        yield stage


@pytest.fixture(name="alice", scope="module")
def _alice(chromium: Browser, stage: Stage) -> StorageState:
    """The cookies of Alice, who signed in."""
    return signed_in(chromium, stage, "alice")


def signed_in(chromium: Browser, stage: Stage, name: str) -> StorageState:
    """The cookies of *name* after a sign-in at the provider."""
    with person_in(chromium) as person:
        person.page.goto(f"{stage.url}/auth/login")
        person.sign_in(name)
        assert person.page.url == f"{stage.url}/"
        return person.context.storage_state()


@contextmanager
def looking(
    chromium: Browser,
    cookies: StorageState | None,
    *,
    scheme: Scheme = "light",
    width: int = 1200,
    **options: Any,
) -> Iterator[Person]:
    """A person with these cookies, or none. The browser's console must stay empty, CSP reports included."""
    size = {"width": width, "height": 800}
    given = {"storage_state": cookies, "color_scheme": scheme, "viewport": size, **options}
    with person_in(chromium, **given) as person:
        person.context.set_default_timeout(15_000)
        yield person
        # A page that is not there says so on the console too.
        errors = [line for line in person.errors if "Failed to load resource" not in line]
        assert errors == []


def violations(person: Person) -> list[str]:
    """What axe finds on the page."""
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

    found = Axe().run(person.page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


def overflow(person: Person) -> int:
    """By how many pixels the page is wider than the window."""
    wide: int = person.page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wide


# -- every page


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_usable_in_any_size_and_colour(
    chromium: Browser, stage: Stage, alice: StorageState, scheme: Scheme, width: int
) -> None:
    with looking(chromium, alice, scheme=scheme, width=width) as person:
        found: dict[str, object] = {}
        for name, path in PAGES.items():
            person.page.goto(stage.url + path)
            if problems := violations(person):
                found[name] = problems
            if pixels := overflow(person):
                found[f"{name} is too wide"] = pixels
        assert found == {}


@pytest.mark.parametrize("width", [1200, 360])
def test_an_event_and_an_answer_are_usable_too(
    chromium: Browser, stage: Stage, alice: StorageState, width: int
) -> None:
    with looking(chromium, alice, width=width) as person:
        page = person.page
        page.goto(f"{stage.url}/events?kind=exchange&outcome=refused")
        page.click("tbody a >> nth=0")
        assert page.inner_text("h1") == "Token exchange: why was it refused?"
        assert (violations(person), overflow(person)) == ([], 0)
        page.click("text=Change a value and ask again")
        page.get_by_role("button", name="Ask again").click()
        assert page.inner_text(".verdict") == "✗ The token is not admitted."
        assert (violations(person), overflow(person)) == ([], 0)


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_around_a_session_are_usable_too(
    chromium: Browser, stage: Stage, scheme: Scheme, width: int
) -> None:
    headings = {
        "/": "Federation",
        "/auth/callback?state=foreign&code=foreign": "Not signed in",
        "/auth/signed-out": "Signed out",
        "/nowhere": "Not found",
    }
    with looking(chromium, None, scheme=scheme, width=width) as person:
        for path, heading in headings.items():
            person.page.goto(stage.url + path)
            assert person.page.inner_text("h1") == heading
            assert (violations(person), overflow(person)) == ([], 0), path


def test_text_of_twice_the_size_fits(chromium: Browser, stage: Stage, alice: StorageState) -> None:
    with looking(chromium, alice, width=720) as person:
        for path in ("/", "/functions", "/functions/dev/figlet", "/what-if?sample=github+main"):
            person.page.goto(stage.url + path)
            person.page.evaluate("document.documentElement.style.fontSize = '200%'")
            assert overflow(person) == 0


def test_every_page_works_without_scripts(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    with looking(chromium, alice, java_script_enabled=False) as person:
        for path in PAGES.values():
            person.page.goto(stage.url + path)
            assert person.page.locator("h1").count() == 1


def test_the_keyboard_alone_is_enough(chromium: Browser, stage: Stage, alice: StorageState) -> None:
    stage.deploy("by-keyboard", "registry.example.com/by-keyboard:1")
    with looking(chromium, alice) as person:
        page = person.page
        page.goto(f"{stage.url}/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        assert page.locator(".skip").bounding_box()["y"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.goto(f"{stage.url}/")
        tab_to(person, "Functions")
        page.keyboard.press("Enter")
        page.wait_for_url("**/functions")
        tab_to(person, "by-keyboard")
        page.keyboard.press("Enter")
        page.wait_for_url("**/functions/dev/by-keyboard")
        tab_to(person, "Delete…")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert page.evaluate(outline) == "solid"
        page.keyboard.press("Enter")
        page.wait_for_url("**/delete")
        tab_to(person, "Delete by-keyboard")
        page.keyboard.press("Enter")
        page.wait_for_url("**/functions?*done=by-keyboard")
        assert "is being deleted" in page.inner_text("[role=status]")


def tab_to(person: Person, text: str) -> None:
    """Press Tab until the element with *text* has the focus."""
    for _ in range(60):
        person.page.keyboard.press("Tab")
        if person.page.evaluate("document.activeElement.textContent").strip() == text:
            return
    raise AssertionError(f"no Tab leads to {text}")


def test_nothing_is_asked_for_but_our_own_pages(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    with looking(chromium, alice) as person:
        for path in PAGES.values():
            person.page.goto(stage.url + path)
        assert person.asked
        assert [a for a in person.asked if not a.startswith(f"{stage.url}/")] == []


# -- what people do


def test_a_deployment_is_seen_with_who_did_it(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    assert "Deployed." in stage.deploy("banner", "registry.example.com/banner:2.0.0")
    with looking(chromium, alice) as person:
        person.page.goto(f"{stage.url}/functions?namespace=dev&name=banner")
        row = person.page.inner_text("tbody tr")
        assert "registry.example.com/banner:2.0.0" in row
        assert "repo:octo-org/octo-repo:ref:refs/heads/main" in row
        person.page.click("tbody a")
        person.page.click("text=The event")
        assert "Function:Create: granted" in person.page.inner_text("h1")


def test_a_deletion_is_done_where_it_is_allowed_and_refused_where_it_is_not(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    stage.deploy("old", "registry.example.com/old:1")
    with looking(chromium, alice) as person:
        page = person.page
        page.goto(f"{stage.url}/functions/dev/old")
        page.click("text=Delete…")
        page.get_by_role("button", name="Delete old").click()
        assert "is being deleted" in page.inner_text("[role=status]")
        page.goto(f"{stage.url}/functions/dev/payments")
        assert page.locator("text=Delete…").count() == 0
        assert "the statement guard/keep-payments denies it" in page.inner_text("main")
        # The form of another function, turned to this one: the broker says no.
        page.goto(f"{stage.url}/functions/dev/figlet/delete")
        turn = "document.querySelector('main form').action = '/functions/dev/payments/delete'"
        page.evaluate(turn)
        page.get_by_role("button", name="Delete figlet").click()
        assert page.inner_text("h1") == "You may not do this"
        assert "Function:Delete" in page.inner_text("[role=alert]")
    left = {f["name"] for f in stage.directly("GET", "/system/functions?namespace=dev").json()}
    assert {"payments", "figlet"} <= left
    assert "old" not in left


def test_who_may_only_look_sees_no_more(chromium: Browser, stage: Stage) -> None:
    with looking(chromium, signed_in(chromium, stage, "bob")) as person:
        page = person.page
        page.goto(f"{stage.url}/functions/dev/figlet")
        assert page.locator("main form, main .actions a").count() == 0
        assert page.locator(".top nav a").all_inner_texts() == ["You", "Functions"]
        for path in ("/events", "/documents", "/who-can?role=operators"):
            page.goto(stage.url + path)
            assert page.inner_text("h1") == "You may not do this", path
        assert violations(person) == []


def test_a_name_that_is_markup_is_shown_as_text(chromium: Browser, stage: Stage) -> None:
    with looking(chromium, signed_in(chromium, stage, "mallory")) as person:
        person.page.goto(f"{stage.url}/")
        assert MARKUP in person.page.inner_text("main")
        assert MARKUP in person.page.inner_text(".person")
        assert person.page.locator("img").count() == 0


def test_a_function_is_called_and_its_answer_is_shown_as_text(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    with looking(chromium, alice) as person:
        page = person.page
        page.goto(f"{stage.url}/functions/dev/env/invoke")
        page.fill("#content_type", "text/html")
        page.fill("#body", "<h1>hello</h1>\n<script>alert(1)</script>")
        page.click("main button")
        assert page.inner_text("pre") == "<h1>hello</h1>\n<script>alert(1)</script>"
        assert page.input_value("#body") == "<h1>hello</h1>\n<script>alert(1)</script>"
        assert page.locator("h1").count() == 1


def test_log_lines_appear_as_they_come_and_the_page_says_why_it_ended(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    stage.deploy("talker", "registry.example.com/talker:1")
    with looking(chromium, alice, java_script_enabled=False) as person:
        page = person.page
        page.goto(f"{stage.url}/functions/dev/talker/logs?follow=1", wait_until="commit")
        page.wait_for_selector("text=deployed talker")
        for number in range(3):
            stage.directly("POST", f"/function/talker.dev/line-{number}")
            page.wait_for_selector(
                f".log p:has-text('/function/talker.dev/line-{number}')", timeout=5000
            )
        assert page.locator(".log-end").count() == 0
        body = {"functionName": "talker", "namespace": "dev"}
        stage.directly("DELETE", "/system/functions", json=body)
        page.wait_for_selector("text=The gateway ended the log.")
        page.wait_for_load_state("load")


def test_a_followed_log_ends_with_the_session(chromium: Browser, stage: Stage) -> None:
    cookies = signed_in(chromium, stage, "alice")
    with looking(chromium, cookies) as person:
        following, other = person.page, person.context.new_page()
        following.goto(f"{stage.url}/functions/dev/env/logs?follow=1", wait_until="commit")
        following.wait_for_selector(".log")
        other.goto(f"{stage.url}/")
        began = time.monotonic()
        with other.expect_navigation():
            other.click("text=Sign out")
        following.wait_for_selector(".log-end", timeout=20_000)
        assert time.monotonic() - began < 15
        assert "session" in following.inner_text(".log-end")


def test_scaling_shows_its_progress(chromium: Browser, stage: Stage, alice: StorageState) -> None:
    with looking(chromium, alice) as person:
        page = person.page
        page.goto(f"{stage.url}/functions/dev/env")
        page.fill("#replicas", "4")
        page.get_by_role("button", name="Scale").click()
        page.wait_for_selector("text=All replicas are ready.")
        assert "4 of 4 ready" in page.inner_text("[role=log]")


def test_a_refusal_is_understood_and_asked_again(
    chromium: Browser, stage: Stage, alice: StorageState
) -> None:
    request_id = stage.refuse()
    with looking(chromium, alice) as person:
        page = person.page
        page.goto(f"{stage.url}/events?kind=exchange&outcome=refused")
        page.click("tbody a >> nth=0")
        assert request_id in page.inner_text("main")
        closest = page.locator("details").first
        assert closest.get_attribute("data-role") == "deployer"
        assert "fails" in closest.locator("tr", has_text="refs/heads/main").inner_text()
        assert "kind: Role" in page.inner_text("pre")
        page.click("text=Change a value and ask again")
        page.get_by_label("ref", exact=True).fill("refs/heads/main")
        page.select_option("#action-1", "Function:Create")
        page.fill("#resource-1", "dev:figlet")
        page.get_by_role("button", name="Ask again").click()
        assert page.inner_text(".verdict") == "✓ The token is admitted."
        assert "allowed" in page.inner_text(".accesses tbody tr")


def test_the_dashboard_logged_no_unexpected_error(stage: Stage) -> None:
    """It runs last, after all the others asked for their pages."""
    output = stage.dashboard.output()
    assert "unexpected error" not in output
    assert "Traceback" not in output
    assert until(lambda: httpx2.get(f"{stage.dashboard.url}/livez").status_code == 200, 5)
