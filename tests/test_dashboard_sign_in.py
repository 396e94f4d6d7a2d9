"""Sign-in at the dashboard: the way to the provider, the way back, and what a refusal says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx2
import pytest

from federation.client import ClientError
from federation.dashboard.cookies import SESSION, SIGN_IN
from federation.dashboard.sign_in import local_path
from federation.errors import Reason, Refusal
from tests.harness.broker import logged
from tests.harness.dashboard import (
    PUBLIC_URL,
    InProcess,
    begun,
    finished,
    tell,
)


def test_a_person_signs_in_and_comes_back_to_the_page_that_they_wanted(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        wanted = await browser.get("/functions?namespace=dev&x=1")
        assert wanted.status_code == 303
        assert wanted.headers["location"] == "/auth/login?to=/functions%3Fnamespace%3Ddev%26x%3D1"
        login = await browser.get(wanted.headers["location"])
        sent = dict(login.next_request.url.params) if login.next_request else {}
        assert sent["redirect"] == f"{PUBLIC_URL}/auth/callback"
        answer = await finished(browser, code="code-1", state=sent["state"])
        assert answer.headers["location"] == f"{PUBLIC_URL}/functions?namespace=dev&x=1"
        assert list(browser.cookies) == [SESSION], "the sign-in under way is over"
        assert dashboard.broker.exchanged == ["id-token-code-1"]
        assert "Alice" in (await browser.get("/")).text

    with logged() as log:
        tell(tmp_path, story)
    assert "signed in" in log.getvalue()
    for secret in ("code-1", "access-1", "refresh-0"):
        assert secret not in log.getvalue()


def test_the_start_page_welcomes_who_is_not_signed_in(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        answer = await dashboard.browser().get("/")
        assert answer.status_code == 200
        assert 'href="/auth/login"' in answer.text

    tell(tmp_path, story)


def test_the_sign_in_under_way_is_sealed(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        sealed = browser.cookies[SIGN_IN]
        assert sealed.count(".") == 4
        for secret in (sent["state"], sent["nonce"]):
            assert secret not in sealed

    tell(tmp_path, story)


def test_each_sign_in_has_values_of_its_own(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        first, second = [await begun(dashboard.browser()) for _ in range(2)]
        assert first["state"] != second["state"]
        assert first["nonce"] != second["nonce"]
        assert len(first["state"]) >= 43

    tell(tmp_path, story)


def test_a_sign_in_takes_at_most_ten_minutes(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        dashboard.clock.advance(600)
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.status_code == 400
        assert "more than ten minutes" in answer.text
        assert dashboard.broker.exchanged == []

    tell(tmp_path, story)


def test_a_refusal_of_the_provider_is_told(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        answer = await finished(browser, error="access_denied", state=sent["state"])
        assert answer.status_code == 400
        assert "access_denied" in answer.text
        assert browser.cookies == {}

    tell(tmp_path, story)


def test_a_long_refusal_of_the_provider_fits_into_the_cookie_of_the_next_page(
    tmp_path: Path,
) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.provider.refusal = ClientError("😀" * 1000, "😀" * 1000)
        browser = dashboard.browser()
        sent = await begun(browser)
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.status_code == 400
        assert "😀😀" in answer.text

    tell(tmp_path, story)


def test_a_page_that_does_not_exist_offers_no_second_sign_in(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        await finished(browser, code="code", state=sent["state"])
        answer = await browser.get("/nope")
        assert answer.status_code == 404
        assert 'href="/"' in answer.text
        assert "/auth/login" not in answer.text

    tell(tmp_path, story)


def test_a_refusal_of_the_broker_is_told_in_its_words_with_its_request_id(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.broker.refusal = {
            "error": "invalid_request",
            "error_description": "No policies found for subject: <b>bob</b>",
            "reason": "no_role_admits",
            "request_id": "req-7",
        }
        browser = dashboard.browser()
        sent = await begun(browser)
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.status_code == 403
        assert "No policies found for subject: &lt;b&gt;bob&lt;/b&gt;" in answer.text
        assert "req-7" in answer.text
        assert "no Role of this gateway admits you" in answer.text
        assert browser.cookies == {}

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"access_token": "", "expires_in": 900}),
        (200, {"access_token": "token"}),
        (200, {"access_token": "token", "expires_in": "900"}),
        (400, {"access_token": "token", "expires_in": 900}),
        (502, {"error": "bad gateway"}),
        (200, []),
    ],
)
def test_a_broker_that_answers_something_else_signs_nobody_in(
    tmp_path: Path, status: int, body: object
) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.broker.answers["POST", "/oauth/token"] = lambda _request: json_answer(
            status, body
        )
        browser = dashboard.browser()
        sent = await begun(browser)
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.status_code == 503
        assert "no answer that can be used" in answer.text
        assert SESSION not in browser.cookies

    tell(tmp_path, story)


def test_a_provider_that_is_away_is_told_and_nothing_is_begun(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.parts.provider._known = None
        browser = dashboard.browser()
        answer = await browser.get("/auth/login")
        assert answer.headers["location"] == "/auth/refused"
        page = await browser.get("/auth/refused")
        assert page.status_code == 503
        assert "identity provider does not answer" in page.text
        assert (await browser.get("/readyz")).status_code == 503

    tell(tmp_path, story)


def test_a_store_that_is_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(dashboard: InProcess) -> None:
        async def away(*_given: object) -> bool:
            raise Refusal(Reason.STATE_UNAVAILABLE, evidence={"store": "gone"})

        browser = dashboard.browser()
        sent = await begun(browser)
        for name in ("spend", "get", "check"):
            monkeypatch.setattr(dashboard.store, name, away)
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.status_code == 503
        browser.cookies[SESSION] = "some id"
        answer = await browser.get("/functions")
        assert answer.status_code == 503
        assert "gone" not in answer.text
        assert (await browser.get("/readyz")).status_code == 503
        assert (await browser.get("/livez")).status_code == 200

    tell(tmp_path, story)


def test_a_background_task_that_failed_makes_it_degraded(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        async def failing() -> None:
            raise RuntimeError

        browser = dashboard.browser()
        assert (await browser.get("/readyz")).json() == {"status": "ok"}
        await asyncio.wait([dashboard.parts.background.start("sessions", failing())])
        dashboard.app.state.health._known = (float("-inf"), "")
        answer = await browser.get("/readyz")
        assert (answer.status_code, answer.json()) == (200, {"status": "degraded"})

    with logged():
        tell(tmp_path, story)


def test_a_notice_is_shown_for_a_minute_to_its_browser_alone(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        answer = await browser.get("/auth/callback?code=SECRET&state=x")
        assert answer.headers["location"] == "/auth/refused"
        other = await dashboard.browser().get("/auth/refused")
        assert other.headers["location"] == "/"
        dashboard.clock.advance(61)
        assert (await browser.get("/auth/refused")).headers["location"] == "/"

    tell(tmp_path, story)


def test_the_address_of_the_person_reaches_the_broker(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)
        await finished(browser, code="code", state=sent["state"])
        (exchange,) = [r for r in dashboard.broker.requests if r.url.path == "/oauth/token"]
        assert exchange.headers["x-forwarded-for"] == "192.0.2.7"

    tell(tmp_path, story)


def test_signing_in_again_ends_the_session_before(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        before = browser.cookies[SESSION]
        sent = await begun(browser)
        await finished(browser, code="code", state=sent["state"])
        assert browser.cookies[SESSION] != before
        assert await dashboard.parts.sessions.find(before) is None
        assert dashboard.broker.revoked == ["access-0"]

    tell(tmp_path, story)


@pytest.mark.parametrize(
    "path", ["/", "/functions", "/functions?namespace=dev&x=%2F%2Fevil", "/a/b-c_d.e~f", "/events/1%20"]
)  # fmt: skip
def test_a_path_of_ours_is_kept(path: str) -> None:
    assert local_path(path) == path


def json_answer(status: int, body: object) -> httpx2.Response:
    return httpx2.Response(status, content=json.dumps(body))
