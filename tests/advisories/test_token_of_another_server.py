"""
A token that a job sends to a server that it was not issued for.

Somebody who may set a variable of a pipeline, such as FEDERATION_URL, received the ID token of a
job and exchanged it at the broker that it was meant for.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner, Result

from federation.cli import exchange as command
from federation.cli import main
from federation.cli.fed import fed
from federation.client.http import Sender
from tests.harness.ci_runner import jwt

BROKER = "https://gateway.example.com"
ELSEWHERE = "https://attacker.example.net"


class Elsewhere:
    """The attacker's server, which grants everything and keeps what it got."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.received: list[httpx2.Request] = []
        client = httpx2.Client(transport=httpx2.MockTransport(self._answer))
        monkeypatch.setattr(command, "Sender", lambda **given: Sender(client, **given))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.received.append(request)
        return httpx2.Response(200, json={"access_token": "x", "expires_in": 900})


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    for name in os.environ:
        if name.startswith(("FEDERATION_", "ACTIONS_", "GITHUB_", "GITLAB_", "OPENFAAS_")):
            monkeypatch.delenv(name)
    return Elsewhere(monkeypatch)


TOKENS = {
    "another server's": BROKER,
    "another server's, in a list": [BROKER],
    "a name that begins alike": f"{ELSEWHERE}.gateway.example.com",
    "empty": "",
    "none": None,
    "a number": 5,
}


def not_sent(result: Result, elsewhere: Elsewhere, token: str) -> None:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "It was not sent." in result.stderr
    assert token not in result.stderr
    assert elsewhere.received == []


@pytest.mark.parametrize("aud", TOKENS.values(), ids=TOKENS)
def test_a_gitlab_token_goes_to_no_other_server_whatever_a_variable_says(
    elsewhere: Elsewhere, aud: object
) -> None:
    token = jwt(aud=aud)
    variables = {"GITLAB_CI": "true", "FEDERATION_ID_TOKEN": token, "FEDERATION_URL": ELSEWHERE}
    not_sent(CliRunner().invoke(main, ["exchange"], env=variables), elsewhere, token)


@pytest.mark.parametrize("variable", ["FEDERATION_URL", "OPENFAAS_URL"])
def test_the_plugin_of_faas_cli_sends_a_token_to_no_other_server(
    elsewhere: Elsewhere, variable: str
) -> None:
    token = jwt(aud=BROKER)
    variables = {"GITLAB_CI": "true", "FEDERATION_ID_TOKEN": token, variable: ELSEWHERE}
    not_sent(CliRunner().invoke(fed, ["auth"], env=variables), elsewhere, token)


@pytest.mark.parametrize("place", ["a file", "standard input"])
def test_a_given_token_goes_to_no_other_server(
    elsewhere: Elsewhere, tmp_path: Path, place: str
) -> None:
    token = jwt(aud=BROKER)
    (tmp_path / "token").write_text(f"Bearer {token}\n")
    where = str(tmp_path / "token") if place == "a file" else "-"
    result = CliRunner().invoke(
        main, ["exchange", "--url", ELSEWHERE, "--token", where], input=f"{token}\n"
    )
    not_sent(result, elsewhere, token)


def test_the_advice_names_the_audience_and_the_lines_of_gitlab(elsewhere: Elsewhere) -> None:
    variables = {"GITLAB_CI": "true", "FEDERATION_ID_TOKEN": jwt(aud=BROKER)}
    result = CliRunner().invoke(main, ["exchange", "--url", ELSEWHERE], env=variables)
    assert f"The token is for {BROKER}, but would be sent to {ELSEWHERE}." in result.stderr
    assert "aud under id_tokens" in result.stderr
    assert "--audience" in result.stderr
