"""Sessions: begun, found, renewed and ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from federation.client import ClientError
from federation.dashboard.cookies import SESSION
from federation.dashboard.renewal import Ended
from federation.dashboard.sessions import key_of
from federation.sign_on.oauth_errors import ProviderRefused
from federation.state.sessions import MemorySessions
from tests.harness.dashboard import NOW, InProcess, tell

HOUR = 3600.0


def test_a_session_is_found_by_its_cookie_and_shows_no_secret(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        assert record.session.person == "Alice"
        assert record.session.access_token == "access-0"
        assert record.session.claims["sub"] == "alice-id"
        assert await dashboard.parts.sessions.find(cookie_id + "x") is None
        assert await dashboard.parts.sessions.find("") is None
        shown = repr(record)
        for secret in ("access-0", "refresh-0", "id-token", record.session.csrf, cookie_id):
            assert secret not in shown

    tell(tmp_path, story)


@pytest.mark.parametrize(
    ("claims", "person"),
    [
        ({"name": "Alice", "email": "a@example.com"}, "Alice"),
        ({"email": "a@example.com", "preferred_username": "al"}, "a@example.com"),
        ({"name": "", "email": 7, "preferred_username": "al"}, "al"),
        ({}, "alice-id"),
    ],
)
def test_a_person_is_called_by_the_best_name(
    tmp_path: Path, claims: dict[str, object], person: str
) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.provider.claims = {"sub": "alice-id", **claims}
        _, record = await dashboard.session()
        assert record.session.person == person

    tell(tmp_path, story)


def test_the_store_has_neither_cookies_nor_tokens(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        store = dashboard.store
        assert isinstance(store, MemorySessions)
        written = repr(store._kept)
        assert record.key == key_of(cookie_id)
        assert record.key in written
        for secret in (cookie_id, "access-0", "refresh-0", "id-token", "Alice", "alice-id"):
            assert secret not in written

    tell(tmp_path, story)


def test_a_session_ends_after_its_lifetime_whatever_happens(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        assert record.session.expires == NOW + 3 * HOUR
        for _ in range(17):
            dashboard.clock.advance(600)
            assert await dashboard.parts.sessions.find(cookie_id)
        dashboard.clock.advance(600)
        assert await dashboard.parts.sessions.find(cookie_id) is None

    tell(tmp_path, story, session_lifetime=timedelta(hours=3), idle_lifetime=timedelta(hours=1))


def test_a_store_that_keeps_a_record_too_long_keeps_no_session(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        sealed = await dashboard.store.get(record.key)
        assert sealed
        dashboard.clock.advance(13 * HOUR)
        await dashboard.store.put(record.key, sealed, dashboard.clock() + HOUR)
        assert await dashboard.parts.sessions.find(cookie_id) is None

    tell(tmp_path, story)


def test_a_session_ends_after_an_idle_hour(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, _ = await dashboard.session()
        dashboard.clock.advance(HOUR - 1)
        assert await dashboard.parts.sessions.find(cookie_id)
        dashboard.clock.advance(HOUR - 1)
        assert await dashboard.parts.sessions.find(cookie_id)
        dashboard.clock.advance(HOUR + 1)
        assert await dashboard.parts.sessions.find(cookie_id) is None

    tell(tmp_path, story)


def test_without_a_refresh_token_a_session_ends_with_its_access_token(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.provider.refresh_token = ""
        browser = await dashboard.signed_in()
        assert "Alice" in (await browser.get("/")).text
        dashboard.clock.advance(dashboard.broker.expires_in - 1)
        assert "Alice" in (await browser.get("/")).text
        dashboard.clock.advance(1)
        assert "Alice" not in (await browser.get("/")).text
        assert dashboard.provider.refreshes == []

    tell(tmp_path, story)


# Renewal


def test_an_access_token_is_renewed_a_minute_before_it_ends(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        dashboard.clock.advance(839)
        assert await dashboard.parts.renewal.fresh(record) is record
        dashboard.clock.advance(1)
        renewed = await dashboard.parts.renewal.fresh(record)
        assert renewed.session.access_token == "access-1"
        assert dashboard.provider.refreshes == ["refresh-0"]
        assert dashboard.broker.exchanged == ["id-token-1"]
        again = await dashboard.parts.sessions.find(cookie_id)
        assert again is not None
        assert again == renewed
        assert again.refresh_token == "refresh-1"
        assert again.session.csrf == record.session.csrf, "open forms stay good"
        assert again.session.expires == record.session.expires
        assert again.id_token == record.id_token

    tell(tmp_path, story)


def test_a_short_access_token_is_not_renewed_at_each_request(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        dashboard.broker.expires_in = 60
        _, record = await dashboard.session()
        dashboard.clock.advance(44)
        await dashboard.parts.renewal.fresh(record)
        assert dashboard.provider.refreshes == []
        dashboard.clock.advance(1)
        record = await dashboard.parts.renewal.fresh(record)
        await dashboard.parts.renewal.fresh(record)
        assert dashboard.provider.refreshes == ["refresh-0"]

    tell(tmp_path, story)


@pytest.mark.parametrize("late", [False, True], ids=["before its end", "after its end"])
def test_one_renewal_however_many_requests_and_replicas(tmp_path: Path, late: bool) -> None:
    async def story(first: InProcess) -> None:
        second = InProcess(
            tmp_path / "second",
            store=first.store,
            clock=first.clock,
            provider=first.provider,
            broker=first.broker,
            session_key=(tmp_path / "key",),
        )
        assert await second.parts.provider.refresh()
        cookie_id, _ = await first.session()
        first.clock.advance(1000 if late else 850)
        first.provider.refreshing = lambda: asyncio.sleep(0.2)

        async def ask(dashboard: InProcess) -> str:
            record = await dashboard.parts.sessions.find(cookie_id)
            assert record
            return (await dashboard.parts.renewal.fresh(record)).session.access_token

        told = await asyncio.gather(*(ask(each) for each in (first, second) * 10))
        assert first.provider.refreshes == ["refresh-0"]
        assert first.broker.exchanged == ["id-token-1"]
        assert set(told) <= {"access-1"} if late else {"access-0", "access-1"}
        assert await ask(second) == "access-1"

    key = tmp_path / "key"
    key.write_text("a key of at least 32 bytes, for tests alone")
    key.chmod(0o600)
    tell(tmp_path, story, session_key=(key,))


def test_a_refused_renewal_ends_the_session_with_a_plain_page(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        dashboard.clock.advance(850)
        dashboard.provider.refusal = ProviderRefused("invalid_grant", "The session is over.", "")
        answer = await browser.get("/functions")
        assert answer.status_code == 401
        assert "could not be renewed" in answer.text
        assert "The session is over." in answer.text
        assert browser.cookies == {}
        assert (await browser.get("/functions")).status_code == 303

    tell(tmp_path, story)


def test_a_provider_that_is_away_does_not_end_a_session_that_is_still_good(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        dashboard.clock.advance(850)
        dashboard.provider.problem = "It does not answer."
        assert "Alice" in (await browser.get("/")).text
        dashboard.provider.problem = ""
        assert "Alice" in (await browser.get("/")).text
        assert dashboard.provider.refreshes == [], "not again at once"
        dashboard.clock.advance(46)
        assert "Alice" in (await browser.get("/")).text
        assert dashboard.provider.refreshes == ["refresh-0"]

    tell(tmp_path, story)


def test_a_provider_that_stays_away_ends_the_session_with_its_token(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        dashboard.clock.advance(901)
        dashboard.provider.problem = "It does not answer."
        answer = await browser.get("/")
        assert answer.status_code == 401
        assert "It does not answer." in answer.text

    tell(tmp_path, story)


def test_a_broker_that_is_away_loses_no_refresh_token(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        dashboard.clock.advance(850)
        dashboard.broker.status = 503
        dashboard.broker.refusal = {
            "error_description": "Later.", "reason": "state_unavailable", "request_id": "r1"
        }  # fmt: skip
        assert (await dashboard.parts.renewal.fresh(record)).session.access_token == "access-0"
        kept = await dashboard.parts.sessions.find(cookie_id)
        assert kept
        assert kept.refresh_token == "refresh-1", "the old one may be spent"
        dashboard.broker.refusal = None
        dashboard.clock.advance(46)
        assert (await dashboard.parts.renewal.fresh(kept)).session.access_token == "access-1"

    tell(tmp_path, story)


def test_a_broker_that_says_no_ends_the_session(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        dashboard.clock.advance(850)
        dashboard.broker.refusal = {
            "error_description": "No Role admits you.",
            "reason": "no_role_admits",
            "request_id": "r1",
        }
        with pytest.raises(Ended, match="No Role admits you"):
            await dashboard.parts.renewal.fresh(record)
        assert await dashboard.parts.sessions.find(cookie_id) is None

    tell(tmp_path, story)


def test_a_session_that_ends_during_its_renewal_stays_ended(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        dashboard.clock.advance(850)

        async def sign_out() -> None:
            await dashboard.parts.sessions.end(record)

        dashboard.provider.refreshing = sign_out
        with pytest.raises(Ended):
            await dashboard.parts.renewal.fresh(record)
        assert await dashboard.parts.sessions.find(cookie_id) is None
        assert dashboard.provider.revoked == ["refresh-1"], "the new tokens do not live on"

    tell(tmp_path, story)


def test_a_session_that_ended_does_not_go_on_because_its_token_could_not_be_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        dashboard.clock.advance(850)

        async def sign_out() -> None:
            await dashboard.parts.sessions.end(record)

        async def away(_self: object, _token: str) -> bool:
            raise ClientError("The provider is away.")

        dashboard.provider.refreshing = sign_out
        monkeypatch.setattr(type(dashboard.provider), "revoke", away)
        with pytest.raises(Ended):
            await dashboard.parts.renewal.fresh(record)
        assert await dashboard.parts.sessions.find(cookie_id) is None

    tell(tmp_path, story)


def test_a_caller_that_leaves_does_not_stop_a_renewal(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        dashboard.clock.advance(850)
        dashboard.provider.refreshing = lambda: asyncio.sleep(0.1)
        hasty = asyncio.create_task(dashboard.parts.renewal.fresh(record))
        await asyncio.sleep(0.05)
        hasty.cancel()
        await asyncio.gather(hasty, return_exceptions=True)
        await dashboard.parts.renewal.aclose()
        kept = await dashboard.parts.sessions.find(cookie_id)
        assert kept
        assert kept.session.access_token == "access-1"

    tell(tmp_path, story)


def test_a_renewal_that_died_is_made_up_for_later(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        _, record = await dashboard.session()
        dashboard.clock.advance(850)
        # Another process took the hold and was killed.
        hold = f"renews-{record.key}-0"
        assert await dashboard.store.hold(hold, dashboard.clock() + 45)
        assert (await dashboard.parts.renewal.fresh(record)) is record
        dashboard.clock.advance(46)
        renewed = await dashboard.parts.renewal.fresh(record)
        assert renewed.session.access_token == "access-1"

    tell(tmp_path, story)


def test_a_record_of_another_form_is_no_session(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        cookie_id, record = await dashboard.session()
        sessions = dashboard.parts.sessions
        assert await sessions.replace(replace(record, generation=5))
        found = await sessions.find(cookie_id)
        assert found
        assert found.generation == 5
        sealed = sessions._sealer.seal(record.key, {"person": "Alice"})
        await dashboard.store.replace(record.key, sealed, NOW + 60)
        assert await sessions.find(cookie_id) is None

    tell(tmp_path, story)


def test_the_cookie_is_the_sessions_name(tmp_path: Path) -> None:
    async def story(dashboard: InProcess) -> None:
        browser = await dashboard.signed_in()
        assert list(browser.cookies) == [SESSION]
        assert len(browser.cookies[SESSION]) == 43  # 256 bits

    tell(tmp_path, story)
