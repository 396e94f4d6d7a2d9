"""The providers and the browser of the sign-on tests are real ones: each signs Alice in."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest

from tests.harness import headless_sign_in
from tests.harness.browser import Person, browser_command, last_page
from tests.harness.keycloak import SUB, Keycloak, keycloak_running
from tests.harness.oidc_provider import OidcProvider, oidc_provider_running
from tests.harness.process import until
from tests.harness.sign_on_parts import CLI, DASHBOARD, IMPLICIT, MARKUP, PEOPLE, ROBOT, SECRETS

pytestmark = pytest.mark.e2e

Provider = Keycloak | OidcProvider
S256 = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
"""The challenge and the verifier of RFC 7636, appendix B."""
# Keycloak asks for PKCE in the device flow too, where the client must use it.
DEVICE = {
    "client_id": CLI,
    "scope": "openid",
    "code_challenge": S256,
    "code_challenge_method": "S256",
}
GRANT = {
    "client_id": CLI,
    "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
    "code_verifier": VERIFIER,
}


@pytest.fixture(name="provider", params=["keycloak", "oidc_provider"])
def _provider(request: pytest.FixtureRequest) -> Provider:
    provider: Provider = request.getfixturevalue(request.param)
    return provider


def payload(token: str) -> dict[str, Any]:
    """The claims of a token, which is not verified."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def metadata(provider: Provider) -> dict[str, Any]:
    """The provider's metadata."""
    found: dict[str, Any] = httpx2.get(
        f"{provider.issuer}/.well-known/openid-configuration", timeout=60, trust_env=False
    ).json()
    return found


def post(address: str, **form: str) -> dict[str, Any]:
    """The JSON with which an endpoint of a provider answers to a form."""
    answer = httpx2.post(address, data=form, timeout=60, trust_env=False)
    found: dict[str, Any] = answer.raise_for_status().json() if answer.content else {}
    return found


def authorization(provider: Provider, **changes: str) -> str:
    """The address at which a person signs in for the command line."""
    asked = {
        "client_id": CLI,
        "response_type": "code",
        "redirect_uri": provider.ports.callback_url,
        "scope": "openid profile email",
        "state": "some-state",
        "nonce": "some-nonce",
        "code_challenge": S256,
        "code_challenge_method": "S256",
        **changes,
    }
    return f"{metadata(provider)['authorization_endpoint']}?{urlencode(asked)}"


@contextmanager
def listening(port: int, path: str = "/oauth/callback") -> Iterator[list[dict[str, list[str]]]]:
    """Listen as a client does, and yield the queries and forms that come to *path*."""
    got: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers["content-length"])).decode())

        def answer(self, query: str) -> None:
            if urlsplit(self.path).path == path:
                got.append(parse_qs(query))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<title>ok</title>You are signed in.")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield got
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("name", PEOPLE)
def test_everybody_signs_in_by_form_posts(provider: Provider, name: str) -> None:
    scope = "openid profile email" + (" groups" if isinstance(provider, OidcProvider) else "")
    tokens = headless_sign_in.sign_in(
        provider.issuer, provider.ports.callback_url, name, scope=scope
    )
    claims = payload(tokens["id_token"])
    assert claims["iss"] == provider.issuer
    assert claims["aud"] == CLI
    assert claims["sub"] == (SUB[name] if isinstance(provider, Keycloak) else name)
    assert claims["email_verified"] is (name == "alice")
    assert (MARKUP in claims["groups"][0]) is (MARKUP in claims["name"]) is (name == "mallory")


def test_a_refresh_token_is_good_once(provider: Provider) -> None:
    tokens = headless_sign_in.sign_in(
        provider.issuer,
        provider.ports.callback_url,
        scope="openid offline_access",
        prompt="consent",
    )
    ask = {"grant_type": "refresh_token", "client_id": CLI}
    endpoint = metadata(provider)["token_endpoint"]
    first, old = post(endpoint, refresh_token=tokens["refresh_token"], **ask), tokens
    assert first["refresh_token"] != old["refresh_token"]
    with pytest.raises(httpx2.HTTPStatusError):
        post(endpoint, refresh_token=old["refresh_token"], **ask)


def test_a_device_is_approved_elsewhere(provider: Provider) -> None:
    found = metadata(provider)
    asked = post(found["device_authorization_endpoint"], **DEVICE)
    headless_sign_in.open_as("alice", asked["verification_uri_complete"])
    tokens = post(found["token_endpoint"], device_code=asked["device_code"], **GRANT)
    assert payload(tokens["id_token"])["aud"] == CLI


def test_a_device_is_approved_in_chromium(provider: Provider, person: Person) -> None:
    found = metadata(provider)
    asked = post(found["device_authorization_endpoint"], **DEVICE)
    person.page.goto(asked["verification_uri_complete"])
    person.sign_in("bob")
    form = {"device_code": asked["device_code"], **GRANT}
    assert "id_token" in post(found["token_endpoint"], **form)


def test_a_robot_has_an_access_token(provider: Provider) -> None:
    form = {"grant_type": "client_credentials", "client_secret": SECRETS[ROBOT]}
    assert "access_token" in post(metadata(provider)["token_endpoint"], client_id=ROBOT, **form)


def test_a_person_signs_in_in_chromium(provider: Provider, person: Person) -> None:
    with listening(provider.ports.callback) as got:
        person.page.goto(authorization(provider))
        person.sign_in("alice")
        assert got[0]["state"] == ["some-state"]
        # The second time, the provider knows who it is.
        person.page.goto(authorization(provider, state="again"))
        person.sign_in("alice")
        assert got[1]["state"] == ["again"]


def test_the_implicit_flow_puts_the_token_into_the_fragment(
    provider: Provider, person: Person
) -> None:
    with listening(provider.ports.callback):
        changes = {"client_id": IMPLICIT, "response_type": "id_token"}
        person.page.goto(authorization(provider, **changes))
        person.sign_in("alice")
        [token] = parse_qs(urlsplit(person.page.url).fragment)["id_token"]
        assert payload(token)["nonce"] == "some-nonce"


@pytest.mark.parametrize("headless", [False, True], ids=["chromium", "headless"])
def test_an_unmodified_command_line_opens_the_browser(
    oidc_provider: OidcProvider, tmp_path: Path, headless: bool
) -> None:
    command = browser_command(tmp_path, headless=headless)
    with listening(oidc_provider.ports.callback) as got:
        words = shlex.split(command.replace("%s", shlex.quote(authorization(oidc_provider))))
        subprocess.run(words, check=True, timeout=10)  # noqa: S603  our own words
        assert ("You are signed in" in last_page(tmp_path)) is not headless
        assert "code" in got[0]


def test_an_administrator_ends_sessions_and_the_dashboard_is_told(keycloak: Keycloak) -> None:
    ports = keycloak.ports
    with listening(ports.dashboard, "/auth/backchannel-logout") as told:
        headless_sign_in.sign_in(
            keycloak.issuer,
            f"{ports.dashboard_url}/auth/callback",
            "bob",
            client_id=DASHBOARD,
            client_secret=SECRETS[DASHBOARD],
        )
        assert keycloak.sessions("bob")
        keycloak.sign_out("bob")
        assert until(lambda: bool(told), 10)
    claims = payload(told[0]["logout_token"][0])
    assert claims["sub"] == SUB["bob"]
    assert "http://schemas.openid.net/event/backchannel-logout" in claims["events"]
    assert keycloak.sessions("bob") == 0


def test_a_person_who_was_disabled_cannot_sign_in(keycloak: Keycloak) -> None:
    keycloak.change_person("bob", enabled=False)
    try:
        with pytest.raises(headless_sign_in.NotSignedIn):
            headless_sign_in.sign_in(keycloak.issuer, keycloak.ports.callback_url, "bob")
    finally:
        keycloak.change_person("bob", enabled=True)


def test_a_client_can_be_changed(keycloak: Keycloak) -> None:
    elsewhere = "http://127.0.0.1:4711/oauth/callback"
    with pytest.raises(headless_sign_in.NotSignedIn, match="redirect_uri"):
        headless_sign_in.sign_in(keycloak.issuer, elsewhere)
    [before] = keycloak.ask("GET", f"/clients?clientId={CLI}")
    keycloak.change_client(CLI, redirectUris=[elsewhere])
    try:
        assert headless_sign_in.sign_in(keycloak.issuer, elsewhere)["id_token"]
    finally:
        keycloak.change_client(CLI, redirectUris=before["redirectUris"])


def test_a_browser_that_leaves_this_machine_is_caught(person: Person) -> None:
    person.page.set_content('<img src="http://192.0.2.1/pixel"><img src="http://example.com/">')
    for _ in range(100):
        if len(person.left) < 2:
            person.page.wait_for_timeout(50)
    assert len(person.left) == 2
    person.left.clear()


def test_claims_may_stand_at_the_userinfo_endpoint_only(tmp_path: Path) -> None:
    with oidc_provider_running(tmp_path / "home", claims_in_id_token=False) as provider:
        tokens = headless_sign_in.sign_in(provider.issuer, provider.ports.callback_url)
        assert "email" not in payload(tokens["id_token"])
    assert provider.exit_code is not None


def test_a_keycloak_of_ones_own_begins_anew(tmp_path: Path) -> None:
    with keycloak_running(tmp_path / "home") as keycloak:
        assert keycloak.sessions("alice") == 0
    assert keycloak.exit_code is not None
