"""Sessions on disk: what is kept, who may read it, and that a crash or a race loses nothing."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from federation.client import ClientError
from federation.sign_on.private_folder import Damaged, PrivateFolder
from federation.sign_on.sessions import (
    Session,
    Sessions,
    SignInSettings,
    gateway_of,
    with_refresh_token,
)

GATEWAY = "https://gateway.example.com"
SETTINGS = SignInSettings(
    "https://sso.example.com", "openfaas", "openid groups", roles=("a", "b"), port=0
)
NOW = 1_900_000_000.0


def a_session(**changes: Any) -> Session:
    session = Session(
        gateway=GATEWAY,
        settings=SETTINGS,
        issuer="https://sso.example.com",
        sub="alice-1",
        person="alice@example.com",
        grant="code",
        signed_in=NOW,
        access_token="access-secret",
        access_expires=NOW + 900,
        access_seconds=900.0,
        id_token="id-secret",
        refresh_tokens=("refresh-secret", "refresh-before"),
        received="received-secret",
    )
    return replace(session, **changes)


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    return Sessions(tmp_path / "config" / "federation")


def test_a_session_comes_back_as_it_was_saved(sessions: Sessions) -> None:
    sessions.save(a_session())
    assert sessions.of(GATEWAY) == a_session()
    assert sessions.gateways() == [GATEWAY]


def test_without_a_session_there_is_none(sessions: Sessions) -> None:
    assert sessions.of(GATEWAY) is None
    assert sessions.gateways() == []
    assert sessions.remove(GATEWAY) is False
    assert not sessions.home.exists()


def test_a_session_hides_its_tokens() -> None:
    assert "-secret" not in repr(a_session())


def test_sessions_of_several_gateways_are_apart(sessions: Sessions) -> None:
    other = a_session(gateway="https://gateway.example.com:8443", access_token="other")
    sessions.save(a_session())
    sessions.save(other)
    assert sessions.remove(GATEWAY) is True
    assert sessions.of(GATEWAY) is None
    assert sessions.of(other.gateway) == other


def test_settings_stay_after_the_session_has_gone(sessions: Sessions) -> None:
    sessions.remember(GATEWAY, SETTINGS)
    sessions.save(a_session())
    sessions.remove(GATEWAY)
    assert sessions.settings_of(GATEWAY) == SETTINGS
    assert sessions.gateways() == []
    assert sessions.known_gateways() == [GATEWAY]


def test_settings_hold_no_secret(sessions: Sessions, tmp_path: Path) -> None:
    sessions.remember(GATEWAY, replace(SETTINGS, client_secret_file="/etc/secret"))
    (file,) = (sessions.home / "gateways").glob("*.json")
    assert "refresh" not in file.read_text()


@pytest.mark.parametrize(
    ("seconds", "now", "lives"),
    [
        pytest.param(60, NOW, True, id="fresh"),
        pytest.param(60, NOW + 839, True, id="a second more than needed"),
        pytest.param(60, NOW + 841, False, id="a second less than needed"),
        pytest.param(0, NOW + 901, False, id="expired"),
        pytest.param(3600, NOW + 449, True, id="more than it ever had: half of that is enough"),
        pytest.param(3600, NOW + 451, False, id="less than half of what it had"),
    ],
)
def test_a_token_lives_for_so_long(seconds: float, now: float, lives: bool) -> None:
    assert a_session().lives_for(seconds, now) is lives


def test_the_refresh_token_before_the_newest_is_kept_and_no_other() -> None:
    session = a_session(refresh_tokens=("r1",))
    for given, kept in [
        ("r2", ("r2", "r1")),
        ("r3", ("r3", "r2")),
        ("r3", ("r3", "r2")),
        ("", ("r3", "r2")),
    ]:
        session = with_refresh_token(session, given)
        assert session.refresh_tokens == kept


def test_others_with_the_same_client_are_found(sessions: Sessions) -> None:
    variants: dict[str, dict[str, Any]] = {
        "same": {},
        "slash": {"authority": "https://sso.example.com/"},
        "other-client": {"client_id": "another"},
        "other-provider": {"authority": "https://sso.example.org"},
    }
    for name, changes in variants.items():
        sessions.remember(f"https://{name}.example.com", replace(SETTINGS, **changes))
    sessions.remember(GATEWAY, SETTINGS)
    assert sessions.others_with(SETTINGS, GATEWAY) == [
        "https://same.example.com",
        "https://slash.example.com",
    ]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://Gateway.Example.com/", "https://gateway.example.com"),
        ("https://gateway.example.com:8443", "https://gateway.example.com:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
    ],
)
def test_a_gateway_has_the_name_that_faas_cli_gives_it(url: str, name: str) -> None:
    assert gateway_of(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway.example.com",
        "gateway.example.com",
        "https://gateway.example.com/ui/",
        "https://gateway.example.com?x=1",
        "https://gateway.example.com/#x",
        "https://alice:secret@gateway.example.com",
        "ftp://gateway.example.com",
        "https://",
    ],
)
def test_a_url_that_is_no_gateways_is_refused(url: str) -> None:
    with pytest.raises(ClientError):
        gateway_of(url)


# A file that cannot be used


def the_file(sessions: Sessions) -> Path:
    sessions.save(a_session())
    (file,) = (sessions.home / "sessions").glob("*.json")
    return file


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"gateway": 1}',
        '{"gateway": "https://gateway.example.com"}',
        '{"a": 1, "a": 2}',
        "\x00" * 50,
        "x" * 300_000,
    ],
    ids=["empty", "cut", "a list", "wrong type", "incomplete", "twice", "zeros", "huge"],
)
def test_a_damaged_session_is_told_with_the_file_to_remove(
    sessions: Sessions, content: str
) -> None:
    file = the_file(sessions)
    file.write_text(content)
    with pytest.raises(Damaged, match=file.name):
        sessions.of(GATEWAY)
    assert sessions.gateways() in ([], [GATEWAY])  # the others can still be listed


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("access_expires", "soon"),
        ("access_expires", True),
        ("refresh_tokens", "abc"),
        ("refresh_tokens", [1]),
        ("settings", []),
        ("settings", {"authority": 5}),
        ("sub", None),
        ("access_token", ["x"]),
    ],
)
def test_a_member_of_another_type_is_damage(sessions: Sessions, member: str, value: object) -> None:
    file = the_file(sessions)
    file.write_text(json.dumps({**json.loads(file.read_text()), member: value}))
    with pytest.raises(Damaged):
        sessions.of(GATEWAY)


def test_members_of_a_newer_version_are_passed_over(sessions: Sessions) -> None:
    file = the_file(sessions)
    file.write_text(json.dumps({**json.loads(file.read_text()), "future": {"a": 1}}))
    assert sessions.of(GATEWAY) == a_session()


def test_a_file_of_another_gateway_under_this_name_is_not_this_gateways(
    sessions: Sessions,
) -> None:
    file = the_file(sessions)
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "gateway": "https://other.example.com"}))
    assert sessions.of(GATEWAY) is None
    assert sessions.gateways() == []


# Writing


@pytest.fixture
def folder(tmp_path: Path) -> PrivateFolder:
    return PrivateFolder(tmp_path / "parent" / "private")


def test_what_is_replaced_is_never_half_there(folder: PrivateFolder) -> None:
    folder.write("a.json", {"n": 0, "filler": "x" * 100_000})
    stop, seen = threading.Event(), set()

    def read() -> None:
        while not stop.is_set():
            value = folder.read("a.json")
            assert value is not None
            assert len(str(value["filler"])) == 100_000
            seen.add(value["n"])

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(50):
        folder.write("a.json", {"n": n, "filler": "x" * 100_000})
    stop.set()
    reader.join()
    assert len(seen) > 1


def test_a_write_that_was_killed_leaves_the_old_file_and_no_heap(folder: PrivateFolder) -> None:
    folder.write("a.json", {"n": 1})
    for _ in range(3):
        (folder.path / "a.json.new").write_text('{"n": ')  # as a kill would leave it
        assert folder.read("a.json") == {"n": 1}
    folder.write("a.json", {"n": 2})
    assert sorted(each.name for each in folder.path.iterdir()) == ["a.json"]


def test_what_a_killed_write_left_is_removed_with_the_file(folder: PrivateFolder) -> None:
    folder.write("a.json", {"n": 1})
    (folder.path / "a.json.new").write_text("secret")
    folder.remove("a.json")
    assert list(folder.path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(folder: PrivateFolder) -> None:
    folder.write("a.json", {"n": 1})
    (folder.path / "a.json.new").mkdir()  # nothing can be written there
    with pytest.raises(ClientError, match="cannot be used"):
        folder.write("a.json", {"n": 2})
    assert folder.read("a.json") == {"n": 1}


# Locks


def test_a_lock_keeps_others_out_until_it_ends(folder: PrivateFolder) -> None:
    order: list[str] = []
    told: list[str] = []

    def other() -> None:
        with folder.locked("a", told.append):
            order.append("second")

    with folder.locked("a"):
        waiting = threading.Thread(target=other)
        waiting.start()
        time.sleep(0.3)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert told == []  # a short wait is not worth a line


def test_locks_of_different_names_are_apart(folder: PrivateFolder) -> None:
    with folder.locked("a"), folder.locked("b"):
        pass


def test_a_lock_stays_while_its_file_is_replaced(folder: PrivateFolder) -> None:
    with folder.locked("a.json"):
        folder.write("a.json", {"n": 1})
        folder.remove("a.json")
        taken = threading.Event()

        def other() -> None:
            with folder.locked("a.json"):
                taken.set()

        waiting = threading.Thread(target=other)
        waiting.start()
        assert not taken.wait(0.3)
    waiting.join()
    assert taken.is_set()


def test_a_lock_ends_with_the_last_process_that_holds_its_descriptor(
    folder: PrivateFolder,
) -> None:
    with folder.locked("a") as handle:
        kept = os.dup(handle)  # as a child process has it
    taken = threading.Event()

    def other() -> None:
        with folder.locked("a"):
            taken.set()

    waiting = threading.Thread(target=other)
    waiting.start()
    assert not taken.wait(0.3)
    os.close(kept)
    waiting.join()
    assert taken.is_set()
