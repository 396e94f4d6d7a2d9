"""The GitLab template under gitlab-ci-local, which merges includes and runs jobs here."""

from __future__ import annotations

import re

import httpx2
import pytest

from federation.demo.stage import Stage
from tests.harness.ci_runner import ROOT
from tests.harness.real_runners import Repository

pytestmark = pytest.mark.e2e

_INCLUDE = """\
include:
  - local: gitlab/federate.yml
    inputs:
      url: https://gateway.example.com
"""


def jobs_in(page: str) -> list[str]:
    """The complete pipelines on a page of the docs."""
    found = re.findall(
        r"^```ya?ml\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    return [block for block in found if "file: gitlab/federate.yml" in block]


@pytest.mark.parametrize("page", ["README.md", "docs/gitlab.md"])
def test_the_job_that_the_docs_show_deploys(repository: Repository, page: str) -> None:
    for shown in jobs_in(page):
        # There is no GitLab that holds another project, so the file is included from this one.
        local = re.sub(r"project: \S+\n +ref: \S+\n +file: ", "local: ", shown)
        assert local != shown
        ran = repository.gitlab(local, "deploy").assert_ok()
        assert "Deployed. " in ran.log
        assert "is revoked" in ran.log


def test_the_guide_shows_a_whole_job() -> None:
    assert jobs_in("docs/gitlab.md")


def test_a_job_has_its_token_in_its_shell_and_the_log_has_none(
    repository: Repository, stage: Stage
) -> None:
    kept = repository.place.parent / "kept"
    pipeline = f"""\
{_INCLUDE}
deploy:
  extends: .federation
  script:
    - printf '%s' "$FEDERATION_TOKEN" >{kept}
    - echo "id=${{FEDERATION_ID_TOKEN:-gone}}"
    - echo "inside=$(ls -A | grep -c openfaas)"
    - mkdir elsewhere && mv stack.yaml elsewhere && cd elsewhere && faas-cli deploy
"""
    ran = repository.gitlab(pipeline, "deploy").assert_ok()
    token = kept.read_text("ascii")
    assert token not in ran.log
    assert "id=gone" in ran.log
    assert "inside=0" in ran.log
    assert "Deployed. " in ran.log
    refused = httpx2.get(
        f"{stage.broker_url}/system/functions?namespace=dev",
        headers={"Authorization": f"Bearer {token}"},
    )
    assert refused.status_code == 401, "after_script has ended it"
    assert not list(repository.place.parent.rglob("login.*"))


def test_a_jobs_own_before_script_can_include_the_login(repository: Repository) -> None:
    pipeline = f"""\
{_INCLUDE}
deploy:
  extends: .federation
  before_script:
    - !reference [.federation, before_script]
    - echo prepared
  script:
    - faas-cli deploy
"""
    assert "Deployed. " in repository.gitlab(pipeline, "deploy").assert_ok().log


def test_a_job_that_replaced_the_login_has_no_token_and_a_warning(repository: Repository) -> None:
    pipeline = f"""\
{_INCLUDE}
deploy:
  extends: .federation
  before_script:
    - echo prepared
  script:
    - echo "token=${{FEDERATION_TOKEN:-none}} config=${{OPENFAAS_CONFIG:-none}}"
    - faas-cli deploy
"""
    ran = repository.gitlab(pipeline, "deploy").assert_failed()
    assert "token=none config=none" in ran.log
    assert "THE LOGIN OF .federation DID NOT RUN IN THIS JOB" in ran.log
    assert not list(repository.place.parent.rglob("config.yml"))


def test_two_jobs_log_in_each_by_itself(repository: Repository) -> None:
    pipeline = f"""\
{_INCLUDE}
one: {{extends: .federation, script: [faas-cli deploy]}}
two: {{extends: .federation, script: [faas-cli deploy]}}
"""
    for job in ("one", "two"):
        assert "Deployed. " in repository.gitlab(pipeline, job).assert_ok().log


_DEPLOY = "deploy: {extends: .federation, script: [faas-cli deploy]}\n"


@pytest.mark.parametrize(
    ("pipeline", "identity", "words"),
    [
        pytest.param(
            _INCLUDE + _DEPLOY, "feature", "refused (no_role_admits)", id="a branch not meant"
        ),
        pytest.param(
            _INCLUDE.replace("gateway.example.com", "gateway.example.com/") + _DEPLOY,
            "main",
            "The input url has a slash at its end, and GitLab copied it",
            id="a slash at the end",
        ),
        pytest.param(
            _INCLUDE
            + _DEPLOY.replace(
                "extends: .federation,",
                "extends: .federation, id_tokens: {FEDERATION_ID_TOKEN: {aud: 'https://other.test'}},",
            ),
            "main",
            "is for https://other.test, but would be sent to",
            id="an audience of its own",
        ),
        pytest.param(
            _INCLUDE.replace("https://gateway.example.com", "http://127.0.0.1:9") + _DEPLOY,
            "main",
            "127.0.0.1:9 could not be reached",
            id="no broker",
        ),
        pytest.param(
            f"{_INCLUDE}      role: octo-repo-main\n{_DEPLOY}",
            "main",
            "refused (role_not_admitted)",
            id="a Role that does not admit",
        ),
        pytest.param(
            f"{_INCLUDE}      expect-role: octo-repo-main\n{_DEPLOY}",
            "main",
            "The access token is revoked",
            id="another Role than expected",
        ),
        pytest.param(
            f'{_INCLUDE}      debug: "true"\n{_DEPLOY}',
            "main",
            '"project_path": "octo-group/app"',
            id="debug",
        ),
    ],
)
def test_a_failure_is_reported_and_ends_the_job(
    repository: Repository, pipeline: str, identity: str, words: str
) -> None:
    ran = repository.gitlab(pipeline, "deploy", identity=identity).assert_failed()
    assert words in ran.log
    assert "Deployed" not in ran.log
    assert "DID NOT RUN" not in ran.log


def test_a_pipeline_variable_cannot_send_the_token_elsewhere(repository: Repository) -> None:
    ran = repository.gitlab(
        _INCLUDE + _DEPLOY, "deploy", FEDERATION_URL="https://evil.test"
    ).assert_failed()
    assert "but would be sent to https://evil.test" in ran.log


@pytest.mark.parametrize("name", ["$(id)", "`id`", "a;id", "'\"\\", "%0A::x", "\r\x1b[31m"])
def test_a_hostile_name_stays_a_name(repository: Repository, stage: Stage, name: str) -> None:
    stage.issuer.jobs["gitlab"]["hostile"] = {
        **stage.issuer.jobs["gitlab"]["feature"],
        "environment": name,
        "sub": f"project_path:octo-group/app:ref_type:branch:ref:{name}",
    }
    ran = repository.gitlab(_INCLUDE + _DEPLOY, "deploy", identity="hostile").assert_failed()
    assert "refused (no_role_admits)" in ran.log
    assert "uid=" not in ran.log
    (told,) = re.findall(r"No policies found.*", ran.log)
    assert told.isprintable()
