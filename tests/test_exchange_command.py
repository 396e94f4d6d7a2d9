"""`federation exchange` and `federation claims`, run as a job runs them, against a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from federation.cli import main
from federation.cli.fed import fed
from federation.client.ambient import SYSTEMS
from federation.client.broker_url import broker_url
from tests.harness.builders import sample
from tests.harness.ci_runner import Answer, World, jwt, world

REFUSAL = Answer(
    400,
    {
        "error": "invalid_request",
        "error_description": "No policies found for subject: x.",
        "reason": "no_role_admits",
        "request_id": "9dfee4906950aa16",
    },
)


@pytest.fixture
def outside() -> Iterator[World]:
    """A CI system's token service and a broker."""
    with world() as up:
        yield up


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    monkeypatch.setattr("federation.client.http.random.uniform", lambda _low, _high: 0.0)


def run(outside: World, *arguments: str, given: str | None = None, **environ: str) -> Result:
    unset = {mark: None for how in SYSTEMS.values() for mark, _ in how.marks}
    named = dict.fromkeys(("FEDERATION_URL", "FEDERATION_ID_TOKEN", "CI", "OPENFAAS_CONFIG"), None)
    job = {
        "GITHUB_ACTIONS": "true",
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{outside.url}/github/token?api-version=2.0&job=hidden",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
    }
    result = CliRunner().invoke(
        main, arguments, input=given, env={**unset, **named, **job, **environ}
    )
    assert "request-secret" not in result.output
    return result


# exchange --format json


def test_json_has_the_token_and_what_it_gives(outside: World) -> None:
    result = run(outside, "exchange", "--url", outside.url, "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "access_token": outside.access_token,
        "expires_in": 900,
        "roles": ["deployer", "reader"],
        "policies": ["dev-deploy"],
    }
    assert result.stderr == ""


def test_json_with_faas_cli_says_where_the_login_is_and_not_the_token(
    outside: World, tmp_path: Path
) -> None:
    words = ("exchange", "--url", outside.url, "--faas-cli", "--format", "json")
    result = run(outside, *words, OPENFAAS_CONFIG=str(tmp_path))
    said = json.loads(result.stdout)
    assert said["faas_cli_config"] == str(tmp_path / "config.yml")
    assert said["gateway"] == outside.url
    assert outside.access_token not in result.output
    assert outside.access_token in (tmp_path / "config.yml").read_text()


def test_json_after_a_refusal_has_its_reason_its_request_and_the_claims(outside: World) -> None:
    outside.broker = [REFUSAL]
    outside.claims["user_email"] = "alice@example.com"
    result = run(outside, "exchange", "--url", outside.url, "--format", "json")
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert (error["reason"], error["request_id"]) == ("no_role_admits", "9dfee4906950aa16")
    assert error["claims"]["ref"] == "refs/heads/main"
    assert not {"jti", "user_email"} & error["claims"].keys()
    assert "Run the job from the branch" in error["advice"]
    assert "federation audit show 9dfee4906950aa16" in result.stderr


def test_json_without_an_answer_of_a_broker_has_an_error_too(outside: World) -> None:
    outside.broker = [Answer(404, "<html>")]
    result = run(outside, "exchange", "--url", outside.url, "--format", "json")
    error = json.loads(result.stdout)["error"]
    assert error["reason"] is None
    assert "HTTP 404" in error["message"]


# exchange --verbose


def test_verbose_tells_each_step_on_standard_error_and_no_secret(outside: World) -> None:
    result = run(outside, "exchange", "--url", outside.url, "--verbose")
    assert result.stdout == f"{outside.access_token}\n"
    steps = (
        "Proxy to the broker: none",
        "Trusted CAs: ",
        "CI system: GitHub, recognised by GITHUB_ACTIONS",
        "Looking for the ID token by asking the URL in ACTIONS_ID_TOKEN_REQUEST_URL",
        f"GET {outside.url}/github/token",
        "HTTP 200 after ",
        f"ID token: iss missing, sub repo:octo-org/octo-repo, aud {outside.url}",
        f"POST {outside.url}/oauth/token",
        "access token for 900 seconds: Roles deployer, reader; policies dev-deploy",
    )
    assert [step for step in steps if step not in result.stderr] == []
    assert "hidden" not in result.stderr, "a query of the CI system is not shown"
    for token in (outside.access_token, *outside.minted):
        assert token not in result.stderr


def test_verbose_tells_the_proxy_without_its_password(
    outside: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = outside.url.replace("http://", "http://user:hunter2@")
    url = "https://gateway.example.com"
    words = ("exchange", "--url", url, "--token", "-", "--verbose")
    result = run(outside, *words, given=jwt(aud=url), HTTPS_PROXY=proxy)
    assert f"Proxy to the broker: {outside.url}, from HTTPS_PROXY" in result.stderr
    assert "hunter2" not in result.output


def test_each_retry_is_told_with_its_cause_and_its_number(outside: World) -> None:
    outside.broker = [Answer(503, "busy"), Answer(502, ""), outside.grant()]
    result = run(outside, "exchange", "--url", outside.url)
    assert result.exit_code == 0
    port = outside.url.rpartition(":")[2]
    assert f"Notice: 127.0.0.1:{port}: HTTP 503. Trying again in 0.0 s (2 of 4)." in result.stderr
    assert f"Notice: 127.0.0.1:{port}: HTTP 502. Trying again in 0.0 s (3 of 4)." in result.stderr


def test_the_plugin_of_faas_cli_is_verbose_too(outside: World, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        fed,
        ["auth", "--gateway", outside.url, "--token", "-", "--verbose"],
        input=jwt(aud=outside.url),
        env={"OPENFAAS_CONFIG": str(tmp_path)},
    )
    assert result.exit_code == 0, result.output
    assert f"POST {outside.url}/oauth/token" in result.stderr


# The token service


def test_a_403_of_the_token_service_is_tried_again(outside: World) -> None:
    outside.github = [
        Answer(403, {"message": "Pending"}),
        Answer(200, {"value": jwt(aud=outside.url, sub="x")}),
    ]
    result = run(outside, "exchange", "--url", outside.url)
    assert result.exit_code == 0, result.output
    assert "HTTP 403. Trying again" in result.stderr


def test_a_403_that_stays_is_reported_with_the_services_message(outside: World) -> None:
    outside.github = [Answer(403, {"message": "Pending"})]
    result = run(outside, "exchange", "--url", outside.url)
    assert result.exit_code == 1
    assert "GitHub answered HTTP 403 instead of an ID token: Pending." in result.stderr
    assert len(outside.asked("/github/token")) == 4
    assert outside.asked("/oauth/token") == []


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"message": "request-secret is wrong"}, ": ... is wrong."),
        ({"message": "\x1b[31m::error::"}, "\\x1b"),
        ({"message": f"no {jwt(a=1)}"}, ": no ..."),
        ({"message": "x" * 5000}, "xxx..."),
        ({"message": 5}, "an ID token."),
        ({"message": " "}, "an ID token."),
        ("<html>", "an ID token."),
    ],
)
def test_the_services_message_is_shown_without_secrets_and_in_bounds(
    outside: World, body: Any, shown: str
) -> None:
    outside.github = [Answer(401, body)]
    result = run(outside, "exchange", "--url", outside.url)
    assert shown in result.stderr
    assert "\x1b" not in result.stderr
    assert len(result.stderr) < 1000
    assert len(outside.asked("/github/token")) == 1


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ({"GITEA_ACTIONS": "true"}, "This Gitea job"),
        ({"ACT": "true"}, "This act job"),
    ],
    ids=str,
)
def test_a_runner_that_has_no_tokens_is_named_and_permissions_are_not_advised(
    outside: World, mark: dict[str, str], told: str
) -> None:
    without = {"ACTIONS_ID_TOKEN_REQUEST_URL": "", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}
    result = run(outside, "exchange", "--url", outside.url, **without, **mark)
    assert result.exit_code == 1
    assert told in result.stderr
    assert "adding permissions does not help" in result.stderr
    assert "id-token: write" not in result.stderr


def test_a_look_alike_that_does_give_a_token_is_used(outside: World) -> None:
    assert run(outside, "exchange", "--url", outside.url, ACT="true").exit_code == 0


# --url


@pytest.mark.parametrize(
    ("given", "slip"),
    [
        ("https://b.example", ""),
        ("https://b.example/", ""),
        ("https://b.example \n", "white space around it"),
        ("https://b.example/oauth/token", "/oauth/token at its end"),
        ("https://b.example/oauth/token/", "/oauth/token at its end"),
        ("https://b.example/oauth/revoke", "/oauth/revoke at its end"),
        (
            " https://b.example/.well-known/openid-configuration",
            "white space around it and /.well-known/openid-configuration at its end",
        ),
    ],
)
def test_what_is_copied_along_with_a_url_is_dropped_and_named(given: str, slip: str) -> None:
    assert broker_url(given) == ("https://b.example", slip)


@pytest.mark.parametrize("given", ["/oauth/token", "https://b.example/oauth/tokens", ""])
def test_nothing_else_is_dropped(given: str) -> None:
    assert broker_url(given) == (given, "")


def test_the_slip_is_named_and_the_exchange_works(outside: World) -> None:
    result = run(outside, "exchange", "--url", f"{outside.url}/oauth/token ")
    assert result.exit_code == 0, result.output
    assert f"/oauth/token at its end. {outside.url} is used." in result.stderr
    assert outside.asked("/github/token")[0].query["audience"] == [outside.url]


def test_a_url_without_its_scheme_is_named_with_it(outside: World) -> None:
    result = run(outside, "exchange", "--url", "gateway.example.com")
    assert "Write https://gateway.example.com" in result.stderr


# claims


def test_claims_shows_what_the_token_says_and_never_the_token(outside: World) -> None:
    outside.claims["user_email"] = "alice@example.com"
    result = run(outside, "claims", "--url", outside.url)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "aud": outside.url,
        "number": 0,
        "sub": "repo:octo-org/octo-repo",
        "ref": "refs/heads/main",
    }
    assert outside.minted[0] not in result.output
    assert outside.minted[0].split(".")[1] not in result.output
    assert outside.asked("/oauth/token") == []


def test_claims_about_a_person_are_shown_only_on_demand_and_jti_never(outside: World) -> None:
    outside.claims["user_email"] = "alice@example.com"
    said = json.loads(run(outside, "claims", "--url", outside.url, "--personal").stdout)
    assert said["user_email"] == "alice@example.com"
    assert "jti" not in said


def test_without_a_url_the_token_is_for_nobody(outside: World) -> None:
    result = run(outside, "claims")
    assert json.loads(result.stdout)["aud"] == "federation-claims"
    assert "which no broker accepts" in result.stderr
    assert json.loads(run(outside, "claims", "--audience", "x").stdout)["aud"] == "x"


@pytest.mark.parametrize("given", ["{token}", "Bearer {token}\n"])
def test_claims_of_a_token_that_is_given(outside: World, given: str) -> None:
    token = jwt(sub="x", aud=["a", "b"])
    result = run(outside, "claims", "--token", "-", given=given.format(token=token))
    assert json.loads(result.stdout) == {"sub": "x", "aud": ["a", "b"]}
    assert outside.requests == []


def test_what_a_token_says_is_no_command_to_a_runner(outside: World) -> None:
    hostile = {"##[x]": "##vso[task]\n::error::\x1b"}
    result = run(outside, "claims", "--token", "-", given=jwt(**hostile))
    assert json.loads(result.stdout) == hostile
    assert "##[" not in result.stdout
    assert "##vso[" not in result.stdout
    assert "\x1b" not in result.stdout


def test_what_an_access_token_says_is_no_command_to_a_runner(outside: World) -> None:
    hostile = ["##[x]", "##vso[task]\n::error::\x1b"]
    outside.access_token = jwt(sub="s", role=hostile, policy=hostile, exp=1795521600)
    result = run(outside, "exchange", "--url", outside.url, "--format", "json")
    assert json.loads(result.stdout)["roles"] == hostile
    assert "##[" not in result.stdout
    assert "##vso[" not in result.stdout


@pytest.mark.parametrize(
    "command", [("explain", "--format", "json"), ("role", "from-token", "--format", "json")]
)
def test_what_claims_say_is_no_command_to_a_runner(
    outside: World, tmp_path: Path, command: tuple[str, ...]
) -> None:
    given = tmp_path / "claims.json"
    nasty = "##[x] ##vso[task]"
    claims = sample("github-environment-production", environment=nasty, sub=nasty)
    given.write_text(json.dumps(claims))
    documents = Path(__file__).parents[1] / "examples" / "github-repository.yaml"
    last = (
        ("--documents", str(documents), "--claims", str(given))
        if command[0] == "explain"
        else (str(given),)
    )
    result = run(outside, *command, *last)
    assert json.loads(result.stdout)
    assert "##[" not in result.stdout
    assert "##vso[" not in result.stdout


def test_claims_tell_what_a_job_lacks(outside: World) -> None:
    result = run(outside, "claims", ACTIONS_ID_TOKEN_REQUEST_URL="")
    assert result.exit_code == 1
    assert "id-token: write" in result.stderr
    assert run(outside, "claims", "--token", "x", "--from", "gitlab").exit_code == 2


def test_a_role_can_be_written_from_the_claims(outside: World) -> None:
    vectors = Path(__file__).parent / "vectors" / "claims"
    outside.claims = json.loads((vectors / "github-push-main.json").read_text())
    told = run(outside, "claims", "--audience", str(outside.claims["aud"])).stdout
    written = run(outside, "role", "from-token", "-", given=told)
    assert written.exit_code == 0
    assert '"jwt:repository_id": ["412890077"]' in written.stdout
