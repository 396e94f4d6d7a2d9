"""`federation login`, `token`, `whoami` and `logout`, as programs, against a real broker."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from federation.cli.fed import fed
from federation.sign_on.sessions import SignInSettings
from tests.harness import documents
from tests.harness.broker import Served, said
from tests.harness.certificates import Authority
from tests.harness.openid_provider import CLIENT_ID
from tests.harness.person import Person, ended, finished
from tests.harness.process import free_port, in_thread, until
from tests.harness.raw_server import http_answer, raw_server, serving
from tests.harness.served_provider import (
    CONFIDENTIAL,
    SECRET,
    ServedProvider,
    people,
    served_provider,
)


@pytest.fixture(scope="module")
def running() -> Iterator[ServedProvider]:
    with served_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: ServedProvider) -> ServedProvider:
    running.renew()
    return running


@pytest.fixture(scope="module")
def broker(running: ServedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A broker that publishes how people sign in."""
    served = Served(
        tmp_path_factory.mktemp("broker"),
        people(running.iss),
        f"--sign-in-issuer={running.iss}",
        f"--sign-in-client-id={CLIENT_ID}",
        "--sign-in-scopes=openid groups",
        "--failed-exchanges=0",
        port=free_port(),
    )
    with served.running():
        # It then has fetched the provider's keys, so later requests are those of the person.
        assert until(lambda: httpx2.get(f"{served.url}/readyz").status_code == 200, 20)
        yield served


@pytest.fixture
def alice(tmp_path: Path, broker: Served, provider: ServedProvider) -> Person:
    return Person(tmp_path, broker.url, provider.iss)


@pytest.fixture
def signed_in(alice: Person) -> Person:
    """Alice, who has signed in."""
    alice.done("login", *alice.settings())
    return alice


def lives(broker: Served, token: str) -> bool:
    """Whether the broker takes *token*."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.get(f"{broker.url}/federation/v1/whoami", headers=headers).status_code == 200


def expire(person: Person) -> None:
    """Have the person's access token expire."""
    person.sessions.save(replace(person.session, access_expires=time.time() - 1))


# login


def test_a_person_needs_the_gateways_url_and_nothing_else(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    ended = alice.run("login", "--gateway", broker.url, "--port", str(alice.port))
    assert ended.returncode == 0, ended.stderr
    # Who gets the ID token is told before the browser opens.
    told = f"{broker.url} has people sign in at {provider.iss} as the client {CLIENT_ID}"
    assert ended.stderr.index(told) < ended.stderr.index("Your browser opens")
    assert f"You are signed in to {broker.url} as alice@example.com." in ended.stderr
    assert "roles     developers" in ended.stderr
    assert "policies  develop" in ended.stderr
    assert "for 15 minutes" in ended.stderr
    assert "federation token renews it" in ended.stderr
    assert f"faas-cli list --gateway {broker.url}" in ended.stderr
    assert ended.stdout == ""
    assert "eyJ" not in ended.stderr
    assert provider.forms[0]["scope"] == "openid groups"
    assert lives(broker, alice.saved_token())


def test_the_second_login_needs_no_option_at_all(
    signed_in: Person, provider: ServedProvider
) -> None:
    before = signed_in.session.access_token
    signed_in.done("login")
    assert signed_in.session.access_token != before
    assert signed_in.saved_token() == signed_in.session.access_token
    assert provider.forms[-1]["redirect_uri"].startswith(f"http://127.0.0.1:{signed_in.port}/")


def test_every_setting_is_kept_for_the_next_time(alice: Person, provider: ServedProvider) -> None:
    port = str(free_port())
    changes = ["--redirect-host", "localhost", "--scope", "openid x", "--role", "developers"]
    alice.done("login", *alice.settings(), "--port", port, *changes)
    alice.done("logout")
    alice.done("login")
    asked = provider.forms[-2]
    assert asked["redirect_uri"] == f"http://localhost:{port}/oauth/callback"
    assert asked["scope"] == "openid x"
    assert alice.session.settings.roles == ("developers",)


def test_a_token_that_is_printed_is_alone_on_standard_output(alice: Person, broker: Served) -> None:
    printed = alice.done("login", *alice.settings(), "--print-token")
    assert printed == alice.session.access_token
    assert lives(broker, printed)


def test_without_an_exchange_the_id_token_is_printed_and_nothing_is_saved(
    alice: Person, provider: ServedProvider
) -> None:
    printed = alice.done("login", *alice.settings(), "--no-exchange")
    assert said(printed)["aud"] == CLIENT_ID
    assert alice.sessions.known_gateways() == []
    assert alice.saved_token() == ""


def test_a_confidential_client_sends_its_secret_and_still_uses_pkce(
    alice: Person, provider: ServedProvider, tmp_path: Path
) -> None:
    secret = tmp_path / "client-secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    words = [*alice.settings(CONFIDENTIAL), "--client-secret-file", str(secret)]
    alice.done("login", *words)
    assert provider.forms[0]["code_challenge_method"] == "S256"
    assert SECRET not in json.dumps(provider.forms)  # by HTTP Basic, not in the form
    expire(alice)
    alice.done("token")
    kept = "".join(path.read_text() for path in alice.home.rglob("*.json"))
    assert SECRET not in kept
    assert str(secret) in kept


def test_a_secret_file_that_others_can_read_is_refused_before_the_browser_opens(
    alice: Person, provider: ServedProvider, tmp_path: Path
) -> None:
    secret = tmp_path / "client-secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    words = [*alice.settings(CONFIDENTIAL), "--client-secret-file", str(secret)]
    told = alice.refused("login", *words)
    assert f"chmod 600 {secret}" in told
    assert SECRET not in told
    assert provider.count("authorize") == 0


def test_a_client_signs_in_itself(alice: Person, provider: ServedProvider, tmp_path: Path) -> None:
    secret = tmp_path / "client-secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    words = [*alice.settings(CONFIDENTIAL), "--grant", "client-credentials"]
    told = alice.refused("login", *words, code=2)
    assert "--client-secret-file" in told
    # The token is no ID token, so this broker's documents do not take it. It is sent all the same.
    told = alice.refused("login", *words, "--client-secret-file", str(secret))
    assert "The broker refused" in told
    assert provider.count("client_credentials") == 1


def test_a_client_that_signs_in_itself_is_given_a_token_and_renews_it(
    provider: ServedProvider, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    condition = {"StringEqual": {"jwt:iss": [provider.iss], "jwt:azp": [CONFIDENTIAL]}}
    issuer = {"iss": provider.iss, "aud": [url], "provider": "generic", "tokenExpiry": "15m"}
    statement = {"sid": "list", "action": ["Function:List"], "resource": ["dev:*"]}
    text = documents.as_text(
        documents.document(
            "JwtIssuer", "programs", {**issuer, "authorizedParties": [CONFIDENTIAL]}
        ),
        documents.policy("list", statement),
        documents.document("Role", "reports", {"policy": ["list"], "condition": condition}),
    )
    secret = tmp_path / "client-secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    program = Person(tmp_path, url, provider.iss)
    words = [*program.settings(CONFIDENTIAL), "--grant", "client-credentials"]
    with Served(tmp_path, text, port=port).running():
        provider.own_audience = url
        program.done("login", *words, "--client-secret-file", str(secret))
        first = program.saved_token()
        assert said(first)["role"] == ["reports"]
        expire(program)
        second = program.done("token")
        assert second not in {"", first}
        assert program.saved_token() == second
        assert "list" in program.done("whoami")
        # A token that the client got for another program does not go in.
        provider.own_audience = "https://other.example.com"
        expire(program)
        assert "wrong_audience" in program.refused("token")
        program.done("logout")
    assert provider.count("client_credentials") == 3
    assert provider.count("authorize") == 0
    assert SECRET not in program.faas_cli_config.read_text()


def test_the_implicit_flow_works_and_is_warned_about(
    alice: Person, provider: ServedProvider, broker: Served
) -> None:
    ended = alice.run("login", *alice.settings(), "--grant", "implicit")
    assert ended.returncode == 0, ended.stderr
    assert "Warning: with the implicit flow" in ended.stderr
    assert "no refresh token" in ended.stderr
    expire(alice)
    assert lives(broker, alice.done("token"))  # by the ID token, while it lives


def test_without_a_browser_another_device_signs_in_and_it_says_why(
    alice: Person, provider: ServedProvider
) -> None:
    with ended(alice.start("login", *alice.settings(), BROWSER="", CI="true")) as login:
        assert until(lambda: bool(provider.devices), 30)
        httpx2.get(f"{provider.iss}/activate")
        _, told = login.communicate(timeout=60)
    assert login.returncode == 0, told
    assert "No browser can be opened here. This is a CI job (CI is set)." in told
    assert "WDJB-MJHT" in told
    assert f"{provider.iss}/activate" in told
    # In CI, faas-cli looks in the current folder.
    assert provider.count("authorize") == 0


def test_without_a_browser_or_a_device_flow_the_address_is_printed(
    alice: Person, provider: ServedProvider
) -> None:
    provider.metadata_changes = {"device_authorization_endpoint": None}
    with ended(alice.start("login", *alice.settings(), BROWSER="", SSH_TTY="/dev/pts/1")) as login:
        address = _address(login)
        httpx2.get(address, follow_redirects=True)
        _, told = login.communicate(timeout=60)
    assert login.returncode == 0, told


def test_no_browser_prints_the_address_and_waits(alice: Person, provider: ServedProvider) -> None:
    with ended(alice.start("login", *alice.settings(), "--no-browser")) as login:
        address = _address(login)
        assert provider.count("authorize") == 0
        httpx2.get(address)  # in one browser, which is closed
        httpx2.get(address, follow_redirects=True)  # and in another
        _, told = login.communicate(timeout=60)
    assert login.returncode == 0, told
    assert alice.saved_token() != ""


def test_the_printed_address_may_be_opened_although_a_browser_was_opened(
    alice: Person, provider: ServedProvider, tmp_path: Path
) -> None:
    """The address that the browser was started with is good for one use. This one is another."""
    opened = tmp_path / "opened"
    opener = tmp_path / "opener.py"
    opener.write_text(
        "import sys, urllib.request as r\n"
        "class Stay(r.HTTPRedirectHandler):\n"
        "    def redirect_request(self, *_): return None\n"
        "try: r.build_opener(Stay, r.ProxyHandler({})).open(sys.argv[1])\n"
        f"except OSError: open({str(opened)!r}, 'w').write(sys.argv[1])\n"
    )
    opens = f"{sys.executable} {opener} %s"
    with ended(alice.start("login", *alice.settings(), BROWSER=opens)) as login:
        address = _address(login)
        # A file is there before its text is.
        assert until(lambda: opened.exists() and opened.read_text() != "", 30)
        assert "/oauth/start/" in opened.read_text()
        httpx2.get(address, follow_redirects=True)
        _, told = login.communicate(timeout=60)
    assert login.returncode == 0, told


def _address(login: subprocess.Popen[str]) -> str:
    """The address that *login* prints."""
    assert login.stderr is not None
    for line in login.stderr:
        if found := re.search(r"http://\S+/authorize\?\S+", line):
            return found[0]
    raise AssertionError("no address was printed")


def test_a_port_that_is_taken_is_told_with_what_to_do(alice: Person) -> None:
    with socket.create_server(("127.0.0.1", alice.port)):
        told = alice.refused("login", *alice.settings())
    assert f"Port {alice.port} of this machine is taken." in told
    assert "--port" in told
    alice.done("login", *alice.settings())  # and at once again


def test_ctrl_c_leaves_nothing_behind(alice: Person) -> None:
    with ended(alice.start("login", *alice.settings(), "--no-browser")) as login:
        _address(login)
        login.send_signal(signal.SIGINT)
        login.communicate(timeout=30)
    assert login.returncode == 1
    assert alice.sessions.known_gateways() == []
    with socket.create_server(("127.0.0.1", alice.port)):
        pass  # the port is free


def test_a_person_for_whom_no_role_is_learns_what_the_provider_said(
    alice: Person, provider: ServedProvider
) -> None:
    provider.claims_changes["groups"] = ["guests"]
    told = alice.refused("login", *alice.settings())
    assert "no_role_admits" in told
    assert "No Role of this gateway is for you" in told
    assert '"groups": ["guests"]' in told
    assert "job" not in told.lower()
    assert alice.sessions.known_gateways() == []
    assert alice.saved_token() == ""
    # Nobody will use the refresh token, so it is not left alive.
    assert until(lambda: provider.sessions == {}, 5)


def test_a_provider_that_says_no_is_quoted(alice: Person, provider: ServedProvider) -> None:
    provider.refuses_with = "unauthorized_client"
    assert "unauthorized_client" in alice.refused("login", *alice.settings())


def test_a_gateway_that_is_not_there_is_told_before_the_browser_opens(
    alice: Person, provider: ServedProvider
) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    words = ["--gateway", gone, "--authority", alice.authority, "--client-id", CLIENT_ID]
    told = alice.refused("login", *words, "--port", str(alice.port))
    assert "could not be reached" in told
    assert alice.sessions.known_gateways() == []
    assert provider.requests == []
    # So it is with settings that were kept from the last time.
    alice.sessions.remember(gone, SignInSettings(alice.authority, CLIENT_ID, port=alice.port))
    assert "could not be reached" in alice.refused("login", "--gateway", gone)
    assert provider.requests == []


def test_a_gateway_that_is_down_behind_its_proxy_is_told_before_the_browser_opens(
    alice: Person, provider: ServedProvider
) -> None:
    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer("", "503 Service Unavailable", "Retry-After: 0"))

    with in_thread(lambda: raw_server(reply)) as (url, _):
        words = ["--gateway", url, "--authority", alice.authority, "--client-id", CLIENT_ID]
        told = alice.refused("login", *words, "--port", str(alice.port))
    assert "answered HTTP 503" in told
    assert provider.requests == []


def test_a_configuration_of_faas_cli_that_cannot_be_changed_is_told_before_the_browser_opens(
    alice: Person, provider: ServedProvider
) -> None:
    alice.faas_cli_config.parent.mkdir()
    alice.faas_cli_config.write_text("- this is a list\n")
    told = alice.refused("login", *alice.settings())
    assert "not a configuration of faas-cli" in told
    assert provider.requests == []


def test_a_configuration_of_faas_cli_that_went_bad_costs_no_session_and_no_token(
    alice: Person, provider: ServedProvider
) -> None:
    with ended(alice.start("login", *alice.settings(), "--no-browser")) as login:
        address = _address(login)
        alice.faas_cli_config.parent.mkdir()
        alice.faas_cli_config.write_text("- this is a list\n")
        httpx2.get(address, follow_redirects=True)
        _, told = login.communicate(timeout=60)
    assert login.returncode == 0, told
    assert "faas-cli is not signed in" in told
    assert "faas-cli is signed in too" not in told
    expire(alice)
    renewed = alice.run("token")  # its refresh token was not revoked
    assert renewed.returncode == 0, renewed.stderr
    assert renewed.stdout.strip() == alice.session.access_token
    assert "faas-cli is not signed in" in renewed.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param([], "--gateway", id="no gateway"),
        pytest.param(["--gateway", "GATEWAY", "--client-id", "x"], "--authority", id="half"),
        pytest.param(["--gateway", "GATEWAY", "--grant", "magic"], "magic", id="no such grant"),
        pytest.param(["--gateway", "GATEWAY", "--port", "70000"], "70000", id="no such port"),
        pytest.param(["--gateway", "GATEWAY", "--redirect-host", "evil.example.com"],
                     "evil.example.com", id="a host elsewhere"),
    ],
)  # fmt: skip
def test_wrong_use_is_2(alice: Person, words: list[str], told: str) -> None:
    filled = [alice.gateway if word == "GATEWAY" else word for word in words]
    assert told in alice.refused("login", *filled, code=2)


def test_a_saved_password_for_the_gateway_is_replaced_and_told(alice: Person) -> None:
    alice.faas_cli_config.parent.mkdir()
    alice.faas_cli_config.write_text(
        f"auths:\n- {{gateway: {alice.gateway}, auth: basic, token: eA==}}\n"
    )
    ended = alice.run("login", *alice.settings())
    assert "a saved basic login" in ended.stderr
    assert alice.saved_token() == alice.session.access_token


# token


def test_token_prints_the_live_token_and_asks_nobody(
    signed_in: Person, provider: ServedProvider
) -> None:
    asked = len(provider.requests)
    assert signed_in.done("token") == signed_in.session.access_token
    assert len(provider.requests) == asked


def test_a_token_that_is_about_to_expire_is_renewed_silently_for_faas_cli_too(
    signed_in: Person, provider: ServedProvider, broker: Served
) -> None:
    before = signed_in.session.access_token
    soon = replace(signed_in.session, access_expires=time.time() + 30)
    signed_in.sessions.save(soon)
    assert signed_in.done("token", "--min-life", "10") == before
    renewed = signed_in.run("token")
    assert renewed.stderr == ""
    token = renewed.stdout.strip()
    assert token != before
    assert lives(broker, token)
    assert signed_in.saved_token() == token
    assert provider.count("authorize") == 1
    assert provider.count("refresh_token") == 1


def test_a_password_that_was_saved_meanwhile_stays(signed_in: Person) -> None:
    config = f"auths:\n- {{gateway: {signed_in.gateway}, auth: basic, token: eA==}}\n"
    signed_in.faas_cli_config.write_text(config)
    signed_in.done("token")
    assert signed_in.faas_cli_config.read_text() == config


def test_when_the_session_is_over_token_says_so_and_opens_no_browser(
    signed_in: Person, provider: ServedProvider
) -> None:
    expire(signed_in)
    provider.end_sessions()
    told = signed_in.refused("token")
    assert "is over" in told
    assert f"federation login --gateway {signed_in.gateway}" in told
    assert provider.count("authorize") == 1
    signed_in.done("login")
    signed_in.done("token")


@pytest.mark.parametrize("command", ["token", "whoami", "logout"])
def test_who_is_not_signed_in_is_told_how(alice: Person, command: str) -> None:
    told = alice.refused(command, "--gateway", alice.gateway)
    assert f"federation login --gateway {alice.gateway}" in told


def test_the_gateway_comes_from_the_environment_before_the_sessions(signed_in: Person) -> None:
    other = f"http://127.0.0.1:{free_port()}"
    assert other in signed_in.refused("token", OPENFAAS_URL=other)
    assert signed_in.done("token", OPENFAAS_URL=f"{signed_in.gateway}/")


def test_with_several_gateways_one_must_be_named(signed_in: Person) -> None:
    other = "https://other.example.com"
    signed_in.sessions.save(replace(signed_in.session, gateway=other))
    told = signed_in.refused("token", code=2)
    assert other in told
    assert signed_in.gateway in told
    signed_in.done("token", "--gateway", signed_in.gateway)


def test_a_command_that_is_killed_in_the_middle_of_a_refresh_loses_no_session(
    signed_in: Person, provider: ServedProvider, broker: Served
) -> None:
    """This provider takes each refresh token once, and ends the session if one comes again."""
    expire(signed_in)
    with provider.hold("granted") as reached, ended(signed_in.start("token")) as token:
        assert reached.wait(30)
        token.kill()
        token.wait()
        following = signed_in.start("token")  # it waits for the renewal that goes on
        assert not until(lambda: provider.count("refresh_token") > 1, 3)
    assert lives(broker, finished(following).stdout.strip())
    assert provider.count("refresh_token") == 1


def test_callers_at_once_make_one_refresh(
    signed_in: Person, provider: ServedProvider, broker: Served
) -> None:
    expire(signed_in)
    printed = {
        finished(each).stdout.strip() for each in [signed_in.start("token") for _ in range(4)]
    }
    assert len(printed) == 1
    assert lives(broker, printed.pop())
    assert provider.count("refresh_token") == 1


# whoami


def test_whoami_tells_who_roles_policies_and_what_they_allow(signed_in: Person) -> None:
    told = signed_in.done("whoami")
    assert told.startswith("alice@example.com\n")
    assert "subject   fed:alice" in told
    assert "roles     developers" in told
    assert "Allow develop/all" in told
    assert "on dev:*" in told


def test_whoami_for_programs_is_what_the_gateway_answers(signed_in: Person, broker: Served) -> None:
    headers = {"Authorization": f"Bearer {signed_in.session.access_token}"}
    answer = httpx2.get(f"{broker.url}/federation/v1/whoami", headers=headers).json()
    assert json.loads(signed_in.done("whoami", "--format", "json")) == answer


def test_whoami_renews_the_session_and_says_when_it_is_over(
    signed_in: Person, provider: ServedProvider
) -> None:
    expire(signed_in)
    signed_in.done("whoami")
    expire(signed_in)
    provider.end_sessions()
    assert "is over" in signed_in.refused("whoami")


def test_whoami_says_that_a_token_was_revoked(signed_in: Person, broker: Served) -> None:
    form = {"token": signed_in.session.access_token}
    httpx2.post(f"{broker.url}/oauth/revoke", data=form)
    assert "was revoked" in signed_in.refused("whoami")


# logout


def test_logout_ends_the_session_everywhere(
    signed_in: Person, provider: ServedProvider, broker: Served
) -> None:
    session = signed_in.session
    ended = signed_in.run("logout")
    assert ended.returncode == 0, ended.stderr
    assert f"You are signed out of {broker.url}." in ended.stderr
    assert not lives(broker, session.access_token)
    assert session.refresh_tokens[0] not in provider.sessions
    assert signed_in.saved_token() == ""
    assert signed_in.sessions.of(broker.url) is None
    left = "".join(path.read_text() for path in signed_in.home.rglob("*") if path.is_file())
    for secret in (session.access_token, session.id_token, *session.refresh_tokens):
        assert secret not in left


def test_the_providers_sign_out_page_opens_without_the_id_token(
    signed_in: Person, provider: ServedProvider
) -> None:
    signed_in.done("logout")
    assert until(lambda: provider.count("logout") == 1, 20)
    assert provider.forms[-1] == {"client_id": CLIENT_ID}


def test_without_a_browser_the_sign_out_page_is_printed(
    signed_in: Person, provider: ServedProvider
) -> None:
    ended = signed_in.run("logout", "--no-browser")
    assert f"{provider.iss}/logout?client_id={CLIENT_ID}" in ended.stderr
    assert provider.count("logout") == 0


def test_what_could_not_be_revoked_is_told_and_the_tokens_go_all_the_same(
    signed_in: Person, provider: ServedProvider
) -> None:
    provider.down = True
    told = signed_in.refused("logout")
    assert "The refresh token was not revoked" in told
    assert "You are signed out of" in told
    assert "not everywhere" in told
    assert signed_in.sessions.of(signed_in.gateway) is None
    assert signed_in.saved_token() == ""


def test_a_login_of_somebody_else_in_faas_clis_configuration_stays(signed_in: Person) -> None:
    config = f"auths:\n- {{gateway: {signed_in.gateway}, auth: oauth2, token: not-ours}}\n"
    signed_in.faas_cli_config.write_text(config)
    signed_in.done("logout")
    assert signed_in.faas_cli_config.read_text() == config


# faas-cli's plugin


@pytest.mark.parametrize("command", ["login", "token", "whoami", "logout"])
def test_the_plugin_has_each_command(command: str) -> None:
    assert command in fed.commands


def test_the_plugin_signs_in(alice: Person) -> None:
    program = [sys.executable, "-c", "from federation.cli.fed import fed; fed()"]
    ended = finished(alice.start_program([*program, "login", *alice.settings()]))
    assert ended.returncode == 0, ended.stderr
    printed = finished(alice.start_program([*program, "token"]))
    assert printed.stdout.strip() == alice.saved_token()


# A proxy and a private CA


def test_login_goes_through_a_proxy_and_trusts_the_ca_that_the_environment_names(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path / "ca")
    provider = ServedProvider(iss="https://idp.elsewhere.example/realms/octo")
    asked: list[str] = []

    async def reply(path: str, writer: asyncio.StreamWriter, sent: bytes) -> None:
        if path == "/oauth/token":
            token = provider.issuer.token({"sub": "alice", "role": ["developers"]})
            content = json.dumps({"access_token": token, "expires_in": 900}).encode()
        elif path.startswith("/realms/"):
            method = "POST" if path.endswith("/token") else "GET"
            answer = await provider.answer(
                httpx2.Request(
                    method, f"https://idp.elsewhere.example{path}", headers=_FORM, content=sent
                )
            )
            content = answer.content
        else:
            content = b"{}"
        writer.write(http_answer(content))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A proxy that is the server too: behind CONNECT, TLS begins with itself."""
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[1].decode())
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await writer.start_tls(authority.server())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        sent = await reader.readexactly(int(length[1])) if length else b""
        await reply(head.split()[1].decode(), writer, sent)
        await writer.drain()

    @asynccontextmanager
    async def proxy() -> AsyncIterator[str]:
        listener = socket.create_server(("127.0.0.1", 0))
        async with serving(serve, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"

    person = Person(tmp_path, "https://gateway.elsewhere.example", provider.iss)
    words = ["login", *person.settings(), "--no-browser"]
    with in_thread(proxy) as address:
        environ = {"HTTPS_PROXY": address, "SSL_CERT_FILE": str(authority.certificate)}
        told = person.refused(*words, HTTPS_PROXY=address)
        assert "set SSL_CERT_FILE to a bundle with that CA" in told
        with ended(person.start(*words, **environ)) as login:
            assert login.stderr is not None
            found = next(filter(None, (re.search(r"https://\S+/authorize\?\S+", line)
                                       for line in login.stderr)))  # fmt: skip
            back = httpx2.URL(found[0]).params["redirect_uri"]
            httpx2.get(back, params=dict(provider.sign_in(found[0])), follow_redirects=True)
            _, said_last = login.communicate(timeout=60)
        assert login.returncode == 0, said_last
    assert set(asked) == {"idp.elsewhere.example:443", "gateway.elsewhere.example:443"}
    assert said(person.saved_token())["role"] == ["developers"]


_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
