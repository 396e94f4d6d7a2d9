"""
Sign-in and sign-out at the dashboard, with Keycloak and Chromium, and two replicas on one Redis.

The dashboard is at `dashboard.localhost`, the provider at `127.0.0.1`, and the page of a hostile
function at `fn.dashboard.localhost`, which is the same site as the dashboard. At the end of each
test, the console had no report of the Content-Security-Policy, and no request left this machine.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx2
import pytest

from federation.dashboard.cookies import SESSION, SIGN_IN
from tests.harness.broker import Served
from tests.harness.browser import Person, person_in
from tests.harness.dashboard_server import ServedDashboard, broker_for
from tests.harness.keycloak import SUB, Keycloak
from tests.harness.process import until
from tests.harness.redis import empty_redis, redis_server
from tests.harness.sign_on_parts import DASHBOARD, SECRETS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Stage:
    """Two replicas of one dashboard. Browsers see the first one."""

    keycloak: Keycloak
    broker: Served
    first: ServedDashboard
    second: ServedDashboard

    @property
    def url(self) -> str:
        """The dashboard's address."""
        return self.first.public_url

    def seen_by(self, replica: ServedDashboard, cookie: str) -> str:
        """The start page that *replica* shows to who has this session *cookie*."""
        host = self.url.partition("://")[2]
        headers = {"Host": host, "Cookie": f"{SESSION}={cookie}"}
        answer = httpx2.get(f"{replica.url}/", headers=headers, timeout=30, trust_env=False)
        return answer.text


@pytest.fixture(name="stage", scope="module")
def _stage(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    secret, key = folder / "client-secret", folder / "session-key"
    secret.write_text(SECRETS[DASHBOARD], "utf-8")
    key.write_text("a key of at least 32 bytes, for tests alone", "utf-8")
    for path in (secret, key):
        path.chmod(0o600)
    broker = broker_for(
        folder / "broker", keycloak.issuer, SUB["alice"], SUB["mallory"], client_id=DASHBOARD
    )
    with redis_server(folder / "redis") as redis, broker.running():
        empty_redis(redis)
        first, second = (
            ServedDashboard(
                folder / name,
                gateway=broker.url,
                issuer=keycloak.issuer,
                client_id=DASHBOARD,
                port=port,
                public_url=keycloak.ports.dashboard_url,
                flags={
                    "client-secret-file": secret,
                    "session-key": key,
                    "shared-state": f"redis://127.0.0.1:{redis}/0",
                },
            )
            for name, port in (("first", keycloak.ports.dashboard), ("second", 0))
        )
        with first.running(), second.running():
            for replica in (first, second):
                assert until(lambda r=replica: r.status("/readyz") == 200, 30)  # type: ignore[misc]
            yield Stage(keycloak, broker, first, second)


@contextmanager
def quiet(chromium: Browser) -> Iterator[Person]:
    """A person whose console stays without reports of a Content-Security-Policy."""
    with person_in(chromium) as person:
        yield person
        reports = [line for line in person.errors if "Content Security Policy" in line]
        assert reports == []


def sign_in(person: Person, stage: Stage, name: str = "alice", path: str = "/") -> None:
    person.page.goto(f"{stage.url}/auth/login?to={path}")
    person.sign_in(name)


def cookie_of(person: Person, stage: Stage, name: str = SESSION) -> str:
    """The value of a cookie of the dashboard, empty if there is none."""
    cookies = person.context.cookies(stage.url)
    return next((c["value"] for c in cookies if c["name"] == name), "")


def is_signed_in(text: str) -> bool:
    return "Sign out" in text


def test_a_person_signs_in_and_comes_to_the_page_that_they_wanted(
    chromium: Browser, stage: Stage
) -> None:
    with quiet(chromium) as person:
        person.page.goto(f"{stage.url}/documents")
        assert person.page.url.startswith(stage.keycloak.issuer)
        person.sign_in("alice")
        assert person.page.url == f"{stage.url}/documents"
        assert is_signed_in(person.page.inner_text("body"))
        [session] = [c for c in person.context.cookies(stage.url) if c["name"] == SESSION]
        assert session["secure"]
        assert session["httpOnly"]
        assert session["sameSite"] == "Lax"
        assert session["path"] == "/"
        assert session["domain"] == "dashboard.localhost"
        assert not cookie_of(person, stage, SIGN_IN)
        for replica in (stage.first, stage.second):
            assert is_signed_in(stage.seen_by(replica, session["value"]))


def test_who_no_role_admits_reads_why(chromium: Browser, stage: Stage) -> None:
    with quiet(chromium) as person:
        sign_in(person, stage, "bob")
        text = person.page.inner_text("body")
        assert "No policies found for subject" in text
        assert "Request id of the broker" in text
        assert person.page.url == f"{stage.url}/auth/refused", "no code stays in the history"
        assert not cookie_of(person, stage)


def test_a_name_that_is_markup_is_text(chromium: Browser, stage: Stage) -> None:
    with quiet(chromium) as person:
        sign_in(person, stage, "mallory")
        assert is_signed_in(person.page.inner_text("body"))
        assert person.page.query_selector("img") is None


def test_signing_out_here_ends_it_on_both_replicas_and_at_the_provider(
    chromium: Browser, stage: Stage
) -> None:
    with quiet(chromium) as person:
        sign_in(person, stage)
        cookie, before = cookie_of(person, stage), stage.keycloak.sessions("alice")
        person.page.click("text=Sign out")
        person.page.wait_for_url(f"{stage.url}/auth/signed-out")
        assert "Signed out" in person.page.inner_text("h1")
        assert not cookie_of(person, stage)
        for replica in (stage.first, stage.second):
            assert not is_signed_in(stage.seen_by(replica, cookie))
        assert stage.keycloak.sessions("alice") == before - 1
        person.page.goto(f"{stage.url}/auth/login")
        assert person.page.url.startswith(stage.keycloak.issuer), "the provider asks again"


def test_an_administrators_logout_ends_it_on_both_replicas(chromium: Browser, stage: Stage) -> None:
    with quiet(chromium) as person:
        sign_in(person, stage)
        cookie = cookie_of(person, stage)
        stage.keycloak.sign_out("alice")

        def is_over() -> bool:
            pages = [stage.seen_by(replica, cookie) for replica in (stage.first, stage.second)]
            return not any(map(is_signed_in, pages))

        assert until(is_over, 15)
        person.page.goto(f"{stage.url}/documents")
        assert person.page.url.startswith(stage.keycloak.issuer)


def test_signing_out_at_the_provider_ends_it_here(chromium: Browser, stage: Stage) -> None:
    with quiet(chromium) as person:
        sign_in(person, stage)
        cookie = cookie_of(person, stage)
        person.page.goto(f"{stage.keycloak.issuer}/protocol/openid-connect/logout")
        person.page.click("#kc-logout")
        assert until(lambda: not is_signed_in(stage.seen_by(stage.second, cookie)), 15)
        assert not is_signed_in(stage.seen_by(stage.first, cookie))


def test_a_session_outlives_its_access_token(chromium: Browser, stage: Stage) -> None:
    """A refresh at the real provider, once, by whichever replica is asked."""
    documents = stage.broker.documents / "all.yaml"
    before = documents.read_text("utf-8")
    documents.write_text(before.replace('"clients"', '"tokenExpiry": "1m", "clients"'), "utf-8")
    try:
        stage.broker.send(signal.SIGHUP)
        with quiet(chromium) as person:
            refreshed = stage.first.output().count("session renewed")
            refreshed += stage.second.output().count("session renewed")
            assert until(lambda: _short(stage, person), 30)
            cookie = cookie_of(person, stage)

            def renewed() -> bool:
                for replica in (stage.first, stage.second):
                    assert is_signed_in(stage.seen_by(replica, cookie))
                outputs = stage.first.output() + stage.second.output()
                return outputs.count("session renewed") > refreshed

            assert until(renewed, 70)
    finally:
        documents.write_text(before, "utf-8")


def _short(stage: Stage, person: Person) -> bool:
    sign_in(person, stage)
    return bool(cookie_of(person, stage))


# A hostile page on a sibling host


@dataclass
class Sibling:
    """A page of a function beside the dashboard, and the cookies that reached it."""

    url: str = ""
    page: str = ""
    cookies: list[str] = field(default_factory=list)


@contextmanager
def sibling() -> Iterator[Sibling]:
    """Serve the page at `fn.dashboard.localhost`, which tosses cookies at the whole domain."""
    hostile = Sibling()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hostile.cookies.append(self.headers.get("Cookie", ""))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            for cookie in (
                f"{SESSION}=tossed; Domain=dashboard.localhost; Path=/; Secure",
                f"{SESSION}=tossed; Path=/; Secure; Domain=.dashboard.localhost",
                "federation=tossed; Domain=dashboard.localhost; Path=/",
            ):
                self.send_header("Set-Cookie", cookie)
            self.end_headers()
            self.wfile.write(hostile.page.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hostile.url = f"http://fn.dashboard.localhost:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hostile
        finally:
            server.shutdown()


def test_a_function_beside_the_dashboard_can_neither_post_nor_frame_nor_read(
    chromium: Browser, stage: Stage
) -> None:
    with person_in(chromium) as person, sibling() as hostile:
        sign_in(person, stage)
        cookie = cookie_of(person, stage)
        csrf = person.page.get_attribute("input[name=csrf]", "value")
        hostile.page = f"""<!doctype html><title>fn</title>
            <iframe id=frame src="{stage.url}/"></iframe>
            <form id=form method=post action="{stage.url}/auth/logout">
            <input name=csrf value="{csrf}"></form>"""
        person.page.goto(hostile.url)
        read = person.page.evaluate(
            """async url => { try { const answer = await fetch(url, {credentials: 'include'});
            return await answer.text() } catch (error) { return 'refused' } }""",
            f"{stage.url}/",
        )
        assert read == "refused"
        framed = person.page.frames[-1]
        assert framed == person.page.main_frame or "Sign out" not in framed.content()
        with person.page.expect_navigation():
            person.page.evaluate("document.getElementById('form').submit()")
        assert urlsplit(person.page.url).path == "/auth/logout"
        assert "not sent from a page of this dashboard" in person.page.inner_text("body")
        # The cookie was neither sent to the sibling nor tossed over.
        assert all(cookie not in sent for sent in hostile.cookies)
        person.page.goto(f"{stage.url}/")
        assert cookie_of(person, stage) == cookie
        assert is_signed_in(person.page.inner_text("body"))


def test_the_answer_to_another_browsers_sign_in_signs_nobody_in(
    chromium: Browser, stage: Stage
) -> None:
    with quiet(chromium) as mallory, quiet(chromium) as victim:
        mallory.page.goto(f"{stage.url}/auth/login")
        # Without the cookie, Mallory's answer is not used up.
        mallory.context.clear_cookies(name=SIGN_IN)
        mallory.sign_in("mallory")
        answers = [url for url in mallory.asked if urlsplit(url).path == "/auth/callback"]
        victim.page.goto(f"{stage.url}/auth/login")
        victim.page.goto(answers[0])
        assert victim.page.url == f"{stage.url}/auth/refused"
        assert "does not belong" in victim.page.inner_text("body")
        assert not cookie_of(victim, stage)
