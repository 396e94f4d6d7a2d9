"""The dashboard as a process, with a real broker and a provider on real ports."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from federation.dashboard.cookies import SESSION
from tests.harness.broker import Served
from tests.harness.dashboard_server import ServedDashboard, WebBrowser, broker_for, browsing
from tests.harness.openid_provider import FakeProvider, served
from tests.harness.process import free_port, until
from tests.harness.redis import empty_redis, redis_server

KEY = "a key of at least 32 bytes, for tests alone"


@pytest.fixture(name="provider", scope="module")
def _provider() -> Iterator[FakeProvider]:
    with served(clock=time.time) as provider:
        yield provider


@pytest.fixture(name="broker", scope="module")
def _broker(provider: FakeProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    broker = broker_for(tmp_path_factory.mktemp("broker"), provider.iss, "alice")
    with broker.running():
        yield broker


@pytest.fixture(name="browser")
def _browser(provider: FakeProvider) -> Iterator[WebBrowser]:
    provider.person = "alice"
    with browsing() as browser:
        yield browser


def key_file(folder: Path, name: str = "session-key", content: str = KEY) -> Path:
    path = folder / name
    path.write_text(content)
    path.chmod(0o600)
    return path


def is_ready(dashboard: ServedDashboard) -> bool:
    return dashboard.status("/readyz") == 200


def test_a_person_signs_in_works_and_signs_out(
    tmp_path: Path, provider: FakeProvider, broker: Served, browser: WebBrowser
) -> None:
    dashboard = ServedDashboard(tmp_path, gateway=broker.url, issuer=provider.iss)
    with dashboard.running():
        assert dashboard.listening["mode"] == "dashboard"
        assert until(lambda: is_ready(dashboard), 10)
        page = browser.get(f"{dashboard.public_url}/functions")
        assert page.status_code in {200, 404}, page.text
        page = browser.get(f"{dashboard.public_url}/")
        assert "alice@example.com" in page.text
        assert page.status_code == 200
        before = len(provider.revoked)
        answer = browser.post(f"{dashboard.public_url}/auth/logout", {"csrf": browser.csrf(page)})
        assert answer.url.path == "/realms/octo/logout"
        assert answer.url.params["post_logout_redirect_uri"] == (
            f"{dashboard.public_url}/auth/signed-out"
        )
        assert answer.url.params["id_token_hint"].count(".") == 2
        assert len(provider.revoked) == before + 1
        assert "alice" not in browser.get(f"{dashboard.public_url}/").text
        assert dashboard.stop() == 0
    log = dashboard.output()
    assert '"event":"signed in"' in log
    assert '"event":"signed out"' in log
    for secret in (*provider.used_codes, *provider.revoked, "eyJ"):
        assert secret not in log
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"state.db", "session-key"} <= set(modes)


def test_who_no_role_admits_reads_the_brokers_sentence(
    tmp_path: Path, provider: FakeProvider, broker: Served, browser: WebBrowser
) -> None:
    provider.person = "bob"
    dashboard = ServedDashboard(tmp_path, gateway=broker.url, issuer=provider.iss)
    with dashboard.running():
        assert until(lambda: is_ready(dashboard), 10)
        page = browser.get(f"{dashboard.public_url}/auth/login")
        assert page.status_code == 403
        assert "No policies found for subject" in page.text
        assert "Request id of the broker" in page.text
        assert page.url.path == "/auth/refused"
        assert SESSION not in browser.cookies[page.request.headers["host"]]
    request_id = page.text.partition("Request id of the broker: ")[2].partition(".")[0]
    assert request_id in broker.log.read_text()


def test_sessions_survive_a_restart_and_a_rotation_of_keys(
    tmp_path: Path, provider: FakeProvider, broker: Served, browser: WebBrowser
) -> None:
    old = key_file(tmp_path, "old")
    dashboard = ServedDashboard(
        tmp_path, gateway=broker.url, issuer=provider.iss, flags={"session-key": old}
    )
    with dashboard.running():
        assert until(lambda: is_ready(dashboard), 10)
        browser.get(f"{dashboard.public_url}/auth/login")
        assert "alice" in browser.get(f"{dashboard.public_url}/").text
        dashboard.stop()
        new = key_file(tmp_path, "new", KEY[::-1])
        dashboard.command += [f"--session-key={new}"]
        dashboard.start()
        assert "alice" in browser.get(f"{dashboard.public_url}/").text
        # The old key goes: what it sealed is nothing any more.
        old.write_text(KEY[::-1])
        dashboard.send(signal.SIGHUP)
        assert until(lambda: "session keys changed" in dashboard.output(), 10)
        assert "alice" not in browser.get(f"{dashboard.public_url}/").text


def test_it_starts_without_its_provider_and_finds_it_later(
    tmp_path: Path, broker: Served, browser: WebBrowser
) -> None:
    port = free_port()
    dashboard = ServedDashboard(
        tmp_path, gateway=broker.url, issuer=f"http://127.0.0.1:{port}/realms/octo"
    )
    with dashboard.running():
        assert dashboard.status("/livez") == 200
        assert json.loads(dashboard.get("/readyz")[1]) == {"status": "unavailable"}
        assert dashboard.status("/readyz") == 503
        page = browser.get(f"{dashboard.public_url}/auth/login")
        assert page.status_code == 503
        assert "identity provider does not answer" in page.text


def test_two_replicas_share_their_sessions(
    tmp_path: Path, provider: FakeProvider, broker: Served, browser: WebBrowser
) -> None:
    with redis_server(tmp_path / "redis") as port:
        empty_redis(port)
        key = key_file(tmp_path)
        shared: dict[str, str | Path] = {
            "session-key": key,
            "shared-state": f"redis://127.0.0.1:{port}/0",
        }
        first = ServedDashboard(
            tmp_path / "first", gateway=broker.url, issuer=provider.iss, flags=shared
        )
        second = ServedDashboard(
            tmp_path / "second",
            gateway=broker.url,
            issuer=provider.iss,
            public_url=first.public_url,
            flags=shared,
        )
        with first.running(), second.running():
            assert until(lambda: is_ready(first) and is_ready(second), 10)
            browser.get(f"{first.public_url}/auth/login")
            host = first.public_url.partition("://")[2]
            headers = {
                "Host": host,
                "Cookie": f"{SESSION}={browser.cookies[host][SESSION]}",
            }
            assert "alice" in httpx2.get(f"{second.url}/", headers=headers).text
            token = provider.logout_token(sid=None, jti="over")
            told = httpx2.post(
                f"{second.url}/auth/backchannel-logout", data={"logout_token": token}
            )
            assert told.status_code == 200, told.text
            again = httpx2.post(
                f"{first.url}/auth/backchannel-logout", data={"logout_token": token}
            )
            assert again.status_code == 400
            assert "alice" not in browser.get(f"{first.public_url}/").text
            forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
            told = httpx2.post(
                f"{first.url}/auth/backchannel-logout", data={"logout_token": forged}
            )
            assert told.status_code == 400


def test_the_client_secret_comes_from_a_file_and_is_nowhere_else(
    tmp_path: Path, broker: Served, browser: WebBrowser
) -> None:
    with served(clock=time.time, secrets={"openfaas": "the-secret"}) as provider:
        secret = key_file(tmp_path, "client-secret", "another-secret\n")
        own = broker_for(tmp_path / "broker", provider.iss, "alice")
        with own.running():
            dashboard = ServedDashboard(
                tmp_path / "dashboard",
                gateway=own.url,
                issuer=provider.iss,
                flags={"client-secret-file": secret},
            )
            with dashboard.running():
                assert until(lambda: is_ready(dashboard), 10)
                page = browser.get(f"{dashboard.public_url}/auth/login")
                assert "invalid_client" in page.text
                secret.write_text("the-secret\n")
                dashboard.send(signal.SIGHUP)
                assert until(lambda: "client secret changed" in dashboard.output(), 10)

                def signs_in() -> bool:
                    return "alice" in browser.get(f"{dashboard.public_url}/auth/login").text

                assert until(signs_in, 10)
                for name in ("cmdline", "environ"):
                    shown = Path(f"/proc/{dashboard.pid}/{name}").read_bytes()
                    assert b"the-secret" not in shown
            assert "the-secret" not in dashboard.log.read_text()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    key.chmod(0o644)
    dashboard = ServedDashboard(
        tmp_path,
        gateway="http://127.0.0.1:1",
        issuer="https://sso.example.com",
        flags={"session-key": key},
    )
    dashboard.spawn()
    assert dashboard.ended(30) == 2
    assert "chmod 600" in dashboard.output()
