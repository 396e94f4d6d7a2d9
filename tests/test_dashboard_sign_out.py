"""Sign-out here, and the provider's word that a session has ended."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest

from federation.dashboard.cookies import SESSION
from federation.errors import Reason, Refusal
from federation.sign_on.provider import Pending
from tests.harness.dashboard import PUBLIC_URL, Browser, InProcess, begun, finished, tell

BACKCHANNEL = "/auth/backchannel-logout"


async def sign_out(browser: Browser) -> httpx2.Response:
    return await browser.post("/auth/logout", {"csrf": await browser.csrf()})


async def told(browser: Browser, **claims: object) -> httpx2.Response:
    """The provider's request with a logout token of *claims*."""
    return await browser.post(BACKCHANNEL, {"logout_token": json.dumps(claims)}, {})


def test_signing_out_ends_the_session_and_its_tokens_everywhere(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        cookie_id = browser.cookies[SESSION]
        answer = await sign_out(browser)
        assert answer.status_code == 303
        to = httpx2.URL(answer.headers["location"])
        assert str(to).startswith("https://idp.example.com/end-session?")
        assert dict(to.params) == {
            "id_token_hint": "id-token-code",
            "post_logout_redirect_uri": f"{PUBLIC_URL}/auth/signed-out",
        }
        assert browser.cookies == {}
        assert await dashboard.parts.sessions.find(cookie_id) is None
        assert dashboard.broker.revoked == ["access-0"]
        assert dashboard.provider.revoked == ["refresh-0"]
        page = await browser.get("/auth/signed-out")
        assert page.status_code == 200
        assert "Alice" not in page.text

    tell(tmp_path, story)


def test_a_provider_without_sign_out_leads_to_our_own_page(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.provider.ends_sessions = False
        browser = await dashboard.signed_in()
        assert (await sign_out(browser)).headers["location"] == "/auth/signed-out"

    tell(tmp_path, story)


def test_signing_out_works_while_provider_and_broker_are_away(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        def away(request: httpx2.Request) -> httpx2.Response:
            raise httpx2.ConnectError("no", request=request)

        browser = await dashboard.signed_in()
        csrf = await browser.csrf()
        cookie_id = browser.cookies[SESSION]
        dashboard.provider.problem = "It does not answer."
        dashboard.broker.answers["POST", "/oauth/revoke"] = away
        answer = await browser.post("/auth/logout", {"csrf": csrf})
        assert answer.status_code == 303
        assert await dashboard.parts.sessions.find(cookie_id) is None

    tell(tmp_path, story)


def test_a_long_id_token_makes_no_long_url(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        pending = Pending(f"{PUBLIC_URL}/auth/callback", "state", "nonce", "verifier")
        tokens = await dashboard.provider.redeem("x" * 5000, pending)
        granted = await dashboard.parts.broker.exchange("id token")
        browser = dashboard.browser()
        browser.cookies[SESSION] = await dashboard.parts.sessions.begin(tokens, granted)
        answer = await sign_out(browser)
        assert len(answer.headers["location"]) < 200

    tell(tmp_path, story)


# Back-channel logout


def test_the_provider_ends_one_session(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        first = await dashboard.signed_in(sid="sid-1")
        second = await dashboard.signed_in(sid="sid-2")
        answer = await told(dashboard.browser(), sid="sid-1", sub="alice-id", jti="a")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert "Alice" not in (await first.get("/")).text
        assert "Alice" in (await second.get("/")).text

    tell(tmp_path, story)


def test_the_provider_ends_all_sessions_of_a_person_and_no_others(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        alice = [await dashboard.signed_in(sid=f"sid-{n}") for n in range(3)]
        bob = await dashboard.signed_in(sub="bob-id", name="Bob", sid="sid-b")
        assert (await told(dashboard.browser(), sub="alice-id", jti="a")).status_code == 200
        for browser in alice:
            assert "Alice" not in (await browser.get("/")).text
        assert "Bob" in (await bob.get("/")).text

    tell(tmp_path, story)


def test_a_logout_for_nobody_here_is_no_error(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        assert (await told(dashboard.browser(), sid="unknown", jti="a")).status_code == 200

    tell(tmp_path, story)


@pytest.mark.parametrize("ended", [{"sid": "sid-1"}, {"sub": "alice-id"}], ids=["sid", "sub"])
def test_a_logout_during_the_sign_in_ends_it(tmp_path: Path, ended: dict[str, str]) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = dashboard.browser()
        sent = await begun(browser)

        def exchange(_request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200, json={"access_token": "access-9", "expires_in": 900})

        dashboard.broker.answers["POST", "/oauth/token"] = exchange
        await told(dashboard.browser(), **ended, jti="a")
        answer = await finished(browser, code="code", state=sent["state"])
        assert answer.status_code == 400
        assert SESSION not in browser.cookies
        assert dashboard.broker.revoked == ["access-9"]

    tell(tmp_path, story)


def test_a_person_may_sign_in_again_after_all_their_sessions_ended(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        await told(dashboard.browser(), sub="alice-id", jti="a")
        dashboard.clock.advance(1)
        browser = dashboard.browser()
        sent = await begun(browser)
        await finished(browser, code="code", state=sent["state"])
        assert SESSION in browser.cookies

    tell(tmp_path, story)


def test_a_store_that_is_away_lets_the_provider_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(dashboard: InProcess) -> None:
        async def away(*_given: object) -> int:
            raise Refusal(Reason.STATE_UNAVAILABLE)

        browser = await dashboard.signed_in(sid="sid-1")
        with monkeypatch.context() as patched:
            patched.setattr(dashboard.store, "delete_tagged", away)
            answer = await told(dashboard.browser(), sid="sid-1", jti="a")
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
        assert (await told(dashboard.browser(), sid="sid-1", jti="a")).status_code == 200
        assert "Alice" not in (await browser.get("/")).text

    tell(tmp_path, story)


def test_the_provider_may_know_this_process_by_another_name(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        answer = await dashboard.browser().post(
            BACKCHANNEL,
            {"logout_token": json.dumps({"sid": "s", "jti": "a"})},
            {"Host": "federation-dashboard.openfaas.svc:8090"},
        )
        assert answer.status_code == 200

    tell(tmp_path, story)
