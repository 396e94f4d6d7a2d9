"""
Attacks from the same machine: planted keys, foreign state, and keys that the broker cannot read.

Each worked: a key that another user had put into the state signed tokens that the broker took,
and root's `federation keys` left keys behind with which the next start failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner

from federation.app import build
from federation.cli import main
from federation.config import Settings, read_settings
from federation.errors import SettingsRefused
from federation.tokens.signing_keys import KeyFolder, SigningKey
from tests.harness.broker import DOCUMENTS, URL, logged

ROOT = 0
STRANGER = 4242
as_root = pytest.mark.skipif(os.geteuid() != ROOT, reason="only root can give files away")


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    place = tmp_path / "documents.yaml"
    # No issuer is where one could be reached.
    place.write_text(DOCUMENTS.replace('aud: ["', 'jwksUri: "https://127.0.0.1:9/", aud: ["'))
    return place


@pytest.fixture
def settings(tmp_path: Path, documents: Path) -> Settings:
    return Settings(issuer_url=URL, documents=(documents,), state=tmp_path / "state")


def key_file(path: Path, mode: int = 0o600) -> Path:
    path.write_bytes(SigningKey.generate().pem())
    path.chmod(mode)
    return path


def planted(state: Path) -> Path:
    """A key beside those of the broker that another user made: newer, so it is published."""
    path = key_file(state / "signing-keys" / f"{time.time_ns()}.planted.pem")
    os.chown(path, STRANGER, STRANGER)
    return path


def given_away(folder: Path, uid: int = STRANGER) -> Path:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, uid, follow_symlinks=False)
    return folder


def refused(**flags: str | list[str]) -> list[str]:
    with pytest.raises(SettingsRefused) as caught:
        read_settings(flags, {})
    return list(caught.value.problems)


@as_root
def test_a_planted_key_is_neither_published_nor_does_it_sign(settings: Settings) -> None:
    KeyFolder.under(settings.state).ensure()
    path = planted(settings.state)
    with pytest.raises(SettingsRefused, match=f"chown 0 {path}"):
        build(settings)


@as_root
def test_a_key_planted_under_a_running_broker_is_not_taken_and_the_broker_is_degraded(
    settings: Settings,
) -> None:
    app = build(settings)
    mine = app.state.broker.signing.kids

    async def story() -> tuple[tuple[str, ...], Mapping[str, Any]]:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.1)
            planted(settings.state)
            await asyncio.sleep(2.3)
            report = await app.state.health.report()
            return app.state.broker.signing.kids, {"degraded": report.degraded}

    kids, report = asyncio.run(story())
    assert kids == mine
    assert any(told.startswith("signing keys: ") for told in report["degraded"])


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666])
def test_a_key_in_the_state_that_others_can_read_is_not_used(settings: Settings, mode: int) -> None:
    KeyFolder.under(settings.state).ensure()
    (path,) = (settings.state / "signing-keys").glob("*.pem")
    if os.geteuid() == ROOT:  # root's own 0640 is how root hands a key to a service
        mode |= stat.S_IROTH
    path.chmod(mode)
    with pytest.raises(SettingsRefused, match=f"chmod 600 {path}"):
        build(settings)


def test_a_signing_key_that_everybody_can_read_is_refused_at_the_start(
    tmp_path: Path, documents: Path
) -> None:
    key = key_file(tmp_path / "key.pem", 0o644)
    (problem,) = refused(documents=[str(documents)], signing_key=[str(key)], state=str(tmp_path))
    assert problem.startswith("signing-key: ")
    assert problem.endswith(f"run: chmod 600 {key}")


@as_root
def test_every_file_of_somebody_else_is_told_at_once_with_its_command(
    tmp_path: Path, documents: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name in ("basic-auth-user", "basic-auth-password"):
        (secrets / name).write_text("x")
    hmac, header = tmp_path / "hmac", tmp_path / "header"
    for path in (hmac, header):
        path.write_text("x")
    key = key_file(tmp_path / "key.pem")
    state = tmp_path / "state"
    state.mkdir()
    for path in (state, key, hmac, header, secrets / "basic-auth-password"):
        os.chown(path, STRANGER, STRANGER)
    told = refused(
        documents=[str(documents)],
        port="99999",
        state=str(state),
        signing_key=[str(key)],
        audit_webhook="https://receiver.example.com",
        audit_webhook_secret=str(hmac),
        audit_webhook_header=str(header),
        upstream_secrets=str(secrets),
    )
    commands = [problem.rpartition("; run: ")[2].partition("; in a pod")[0] for problem in told[1:]]
    assert told[0].startswith("port: ")
    assert commands == [
        f"chown -R 0 {state}",
        f"chown 0 {key}",
        f"chown 0 {hmac}",
        f"chown 0 {header}",
        f"chown 0 {secrets / 'basic-auth-password'}",
    ]
    assert all("belongs to uid 4242" in problem for problem in told[1:])


def test_documents_of_somebody_else_are_fine(tmp_path: Path, documents: Path) -> None:
    if os.geteuid() == ROOT:
        os.chown(documents, STRANGER, STRANGER)
    read_settings({"documents": [str(documents)], "state": str(tmp_path / "state")}, {})


# `federation keys` and the user of the broker


def keys(command: str, state: Path) -> tuple[int, str, str]:
    ran = CliRunner().invoke(main, ["keys", command, "--state", str(state)])
    return ran.exit_code, ran.stdout, ran.stderr


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Be another user inside the `with` block, in a folder that this user can reach."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(ROOT)
        os.setegid(ROOT)


@as_root
@pytest.mark.parametrize("written", ["state.db", ""])
@pytest.mark.parametrize("command", ["generate", "rotate"])
def test_keys_that_root_makes_belong_to_the_user_of_the_state(
    tmp_path: Path, command: str, written: str
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    if written:
        (state / written).touch()
    given_away(state)
    code, out, told = keys(command, state)
    assert code == 0, told
    assert out.split()[0]
    made = [state / "signing-keys", *(state / "signing-keys").iterdir()]
    assert {path.stat().st_uid for path in made} == {STRANGER}
    assert os.geteuid() == ROOT


@as_root
@pytest.mark.parametrize("there", [True, False], ids=["root's folder", "no folder yet"])
def test_keys_that_root_makes_where_nobody_is_known_come_with_a_note(
    tmp_path: Path, there: bool
) -> None:
    state = tmp_path / "state"
    if there:
        state.mkdir()
    code, _, told = keys("generate", state)
    assert code == 0
    assert f"run: chown -R USER {state}" in told
    (state / "state.db").touch()  # root's broker wrote it
    assert keys("generate", state)[2] == ""


@as_root
@pytest.mark.parametrize("command", ["generate", "rotate", "list"])
def test_another_user_is_told_in_words_and_not_by_an_error_number(command: str) -> None:
    # Not in `tmp_path`: its parents are closed to other users.
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        state = Path(place, "state")
        state.mkdir(mode=0o700)
        given_away(state)
        script = (
            "import os; import federation.cli.keys; from federation.cli import main\n"
            "os.setgroups([]); os.setgid(5555); os.setuid(5555); main()"
        )
        words = [sys.executable, "-c", script, "keys", command, "--state", str(state)]
        ran = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  ours
    assert ran.returncode == 1, ran.stderr
    assert "[Errno" not in ran.stderr
    assert f"#{STRANGER}" in ran.stderr or "as its owner or as root" in ran.stderr


@as_root
def test_keys_that_root_makes_are_made_where_root_alone_can_go(tmp_path: Path) -> None:
    # systemd keeps the state of a DynamicUser under /var/lib/private, with a link to it.
    private = tmp_path / "private"
    (private / "federation").mkdir(parents=True, mode=0o700)
    private.chmod(0o700)
    given_away(private / "federation")
    link = tmp_path / "federation"
    link.symlink_to(private / "federation")
    code, _, told = keys("rotate", link)
    assert code == 0, told
    assert {path.stat().st_uid for path in (link / "signing-keys").iterdir()} == {STRANGER}


@as_root
def test_the_command_works_where_the_user_of_the_state_cannot_read_the_program() -> None:
    # An installation below /root, as here: nothing may be imported once root's rights are gone.
    with TemporaryDirectory() as place:
        state = given_away(Path(place))
        for command in ("generate", "rotate", "rotate", "list"):
            ran = subprocess.run(  # noqa: S603  our own program
                [sys.executable, "-m", "federation", "keys", command, "--state", str(state)],
                capture_output=True,
                text=True,
                check=False,
                cwd=Path(__file__).parents[2],
                timeout=60,
            )
            assert ran.returncode == 0, ran.stderr
        assert len(ran.stdout.splitlines()) == 3


@as_root
def test_root_writes_no_key_where_the_user_of_the_state_could_not(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    elsewhere.mkdir(mode=0o700)
    (state / "signing-keys").symlink_to(elsewhere)
    given_away(state)
    code, out, told = keys("generate", state)
    assert (code, out) == (1, "")
    assert "Traceback" not in told
    assert list(elsewhere.iterdir()) == []


@as_root
def test_rotate_does_not_say_that_a_key_signs_which_the_broker_cannot_read(tmp_path: Path) -> None:
    state = tmp_path / "state"
    KeyFolder.under(state).ensure()
    (state / "state.db").touch()
    for path in (state, state / "state.db", state / "signing-keys"):
        os.chown(path, STRANGER, STRANGER)  # the keys stay root's, 0600
    code, out, told = keys("rotate", state)
    assert (code, out) == (1, "")
    assert f"chown -R {STRANGER} {state}" in told


@as_root
@pytest.mark.parametrize("command", ["generate", "rotate"])
def test_another_user_is_told_as_whom_to_run_the_command(command: str) -> None:
    with TemporaryDirectory() as place:
        state = Path(place) / "state"
        state.mkdir(mode=0o755)
        (state / "state.db").touch()
        Path(place).chmod(0o755)
        given_away(state)
        with acting_as(STRANGER + 1):
            code, out, told = keys(command, state)
    assert (code, out) == (1, "")
    assert f"sudo -u '#{STRANGER}' federation keys {command} --state {state}" in told


@as_root
def test_root_may_list_and_verify_with_the_keys_of_the_broker(tmp_path: Path) -> None:
    state = tmp_path / "state"
    KeyFolder.under(state).ensure()
    (state / "audit").mkdir()
    given_away(state)
    assert keys("list", state)[0] == 0
    ran = CliRunner().invoke(main, ["audit", "verify", "--state", str(state)])
    assert ran.exit_code == 0, ran.output


def test_keys_that_cannot_be_read_any_more_are_degraded_and_logged_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.app.lifespan._KEYS_CHECK_SECONDS", 0.05)
    app = build(settings)
    (path,) = (settings.state / "signing-keys").glob("*.pem")

    async def degraded() -> list[str]:
        report = await app.state.health.report()
        return [told for told in report.degraded if told.startswith("signing keys: ")]

    async def story() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.1)
            assert await degraded() == []
            path.chmod(0o644)
            await asyncio.sleep(0.3)
            (told,) = await degraded()
            assert f"chmod 600 {path}" in told
            path.chmod(0o600)
            await asyncio.sleep(0.3)
            assert await degraded() == []

    with logged() as log:
        asyncio.run(story())
    events = [json.loads(line)["event"] for line in log.getvalue().splitlines()]
    assert [event for event in events if event.startswith("signing keys")] == [
        "signing keys cannot be read; the known ones stay in use",
        "signing keys can be read again",
    ]


def test_a_rotation_is_followed_as_before(settings: Settings) -> None:
    app = build(settings)
    key, _ = KeyFolder.under(settings.state).rotate(datetime.now(UTC))

    async def story() -> str:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.3)
            return str(app.state.broker.signing.signs.kid)

    assert asyncio.run(story()) == key.kid
