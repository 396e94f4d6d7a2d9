"""The GitHub action under act, a real runner of workflows, on this machine and without Docker."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

import httpx2
import pytest

from federation.demo.stage import Stage
from tests.harness.ci_runner import ROOT
from tests.harness.real_runners import Repository, Run

pytestmark = pytest.mark.e2e

_ACTION = "your-org/federation/action@0123456789abcdef0123456789abcdef01234567"
_LOGOUT = _ACTION.replace("/action@", "/action/logout@")
_STEP = _ACTION.replace("/action@", "/action/step@")


def workflow(
    steps: str,
    *,
    event: str = "push",
    action: str = _ACTION,
    **inputs: str,
) -> str:
    """A workflow that logs in with *inputs* and goes on with *steps*."""
    given = {"url": "https://gateway.example.com", **inputs}
    lines = "".join(f"          {name}: {value}\n" for name, value in given.items())
    return f"""\
on: {event}
permissions: {{}}
jobs:
  deploy:
    runs-on: ubuntu-latest
    permissions:
      contents: read
      id-token: write
    steps:
      - uses: {action}
        id: login
        with:
{lines}{steps}"""


def jobs_in(page: str) -> list[str]:
    """The whole workflows that *page* shows."""
    found = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [block for block in found if "runs-on:" in block and "uses: your-org/" in block]


@pytest.mark.parametrize("page", ["README.md", "docs/github.md"])
def test_the_job_that_the_docs_show_deploys(repository: Repository, page: str) -> None:
    for shown in jobs_in(page):
        ran = repository.act(shown).assert_ok()
        assert "Deployed. " in ran.log
        assert "is revoked" in ran.log


def test_the_guide_shows_a_whole_job() -> None:
    assert jobs_in("docs/github.md")


def test_later_steps_have_what_was_asked_and_the_log_has_no_token(
    repository: Repository, stage: Stage
) -> None:
    kept = repository.place.parent / "kept"
    ran = repository.act(
        workflow(
            f"""\
      - run: |
          printf '%s' "$TOKEN" >{kept}
          echo "output $TOKEN; length ${{#TOKEN}}"
          echo "exported=${{FEDERATION_TOKEN-no}} request=${{ACTIONS_ID_TOKEN_REQUEST_URL:+offered}}"
          echo "until=$UNTIL roles=$ROLES policies=$POLICIES"
          env | grep -c "$TOKEN"
        env:
          TOKEN: ${{{{ steps.login.outputs.token }}}}
          UNTIL: ${{{{ steps.login.outputs.expires-at }}}}
          ROLES: ${{{{ steps.login.outputs.roles }}}}
          POLICIES: ${{{{ steps.login.outputs.policies }}}}
"""
        )
    ).assert_ok()
    token = kept.read_text("ascii")
    assert token.count(".") == 2
    assert token not in ran.log
    assert "output ***; length" in ran.log
    assert "exported=no" in ran.log
    assert re.search(r"until=20\S+Z roles=octo-repo-main policies=dev-deploy", ran.log)
    listed = httpx2.get(
        f"{stage.broker_url}/system/functions?namespace=dev",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert listed.status_code == 200


def test_after_the_logout_the_token_is_dead_and_faas_cli_logged_out(
    repository: Repository, stage: Stage
) -> None:
    kept = repository.place.parent / "kept"
    ran = repository.act(
        workflow(
            f"""\
      - run: printf '%s' "$TOKEN" >{kept}; exit 3
        env:
          TOKEN: ${{{{ steps.login.outputs.token }}}}
      - uses: {_LOGOUT}
        if: always()
      - run: echo "config=${{OPENFAAS_CONFIG:-none}}"; find "$RUNNER_TEMP/federation" -type f
        if: always()
""",
            **{"faas-cli": "true"},
        )
    ).assert_failed()
    assert "is revoked" in ran.log
    assert "config=none" in ran.log
    assert "/federation/login" not in ran.log.split("config=none")[1]
    refused = httpx2.get(
        f"{stage.broker_url}/system/functions?namespace=dev",
        headers={"Authorization": f"Bearer {kept.read_text('ascii')}"},
    )
    assert refused.status_code == 401


# --- the step action: one line, and the end of the job logs out --------------------------------

_KEEP = """\
      - run: |
          printf '%s' "$TOKEN" >{kept}
          echo "config=${{OPENFAAS_CONFIG:+set}} url=${{OPENFAAS_URL:+set}} exported=${{FEDERATION_TOKEN-no}}"
          {last}
        env:
          TOKEN: ${{{{ steps.login.outputs.token }}}}
"""


def is_dead(stage: Stage, token: str) -> bool:
    """Whether the broker refuses *token*."""
    asked = httpx2.get(
        f"{stage.broker_url}/system/functions?namespace=dev",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert asked.status_code in {200, 401}
    return asked.status_code == 401


@pytest.mark.parametrize(("last", "code"), [("exit 0", 0), ("exit 3", 1)])
def test_the_end_of_a_job_logs_out_also_if_it_failed(
    repository: Repository, stage: Stage, last: str, code: int
) -> None:
    kept = repository.place.parent / "kept"
    steps = _KEEP.format(kept=kept, last=last)
    ran = repository.act(
        workflow(steps, action=_STEP, **{"faas-cli": "true", "role": "octo-repo-main"})
    )
    assert ran.code == code, ran.log
    token = kept.read_text("ascii")
    assert token.count(".") == 2
    assert token not in ran.log
    assert "config=set url=set exported=no" in ran.log
    assert ran.log.index("config=set") < ran.log.index("is revoked")
    assert is_dead(stage, token)
    assert not list(repository.place.parent.rglob("federation/login.*"))


def test_the_end_of_a_cancelled_job_logs_out(repository: Repository, stage: Stage) -> None:
    kept = repository.place.parent / "kept"
    steps = _KEEP.format(kept=kept, last='echo "now waiting"; exec sleep 50')
    ran = repository.act_interrupted(workflow(steps, action=_STEP), "| now waiting").assert_failed()
    assert "is revoked" in ran.log
    assert is_dead(stage, kept.read_text("ascii"))


def test_a_refused_login_of_the_step_action_fails_it_and_its_end_has_nothing_to_do(
    repository: Repository,
) -> None:
    ran = repository.act(workflow("", action=_STEP), job="feature")
    said(ran, "refused (no_role_admits)", "jwt:ref (the token has", "there is nothing to end")


def test_the_step_action_knows_a_fork_by_the_event(repository: Repository) -> None:
    ran = repository.act(
        workflow("", event="pull_request", action=_STEP),
        job=None, event="pull_request", payload=_FORK,
    )  # fmt: skip
    said(ran, "comes from a fork, mallory/octo-repo")


@pytest.mark.parametrize("action", [_ACTION, _STEP], ids=["composite", "step"])
def test_another_role_than_expected_fails_the_login(repository: Repository, action: str) -> None:
    ran = repository.act(workflow("", action=action, **{"expect-role": "octo-app-main"}))
    said(ran, "does not name: octo-repo-main", "The access token is revoked")


@pytest.mark.parametrize("action", [_ACTION, _STEP], ids=["composite", "step"])
def test_debug_shows_the_claims_and_stops(repository: Repository, action: str) -> None:
    ran = repository.act(workflow("", action=action, debug="true"))
    said(ran, "stopped before the exchange", '"repository": "octo-org/octo-repo"')
    assert "Logged in" not in ran.log


_FORK: Mapping[str, object] = {
    "pull_request": {"head": {"repo": {"full_name": "mallory/octo-repo"}}},
    "repository": {"full_name": "octo-org/octo-repo"},
}


def test_a_job_without_an_id_token_is_told_that_act_has_none(repository: Repository) -> None:
    said(repository.act(workflow(""), job=None), "runs under act", "Run the job on GitHub")


def test_a_job_from_a_fork_is_told_why_it_fails(repository: Repository) -> None:
    ran = repository.act(
        workflow("", event="pull_request"),
        job=None, event="pull_request", payload=_FORK,
    )  # fmt: skip
    said(ran, "comes from a fork, mallory/octo-repo", "pull_request_target")


def test_an_unreachable_broker_is_reported(repository: Repository) -> None:
    said(repository.act(workflow("", url="http://127.0.0.1:9")), "127.0.0.1:9 could not be reached")


def test_a_wrong_audience_is_reported(repository: Repository) -> None:
    ran = repository.act(workflow("", audience="https://other.example.com"))
    said(ran, "refused (wrong_audience)", "The ID token is for https://other.example.com")


def test_a_role_that_does_not_admit_is_reported(repository: Repository) -> None:
    said(repository.act(workflow("", role="octo-app-main")), "refused (role_not_admitted)")


def test_a_refused_branch_is_told_what_did_not_match_and_how_to_explain_it(
    repository: Repository, stage: Stage
) -> None:
    ran = repository.act(workflow(""), job="feature")
    said(
        ran,
        "refused (no_role_admits)",
        "jwt:ref (the token has refs/heads/feature/login)",
        "federation explain --documents DOCUMENTS --claims claims.json",
    )
    shown = re.findall(r"^\[[^]]+\]\s+\| (.*)$", ran.log, re.MULTILINE)
    claims = "\n".join(shown[shown.index("{") : shown.index("}") + 1])
    repository.write("claims.json", claims)
    explained = repository.run(
        [sys.executable, "-m", "federation", "explain", "--documents", str(stage.documents),
         "--claims", "claims.json"]
    )  # fmt: skip
    assert "octo-repo-main" in explained.assert_failed().log
    assert "refs/heads/feature/login" in explained.log


def test_a_stranger_learns_nothing_about_the_roles(repository: Repository) -> None:
    ran = repository.act(workflow(""), job="stranger")
    said(ran, "No policies found for subject: repo:mallory/octo-repo:ref:refs/heads/main.")
    assert "octo-repo-main" not in ran.log


@pytest.mark.parametrize(
    "name",
    ["$(id)`id`", ";id;", "%0A::set-output name=token::evil", "\n::set-output name=token::evil",
     "'\"\\", "##[set-output name=token;]evil"],
    ids=["substitution", "semicolon", "escaped-line", "line", "quotes", "old-command"],
)  # fmt: skip
def test_a_hostile_name_stays_a_name(repository: Repository, stage: Stage, name: str) -> None:
    main = stage.issuer.jobs["github"]["main"]
    hostile = {"sub": f"repo:octo-org/octo-repo:environment:{name}", "environment": name}
    stage.issuer.jobs["github"]["hostile"] = {**main, **hostile}
    stage.issuer.jobs["github"]["hostile-refused"] = {
        **main,
        **hostile,
        "ref": f"refs/heads/{name}",
    }
    check = """\
      - run: echo "token=<${TOKEN##*.}> other=<$OTHER>"
        if: always()
        env:
          TOKEN: ${{ steps.login.outputs.token }}
          OTHER: ${{ steps.login.outputs.name }}
"""
    for job, code in (("hostile", 0), ("hostile-refused", 1)):
        ran = repository.act(workflow(check), job=job, GITHUB_HEAD_REF=name.replace("\n", ""))
        assert ran.code == code, ran.log
        assert "uid=" not in ran.log
        ((token, other),) = re.findall(r"\| token=<(.*)> other=<(.*)>", ran.log)
        # The last part of the token is its signature: nothing else may have been put in its place.
        assert re.fullmatch("" if code else "[A-Za-z0-9_-]{86}", token)
        assert other == ""


def test_a_hostile_branch_of_the_repository_stays_a_name(
    repository: Repository, stage: Stage
) -> None:
    branch = "x/$(id)`id`;id|id%0A--set-output'\"<>&{}"
    repository.git("checkout", "--quiet", "-b", branch)
    main = stage.issuer.jobs["github"]["main"]
    stage.issuer.jobs["github"]["branch"] = {
        **main,
        "sub": f"repo:octo-org/octo-repo:ref:refs/heads/{branch}",
        "ref": f"refs/heads/{branch}",
    }
    ran = repository.act(workflow(""), job="branch")
    said(ran, "refused (no_role_admits)")
    assert "uid=" not in ran.log


def said(ran: Run, *words: str) -> None:
    """The run failed, and its log has *words*."""
    for word in words:
        assert word in ran.assert_failed().log
