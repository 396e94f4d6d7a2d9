"""
`federation login` at a real Keycloak and a real oidc-provider, with Chromium as the browser.

Each way to sign in goes through the command line, a real provider and a real broker. At the end,
the broker gets each other token of those providers in the place of an ID token.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.harness import documents
from tests.harness.broker import Served
from tests.harness.browser import browser_command, last_page
from tests.harness.headless_sign_in import open_as, sign_in
from tests.harness.keycloak import SUB, Keycloak
from tests.harness.oidc_provider import OidcProvider
from tests.harness.person import Person, ended, finished
from tests.harness.process import free_port, until
from tests.harness.sign_on_parts import CLI, CONFIDENTIAL, DASHBOARD, IMPLICIT, ROBOT, SECRETS

GATEWAY = "https://gateway.example.com"
"""The audience that Keycloak gives to the robot's tokens."""

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Place:
    """Alice, who signs in at a provider for a gateway."""

    alice: Person
    words: tuple[str, ...]
    """The options of a first login, with a refresh token."""
    browser: Path
    broker: Served
    provider: Keycloak | OidcProvider

    def secret(self, client_id: str) -> str:
        """The path of a file with a client's secret."""
        path = self.alice.home / f"{client_id}-secret"
        path.touch(0o600)
        path.write_text(SECRETS[client_id], "utf-8")
        return str(path)


def _documents(iss: str, sub: str, provider: str) -> str:
    clients = [CLI, CONFIDENTIAL, IMPLICIT]
    spec = {"iss": iss, "clients": clients, "provider": provider, "tokenExpiry": "15m"}
    condition = {"StringEqual": {"jwt:iss": [iss], "jwt:sub": [sub]}}
    return documents.as_text(
        documents.document("JwtIssuer", "people", spec),
        documents.DEPLOY,
        documents.document("Role", "alice", {"policy": ["deploy"], "condition": condition}),
    )


@pytest.fixture(params=["keycloak", "oidc_provider"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each provider, and a broker that takes its people."""
    provider: Keycloak | OidcProvider = request.getfixturevalue(request.param)
    keycloak = isinstance(provider, Keycloak)
    sub, kind = (SUB["alice"], "keycloak") if keycloak else ("alice", "generic")
    broker = Served(tmp_path / "broker", _documents(provider.issuer, sub, kind), port=free_port())
    with broker.running():
        alice = Person(tmp_path, broker.url, provider.issuer)
        alice.port = provider.ports.callback
        alice.environ["BROWSER"] = browser_command(tmp_path / "browser")
        # Keycloak gives a refresh token to everybody. The other asks the person for consent.
        more = () if keycloak else ("--scope", "openid email offline_access", "--prompt", "consent")
        words = (*alice.settings(CLI), *more)
        yield Place(alice, words, tmp_path / "browser", broker, provider)


def test_a_person_signs_in_stays_signed_in_and_signs_out(place: Place) -> None:
    alice = place.alice
    began = time.monotonic()
    ended = alice.run("login", *place.words)
    assert ended.returncode == 0, ended.stderr
    assert "as alice@example.com." in ended.stderr
    assert "policies  deploy" in ended.stderr
    assert time.monotonic() - began < 60
    page = last_page(place.browser)
    assert "/oauth/done" in page
    assert "code=" not in page.splitlines()[0]

    first = alice.session
    assert len(first.refresh_tokens) == 1
    for _ in range(2):  # the refresh token rotates
        alice.sessions.save(replace(alice.session, access_expires=time.time() - 1))
        printed = [finished(each) for each in [alice.start("token") for _ in range(3)]]
        (token,) = {each.stdout.strip() for each in printed}
        assert token == alice.saved_token() != first.access_token

    assert "Allow deploy/s0" in alice.done("whoami")

    last = alice.session
    signed_out = alice.run("logout", "--no-browser")
    assert signed_out.returncode == 0, signed_out.stderr
    assert "logout" in signed_out.stderr or "session/end" in signed_out.stderr
    assert alice.saved_token() == ""
    # The refresh token is dead at the provider.
    alice.sessions.save(replace(last, access_expires=time.time() - 1))
    assert "is over" in alice.refused("token")


def test_without_a_browser_another_device_signs_in_and_it_says_why(place: Place) -> None:
    alice = place.alice
    with ended(alice.start("login", *alice.settings(CLI), BROWSER="", CI="true")) as login:
        assert login.stderr is not None
        told = ""
        while not (found := re.search(r"Or open (\S+), and compare the code", told)):
            line = login.stderr.readline()
            assert line, told
            told += line
        assert open_as("alice", found[1]) == 200
        _, rest = login.communicate(timeout=90)
    assert login.returncode == 0, told + rest
    assert "No browser can be opened here. This is a CI job (CI is set)." in told
    assert "as alice@example.com." in rest
    assert alice.session.grant == "device"
    assert "Allow deploy/s0" in alice.done("whoami")


def test_a_person_signs_in_by_the_implicit_flow(place: Place) -> None:
    alice = place.alice
    login = alice.run("login", *alice.settings(IMPLICIT), "--grant", "implicit")
    assert login.returncode == 0, login.stderr
    assert "Warning: with the implicit flow" in login.stderr
    page = last_page(place.browser)
    assert "/oauth/done" in page
    assert "id_token" not in page
    assert alice.session.refresh_tokens == ()
    assert "Allow deploy/s0" in alice.done("whoami")


@pytest.mark.parametrize("grant", ["code", "device"])
def test_a_confidential_client_signs_a_person_in_with_pkce(place: Place, grant: str) -> None:
    """Both providers refuse a sign-in of this client without PKCE."""
    alice = place.alice
    words = [*alice.settings(CONFIDENTIAL), *place.words[len(alice.settings(CLI)) :]]
    secret = place.secret(CONFIDENTIAL)
    with ended(
        alice.start("login", *words, "--client-secret-file", secret, "--grant", grant)
    ) as login:
        assert login.stderr is not None
        if grant == "device":
            for line in login.stderr:
                if found := re.search(r"Or open (\S+), and compare the code", line):
                    assert open_as("alice", found[1]) == 200
                    break
        _, told = login.communicate(timeout=90)
    assert login.returncode == 0, told
    assert "as alice@example.com." in told
    assert SECRETS[CONFIDENTIAL] not in told
    # A renewal sends the secret again.
    first = alice.session
    alice.sessions.save(replace(first, access_expires=time.time() - 1))
    assert alice.done("token") == alice.saved_token() != first.access_token


def test_a_confidential_client_without_its_secret_signs_nobody_in(place: Place) -> None:
    alice = place.alice
    told = alice.refused(
        "login", *alice.settings(CONFIDENTIAL), BROWSER=place.alice.environ["BROWSER"]
    )
    assert alice.sessions.known_gateways() == []
    assert "client" in told


def test_a_taken_port_is_told_and_a_second_login_within_seconds_works(place: Place) -> None:
    alice = place.alice
    alice.environ["BROWSER"] = browser_command(place.browser, headless=True)
    with socket.create_server(("127.0.0.1", alice.port)):
        assert f"Port {alice.port} of this machine is taken." in alice.refused(
            "login", *alice.settings(CLI)
        )
    for _ in range(2):
        alice.done("login", *alice.settings(CLI))
        assert alice.saved_token()


# The client itself


def _robot_documents(iss: str, provider: str) -> str:
    spec = {"iss": iss, "aud": [GATEWAY], "provider": provider, "authorizedParties": [ROBOT]}
    condition = {"StringEqual": {"jwt:iss": [iss], "jwt:azp": [ROBOT]}}
    return documents.as_text(
        documents.document("JwtIssuer", "robots", spec),
        documents.DEPLOY,
        documents.document("Role", "robot", {"policy": ["deploy"], "condition": condition}),
    )


@pytest.mark.parametrize("place", ["keycloak"], indirect=True)
def test_a_client_signs_in_itself_and_again_when_its_token_ends(
    place: Place, tmp_path: Path
) -> None:
    documents_of_robots = _robot_documents(place.provider.issuer, "keycloak")
    robots = Served(tmp_path / "robots", documents_of_robots, port=free_port())
    with robots.running():
        robot = Person(tmp_path / "robot", robots.url, place.provider.issuer)
        words = [*robot.settings(ROBOT), "--grant", "client-credentials"]
        robot.done("login", *words, "--client-secret-file", place.secret(ROBOT))
        assert "Allow deploy/s0" in robot.done("whoami")
        first = robot.session
        assert first.grant == "client-credentials"
        robot.sessions.save(replace(first, access_expires=time.time() - 1))
        assert robot.done("token") == robot.saved_token() != first.access_token


@pytest.mark.parametrize("place", ["oidc_provider"], indirect=True)
def test_a_client_whose_token_is_opaque_is_told(place: Place) -> None:
    words = [*place.alice.settings(ROBOT), "--grant", "client-credentials"]
    told = place.alice.refused("login", *words, "--client-secret-file", place.secret(ROBOT))
    assert "opaque" in told


# Tokens in the place of the ID token, at the broker


def test_no_other_token_is_exchanged(place: Place) -> None:
    provider = place.provider
    keycloak = isinstance(provider, Keycloak)
    callback = f"http://127.0.0.1:{provider.ports.dashboard}/auth/callback"
    scope = "openid profile email offline_access"
    own = sign_in(provider.issuer, provider.ports.callback_url, scope=scope, prompt="consent")
    foreign = sign_in(
        provider.issuer, callback, client_id=DASHBOARD, client_secret=SECRETS[DASHBOARD]
    )
    given = {
        "access token": own["access_token"],
        "refresh token": own["refresh_token"],
        "ID token of another client": foreign["id_token"],
    }
    answers = {kind: place.broker.exchange(token) for kind, token in given.items()}
    assert {answer.status_code for answer in answers.values()} == {400}
    assert {kind: answer.json()["reason"] for kind, answer in answers.items()} == {
        "access token": "wrong_audience" if keycloak else "malformed_token",
        "refresh token": "unsupported_algorithm" if keycloak else "malformed_token",
        "ID token of another client": "wrong_audience",
    }
    assert place.broker.exchange(own["id_token"]).status_code == 200


@pytest.mark.parametrize("place", ["keycloak"], indirect=True)
def test_a_logout_token_is_not_exchanged(place: Place, tmp_path: Path) -> None:
    keycloak = place.provider
    assert isinstance(keycloak, Keycloak)
    people = _documents(keycloak.issuer, SUB["alice"], "keycloak").replace(CONFIDENTIAL, DASHBOARD)
    broker = Served(tmp_path / "people", people, port=free_port())
    with told_of_logouts(keycloak.ports.dashboard) as told, broker.running():
        callback = f"http://127.0.0.1:{keycloak.ports.dashboard}/auth/callback"
        sign_in(keycloak.issuer, callback, client_id=DASHBOARD, client_secret=SECRETS[DASHBOARD])
        keycloak.sign_out("alice")
        assert until(lambda: bool(told), 30)
        answer = broker.exchange(told[0])
    assert (answer.status_code, answer.json()["reason"]) == (400, "wrong_token_type")


@contextmanager
def told_of_logouts(port: int) -> Iterator[list[str]]:
    """Listen where the dashboard does, and yield the logout tokens that come there."""
    told: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            told.append(form["logout_token"][0])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            server.shutdown()
            thread.join()
