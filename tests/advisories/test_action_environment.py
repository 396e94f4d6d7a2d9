"""
Attacks on the CI login script through its environment and its folders.

A job's variables may have the names of the script's own; they must not reach a path that is
deleted, the outcome of a login, or the environment of a program that the script runs. An earlier
job of the same runner user may leave links where the script writes a token.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.ci_runner import SCRIPT, SHELLS, Runner, World, jwt, world
from tests.harness.process import in_thread
from tests.harness.raw_server import http_answer, raw_server

_PROGRAMS = ("curl", "awk", "sed", "tr", "mktemp", "date", "cat", "mkdir", "mv", "rm", "rmdir")
OWN = frozenset(
    re.findall(r"^ *(?:\S.* )?([a-z_]+)=(?![=~])", SCRIPT.read_text(), re.MULTILINE)
    + re.findall(r"^ *for ([a-z_]+) in", SCRIPT.read_text(), re.MULTILINE)
) - {"disable", "me", "title"}
"""The variables that the script assigns; the three are words of shellcheck, awk and GitHub."""


@pytest.fixture(name="around")
def _around() -> Iterator[World]:
    with world() as around:
        yield around


@pytest.fixture(name="runner", params=SHELLS)
def _runner(request: pytest.FixtureRequest, tmp_path: Path, around: World) -> Runner:
    return Runner(tmp_path, around, request.param)


@pytest.mark.parametrize("name", ["login", "state", "config"])
@pytest.mark.parametrize("command", ["github", "gitlab", "logout"])
def test_a_variable_of_the_job_names_no_folder_to_delete(
    runner: Runner, name: str, command: str
) -> None:
    precious = runner.folder / "precious"
    precious.mkdir()
    for file in ("work", "token", "config.yml"):
        (precious / file).write_text("keep")
    run = runner.gitlab if command == "gitlab" else runner.github
    run(command, **{name: str(precious), "FEDERATION_URL": "no url"})
    assert sorted(p.name for p in precious.iterdir()) == ["config.yml", "token", "work"]


@pytest.mark.parametrize("job", ["../../precious", "17/../../../precious", "*"])
def test_a_job_id_cannot_leave_the_temporary_folder(runner: Runner, job: str) -> None:
    precious = runner.folder / "precious"
    precious.mkdir(mode=0o700)
    (Path(f"{runner.workspace}.tmp") / "federation-17").mkdir(parents=True)
    (precious / "work").write_text("keep")
    for command in ("gitlab", "logout"):
        runner.gitlab(command, CI_JOB_ID=job)
    assert [p.name for p in precious.iterdir()] == ["work"]


@pytest.mark.parametrize("value", ["x", "", "0", "/", "a\nb"])
def test_variables_with_the_names_of_the_scripts_own_change_nothing(
    runner: Runner, around: World, value: str
) -> None:
    ran = runner.github(FEDERATION_FAAS_CLI="true", **dict.fromkeys(OWN, value))
    assert ran.code == 0, ran.log
    assert ran.outputs["token"] == around.access_token
    ran = runner.github("logout", **dict.fromkeys(OWN, value))
    assert "is revoked" in ran.log
    assert not list(runner.temporary.glob("federation/*"))


def test_exported_names_carry_no_token_into_a_programs_environment(
    runner: Runner, around: World
) -> None:
    runner.watch(*_PROGRAMS)
    exported = dict.fromkeys(OWN, "exported")
    assert {"token", "form", "id_token", "request_token"} <= exported.keys()
    given = jwt(aud=around.url, jti="given")
    for run, command in (
        (runner.github, "github"),
        (runner.github, "logout"),
        (runner.gitlab, "gitlab"),
        (runner.gitlab, "logout"),
    ):
        ran = run(command, FEDERATION_ID_TOKEN=given, **exported)
        assert ran.code == 0, ran.log
    seen = runner.seen()
    for token in (given, around.access_token, "the-request-token", *around.minted):
        assert token not in seen


def test_programs_get_what_curl_needs_of_the_environment_and_nothing_else(runner: Runner) -> None:
    needed = {"NO_PROXY": "127.0.0.1", "SSL_CERT_DIR": "/certs", "HOME": str(runner.folder)}
    runner.watch(*_PROGRAMS)
    ran = runner.github(
        DEPLOY_PASSWORD="hunter2",
        SSLKEYLOGFILE=str(runner.folder / "keys"),
        MESSAGE='text"\nexport PATH=/nowhere\nexport IFS=/\nexport UID=1\ndeclare -x login="/"\n',
        **needed,
    )
    assert ran.code == 0, ran.log
    seen = runner.seen().splitlines()
    names = {line.split("=", 1)[0] for line in seen if re.match(r"[A-Za-z_]\w*=", line)}
    arguments = {"me", "mode", "name"}
    assert names - arguments <= {"PATH", "LC_ALL", "PWD", "OLDPWD", "_", "SHLVL", *needed}
    assert {f"{name}={value}" for name, value in needed.items()} <= set(seen)
    assert not (runner.folder / "keys").exists()


@pytest.mark.parametrize("system", ["github", "gitlab"])
def test_a_broker_on_this_machine_is_not_asked_through_a_proxy(
    runner: Runner, around: World, system: str
) -> None:
    """Only a broker on this machine may have an http URL. A proxy would see each token in clear."""

    async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(http_answer("{}"))

    with in_thread(lambda: raw_server(reply)) as (proxy, seen):
        run = runner.github if system == "github" else runner.gitlab
        for command in (system, "logout"):
            ran = run(command, http_proxy=proxy, ALL_PROXY=proxy)
            assert ran.code == 0, ran.log
    assert seen == []
    assert len(around.asked("/oauth/token")) == len(around.asked("/oauth/revoke")) == 1


def test_an_earlier_jobs_link_does_not_receive_the_token(runner: Runner, around: World) -> None:
    public = runner.folder / "public"
    public.write_text("")
    state = Path(f"{runner.workspace}.tmp") / "federation-17"
    state.mkdir(parents=True)
    state.chmod(0o700)
    (state / "exports").symlink_to(public)
    assert runner.gitlab().code == 0
    assert public.read_text() == ""
    assert around.access_token in runner.gitlab("exports").log


def test_a_link_that_is_planted_during_the_login_does_not_receive_the_token(
    runner: Runner, around: World
) -> None:
    public = runner.folder / "public"
    public.write_text("")
    state = Path(f"{runner.workspace}.tmp") / "federation-17"
    runner.before("curl", f"ln -sf {public} {state}/exports")
    assert runner.gitlab().code == 0
    assert public.read_text() == ""
    assert around.access_token in runner.gitlab("exports").log


@pytest.mark.parametrize("linked", [True, False])
def test_an_earlier_jobs_folder_does_not_receive_the_token(
    runner: Runner, around: World, *, linked: bool
) -> None:
    state = Path(f"{runner.workspace}.tmp") / "federation-17"
    public = runner.folder / "public" if linked else state / "exports"
    state.mkdir(parents=True)
    public.mkdir()
    state.chmod(0o700)
    if linked:
        (state / "exports").symlink_to(public)
    ran = runner.gitlab()
    assert ran.code == (0 if linked else 1), ran.log
    assert linked or "cannot be removed" in ran.log
    assert not list(public.iterdir())
    assert (around.access_token in runner.gitlab("exports").log) == linked


def test_an_earlier_jobs_exports_are_not_evaluated_after_a_failed_login(runner: Runner) -> None:
    state = Path(f"{runner.workspace}.tmp") / "federation-17"
    state.mkdir(parents=True)
    state.chmod(0o700)
    (state / "exports").write_text("echo planted\n")
    assert runner.gitlab(FEDERATION_URL="").code == 1
    assert "planted" not in runner.gitlab("exports").log


@pytest.mark.parametrize("planted", ["login.planted", "login.abcdef"])
def test_a_logout_follows_no_link_to_another_folder(
    runner: Runner, around: World, planted: str
) -> None:
    precious = runner.folder / "precious"
    precious.mkdir(mode=0o700)
    for name, text in {"token": jwt(other=True), "url": around.url, "config": "/"}.items():
        (precious / name).write_text(text)
    state = Path(f"{runner.workspace}.tmp") / "federation-17"
    state.mkdir(parents=True)
    state.chmod(0o700)
    (state / planted).symlink_to(precious)
    assert runner.gitlab("logout").code == 0
    assert sorted(p.name for p in precious.iterdir()) == ["config", "token", "url"]


def test_a_planted_login_cannot_give_curl_settings_of_its_own(runner: Runner) -> None:
    written = runner.folder / "written"
    login = Path(f"{runner.workspace}.tmp") / "federation-17" / "login.planted"
    login.mkdir(parents=True)
    for folder in (login, login.parent):
        folder.chmod(0o700)
    for name, text in {
        "token": jwt(other=True),
        "url": f'{runner.world.url}/"\ntrace-ascii = "{written}"\nurl = "{runner.world.url}',
        "export": "",
    }.items():
        (login / name).write_text(text)
    assert runner.gitlab("logout").code == 0
    assert not written.exists()
    assert runner.world.requests == []


@pytest.mark.parametrize("linked", ["token", "url"])
def test_a_logout_sends_no_file_that_a_planted_login_links_to(runner: Runner, linked: str) -> None:
    login = Path(f"{runner.workspace}.tmp") / "federation-17" / "login.planted"
    login.mkdir(parents=True)
    for folder in (login, login.parent):
        folder.chmod(0o700)
    for name, text in {"token": jwt(other=True), "url": runner.world.url, "export": ""}.items():
        (login / name).write_text(text)
    elsewhere = runner.folder / "elsewhere"
    (login / linked).rename(elsewhere)
    (login / linked).symlink_to(elsewhere)
    assert runner.gitlab("logout").code == 0
    assert runner.world.requests == []


def test_every_variable_of_the_script_starts_empty() -> None:
    text = SCRIPT.read_text()
    (listed,) = re.findall(r"^for name in ((?:[a-z_]+|\\\n|\s)+); do\n  unset", text, re.MULTILINE)
    start = {"newline", "line", "name", "id_token", "request_token"}
    assert set(listed.replace("\\\n", " ").split()) | start == OWN
