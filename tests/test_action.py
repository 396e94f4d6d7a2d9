"""
Tests of the login of CI jobs: `action/`, `gitlab/` and the script that both run.

Tokens stay out of logs, arguments and environments. Errors that may pass are retried, and
refusals are not. Each error says what to change.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import ssl
import stat
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness.ci_runner import ROOT, SCRIPT, SHELLS, Answer, Runner, World, jwt, world

TEMPLATE = ROOT / "gitlab" / "federate.yml"
REFUSAL = {
    "error": "invalid_request",
    "error_description": "No policies found for subject: repo:o/r. Role deployer came close, but "
    "these do not match: jwt:ref (the token has refs/heads/feature).",
    "reason": "no_role_admits",
    "request_id": "6b2aa908a3d64964bafe27de067b8f70",
}
DOWN = "http://127.0.0.1:9"


@pytest.fixture(name="around")
def _around() -> Iterator[World]:
    with world() as around:
        yield around


@pytest.fixture(name="runner")
def _runner(tmp_path: Path, around: World) -> Runner:
    return Runner(tmp_path, around)


# --- a login --------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_a_github_job_gets_its_token_roles_and_policies(
    tmp_path: Path, around: World, shell: str
) -> None:
    ran = Runner(tmp_path, around, shell).github()
    assert ran.code == 0, ran.log
    assert ran.outputs == {
        "token": around.access_token,
        "expires-at": "2026-11-24T12:00:00Z",
        "roles": "deployer,reader",
        "policies": "dev-deploy",
    }
    assert ran.later == {}
    assert "Logged in to" in ran.log
    assert "dev-deploy" in ran.summary


@pytest.mark.parametrize("shell", SHELLS)
def test_a_gitlab_job_gets_its_token_into_its_own_shell(
    tmp_path: Path, around: World, shell: str
) -> None:
    runner = Runner(tmp_path, around, shell)
    ran = runner.gitlab()
    assert ran.code == 0, ran.log
    assert around.access_token not in ran.log
    exports = runner.gitlab("exports").log
    shell = shutil.which("sh") or ""
    program = f"""{exports}
        printf %s "$FEDERATION_TOKEN,$OPENFAAS_URL,${{FEDERATION_ID_TOKEN-unset}}"
    """
    shown = subprocess.run(  # noqa: S603  our own words
        [shell, "-c", program],
        env={"FEDERATION_ID_TOKEN": "spent"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown == f"{around.access_token},{around.url},unset"


def test_the_request_to_the_broker_follows_rfc_8693(runner: Runner, around: World) -> None:
    runner.github(FEDERATION_ROLE="deployer\nreader, third", FEDERATION_URL=f"{around.url}/")
    (asked,) = around.asked("/oauth/token")
    assert asked.form == {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token_type": ["urn:ietf:params:oauth:token-type:id_token"],
        "subject_token": around.minted,
        "role": ["deployer", "reader", "third"],
    }


def test_functions_are_requested_by_name(runner: Runner, around: World) -> None:
    runner.github(FEDERATION_FUNCTION_AUDIENCE="dev:env dev:cows")
    (asked,) = around.asked("/oauth/token")
    assert (asked.form["scope"], asked.form["audience"]) == (["function"], ["dev:env", "dev:cows"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [("", None), ("https://a.test/?x=1&y=2 #%", "https://a.test/?x=1&y=2 #%"), ('a"b\\c', 'a"b\\c')],
)  # fmt: skip
def test_the_audience_defaults_to_the_url_and_is_encoded(
    runner: Runner, around: World, given: str, expected: str | None
) -> None:
    runner.github(FEDERATION_AUDIENCE=given)
    (asked,) = around.asked("/github/token")
    assert asked.query["audience"] == [expected or around.url]
    assert asked.query["api-version"] == ["2.0"]
    assert asked.headers["authorization"] == "bearer the-request-token"


@pytest.mark.parametrize(
    "name", ["MY_TOKEN", "GOOGLE_TOKEN", "PATH_TOKEN", "federation_token", "_X"]
)
def test_later_steps_get_the_token_only_with_the_input_export(
    runner: Runner, around: World, name: str
) -> None:
    assert runner.github(FEDERATION_EXPORT=name).later == {name: around.access_token}


@pytest.mark.parametrize(
    ("around_it", "slip"),
    [
        ("{} ", "a blank or a line end around it"),
        ("  {}/\n", "a blank or a line end around it"),
        ("{}/oauth/token", "/oauth/token at its end"),
        ("{}//oauth/token/\t", "/oauth/token at its end"),
        ("{}/.well-known/openid-configuration", "/.well-known/openid-configuration at its end"),
    ],
)
def test_what_people_copy_along_with_the_url_is_left_out_and_named(
    runner: Runner, around: World, around_it: str, slip: str
) -> None:
    ran = runner.github(FEDERATION_URL=around_it.format(around.url))
    assert ran.code == 0, ran.log
    assert f"::warning title=Federation::The input url has {slip}" in ran.log
    assert f"The login uses {around.url};" in ran.log
    assert len(around.asked("/oauth/token")) == 1
    (asked,) = around.asked("/github/token")
    assert asked.query["audience"] == [around.url]


def test_blanks_around_the_other_inputs_are_left_out(runner: Runner, around: World) -> None:
    ran = runner.github(
        FEDERATION_AUDIENCE=" https://a.test\n", FEDERATION_EXPORT="MY_TOKEN ",
        FEDERATION_FAAS_CLI="true\n", FEDERATION_DEBUG="false ",
    )  # fmt: skip
    assert ran.code == 0, ran.log
    assert around.asked("/github/token")[0].query["audience"] == ["https://a.test"]
    assert set(ran.later) == {"MY_TOKEN", "OPENFAAS_CONFIG", "OPENFAAS_URL"}


# --- expect-role and debug --------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["github", "gitlab"])
@pytest.mark.parametrize("expected", ["deployer reader", "reader,\n deployer, third"])
def test_expected_roles_pass(runner: Runner, platform: str, expected: str) -> None:
    run = runner.github if platform == "github" else runner.gitlab
    ran = run(FEDERATION_EXPECT_ROLE=expected)
    assert ran.code == 0, ran.log


@pytest.mark.parametrize("name", ["expect-role", "role", "function-audience"])
@pytest.mark.parametrize("given", [",", " ", "\n", " ,\n\t"])
def test_a_list_of_nothing_is_no_way_to_ask_for_all(
    runner: Runner, around: World, name: str, given: str
) -> None:
    ran = runner.github(**{f"FEDERATION_{name.upper().replace('-', '_')}": given})
    assert (ran.code, ran.outputs) == (1, {})
    assert f"The input {name} is ,." in ran.log
    assert around.requests == []


@pytest.mark.parametrize("platform", ["github", "gitlab"])
@pytest.mark.parametrize(
    ("admitted", "named"),
    [(["deployer", "reader"], "reader."), (["*"], "*."), ([], "none at all."), (None, "none at all.")],
)  # fmt: skip
def test_a_token_of_another_role_is_revoked_and_given_to_nobody(
    runner: Runner, around: World, platform: str, admitted: list[str] | None, named: str
) -> None:
    around.access_token = jwt(sub="s", exp=1795521600, policy=[], **{"role": admitted} if admitted is not None else {})  # fmt: skip
    run = runner.github if platform == "github" else runner.gitlab
    ran = run(FEDERATION_EXPECT_ROLE="deployer", FEDERATION_FAAS_CLI="true")
    assert ran.code == 1
    assert f"that the input expect-role does not name: {named}" in ran.log
    assert "The access token is revoked" in ran.log
    (asked,) = around.asked("/oauth/revoke")
    assert asked.form["token"] == [around.access_token]
    assert (ran.outputs, ran.later) == ({}, {})
    assert not [p for p in runner.folder.rglob("*federation*/*") if p.is_file()]


def test_a_token_of_another_role_that_cannot_be_revoked_is_given_to_nobody(
    runner: Runner, around: World
) -> None:
    around.revocation = [Answer(500)]
    ran = runner.github(FEDERATION_EXPECT_ROLE="deployer")
    assert (ran.code, ran.outputs) == (1, {})
    assert "could not be revoked and ends by itself at 2026-11-24T12:00:00Z" in ran.log


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_debug_shows_the_claims_and_stops_before_the_exchange(
    runner: Runner, around: World, platform: str
) -> None:
    around.claims |= {"user_email": "someone@example.com"}
    run = runner.github if platform == "github" else runner.gitlab
    ran = run(FEDERATION_DEBUG="true")
    assert ran.code == 1
    assert "stopped before the exchange" in ran.log
    shown = ran.summary if platform == "github" else ran.log
    claims = json.loads(re.search(r"^ *\{$.*?^ *\}$", shown, re.MULTILINE | re.DOTALL)[0])  # type: ignore[index]  # as below
    assert claims.items() >= {"sub": "repo:octo-org/octo-repo", "ref": "refs/heads/main"}.items()
    assert not {"jti", "user_email"} & set(claims)
    assert around.asked("/oauth/token") == []
    assert (ran.outputs, ran.later) == ({}, {})
    for token in around.minted:
        assert [line for line in ran.log.splitlines() if token in line] == [f"::add-mask::{token}"]
    assert not list(runner.folder.rglob("login.*"))


# --- secrecy --------------------------------------------------------------------------------

_PROGRAMS = ("curl", "awk", "sed", "tr", "mktemp", "date", "cat", "mkdir", "mv", "rm", "ls", "id")


@pytest.mark.parametrize("shell", SHELLS[:2])
@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_no_token_is_in_arguments_or_environment_of_any_program(
    tmp_path: Path, around: World, platform: str, shell: str
) -> None:
    runner = Runner(tmp_path, around, shell)
    runner.watch(*_PROGRAMS)
    given = jwt(aud=around.url, jti="given")
    run = runner.github if platform == "github" else runner.gitlab
    for command in (platform, "logout"):
        ran = run(command, FEDERATION_ID_TOKEN=given, FEDERATION_FAAS_CLI="true")
        assert ran.code == 0, ran.log
    seen = runner.seen()
    assert "curl" in seen
    assert len(around.asked("/oauth/revoke")) == 1
    for token in (given, around.access_token, "the-request-token", *around.minted):
        assert token not in seen


def test_each_token_is_masked_first_and_printed_nowhere_else(runner: Runner, around: World) -> None:
    log = runner.github(FEDERATION_FAAS_CLI="true").log
    for token in ("the-request-token", *around.minted, around.access_token):
        assert [line for line in log.splitlines() if token in line] == [f"::add-mask::{token}"]
    log = runner.github("logout").log
    assert log.splitlines()[0] == f"::add-mask::{around.access_token}"
    assert log.count(around.access_token) == 1


def test_the_curlrc_of_the_runner_user_is_ignored(runner: Runner, around: World) -> None:
    (runner.folder / ".curlrc").write_text("verbose\nuser-agent = theirs\n")
    ran = runner.gitlab(HOME=str(runner.folder), CURL_HOME=str(runner.folder))
    assert ran.code == 0, ran.log
    assert around.requests[0].headers["user-agent"] == "federation-ci"


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_a_trace_shows_no_token(runner: Runner, around: World, platform: str) -> None:
    traced = runner.folder / "traced"
    traced.write_text(f'#!/bin/sh\nexec bash -x "{SCRIPT}" "$@"\n')
    masks = re.compile(r"^::add-mask::.*$", re.MULTILINE)
    run = runner.github if platform == "github" else runner.gitlab
    runner.shell = "bash"
    ran = run(platform, SHELLOPTS="xtrace")
    assert ran.code == 0, ran.log
    for token in (around.access_token, *around.minted):
        assert token not in masks.sub("", ran.log)


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_files_are_private_and_outside_the_workspace(runner: Runner, platform: str) -> None:
    run = runner.github if platform == "github" else runner.gitlab
    run(FEDERATION_FAAS_CLI="true")
    kept = [p for p in runner.folder.rglob("*federation*/**/*") if p.is_file()]
    assert {"token", "config.yml"} <= {p.name for p in kept}
    assert {stat.S_IMODE(p.stat().st_mode) for p in kept} == {0o600}
    assert not list(runner.workspace.iterdir())
    (state,) = (p for p in runner.folder.rglob("federation*") if p.is_dir())
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_another_users_folder_is_not_used(runner: Runner) -> None:
    beside = Path(f"{runner.workspace}.tmp")
    beside.mkdir()
    (beside / "federation-17").symlink_to(runner.temporary)
    ran = runner.gitlab()
    assert ran.code == 1
    assert "somebody else's" in ran.log
    assert not list(runner.temporary.iterdir())


def test_a_gitlab_token_is_sent_only_to_its_audience(runner: Runner, around: World) -> None:
    ran = runner.gitlab(FEDERATION_ID_TOKEN=jwt(aud="https://broker.test"))
    assert ran.code == 1
    assert "is for https://broker.test, but would be sent to" in ran.log
    assert around.requests == []


def test_a_gitlab_token_for_several_services_is_not_sent(runner: Runner, around: World) -> None:
    ran = runner.gitlab(FEDERATION_ID_TOKEN=jwt(aud=[around.url, "https://other.test"]))
    assert ran.code == 1
    assert f"is for several audiences: {around.url},https://other.test." in ran.log
    assert f"aud: {around.url}" in ran.log
    assert around.requests == []


def test_a_gitlab_list_of_one_audience_is_that_audience(runner: Runner, around: World) -> None:
    assert runner.gitlab(FEDERATION_ID_TOKEN=jwt(aud=[around.url], jti="1")).code == 0


@pytest.mark.parametrize(
    ("end", "slip"),
    [(" ", "a blank or a line end"), ("/", "a slash"), ("/oauth/token", "/oauth/token")],
)
def test_a_slip_in_the_gitlab_input_is_named_where_the_token_has_it_too(
    runner: Runner, around: World, end: str, slip: str
) -> None:
    # GitLab writes the input as it is into `aud`, so that no JwtIssuer would accept the token.
    given = f"{around.url}{end}"
    ran = runner.gitlab(FEDERATION_URL=given, FEDERATION_ID_TOKEN=jwt(aud=given))
    assert ran.code == 1
    assert f"ERROR: The input url has {slip}" in ran.log
    assert f"url: {around.url}\n" in ran.log
    assert around.requests == []


def test_a_traced_gitlab_job_gets_a_warning(runner: Runner) -> None:
    assert "CI_DEBUG_TRACE is on" in runner.gitlab(CI_DEBUG_TRACE="true").log


# --- retries ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_temporary_errors_are_tried_four_times(runner: Runner, around: World, status: int) -> None:
    around.broker = [Answer(status, "not now")]
    ran = runner.github()
    assert ran.code == 1
    assert len(around.asked("/oauth/token")) == 4
    assert runner.pauses() == ["1", "2", "4"]
    assert f"answered HTTP {status}, four times" in ran.log


def test_each_try_uses_a_new_id_token(runner: Runner, around: World) -> None:
    around.broker = [Answer(502), Answer(502), around.grant()]
    assert runner.github().code == 0
    sent = [request.form["subject_token"][0] for request in around.asked("/oauth/token")]
    assert len(set(sent)) == 3


@pytest.mark.parametrize(("said", "waited"), [("3", "3"), ("3600", "10"), ("soon", "1")])
def test_retry_after_is_honoured_up_to_ten_seconds(
    runner: Runner, around: World, said: str, waited: str
) -> None:
    around.broker = [Answer(503, "", {"Retry-After": said}), around.grant()]
    assert runner.github().code == 0
    assert runner.pauses() == [waited]


_PENDING = {"$id": "1", "message": "Pending\n::set-output name=token::x"}


def test_a_pending_token_service_is_asked_again(runner: Runner, around: World) -> None:
    around.github = [Answer(403, _PENDING), around.mint()]
    ran = runner.github()
    assert ran.code == 0, ran.log
    assert len(around.asked("/github/token")) == 2
    assert runner.pauses() == ["1"]


def test_the_message_of_a_token_service_that_stays_pending_is_shown(
    runner: Runner, around: World
) -> None:
    around.github = [Answer(403, _PENDING)]
    ran = runner.github()
    assert ran.code == 1
    assert len(around.asked("/github/token")) == 4
    assert runner.pauses() == ["1", "2", "4"]
    assert "GitHub answered HTTP 403 instead of an ID token, four times: Pending" in ran.log
    assert "id-token: write" in ran.log
    assert "\n::set-output" not in ran.log


def test_the_message_of_a_token_service_that_says_no_is_shown(
    runner: Runner, around: World
) -> None:
    around.github = [Answer(401, {"message": "The job has ended."})]
    ran = runner.github()
    assert "GitHub answered HTTP 401 instead of an ID token: The job has ended." in ran.log


def test_a_message_that_repeats_a_token_is_shown_without_it(runner: Runner, around: World) -> None:
    token = jwt(sub="s")
    around.github = [Answer(401, {"message": f"bad {token}, twice: {token}"})]
    ran = runner.github()
    assert "an ID token: bad ..., twice: ...." in ran.log
    assert token.split(".")[1] not in ran.log + ran.summary


@pytest.mark.parametrize(
    ("path", "status"),
    [(path, status) for path in ("/github/token", "/oauth/token") for status in (400, 401, 404)]
    + [("/oauth/token", 403)],
)
def test_a_refusal_is_final(runner: Runner, around: World, path: str, status: int) -> None:
    (around.github if path == "/github/token" else around.broker).append(Answer(status, REFUSAL))
    assert runner.github().code == 1
    assert len(around.asked(path)) == 1
    assert runner.pauses() == []


# --- messages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param(
            {"ACTIONS_ID_TOKEN_REQUEST_URL": None, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": None},
            ["ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN not set",
             "id-token: write", "reusable workflow"],
            id="no permission",
        ),
        pytest.param(
            {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": None},
            ["ACTIONS_ID_TOKEN_REQUEST_TOKEN not set", "id-token: write"],
            id="half a permission",
        ),
        pytest.param(
            {"ACTIONS_ID_TOKEN_REQUEST_URL": None, "GITHUB_EVENT_NAME": "pull_request",
             "FEDERATION_HEAD_REPOSITORY": "octo-org/octo-repo"},
            ["id-token: write"],
            id="pull request of the repository itself",
        ),
        pytest.param(
            {"ACTIONS_ID_TOKEN_REQUEST_URL": None, "GITHUB_EVENT_NAME": "pull_request",
             "FEDERATION_HEAD_REPOSITORY": "mallory/octo-repo"},
            ["comes from a fork, mallory/octo-repo", "Do not turn to pull_request_target"],
            id="fork",
        ),
        pytest.param({"RUNNER_OS": "Windows"}, ["Linux and macOS"], id="windows"),
        pytest.param({"FEDERATION_URL": ""}, ["input url is missing"], id="no url"),
        pytest.param({"FEDERATION_URL": "http://broker.test"}, ["not an https URL"], id="in clear"),
        pytest.param({"FEDERATION_URL": "http://127.0.0.1.evil.test"}, ["not an https URL"], id="not this machine"),
        pytest.param({"FEDERATION_URL": "http://127.0.0.1@evil.test"}, ["not an https URL"], id="user in url"),
        pytest.param({"FEDERATION_URL": "https://broker.test\nurl = x"}, ["not an https URL"], id="line in url"),
        pytest.param({"FEDERATION_URL": "https://broker.test/?a"}, ["not an https URL"], id="query in url"),
        pytest.param({"FEDERATION_URL": "https://broker.test/a b"}, ["not an https URL"], id="space in url"),
        pytest.param({"FEDERATION_URL": "https://evil.test\\@broker.test"}, ["not an https URL"], id="backslash in url"),
        pytest.param({"FEDERATION_URL": "https://:443"}, ["not an https URL"], id="no host"),
        pytest.param({"FEDERATION_URL": "file:///etc/passwd"}, ["not an https URL"], id="a file"),
        pytest.param({"FEDERATION_AUDIENCE": "a\nb"}, ["line break"], id="line in audience"),
        pytest.param({"FEDERATION_ROLE": 'a"\nurl=x'}, ["input role"], id="no role"),
        pytest.param({"FEDERATION_SCOPE": "all"}, ["input scope"], id="no scope"),
        pytest.param({"FEDERATION_FUNCTION_AUDIENCE": "dev/*"}, ["function-audience"], id="no function"),
        pytest.param({"FEDERATION_FAAS_CLI": "yes"}, ["Write true or false"], id="neither true nor false"),
        pytest.param({"FEDERATION_FAAS_CLI": "true", "FEDERATION_SCOPE": "function"},
                     ["only invokes functions"], id="function token for faas-cli"),
        pytest.param({"FEDERATION_EXPORT": "A B"}, ["cannot name a variable"], id="no variable"),
        pytest.param({"FEDERATION_EXPORT": "GITHUB_TOKEN"}, ["cannot name a variable"], id="reserved"),
        *(
            pytest.param({"FEDERATION_EXPORT": name}, [f"The input export is {name.strip()}", "Give a name such as"], id=name)
            for name in ("PATH", "HOME", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "NODE_OPTIONS",
                         "PYTHONPATH", "GIT_SSH_COMMAND", "HTTPS_PROXY", "no_proxy", "CURL_CA_BUNDLE", "IFS",
                         "OPENFAAS_URL", "RUNNER_TEMP", "CI", "GOPROXY", "JAVA_TOOL_OPTIONS", " PATH\n")
        ),
        pytest.param({"FEDERATION_URL": "broker.test"}, ["does not begin with https://"], id="no scheme"),
        pytest.param({"FEDERATION_URL": " \n"}, ["input url is missing"], id="blank url"),
        pytest.param({"FEDERATION_EXPECT_ROLE": "a*"}, ["input expect-role"], id="no role expected"),
        pytest.param({"FEDERATION_EXPECT_ROLE": "a", "FEDERATION_SCOPE": "function"},
                     ["expect-role cannot be checked"], id="expected of a function token"),
        pytest.param({"FEDERATION_DEBUG": "1"}, ["input debug is 1", "Write true or false"], id="neither, of debug"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": None, "ACT": "true"},
                     ["runs under act", "adding permissions does not help"], id="act"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": None, "GITEA_ACTIONS": "true"},
                     ["runs on Gitea", "adding permissions does not help"], id="gitea"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": None, "GITEA_ACTIONS": "true", "FORGEJO_ACTIONS": "true"},
                     ["may not ask Forgejo", "enable-openid-connect: true"], id="forgejo"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": "http://evil.test/?a=b"}, ["asked for in clear"], id="token url in clear"),
        pytest.param({"FEDERATION_URL": DOWN}, ["127.0.0.1:9 could not be reached", "HTTPS_PROXY"], id="unreachable"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": f"{DOWN}/?a=b"}, ["127.0.0.1:9 could not be reached"], id="github unreachable"),
    ],
)  # fmt: skip
def test_an_error_in_a_github_job_says_what_to_change(
    runner: Runner, changes: Mapping[str, Any], words: list[str]
) -> None:
    ran = runner.github(**changes)
    assert ran.code == 1
    assert ran.outputs == {}
    assert "::error title=Federation::" in ran.log
    for word in words:
        assert word in ran.log
        assert word in ran.summary
    assert not list(runner.temporary.glob("federation/*"))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(Answer(302, "", {"Location": "https://other.test"}), "redirect", id="redirect"),
        pytest.param(Answer(200, "<html>"), "not as a broker does", id="page"),
        pytest.param(Answer(200, {"access_token": "x y"}), "not as a broker does", id="no token"),
        pytest.param(Answer(404, "<html>"), "HTTP 404, but not as a broker does", id="not found"),
        pytest.param(Answer(200, "x" * 70_000), "could not be reached", id="too large"),
        pytest.param(
            Answer(503, {**REFUSAL, "reason": "keys_unavailable"}),
            "cannot answer at the moment (keys_unavailable)", id="cannot answer",
        ),
    ],
)  # fmt: skip
def test_an_answer_without_a_token_is_reported(
    runner: Runner, around: World, answer: Answer, words: str
) -> None:
    around.broker = [answer]
    ran = runner.github()
    assert (ran.code, ran.outputs) == (1, {})
    assert words in ran.log


def test_an_untrusted_certificate_is_reported_and_can_be_trusted(tmp_path: Path) -> None:
    with world(_self_signed(tmp_path)) as around:
        runner = Runner(tmp_path / "runner", around)
        ran = runner.gitlab(CURL_CA_BUNDLE=None, SSL_CERT_FILE=None)
        assert ran.code == 1
        assert "No TLS connection to 127.0.0.1" in ran.log
        assert "CURL_CA_BUNDLE" in ran.log
        assert runner.gitlab(CURL_CA_BUNDLE=str(tmp_path / "cert.pem")).code == 0


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_a_refusal_is_reported_with_the_claims(
    runner: Runner, around: World, platform: str
) -> None:
    around.broker = [Answer(400, REFUSAL)]
    around.claims = {
        "sub": "repo:o/r",
        "ref": 'refs/heads/a"b',
        "runner_id": 7,
        "user_email": "someone@example.com",
        "jti": "only-once",
    }
    ran = runner.github() if platform == "github" else runner.gitlab()
    assert ran.code == 1
    assert "refused (no_role_admits): No policies found" in ran.log
    assert "jwt:ref (the token has refs/heads/feature)" in ran.log
    assert REFUSAL["request_id"] in ran.log
    assert "federation explain --documents DOCUMENTS --claims claims.json" in ran.log
    told = json.loads(re.search(r"^\{$.*?^\}$", ran.log, re.MULTILINE | re.DOTALL)[0])  # type: ignore[index]  # None would fail, as it should
    assert told.items() >= {"sub": "repo:o/r", "ref": 'refs/heads/a"b', "runner_id": 7}.items()
    assert not {"jti", "user_email"} & set(told)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("wrong_audience", "The ID token is for https://other.test"),
        ("untrusted_issuer", "issued by https://ci.test"),
        ("event_not_allowed", "Deploy from push"),
        ("already_used", "One ID token is one exchange"),
        ("role_not_admitted", "does not exist or does not admit"),
        ("invalid_target", "Function:Invoke"),
        ("expired", "clocks"),
        ("missing_claim", "provider that the"),
        ("unknown_key", "run the job again in a minute"),
        ("policy_missing", "looks for the Role or Policy"),
        ("one_of_tomorrow", "operator of the broker the request id below"),
    ],
)
def test_each_reason_has_its_advice(runner: Runner, around: World, reason: str, words: str) -> None:
    around.claims = {"iss": "https://ci.test"}
    around.broker = [Answer(400, {**REFUSAL, "reason": reason})]
    ran = runner.github(FEDERATION_AUDIENCE="https://other.test")
    assert words in ran.log
    assert f"docs/refusals.md says more about {reason}" in ran.log


@pytest.mark.parametrize(
    "hostile",
    ["$(id)`id`;id", "%0A::set-output name=token::x", "\n::set-output name=token::x",
     "##[set-output name=token;]x", "\x1b[2K\r::add-mask::a", "'\"\\", "```\n# x", "a\ttab\u2028"],
    ids=["shell", "escaped line", "line", "old command", "terminal", "quotes", "markdown", "blank"],
)  # fmt: skip
@pytest.mark.parametrize("refused", [True, False])
def test_hostile_text_is_printed_as_text(
    runner: Runner, around: World, hostile: str, refused: bool
) -> None:
    around.claims = {"sub": hostile, "environment": hostile}
    around.access_token = jwt(sub=hostile, role=["deployer"], policy=[], exp=1795521600)
    if refused:
        around.broker = [Answer(400, {**REFUSAL, "error_description": f"No: {hostile}"})]
    ran = runner.github()
    commands = [line for line in ran.log.splitlines() if line.lstrip().startswith("::")]
    assert {command.split(" ")[0].split("::")[1] for command in commands} <= {"add-mask", "error"}
    assert "##[" not in ran.log
    assert "uid=" not in ran.log
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", ran.log)
    assert set(ran.outputs) == (set() if refused else {"token", "expires-at", "roles", "policies"})
    assert ran.later == {}
    assert all(line.startswith("    ") for line in ran.summary.splitlines()[2:] if line)


@pytest.mark.parametrize(
    "exp", ["##[stop-commands]x", str(SCRIPT), "--help", None, ["1795521600", "::debug::x"], -1]
)
def test_what_is_no_time_is_not_told_as_one(runner: Runner, around: World, exp: object) -> None:
    around.access_token = jwt(sub="s", role=["deployer"], policy=[], exp=exp)
    ran = runner.github()
    assert ran.outputs["expires-at"] == "an unknown time"
    assert "until an unknown time." in ran.log
    assert "date:" not in ran.log
    assert "##[" not in ran.log


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_a_line_end_within_a_claim_begins_no_line(
    runner: Runner, around: World, platform: str
) -> None:
    # It is no JSON, and a runner looks for commands behind any white space, as U+00A0.
    payload = f'{{"aud": "{around.url}", "sub": "x\n\u00a0::debug::y\n# Heading"}}'
    token = f"e30.{base64.urlsafe_b64encode(payload.encode()).decode().rstrip('=')}.c2ln"
    around.github = [Answer(200, {"value": token})]
    run = runner.github if platform == "github" else runner.gitlab
    ran = run(FEDERATION_DEBUG="true", FEDERATION_ID_TOKEN=token)
    assert '  "sub": "x \u00a0::debug::y # Heading"' in ran.log


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("100%0A::x", "100%250A::x"),
        ("a\n::set-output name=x::y", "a%0A: :set-output name=x::y"),
        ("  ::x\n\t::y ::z", "  : :x%0A\t: :y ::z"),
        ("a\r\n##[x]\x1b[2K\x7f", "a%0A# #[x][2K"),
    ],
)
def test_text_cannot_leave_the_data_of_a_workflow_command(text: str, data: str) -> None:
    assert _evaluate("dash", f"command_data {_quoted(text)}") == data


@pytest.mark.skipif("busybox" not in SHELLS, reason="busybox is not here")
@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_an_image_that_has_only_busybox_and_curl_will_do(
    tmp_path: Path, around: World, platform: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    busybox = shutil.which("busybox") or ""
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)  # noqa: S603
    for name in applets.stdout.split():
        (programs / name).symlink_to(busybox)
    (programs / "curl").unlink(missing_ok=True)
    (programs / "curl").symlink_to(shutil.which("curl") or "")
    runner = Runner(tmp_path, around, "busybox")
    run = runner.github if platform == "github" else runner.gitlab
    around.access_token = jwt(sub="fed:ümläut/€", role=["a", "b"], policy=["p"], exp=1795521600)
    path = f"{runner.tools}:{programs}"
    ran = run(PATH=path, FEDERATION_FAAS_CLI="true", FEDERATION_EXPECT_ROLE="a b")
    assert ran.code == 0, ran.log
    assert "until 2026-11-24T12:00:00Z. Roles: a,b. Policies: p." in ran.log
    ran = run("logout", PATH=path)
    assert "is revoked" in ran.log
    around.claims["environment"] = "tränen"
    around.broker = [Answer(400, REFUSAL)]
    ran = run(PATH=path, FEDERATION_ID_TOKEN=jwt(aud=around.url, **around.claims))
    assert (
        json.loads(re.search(r"^\{$.*?^\}$", ran.log, re.MULTILINE | re.DOTALL)[0])[  # type: ignore[index]  # as above
            "environment"
        ]
        == "tränen"
    )


def test_a_runner_without_curl_gets_an_error(runner: Runner, around: World) -> None:
    for name in _PROGRAMS[1:]:
        runner.watch(name)
    ran = runner.github(PATH=str(runner.tools))
    assert ran.code == 1
    assert "This runner lacks: curl." in ran.log
    assert around.requests == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"FEDERATION_ID_TOKEN": None}, "This job has no FEDERATION_ID_TOKEN"),
        ({"FEDERATION_ID_TOKEN": "secret"}, "FEDERATION_ID_TOKEN is no ID token"),
        ({"FEDERATION_URL": None}, "The input url is missing"),
    ],
)
def test_an_error_in_a_gitlab_job_says_what_to_change(
    runner: Runner, changes: Mapping[str, Any], words: str
) -> None:
    ran = runner.gitlab(**changes)
    assert ran.code == 1
    assert f"ERROR: {words}" in ran.log
    assert "::" not in ran.log


# --- faas-cli's config ----------------------------------------------------------------------


def test_faas_cli_is_logged_in_for_later_steps(runner: Runner, around: World) -> None:
    ran = runner.github(FEDERATION_FAAS_CLI="true")
    folder = Path(ran.later["OPENFAAS_CONFIG"])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert ran.later["OPENFAAS_URL"] == around.url
    assert yaml.safe_load((folder / "config.yml").read_text()) == {
        "auths": [{"gateway": around.url, "auth": "oauth2", "token": around.access_token}]
    }


@pytest.mark.parametrize("given", [True, False], ids=["OPENFAAS_CONFIG", "workspace"])
def test_the_login_has_a_config_of_its_own_and_others_are_left_alone(
    runner: Runner, around: World, *, given: bool
) -> None:
    config = runner.folder / "mine" if given else runner.workspace / ".openfaas"
    config.mkdir()
    (config / "config.yml").write_text("auths:\n- gateway: https://other.test\n")
    ran = runner.github(FEDERATION_FAAS_CLI="true", OPENFAAS_CONFIG=str(config) if given else None)
    assert ran.code == 0, ran.log
    folder = Path(ran.later["OPENFAAS_CONFIG"])
    assert folder != config
    assert (f"OPENFAAS_CONFIG was {config} and is now" in ran.log) == given
    runner.github("logout")
    assert not folder.exists()
    assert [p.name for p in config.iterdir()] == ["config.yml"]
    assert "other.test" in (config / "config.yml").read_text()


def test_a_job_can_log_in_at_two_gateways(runner: Runner, around: World) -> None:
    first = runner.github(FEDERATION_FAAS_CLI="true").later["OPENFAAS_CONFIG"]
    for _ in range(2):
        ran = runner.github(
            FEDERATION_FAAS_CLI="true", FEDERATION_URL=f"{around.url}/b", OPENFAAS_CONFIG=first
        )
        assert ran.code == 0, ran.log
        assert "OPENFAAS_CONFIG was" not in ran.log
    config = yaml.safe_load((Path(ran.later["OPENFAAS_CONFIG"]) / "config.yml").read_text())
    assert [e["gateway"] for e in config["auths"]] == [f"{around.url}/b", around.url]


def test_another_gateway_in_the_environment_gives_a_warning(runner: Runner) -> None:
    ran = runner.github(FEDERATION_FAAS_CLI="true", OPENFAAS_URL="https://other.test")
    assert "OPENFAAS_URL is https://other.test, but this login is for" in ran.log
    assert "OPENFAAS_URL" not in ran.later


# --- logging out ----------------------------------------------------------------------------


@pytest.mark.parametrize("platform", ["github", "gitlab"])
def test_the_logout_revokes_every_token_and_removes_every_file(
    runner: Runner, around: World, platform: str
) -> None:
    run = runner.github if platform == "github" else runner.gitlab
    tokens = {around.access_token, jwt(second=True, exp=1)}
    for around.access_token in tokens:
        run(FEDERATION_FAAS_CLI="true", FEDERATION_EXPORT="MY_TOKEN")
    ran = run("logout")
    assert ran.code == 0
    asked = around.asked("/oauth/revoke")
    assert {request.form["token"][0] for request in asked} == tokens
    assert not [p for p in runner.folder.rglob("*federation*/*") if p.is_file()]
    if platform == "github":
        assert ran.later == {"OPENFAAS_CONFIG": "", "OPENFAAS_URL": "", "MY_TOKEN": ""}


@pytest.mark.parametrize("when", ["login", "logout"])
def test_the_logout_leaves_a_gateway_that_the_job_chose(
    runner: Runner, around: World, when: str
) -> None:
    theirs = {"login": around.url, "logout": "https://other.test"}
    runner.github(
        FEDERATION_FAAS_CLI="true", OPENFAAS_URL=theirs["login"] if when == "login" else None
    )
    ran = runner.github("logout", OPENFAAS_URL=theirs[when])
    assert ran.later == {"OPENFAAS_CONFIG": ""}


def test_a_failed_revocation_is_a_warning(runner: Runner, around: World) -> None:
    runner.github()
    around.revocation = [Answer(500)]
    ran = runner.github("logout")
    assert ran.code == 0
    assert "::warning" in ran.log
    assert "ends by itself at 2026-11-24T12:00:00Z" in ran.log
    assert not list(runner.temporary.glob("federation/*"))


def test_a_gitlab_job_that_replaced_the_login_gets_an_error(runner: Runner) -> None:
    ran = runner.gitlab("logout")
    assert ran.code == 0
    assert "THE LOGIN OF .federation DID NOT RUN IN THIS JOB" in ran.log
    assert "!reference [.federation, before_script]" in ran.log


def test_a_failed_gitlab_login_is_not_reported_as_missing(runner: Runner, around: World) -> None:
    around.broker = [Answer(400, REFUSAL)]
    assert runner.gitlab().code == 1
    ran = runner.gitlab("logout")
    assert "did not succeed" in ran.log
    assert "DID NOT RUN" not in ran.log


# --- the files that users include -----------------------------------------------------------------------


def test_the_template_carries_the_script_that_the_action_runs() -> None:
    (_, template) = yaml.safe_load_all(TEMPLATE.read_text())
    job = template[".federation"]
    within = re.search(
        r"\Afederate\(\) \(\n# begin federate.sh\n(.*)# end federate.sh\n\)\n\Z",
        job["before_script"][0],
        re.DOTALL,
    )
    assert within, "the marks are gone"
    assert within[1] == SCRIPT.read_text(), "run `make gitlab`"
    assert job["after_script"][0] == job["before_script"][0]


def test_the_template_keeps_its_names() -> None:
    (header, template) = yaml.safe_load_all(TEMPLATE.read_text())
    assert set(header["spec"]["inputs"]) == {
        "url", "role", "scope", "function-audience", "faas-cli", "expect-role", "debug",
    }  # fmt: skip
    assert "default" not in header["spec"]["inputs"]["url"]
    job = template[".federation"]
    assert job["id_tokens"] == {"FEDERATION_ID_TOKEN": {"aud": "$[[ inputs.url ]]"}}
    assert set(template) == {".federation"}
    assert set(job) == {"id_tokens", "variables", "before_script", "after_script"}
    assert all("$[[" not in line for line in (*job["before_script"], *job["after_script"]))


def test_the_action_keeps_its_names() -> None:
    action = _yaml("action/action.yml")
    assert set(action["inputs"]) == {
        "url", "audience", "role", "scope", "function-audience", "faas-cli", "export",
        "expect-role", "debug",
    }  # fmt: skip
    assert set(action["outputs"]) == {"token", "expires-at", "roles", "policies"}


def test_both_actions_share_inputs_and_outputs_and_hand_them_on_alike() -> None:
    composite, step = _yaml("action/action.yml"), _yaml("action/step/action.yml")
    assert step["inputs"] == composite["inputs"]
    assert step["outputs"].keys() == composite["outputs"].keys()
    handed = {
        name: re.sub(r".*inputs\.([\w-]+) .*", r"\1", value)
        for name, value in composite["runs"]["steps"][0]["env"].items()
        if "inputs." in value
    }
    login = (ROOT / "action" / "step" / "login.mjs").read_text()
    assert dict(re.findall(r'(FEDERATION_\w+): input\("([\w-]+)"\)', login)) == handed
    assert set(handed.values()) == set(composite["inputs"])


def test_the_step_action_only_starts_the_script_and_needs_no_package() -> None:
    folder = ROOT / "action" / "step"
    runs = _yaml("action/step/action.yml")["runs"]
    assert runs == {
        "using": "node24", "main": "login.mjs", "post": "logout.mjs", "post-if": "always()",
    }  # fmt: skip
    assert {file.name for file in folder.iterdir()} == {
        "action.yml", "login.mjs", "logout.mjs", "start.mjs",
    }  # fmt: skip
    imported = {
        name
        for file in folder.glob("*.mjs")
        for name in re.findall(r'from "([^"]+)"', file.read_text())
    }
    assert {name for name in imported if not name.startswith("node:")} == {"./start.mjs"}


_ON_NODE_24 = {
    "actions/checkout": {"3d3c42e5aac5ba805825da76410c181273ba90b1": "v7.0.1"},
    "actions/setup-python": {"5fda3b95a4ea91299a34e894583c3862153e4b97": "v7.0.0"},
    "actions/cache": {"27d5ce7f107fe9357f9df03efb73ab90386fccae": "v5.0.5"},
}
"""Commits whose action.yml says `using: node24`."""


def test_the_actions_that_workflows_and_pages_use_run_on_node_24() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*"),
             *ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("federation/**/*.yml")]  # fmt: skip
    seen = 0
    for page in (page for page in pages if page.is_file()):
        for name, commit, comment in re.findall(
            r"uses: (?:https://[\w.]+/)?(actions/[\w-]+)@(\S+)(.*)", page.read_text("utf-8")
        ):
            if name not in _ON_NODE_24:
                assert re.fullmatch(r"[0-9a-f]{40}", commit), f"{page}: {name}"
                continue
            assert commit in _ON_NODE_24[name], f"{page}: {name}@{commit}"
            assert comment in {"", f" # {_ON_NODE_24[name][commit]}"}, f"{page}: {name}{comment}"
            seen += 1
    assert seen > 10


@pytest.mark.parametrize("path", ["action/action.yml", "action/logout/action.yml"])
def test_no_expression_stands_in_a_script(path: str) -> None:
    steps = yaml.safe_load((ROOT / path).read_text())["runs"]["steps"]
    assert steps
    assert all("${{" not in step["run"] for step in steps)


def _messages() -> list[str]:
    """The first sentence of each error and warning of the script, with `X` for what it fills in."""
    text = SCRIPT.read_text().replace("\\\n", " ")
    text = re.sub(r"\$\((?:[^()\n]|\([^()\n]*\))*\)", "X", text)
    found = re.findall(
        r"""(?:fail|complain|warn|bad_url|problem=)\s*(?:"((?:[^"\\]|\\.)*)|'([^']*)')""", text
    )
    said = {re.sub(r"\$\{[^}]*\}|\$\w+", "X", double or single) for double, single in found}
    return sorted(sentence for sentence in said if sentence not in {"", "X"})


@pytest.mark.parametrize("message", _messages())
def test_each_message_has_a_section_in_the_troubleshooting(message: str) -> None:
    pages = [(ROOT / "docs" / page).read_text("utf-8") for page in ("github.md", "gitlab.md")]
    headings = [line for page in pages for line in re.findall(r"^### (.*)", page, re.MULTILINE)]
    assert any(
        re.search(".*".join(re.escape(part.strip()) for part in heading.split("…")), message)
        for heading in headings
    ), message


def test_the_page_that_a_refusal_names_is_named(runner: Runner, around: World) -> None:
    page = "https://docs.example.com/refusals.md#no_role_admits"
    around.broker = [Answer(400, {**REFUSAL, "error_uri": page})]
    assert f"{page} says more about no_role_admits" in runner.github().log


# --- the JSON reader ----------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "value",
    ["plain", 'quote " and \\ back', "sla/sh", "ümläut €", "", "a:b,c]d}e{[", "\\n", 17, True],
)
def test_a_member_is_decoded_as_json(shell: str, value: object) -> None:
    text = json.dumps({"before": ['x"]', {"a": "]"}], "it": value, "z": 1}, ensure_ascii=False)
    expected = json.dumps(value) if isinstance(value, bool | int) else str(value)
    assert _evaluate(shell, f"member {_quoted(text)} it") == expected
    assert _evaluate(shell, f"claim {jwt(it=value)} it").replace("\\u", "") == (
        expected if expected.isascii() else json.dumps(value)[1:-1].replace("\\u", "")
    )


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"it"}', '{"it": "x', "null", "<html>", '{"it" 1}']
)
def test_text_that_is_not_a_json_object_has_no_members(text: str) -> None:
    assert _evaluate("dash", f"member {_quoted(text)} it") == ""


def _yaml(path: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / path).read_text("utf-8"))
    return read


def _evaluate(shell: str, call: str) -> str:
    program = SCRIPT.read_text().removesuffix('main "$@"\n')
    command = [shell, "sh"] if shell == "busybox" else [shell]
    ran = subprocess.run(  # noqa: S603  our own words
        command, input=f"{program}\n{call}\n", capture_output=True, text=True, check=False
    )
    return ran.stdout.removesuffix("\n")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


assert shutil.which("curl"), "the tests of the login need curl"
