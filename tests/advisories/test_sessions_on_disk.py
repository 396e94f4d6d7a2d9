"""
Attacks on people's sessions: by others on the machine, and by a gateway that lies.

The attackers: a local user who can write in a folder of the person or read what is left open; one
who lists processes; a program in the current folder; a gateway that wants the ID token of another.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from federation.client import ClientError
from federation.client.http import Sender
from federation.sign_on.client_secret import client_of
from federation.sign_on.private_folder import PrivateFolder
from federation.sign_on.published import published_settings, require_no_mix_up
from federation.sign_on.sessions import Session, Sessions, SignInSettings
from tests.harness.broker import Served
from tests.harness.person import Person, ended, finished
from tests.harness.process import free_port, in_thread, until
from tests.harness.raw_server import http_answer, raw_server
from tests.harness.served_provider import (
    CONFIDENTIAL,
    SECRET,
    ServedProvider,
    people,
    served_provider,
)

GATEWAY = "https://gateway.example.com"
NOBODY = 65534
SCOPES = "openid email"


@pytest.fixture
def folder(tmp_path: Path) -> PrivateFolder:
    """A folder with one file, which holds a secret."""
    made = PrivateFolder(tmp_path / "federation" / "sessions")
    made.write("a.json", {"token": "secret"})
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# Others on the machine


def test_files_and_folders_are_their_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        made = PrivateFolder(tmp_path / "config" / "federation" / "sessions")
        made.write("a.json", {})
        with made.locked("a.json"):
            pass
    finally:
        os.umask(before)
    assert mode(made.path) == mode(made.path.parent) == 0o700
    assert {mode(path) for path in made.path.iterdir()} == {0o600}


@pytest.mark.parametrize("bits", [0o604, 0o640, 0o620, 0o602, 0o666])
def test_a_file_that_others_can_reach_is_refused(folder: PrivateFolder, bits: int) -> None:
    (folder.path / "a.json").chmod(bits)
    with pytest.raises(ClientError, match="chmod 600") as caught:
        folder.read("a.json")
    assert "secret" not in str(caught.value).replace(str(folder.path), "")


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused(folder: PrivateFolder, bits: int) -> None:
    folder.path.chmod(bits)
    for use in _uses(folder):
        with pytest.raises(ClientError, match="chmod 700"):
            use()


@pytest.mark.parametrize("bits", [0o703, 0o777])
def test_a_folder_around_it_that_others_can_write_is_refused(
    folder: PrivateFolder, bits: int
) -> None:
    folder.path.parent.chmod(bits)
    for use in _uses(folder):
        with pytest.raises(ClientError, match="chmod o-w"):
            use()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["a.json", "."])
def test_what_belongs_to_somebody_else_is_refused(folder: PrivateFolder, what: str) -> None:
    os.chown(folder.path / what, NOBODY, NOBODY)
    with pytest.raises(ClientError, match=f"belongs to uid {NOBODY}"):
        folder.read("a.json")


def test_a_link_in_the_place_of_the_file_is_not_followed(
    folder: PrivateFolder, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.touch(0o600)
    elsewhere.write_text('{"planted": true}')
    (folder.path / "a.json").unlink()
    (folder.path / "a.json").symlink_to(elsewhere)
    with pytest.raises(ClientError, match="is a link"):
        folder.read("a.json")
    folder.write("a.json", {"own": 1})  # replaces the link itself
    assert elsewhere.read_text() == '{"planted": true}'
    assert folder.read("a.json") == {"own": 1}


@pytest.mark.parametrize("name", ["a.json.new", "a.json.lock"])
def test_a_link_that_was_planted_for_a_write_or_a_lock_is_not_followed(
    folder: PrivateFolder, tmp_path: Path, name: str
) -> None:
    victim = tmp_path / "victim"
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(victim)
    if name.endswith(".lock"):
        with pytest.raises(ClientError, match="is a link"), folder.locked("a.json"):
            pass
    else:
        folder.write("a.json", {"token": "secret"})
    assert not victim.exists()


def test_a_link_in_the_place_of_the_folder_is_not_followed(
    folder: PrivateFolder, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder.path.rename(elsewhere)
    folder.path.symlink_to(elsewhere)
    for use in _uses(folder):
        with pytest.raises(ClientError, match="is a link"):
            use()


def test_a_folder_that_is_exchanged_during_a_write_gets_nothing(
    folder: PrivateFolder, tmp_path: Path
) -> None:
    """Everything is reached by the descriptor of the folder that was checked."""
    trap, kept = tmp_path / "trap", tmp_path / "kept"
    trap.mkdir()
    stop = threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            with suppress(OSError):  # the victim makes the folder anew
                folder.path.rename(kept)
                folder.path.symlink_to(trap)
                folder.path.unlink()
                kept.rename(folder.path)
            if folder.path.is_symlink():
                folder.path.unlink()
            shutil.rmtree(kept, ignore_errors=True)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    for n in range(300):
        try:
            folder.write("a.json", {"token": "secret", "n": n})
        except ClientError:
            continue
    stop.set()
    attacker.join()
    assert list(trap.iterdir()) == []


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_neither_blocks_nor_is_read(
    folder: PrivateFolder, make: Callable[[Path], None]
) -> None:
    (folder.path / "a.json").unlink()
    make(folder.path / "a.json")
    began = time.monotonic()
    with pytest.raises(ClientError):
        folder.read("a.json")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("bits", [0o604, 0o606, 0o666])
def test_a_client_secret_that_others_can_read_is_not_used(tmp_path: Path, bits: int) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(bits)
    with pytest.raises(ClientError, match="chmod 600") as caught:
        client_of(SignInSettings("https://sso.example.com", "x", client_secret_file=str(secret)))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "null\x00", "café", "x" * 5000])
def test_what_cannot_be_a_client_secret_is_refused_and_not_shown(
    tmp_path: Path, content: str
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(content)
    with pytest.raises(ClientError) as caught:
        client_of(SignInSettings("https://sso.example.com", "x", client_secret_file=str(secret)))
    assert not content.strip() or content not in str(caught.value)


def _uses(folder: PrivateFolder) -> list[Callable[[], object]]:
    def lock() -> None:
        with folder.locked("a.json"):
            pass

    return [
        lambda: folder.read("a.json"),
        lambda: folder.write("a.json", {}),
        lambda: folder.remove("a.json"),
        folder.names,
        lock,
    ]


# A gateway that lies


def publishing(document: Mapping[str, object] | bytes, gateway: str = GATEWAY) -> SignInSettings:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = httpx2.Response(200, content=content)
    client = httpx2.Client(transport=httpx2.MockTransport(lambda _request: answer))
    with Sender(client, pause=lambda _seconds: None) as sender:
        return published_settings(gateway, sender)


HONEST: Mapping[str, object] = {
    "resource": GATEWAY,
    "authorization_servers": ["https://sso.example.com"],
    "federation_client_id": "openfaas",
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"resource": "https://other.example.com"}, id="speaks for another gateway"),
        pytest.param({"resource": None}, id="speaks for nobody"),
        pytest.param({"resource": [GATEWAY]}, id="a list of resources"),
        pytest.param({"resource": f"{GATEWAY}.evil.example"}, id="a longer name"),
        pytest.param({"authorization_servers": ["http://sso.example.com"]}, id="without TLS"),
        pytest.param({"authorization_servers": ["http://127.0.0.1:9000"]}, id="this machine"),
        pytest.param({"authorization_servers": ["http://localhost"]}, id="this machine by name"),
        pytest.param({"authorization_servers": ["file:///etc/passwd"]}, id="a file"),
        pytest.param({"authorization_servers": []}, id="no provider"),
        pytest.param({"authorization_servers": "https://sso.example.com"}, id="no list"),
        pytest.param({"authorization_servers": ["https://a.example", "https://b.example"]},
                     id="a choice"),
        pytest.param({"authorization_servers": ["https://" + "a" * 1000]}, id="an endless name"),
        pytest.param({"authorization_servers": ["https://sso.example.com@evil.example"]},
                     id="a host behind another"),
        pytest.param({"authorization_servers": ["https://evil.example?//sso.example.com"]},
                     id="a query"),
        pytest.param({"authorization_servers": ["https://evil.example#sso.example.com"]},
                     id="a fragment"),
        pytest.param({"authorization_servers": ["https://\u0455\u0455o.example.com"]},
                     id="a name that looks like another"),
        pytest.param({"federation_client_id": None}, id="no client"),
        pytest.param({"federation_client_id": "\x1b]0;owned\x07"}, id="a client for the terminal"),
        pytest.param({"federation_client_id": "x\ny"}, id="a client of two lines"),
        pytest.param({"federation_client_id": "x" * 1000}, id="an endless client"),
        pytest.param({"federation_client_id": 5}, id="a number"),
        pytest.param({"federation_scopes": "openid \x1b[31m"}, id="scopes for the terminal"),
        pytest.param({"federation_scopes": ["openid"]}, id="a list of scopes"),
        pytest.param({"federation_scopes": 'openid "x"'}, id="scopes with quotes"),
    ],
)  # fmt: skip
def test_settings_that_mislead_are_refused(changes: Mapping[str, object]) -> None:
    with pytest.raises(ClientError) as caught:
        publishing({**HONEST, **changes})
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b"null", b'{"resource": 1, "resource": 2}', b"\xff", b"[" * 100_000],
)
def test_what_is_no_settings_document_is_refused(content: bytes) -> None:
    with pytest.raises(ClientError):
        publishing(content)


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
    served = Served(
        tmp_path_factory.mktemp("broker"),
        people(running.iss),
        f"--sign-in-issuer={running.iss}",
        "--sign-in-client-id=openfaas",
        f"--sign-in-scopes={SCOPES}",
        port=free_port(),
    )
    with served.running():
        yield served


@pytest.fixture
def alice(tmp_path: Path, broker: Served, provider: ServedProvider) -> Person:
    return Person(tmp_path, broker.url, provider.iss)


def test_a_gateway_cannot_have_a_person_sign_in_for_another_one(
    alice: Person, broker: Served, provider: ServedProvider
) -> None:
    """It would get an ID token that the other gateway takes as well."""
    victim = "https://victim.example.com"
    alice.sessions.remember(victim, SignInSettings(provider.iss, "openfaas"))
    words = ["--gateway", broker.url, "--port", str(alice.port)]
    told = alice.refused("login", *words)
    assert victim in told
    assert provider.count("authorize") == 0
    # Who owns both says so.
    alice.done("login", *alice.settings())
    # Then it is settled: each of them may be signed in to again.
    alice.done("login", "--gateway", broker.url)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[ServedProvider]:
    with served_provider() as other:
        yield other


def test_a_provider_that_a_gateway_named_cannot_have_the_code_of_another_one(
    alice: Person, broker: Served, provider: ServedProvider, other: ServedProvider
) -> None:
    """It would send the browser on to the other one, where the person is signed in already."""
    provider.names_itself = other.names_itself = False
    alice.sessions.remember("https://victim.example.com", SignInSettings(other.iss, "openfaas"))

    async def relay(request: httpx2.Request) -> httpx2.Response:
        sent_on = f"{other.iss}/authorize?{request.url.query.decode()}"
        return httpx2.Response(302, headers={"Location": sent_on})

    async def redeem(request: httpx2.Request) -> httpx2.Response:
        return await other.answer(request)

    provider.endpoints |= {"authorize": relay, "token": redeem}
    words = ["--gateway", broker.url, "--port", str(alice.port)]
    told = alice.refused("login", *words)
    assert "by which you sign in to https://victim.example.com" in told
    assert provider.count("authorize") == other.count("authorization_code") == 0


@pytest.mark.parametrize("which", ["this one", "the other one"])
def test_of_two_providers_it_is_enough_if_one_names_itself(
    alice: Person, broker: Served, provider: ServedProvider, other: ServedProvider, which: str
) -> None:
    provider.names_itself = which == "this one"
    other.names_itself = which == "the other one"
    alice.sessions.remember("https://victim.example.com", SignInSettings(other.iss, "openfaas"))
    alice.done("login", "--gateway", broker.url, "--port", str(alice.port))


def test_a_person_may_name_the_provider_though_neither_names_itself(
    alice: Person, broker: Served, provider: ServedProvider, other: ServedProvider
) -> None:
    provider.names_itself = other.names_itself = False
    alice.sessions.remember("https://victim.example.com", SignInSettings(other.iss, "openfaas"))
    alice.done("login", *alice.settings())
    alice.done("login", "--gateway", broker.url)


def test_a_provider_that_is_down_may_be_one_that_does_not_name_itself(
    alice: Person, broker: Served, provider: ServedProvider
) -> None:
    provider.names_itself = False
    down = SignInSettings(f"http://127.0.0.1:{free_port()}", "openfaas")
    alice.sessions.remember("https://victim.example.com", down)
    told = alice.refused("login", "--gateway", broker.url, "--port", str(alice.port))
    assert "or it could not be asked" in " ".join(told.split())
    assert provider.count("authorize") == 0


@pytest.mark.parametrize("stop", ["relay", "mix-up"])
def test_the_command_that_a_stopped_person_is_given_keeps_what_they_had(
    alice: Person, broker: Served, provider: ServedProvider, other: ServedProvider, stop: str
) -> None:
    """Else the scopes that the gateway published are lost, and the broker refuses the ID token."""
    provider.names_itself = other.names_itself = False
    victim = provider if stop == "mix-up" else other
    alice.sessions.remember("https://victim.example.com", SignInSettings(victim.iss, "openfaas"))
    words = ["--gateway", broker.url, "--port", str(alice.port)]
    told = alice.refused("login", *words)
    command = shlex.split(told.rpartition("federation login ")[2])
    assert command[command.index("--scope") + 1] == SCOPES
    if stop == "mix-up":  # the port was not part of what the gateway published
        command += ["--port", str(alice.port)]
    alice.done("login", *command)
    alice.done("login", "--gateway", broker.url)
    assert alice.session.settings.scopes == SCOPES


def test_words_that_a_gateway_published_are_quoted_in_the_command_to_copy(tmp_path: Path) -> None:
    """A person who copies it to a shell runs nothing else."""
    sessions = Sessions(tmp_path)
    settings = SignInSettings(
        "https://sso.example.com/$(id)", "a;id", "openid `id`", published=True
    )
    sessions.remember("https://victim.example.com", settings)
    with pytest.raises(ClientError) as stopped:
        require_no_mix_up(settings, GATEWAY, sessions)
    assert "'https://sso.example.com/$(id)' --client-id 'a;id' --scope 'openid `id`'" in str(
        stopped.value.advice
    )


@pytest.mark.parametrize("member", ["verification_uri", "verification_uri_complete"])
@pytest.mark.parametrize("named_by", ["the gateway", "the person"])
def test_a_device_code_of_another_provider_is_told_of(
    alice: Person, broker: Served, provider: ServedProvider, member: str, named_by: str
) -> None:
    """A hostile provider shows the code of a sign-in that it began itself at an honest one."""

    async def relay(request: httpx2.Request) -> httpx2.Response:
        answer = await ServedProvider._device(provider, request)
        return httpx2.Response(200, json={**answer.json(), member: "https://sso.example.com/code"})

    provider.endpoints["device"] = relay
    provider.activated = True
    words = ["--gateway", broker.url] if named_by == "the gateway" else alice.settings()
    told = alice.run("login", *words, "--grant", "device").stderr
    assert "https://sso.example.com/code" in told
    warned = "Notice: the page is at" in told
    assert warned == (named_by == "the gateway")


def test_a_client_secret_is_not_sent_to_a_provider_that_a_gateway_named(
    alice: Person, provider: ServedProvider, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    words = ["--gateway", alice.gateway, "--client-secret-file", str(secret)]
    told = alice.refused("login", *words, code=2)
    assert "--authority and --client-id" in told
    assert provider.forms == []  # the broker may fetch metadata and keys meanwhile


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_gateway_cannot_write_to_the_terminal_by_whoami(alice: Person, output: str) -> None:
    hostile = "\x1b]0;owned\x07\u202e"
    row = {"policy": hostile, "sid": hostile, "effect": hostile, "actions": [hostile]}
    answer = {"sub": hostile, "roles": [hostile], "statements": [row, hostile, 5]}
    with _lying(http_answer(json.dumps(answer))) as url:
        alice.sessions.save(_session(url))
        told = alice.done("whoami", "--gateway", url, "--format", output)
    assert "owned" in told
    for character in "\x1b\x07\u202e":
        assert character not in told


def test_what_a_provider_says_about_a_person_cannot_write_to_the_terminal(
    alice: Person, provider: ServedProvider
) -> None:
    provider.claims_changes["email"] = "\x1b]0;owned\x07@example.com"
    ended = alice.run("login", *alice.settings())
    assert ended.returncode == 0, ended.stderr
    told = ended.stderr + alice.done("whoami") + alice.done("whoami", "--format", "json")
    assert "\x1b" not in told
    assert "\x07" not in told


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "\x1b[31m", "é"])
def test_an_access_token_that_is_none_is_not_taken_from_a_gateway(
    alice: Person, provider: ServedProvider, token: str
) -> None:
    body = json.dumps({"access_token": token, "expires_in": 900})
    with _lying(http_answer(body)) as url:
        words = ["--authority", provider.iss, "--client-id", "openfaas", "--port", str(alice.port)]
        told = alice.refused("login", "--gateway", url, *words)
    assert "not as a broker does" in told
    assert alice.sessions.known_gateways() == []


def _lying(answer: bytes) -> AbstractContextManager[str]:
    """A server that gives the same *answer* to everybody."""

    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    @asynccontextmanager
    async def serving() -> AsyncIterator[str]:
        async with raw_server(reply) as (url, _):
            yield url

    return in_thread(serving)


def _session(gateway: str) -> Session:
    return Session(
        gateway=gateway,
        settings=SignInSettings("https://sso.example.com", "openfaas"),
        issuer="https://sso.example.com",
        sub="alice",
        person="alice",
        grant="code",
        signed_in=0.0,
        access_token="access",
        access_expires=time.time() + 900,
        access_seconds=900.0,
    )


# Processes


def _secrets_of(session: Session) -> list[str]:
    return [session.access_token, session.id_token, *session.refresh_tokens]


def test_no_secret_is_in_the_arguments_or_the_environment_of_a_process(
    alice: Person, provider: ServedProvider, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(SECRET)
    words = [*alice.settings(CONFIDENTIAL), "--client-secret-file", str(secret)]
    alice.done("login", *words)
    alice.sessions.save(replace(alice.session, access_expires=time.time() - 1))
    with provider.hold("granted") as reached, ended(alice.start("token")) as token:
        assert reached.wait(60)
        pids = [token.pid, *map(int, _children(token.pid).split())]
        assert len(pids) == 2
        seen = "".join(
            Path(f"/proc/{pid}/{what}").read_bytes().decode("utf-8", "replace")
            for pid in pids
            for what in ("cmdline", "environ")
        )
    for each in (SECRET, *_secrets_of(alice.session)):
        assert each not in seen


def _children(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_the_browser_is_started_with_nothing_that_could_finish_the_sign_in(
    alice: Person, provider: ServedProvider, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    script = tmp_path / "look.py"
    script.write_text(
        "import pathlib, sys, urllib.request\n"
        f"pathlib.Path({str(seen)!r}).write_text(sys.argv[1])\n"
        "urllib.request.urlopen(sys.argv[1], timeout=60).read()\n"
    )
    alice.done("login", *alice.settings(), BROWSER=f"{sys.executable} {script} %s")
    asked = next(form for form in provider.forms if "code_challenge" in form)
    address = seen.read_text()
    for name in ("state", "nonce", "code_challenge"):
        assert asked[name] not in address


def test_modules_in_the_current_folder_are_not_run(alice: Person, tmp_path: Path) -> None:
    """A folder that was cloned or unpacked must not get the person's tokens."""
    marker = tmp_path / "marker"
    planted = f"open({str(marker)!r}, 'a').write(__name__ + chr(10))\n"
    for name in ("webbrowser", "runpy", "json", "httpx2", "authlib", "yaml", "sitecustomize"):
        (alice.home / f"{name}.py").write_text(planted)
    (alice.home / "federation").mkdir()
    (alice.home / "federation" / "__init__.py").write_text(planted)
    program = [sys.executable, "-P", "-c", "from federation.cli import main; main()"]
    assert finished(alice.start_program([*program, "login", *alice.settings()])).returncode == 0
    alice.sessions.save(replace(alice.session, access_expires=time.time() - 1))
    assert finished(alice.start_program([*program, "token"])).returncode == 0
    assert finished(alice.start_program([*program, "logout"])).returncode == 0
    assert not marker.exists(), marker.read_text()


def test_tokens_are_in_no_message(alice: Person, provider: ServedProvider) -> None:
    told = alice.run("login", *alice.settings()).stderr
    secrets = _secrets_of(alice.session)
    provider.end_sessions()
    alice.sessions.save(replace(alice.session, access_expires=time.time() - 1))
    told += alice.refused("token")
    told += alice.run("logout").stderr
    for each in secrets:
        assert each not in told


def test_another_persons_renewed_token_is_never_saved(
    alice: Person, provider: ServedProvider
) -> None:
    alice.done("login", *alice.settings())
    before = alice.saved_token()
    alice.sessions.save(replace(alice.session, access_expires=time.time() - 1))
    provider.refresh_claims = {"sub": "mallory"}
    assert "wrong_subject" in alice.refused("token")
    assert alice.saved_token() == before


def test_the_renewal_of_a_killed_command_ends_by_itself(
    alice: Person, provider: ServedProvider
) -> None:
    alice.done("login", *alice.settings())
    alice.sessions.save(replace(alice.session, access_expires=time.time() - 1))
    with provider.hold("granted") as reached, ended(alice.start("token")) as token:
        assert reached.wait(60)
        (renewer,) = map(int, _children(token.pid).split())
        token.kill()
        token.wait()
    assert until(lambda: not Path(f"/proc/{renewer}/cmdline").exists(), 30)


def test_sessions_are_the_business_of_one_home(alice: Person, tmp_path: Path) -> None:
    """A relative XDG_CONFIG_HOME would put tokens into whatever folder is current."""
    alice.done("login", *alice.settings(), XDG_CONFIG_HOME="relative")
    assert not (alice.home / "relative").exists()
    assert Sessions(alice.home / ".config" / "federation").gateways() == [alice.gateway]
