"""Attacks on people's sessions at the dashboard."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from federation.dashboard.cookies import SESSION, SIGN_IN
from federation.dashboard.page import changes
from federation.dashboard.session import Session
from federation.dashboard.sessions import key_of
from federation.dashboard.sign_in import local_path
from federation.sign_on.provider import OpenIdProvider
from federation.web.forms import Form
from tests.harness.dashboard import (
    NOW,
    PUBLIC_URL,
    SAME_ORIGIN,
    Browser,
    FakeProvider,
    InProcess,
    begun,
    finished,
    tell,
)

BACKCHANNEL = "/auth/backchannel-logout"
SIBLING = "https://fn.dashboard.example.com"


async def _change(request: Request, _session: Session, _form: Form) -> Response:
    request.app.state.changed.append(True)
    return PlainTextResponse("changed")


def changeable(dashboard: InProcess) -> list[bool]:
    """Add a form that changes something; the list has an entry for each change."""
    dashboard.app.router.routes.append(Route("/change", changes(_change), methods=["POST"]))
    changed: list[bool] = []
    dashboard.app.state.changed = changed
    return changed


# Sign-in


@pytest.mark.parametrize("cookie", ["none", "another sign-in", "forged"])
def test_the_answer_to_another_browsers_sign_in_signs_nobody_in(
    tmp_path: Path, cookie: str
) -> None:
    """Login CSRF: a victim that acts in the attacker's session tells the attacker what it does."""

    async def story(dashboard: InProcess) -> None:
        mallory, victim = dashboard.browser(), dashboard.browser()
        sent = await begun(mallory)
        if cookie == "another sign-in":
            await begun(victim)
        if cookie == "forged":
            victim.cookies[SIGN_IN] = "eyJhbGciOiJkaXIifQ..AAAA.AAAA.AAAA"
        answer = await finished(victim, code="of-mallory", state=sent["state"])
        assert answer.status_code == 400
        assert SESSION not in victim.cookies
        assert dashboard.broker.exchanged == []

    tell(tmp_path, story)


def test_a_foreign_answer_does_not_stop_the_sign_in_under_way(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        for foreign in (
            {"state": "guess"},
            {"state": sent["state"], "iss": "https://evil.example"},
        ):
            answer = await finished(browser, code="evil", **foreign)
            assert answer.status_code == 400
        answer = await browser.get(f"/auth/callback?state={sent['state']}&code=a&code=b")
        assert answer.headers["location"] == "/auth/refused"
        assert dashboard.broker.exchanged == []
        await finished(browser, code="good", state=sent["state"])
        assert SESSION in browser.cookies

    tell(tmp_path, story)


@pytest.mark.parametrize("first", ["code", "error"])
def test_an_answer_is_taken_once_by_all_replicas(tmp_path: Path, first: str) -> None:
    key = tmp_path / "key"
    key.write_text("a key of at least 32 bytes, for tests alone")
    key.chmod(0o600)

    async def story(one: InProcess) -> None:
        other = InProcess(
            tmp_path / "other",
            store=one.store, clock=one.clock, provider=one.provider, session_key=(key,),
        )  # fmt: skip
        assert await other.parts.provider.refresh()
        browser = one.browser()
        sent = await begun(browser)
        stolen = dict(browser.cookies)
        await finished(browser, state=sent["state"], **{first: "access_denied"})
        for dashboard in (one, other):
            again = dashboard.browser()
            again.cookies = dict(stolen)
            answer = await finished(again, code="code", state=sent["state"])
            assert answer.status_code == 400
            assert SESSION not in again.cookies

    tell(tmp_path, story, session_key=(key,))


def test_two_answers_at_once_begin_one_session(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        browsers = [dashboard.browser() for _ in range(10)]
        for each in browsers:
            each.cookies = dict(browser.cookies)
        await asyncio.gather(*(finished(b, code="c", state=sent["state"]) for b in browsers))
        assert len([b for b in browsers if SESSION in b.cookies]) == 1
        assert len(dashboard.broker.exchanged) == 1

    tell(tmp_path, story)


def test_nobody_can_give_a_person_a_session_that_they_know(tmp_path: Path) -> None:
    """Session fixation."""

    async def story(dashboard: InProcess) -> None:
        for known in ("chosen-by-mallory", (await dashboard.session(sub="mallory"))[0]):
            dashboard.provider.claims = {"sub": "alice-id", "name": "Alice"}
            browser = dashboard.browser()
            browser.cookies[SESSION] = known
            sent = await begun(browser)
            await finished(browser, code="code", state=sent["state"])
            assert browser.cookies[SESSION] != known
            assert await dashboard.parts.sessions.find(known) is None

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "header",
    [
        f"{SESSION}=ID; {SESSION}=ID",
        f"{SESSION}=other; {SESSION}=ID",
        "federation=ID",
        "__Host-federation =ID; __Host-federation=ID",
        "__host-federation=ID",
        "__Secure-federation=ID",
        f'{SESSION}="ID"',
    ],
    ids=["twice", "tossed", "plain", "blank", "case", "secure", "quoted"],
)
def test_only_one_cookie_of_exactly_our_name_counts(tmp_path: Path, header: str) -> None:
    """Cookie tossing: a sibling host can set plain cookies for the whole domain."""

    async def story(dashboard: InProcess) -> None:
        cookie_id, _ = await dashboard.session()
        answer = await dashboard.browser().get("/", Cookie=header.replace("ID", cookie_id))
        assert "Alice" not in answer.text

    tell(tmp_path, story)


OPEN_REDIRECTS = [
    "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/\\/evil.example",
    "https://evil.example", "HTTPS:evil.example", "javascript:alert(1)", "data:text/html,x",
    "evil.example", "", "?x", "#x", ".", "../x", "/%2F/evil.example", "/%2fevil.example",
    "/%5Cevil.example", "/%5c%5cevil.example", "/%252Fevil.example", "/%255Cevil.example",
    "/\t/evil.example", "/\n//evil.example", "/%0d%0aSet-Cookie:x=1", "/%09/evil.example",
    "/%00", "/ /evil.example", "/\N{FULLWIDTH SOLIDUS}evil.example", "/a\\b", "/a#b",
    "/\x00", " //evil.example", "\t//evil.example", "/" + "a" * 2000,
    "/auth/login", "/auth/logout", "/auth/callback?code=x", "/auth", "/%61uth/login", "/auth?x",
    "//auth/login", "/./auth/login", "/x/../auth/login", "/%2e/%2e",
]  # fmt: skip


@pytest.mark.parametrize("to", OPEN_REDIRECTS)
def test_a_sign_in_never_leads_elsewhere(tmp_path: Path, to: str) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser, to=to)
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.headers["location"] == f"{PUBLIC_URL}/"

    assert local_path(to) == "/"
    tell(tmp_path, story)


@pytest.mark.parametrize(
    "query",
    ["", "state=x", "code=x", "%", "%ff=%fe", "a=1&" * 100, "code=" + "x" * 40_000, "\N{SNOWMAN}",
     "state[]=x&code[]=y", "state=x&error=<script>alert(1)</script>"],
    ids=["empty", "state", "code", "escape", "bytes", "many", "long", "snowman", "list", "markup"],
)  # fmt: skip
@pytest.mark.parametrize("under_way", [False, True])
def test_garbage_at_the_callback_signs_nobody_in(
    tmp_path: Path, query: str, under_way: bool
) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        if under_way:
            await begun(browser)
        answer = await browser.get(f"/auth/callback?{query}")
        assert answer.status_code == 303
        assert answer.headers["location"] == "/auth/refused"
        page = await browser.get("/auth/refused")
        assert page.status_code == 400
        assert "<script>" not in page.text
        assert SESSION not in browser.cookies

    tell(tmp_path, story)


def test_what_the_provider_says_is_never_markup(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        answer = await finished(browser, error="<img src=x onerror=1>", state=sent["state"])
        assert "<img" not in answer.text
        assert "&lt;img" in answer.text

    tell(tmp_path, story)


def test_failed_sign_ins_of_an_address_are_limited(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        # The time stands still, or a slow machine would earn more attempts.
        dashboard.parts.attempts._clock = lambda: 0.0
        browser = dashboard.browser()
        for _ in range(60):
            await finished(browser, code="c", state="guess")
        answer = await finished(browser, code="c", state="guess")
        assert answer.status_code == 429
        assert (await browser.get("/")).status_code == 200

    tell(tmp_path, story)


# Forms


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": SIBLING},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-site", "Origin": PUBLIC_URL},
        {"Sec-Fetch-Site": "SAME-ORIGIN"},
        {"Sec-Fetch-Site": ""},
        {"Origin": "https://evil.example"},
        {"Origin": SIBLING},
        {"Origin": "null"},
        {"Origin": f"{PUBLIC_URL}."},
        {"Origin": f"{PUBLIC_URL}:8443"},
        {"Origin": PUBLIC_URL.replace("https", "http")},
        {"Referer": f"{PUBLIC_URL}/"},
        {},
    ],
    ids=str,
)
def test_a_form_of_another_origin_changes_nothing_even_with_the_token(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async def story(dashboard: InProcess) -> None:
        changed = changeable(dashboard)
        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        for path in ("/change", "/auth/logout"):
            answer = await browser.post(path, {"csrf": csrf}, headers)
            assert answer.status_code == 403
        assert changed == []
        assert "Alice" in (await browser.get("/")).text
        assert (await browser.post("/change", {"csrf": csrf})).text == "changed"

    tell(tmp_path, story)


@pytest.mark.parametrize("which", ["none", "empty", "wrong", "shorter", "of another session"])
def test_a_form_without_the_sessions_token_changes_nothing(tmp_path: Path, which: str) -> None:
    async def story(dashboard: InProcess) -> None:
        changed = changeable(dashboard)
        browser = await dashboard.signed_in()
        own, other = await browser.csrf(), await (await dashboard.signed_in()).csrf()
        csrf = {"empty": "", "wrong": "x" * len(own), "shorter": own[:-1]}.get(which, other)
        answer = await browser.post("/change", {} if which == "none" else {"csrf": csrf})
        assert answer.status_code == (400 if which == "none" else 403)
        assert changed == []

    tell(tmp_path, story)


def test_the_token_alone_without_the_cookie_changes_nothing(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        changed = changeable(dashboard)
        csrf = await (await dashboard.signed_in()).csrf()
        answer = await dashboard.browser().post("/change", {"csrf": csrf})
        assert answer.status_code == 401
        assert changed == []

    tell(tmp_path, story)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_nothing_but_a_post_changes_anything(tmp_path: Path, method: str) -> None:
    async def story(dashboard: InProcess) -> None:
        changed = changeable(dashboard)
        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        for path in ("/change", "/auth/logout"):
            answer = await browser.ask(
                method,
                f"{path}?csrf={csrf}",
                headers={**SAME_ORIGIN, "X-HTTP-Method-Override": "POST"},
            )
            assert answer.status_code == 405
        assert changed == []
        assert "Alice" in (await browser.get("/")).text

    tell(tmp_path, story)


# Other origins


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("mode", "dest", "status"),
    [
        ("navigate", "document", 200),
        ("navigate", "iframe", 403),
        ("navigate", "embed", 403),
        ("navigate", "object", 403),
        ("no-cors", "image", 403),
        ("no-cors", "script", 403),
        ("cors", "empty", 403),
        ("websocket", "websocket", 403),
    ],
)
def test_another_origin_may_link_and_nothing_more(
    tmp_path: Path, site: str, mode: str, dest: str, status: int
) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        answer = await browser.get("/auth/signed-out", **headers)
        assert answer.status_code == status

    tell(tmp_path, story)


def test_no_page_can_be_framed(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        headers = (await dashboard.browser().get("/")).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "dashboard.example.com.evil.example", "127.0.0.1", "localhost",
     "dashboard.example.com:8443", "fn.dashboard.example.com", "dashboard.example.com.", ""],
)  # fmt: skip
def test_no_other_name_gets_a_page(tmp_path: Path, host: str) -> None:
    """DNS rebinding."""

    async def story(dashboard: InProcess) -> None:
        changed = changeable(dashboard)
        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        answer = await browser.get("/", Host=host)
        assert answer.status_code == 421
        assert "Alice" not in answer.text
        answer = await browser.post("/change", {"csrf": csrf}, {**SAME_ORIGIN, "Host": host})
        assert answer.status_code == 421
        assert changed == []

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "name", ["X-Forwarded-Host", "Forwarded", "X-Original-URL", "X-Rewrite-URL"]
)
def test_a_forwarded_name_changes_no_address(tmp_path: Path, name: str) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        answer = await browser.get("/auth/login", **{name: "evil.example"})
        assert "evil" not in answer.headers["location"]
        assert "evil" not in (await browser.get("/", **{name: "evil.example"})).text

    tell(tmp_path, story)


# The store


def test_a_record_cannot_be_put_in_the_place_of_another(tmp_path: Path) -> None:
    """Who can write to the store must not get another person's session by it."""

    async def story(dashboard: InProcess) -> None:
        alice = await dashboard.signed_in()
        mallory = await dashboard.signed_in(sub="mallory-id", name="Mallory")
        keys = [key_of(browser.cookies[SESSION]) for browser in (alice, mallory)]
        values = [await dashboard.store.get(key) for key in keys]
        await dashboard.store.put(keys[1], values[0] or "", NOW + 60)
        page = (await mallory.get("/")).text
        assert "Alice" not in page
        assert "Mallory" not in page
        assert "Alice" in (await alice.get("/")).text

    tell(tmp_path, story)


def test_a_sealed_sign_in_is_no_session(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        await begun(browser)
        await dashboard.store.put(key_of("known"), browser.cookies[SIGN_IN], NOW + 60)
        browser.cookies = {SESSION: "known"}
        assert (await browser.get("/functions")).status_code == 303

    tell(tmp_path, story)


def test_what_the_store_knows_is_no_cookie(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        browser.cookies[SESSION] = key_of(browser.cookies[SESSION])
        assert "Alice" not in (await browser.get("/")).text

    tell(tmp_path, story)


def test_a_key_that_was_taken_away_ends_its_sessions(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text(f"{path.name}: a key of at least 32 bytes, for tests alone")
        path.chmod(0o600)

    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        under_way = dashboard.browser()
        sent = await begun(under_way)
        old.write_text(new.read_text())
        dashboard.app.state.reload()
        assert "Alice" not in (await browser.get("/")).text
        answer = await finished(under_way, code="code", state=sent["state"])
        assert answer.status_code == 400

    tell(tmp_path, story, session_key=(old,))


# The provider's logout


async def told(browser: Browser, form: dict[str, str]) -> httpx2.Response:
    return await browser.post(BACKCHANNEL, form, {})


@pytest.mark.parametrize(
    "form",
    [{}, {"logout_token": ""}, {"logout_token": "e30.e30."}, {"logout_token": "x" * 70_000},
     {"id_token": "x"}],
    ids=["none", "empty", "unsigned", "long", "other"],
)  # fmt: skip
def test_a_forged_logout_ends_nothing(tmp_path: Path, form: dict[str, str]) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        answer = await told(dashboard.browser(), form)
        assert answer.status_code == 400
        assert answer.json()["error"] == "invalid_request"
        assert answer.headers["cache-control"] == "no-store"
        assert "Alice" in (await browser.get("/")).text

    tell(tmp_path, story)


def test_a_logout_token_ends_sessions_once(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        token = json.dumps({"sub": "alice-id", "jti": "a", "issued": NOW})
        assert (await told(dashboard.browser(), {"logout_token": token})).status_code == 200
        dashboard.clock.advance(5)
        browser = await dashboard.signed_in()
        answer = await told(dashboard.browser(), {"logout_token": token})
        assert answer.status_code == 400
        assert "used before" in answer.text
        assert "Alice" in (await browser.get("/")).text

    tell(tmp_path, story)


def test_refused_logout_tokens_of_an_address_are_limited(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.parts.logouts._clock = lambda: 0.0
        browser = dashboard.browser()
        for _ in range(60):
            assert (await told(browser, {"logout_token": "x"})).status_code == 400
        answer = await told(browser, {"logout_token": "x"})
        assert answer.status_code == 429
        assert answer.headers["retry-after"]

    tell(tmp_path, story)


def test_the_fake_provider_has_every_method_that_the_dashboard_calls() -> None:
    used = {
        "authorization_url", "code_of", "redeem", "refresh", "revoke", "sign_out_url",
        "verify_logout_token",
    }  # fmt: skip
    for name in used:
        assert callable(getattr(OpenIdProvider, name))
        assert callable(getattr(FakeProvider, name))
