"""GitHub's own toolkit asks the local CI issuer for tokens, as it would ask GitHub."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from federation.demo.stage import Stage
from federation.jose import jws
from tests.harness.real_runners import Run, node

pytestmark = pytest.mark.e2e

_ASK = """
import * as core from "@actions/core";
import { writeFileSync } from "node:fs";
try {
  writeFileSync("token", await core.getIDToken(process.env.AUDIENCE));
} catch (error) {
  core.setFailed(error.message);
}
"""


def ask(folder: Path, stage: Stage, **changes: str) -> Run:
    """Ask for an ID token with the toolkit, as an action would."""
    offered = stage.issuer.environment("github", "main")
    return node(_ASK, cwd=folder, **{**offered, "AUDIENCE": stage.broker_url, **changes})


def test_the_toolkit_gets_a_token_that_the_broker_accepts(tmp_path: Path, stage: Stage) -> None:
    ran = ask(tmp_path, stage).assert_ok()
    token = (tmp_path / "token").read_text("ascii")
    assert f"::add-mask::{token}" in ran.log
    answer = httpx2.post(
        f"{stage.broker_url}/oauth/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        },
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("audience", ["https://a.test/?b=c&d=e #%", "ümläut"])
def test_the_toolkit_and_the_issuer_encode_an_audience_alike(
    tmp_path: Path, stage: Stage, audience: str
) -> None:
    ask(tmp_path, stage, AUDIENCE=audience).assert_ok()
    assert jws.parse((tmp_path / "token").read_text("ascii")).claims["aud"] == audience


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong"}, "Error Code : 401"),
        ({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}, "Unable to get ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    ],
    ids=["wrong", "missing"],
)
def test_the_toolkit_is_refused_as_at_github(
    tmp_path: Path, stage: Stage, changes: dict[str, str], words: str
) -> None:
    assert words in ask(tmp_path, stage, **changes).assert_failed().log


def test_a_long_log_is_read_whole(tmp_path: Path) -> None:
    """A pipe would hold 64 KiB, and the script does not wait until somebody has read them."""
    ran = node("process.stdout.write('x'.repeat(5_000_000)); process.exit(0);", cwd=tmp_path)
    assert len(ran.assert_ok().log) == 5_000_000
