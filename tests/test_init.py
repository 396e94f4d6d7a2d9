"""`federation init` writes documents without a problem, and never over a file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
import yaml
from click.testing import CliRunner, Result

from federation.claims import Claims
from federation.cli import main
from federation.client import ClientError
from federation.client.http import Sender
from federation.policy.roles import evaluate
from federation.sources.files import load
from federation.starter.forge import (
    Kind,
    Repository,
    look_up,
    repository_name,
    require_branch,
    token_variables,
)
from federation.starter.workflow import SOURCES, workflow_yaml
from tests.harness.builders import sample

ROOT = Path(__file__).parents[1]
URL = "https://gateway.example.com"
IDS = ("--id", "412890077", "--owner-id", "13420041")
GITLAB_IDS = ("--id", "61204418", "--owner-id", "84410237")
SOURCE = "octo-org/federation@" + "ab" * 20
_NO_TOKENS = dict.fromkeys(
    (
        *("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"),
        *("GITLAB_TOKEN", "GITLAB_HOST", "FEDERATION_URL"),
    )
)


def run(*arguments: object, **environ: str) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)], env=_NO_TOKENS | environ)


def github(into: Path, *more: str, name: str = "octo-org/octo-repo", ids: Any = IDS) -> Result:
    return run("github", name, "--url", URL, "--into", into, *ids, *more)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def admitted(folder: Path, name: str, **changes: object) -> bool:
    """Whether the documents admit the sample job *name*, with *changes* to its claims."""
    catalog = load([folder / "documents"]).catalog
    assert catalog is not None
    claims = sample(name, **changes)
    issuer = catalog.issuers.get(str(claims["iss"]))
    return issuer is not None and any(
        held.admits for held in evaluate(catalog.roles, issuer.provider, Claims(claims))
    )


# What it writes


def test_the_documents_of_a_github_repository_admit_its_branch_and_nobody_else(
    tmp_path: Path,
) -> None:
    result = github(tmp_path)
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == {
        "documents/github.yaml",
        "documents/deploy-openfaas-fn.yaml",
        "documents/octo-org-octo-repo-main.yaml",
        "documents/tests/octo-org-octo-repo-main.yaml",
        ".github/workflows/deploy.yml",
    }
    checked = CliRunner().invoke(main, ["check", "--strict", str(tmp_path / "documents")])
    assert checked.output == "3 documents: no problems\n"
    assert admitted(tmp_path, "github-push-main")
    assert not admitted(tmp_path, "github-push-main", ref="refs/heads/feature")
    assert not admitted(tmp_path, "github-push-main", repository_id="1")
    assert not admitted(tmp_path, "github-push-main", repository_owner_id="1")


@pytest.mark.parametrize("environment", [(), ("--environment", "production")], ids=["", "env"])
def test_the_rule_tests_pass_also_beside_other_roles(
    tmp_path: Path, environment: tuple[str, ...]
) -> None:
    folder = str(tmp_path / "documents")
    gitlab = ("gitlab", "octo-group/app", "--url", URL, "--into", tmp_path, *GITLAB_IDS)
    assert run(*gitlab, *environment).exit_code == 0
    assert github(tmp_path, "--only", "documents").exit_code == 0
    assert CliRunner().invoke(main, ["test", folder]).output == "6 rule tests: 6 passed\n"
    if environment:  # the Role of the branch admits jobs with an environment too
        assert github(tmp_path, *environment, "--only", "documents").exit_code == 0
        assert CliRunner().invoke(main, ["test", folder]).output == "9 rule tests: 9 passed\n"


def test_a_rule_test_fails_where_the_role_loses_its_branch(tmp_path: Path) -> None:
    github(tmp_path)
    role = tmp_path / "documents/octo-org-octo-repo-main.yaml"
    kept = [line for line in role.read_text("utf-8").splitlines() if "jwt:ref" not in line]
    role.write_text("\n".join(kept), "utf-8")
    told = CliRunner().invoke(main, ["test", str(tmp_path / "documents")])
    assert told.exit_code == 1
    assert "FAIL  octo-org-octo-repo-main-not-from-another-branch" in told.output


def test_the_documents_of_a_gitlab_project_admit_its_branch_and_nobody_else(tmp_path: Path) -> None:
    words = ("gitlab", "octo-group/app", "--url", URL, "--into", tmp_path, *GITLAB_IDS)
    assert run(*words).exit_code == 0
    checked = CliRunner().invoke(main, ["check", "--strict", str(tmp_path / "documents")])
    assert checked.output == "3 documents: no problems\n"
    assert admitted(tmp_path, "gitlab-branch-main")
    assert not admitted(tmp_path, "gitlab-branch-main", ref_path="refs/tags/main")
    assert not admitted(tmp_path, "gitlab-branch-main", project_id="1")
    assert (tmp_path / ".gitlab-ci.yml").exists()


def test_an_environment_is_in_the_role_and_in_the_workflow(tmp_path: Path) -> None:
    assert github(tmp_path, "--environment", "production", "--namespace", "prod").exit_code == 0
    assert admitted(tmp_path, "github-environment-production")
    assert not admitted(tmp_path, "github-push-main")
    workflow = yaml.safe_load((tmp_path / ".github/workflows/deploy.yml").read_text())
    assert workflow["jobs"]["deploy"]["environment"] == "production"
    assert 'resource: ["prod:*"]' in (tmp_path / "documents/deploy-prod.yaml").read_text()


def test_a_second_repository_shares_issuer_and_policy(tmp_path: Path) -> None:
    github(tmp_path)
    before = (tmp_path / "documents/github.yaml").read_text()
    ids = ("--id", "7", "--owner-id", "13420041", "--only", "documents")
    assert github(tmp_path, name="octo-org/other", ids=ids).exit_code == 0
    assert (tmp_path / "documents/github.yaml").read_text() == before
    checked = CliRunner().invoke(main, ["check", "--strict", str(tmp_path / "documents")])
    assert checked.output == "4 documents: no problems\n"
    gitlab = ("gitlab", "octo-group/app", "--url", URL, "--into", tmp_path, *GITLAB_IDS)
    assert run(*gitlab).exit_code == 0
    checked = CliRunner().invoke(main, ["check", "--strict", str(tmp_path / "documents")])
    assert checked.output == "6 documents: no problems\n"


def test_the_next_steps_name_what_is_to_be_replaced(tmp_path: Path) -> None:
    told = github(tmp_path).output
    assert "replace your-org/federation with your copy of this project" in told
    assert f"federation check --strict {tmp_path}/documents" in told
    assert "--upstream http://GATEWAY:8080 --upstream-secrets FOLDER" in told
    assert "replace" not in github(tmp_path / "two", "--source", SOURCE).output
    workflow = (tmp_path / "two/.github/workflows/deploy.yml").read_text()
    assert f"octo-org/federation/action/step@{'ab' * 20}" in workflow


def block(page: str, language: str) -> str:
    """The first job in *language* on the page *page*."""
    text = (ROOT / page).read_text("utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return next(each for each in found if "faas-cli deploy" in each)


@pytest.mark.parametrize(
    "pages", [("README.md", "README.md"), ("docs/github.md", "docs/gitlab.md")]
)
def test_the_workflow_is_the_one_that_the_pages_show(
    tmp_path: Path, pages: tuple[str, str]
) -> None:
    github(tmp_path)
    written = (tmp_path / ".github/workflows/deploy.yml").read_text()
    assert written == block(pages[0], "yaml")
    words = ("gitlab", "g/p", "--url", URL, "--into", tmp_path / "two", *GITLAB_IDS)
    assert run(*words).exit_code == 0
    pipeline = (tmp_path / "two" / ".gitlab-ci.yml").read_text()
    rule = json.dumps('$CI_COMMIT_BRANCH == "main"')
    shown = block(pages[1], "yml").replace("$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH", rule)
    assert pipeline == shown


def test_the_pipeline_of_gitlab_names_the_environment(tmp_path: Path) -> None:
    words = ("gitlab", "g/p", "--url", URL, "--into", tmp_path, *GITLAB_IDS)
    assert run(*words, "--environment", "production/eu: 1").exit_code == 0
    pipeline = (tmp_path / ".gitlab-ci.yml").read_text()
    parsed = yaml.safe_load(pipeline.replace("!reference", ""))
    assert parsed["deploy"]["environment"] == "production/eu: 1"
    assert parsed["include"][0]["inputs"] == {"url": URL}


@pytest.mark.parametrize(
    "branch", ["main", "yes", "1.0", "release/2.x", "on", "a=b@c", "PLACE", "0x1f", "1_0"]
)
def test_any_branch_is_a_text_in_the_workflow(branch: str) -> None:
    repository = Repository("github", "https://github.com", "o/r", "1", "2", branch)
    parsed = yaml.safe_load(workflow_yaml(repository, URL, "no", SOURCE))
    assert parsed[True]["push"]["branches"] == [branch]
    assert parsed["jobs"]["deploy"]["environment"] == "no"


# It never overwrites


@pytest.mark.parametrize("taken", [".github/workflows/deploy.yml", "documents/github.yaml"])
def test_a_file_that_is_there_is_kept_and_nothing_is_written(tmp_path: Path, taken: str) -> None:
    place = tmp_path / taken
    place.parent.mkdir(parents=True)
    place.write_text("# mine\n")
    result = github(tmp_path)
    assert result.exit_code == 1
    assert f"{place} is there already. Nothing was written." in " ".join(result.stderr.split())
    assert files(tmp_path) == {taken}
    assert place.read_text() == "# mine\n"


@pytest.mark.parametrize("target", ["/nowhere/at/all", "victim"])
def test_a_link_that_is_there_is_not_followed(tmp_path: Path, target: str) -> None:
    into = tmp_path / "into"
    (into / "documents").mkdir(parents=True)
    (into / "documents" / "octo-org-octo-repo-main.yaml").symlink_to(tmp_path / target)
    assert github(into).exit_code == 1
    assert not (tmp_path / "victim").exists()
    assert not (into / "documents" / "github.yaml").exists()


def test_a_file_that_appears_in_this_moment_is_kept_and_all_others_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ".github" / "workflows" / "deploy.yml"
    place.parent.mkdir(parents=True)
    place.write_text("# mine\n")
    monkeypatch.setattr("federation.starter.files.os.path.lexists", lambda _path: False)
    result = github(tmp_path)
    assert result.exit_code == 1
    assert "is there already" in " ".join(result.stderr.split())
    assert place.read_text() == "# mine\n"
    assert files(tmp_path) == {".github/workflows/deploy.yml"}


def test_a_folder_that_cannot_be_written_is_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = github(tmp_path / "file")
    assert result.exit_code in {1, 2}
    assert "Traceback" not in result.output
    (tmp_path / "documents").write_text("")
    result = github(tmp_path)
    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert files(tmp_path) == {"file", "documents"}


def test_print_writes_nothing(tmp_path: Path) -> None:
    result = github(tmp_path, "--print")
    assert result.exit_code == 0
    assert len(list(yaml.safe_load_all(result.stdout.replace("# ---", "---\n#")))) >= 4
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("only", "count"), [("documents", 4), ("workflow", 1)], ids=["documents", "workflow"]
)
def test_only_some_are_written(tmp_path: Path, only: str, count: int) -> None:
    assert github(tmp_path, "--only", only).exit_code == 0
    assert len(files(tmp_path)) == count


def test_documents_with_errors_get_nothing_added(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "x.yaml").write_text("kind: Rolle\n")
    result = github(tmp_path)
    assert result.exit_code == 1
    assert "federation check" in result.stderr
    assert files(tmp_path) == {"documents/x.yaml"}


def test_an_issuer_that_lacks_the_audience_is_named(tmp_path: Path) -> None:
    github(tmp_path)
    place = tmp_path / "documents" / "github.yaml"
    place.write_text(place.read_text().replace(URL, "https://other.example.com"))
    ids = ("--id", "7", "--owner-id", "1")
    result = github(tmp_path, name="octo-org/other", ids=ids)
    assert result.exit_code == 1
    assert f"does not list {URL} under aud" in " ".join(result.stderr.split())


# Looking the ids up


@contextmanager
def api(answers: dict[str, object], status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server with an API, and the requests that it got."""
    asked: list[Any] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((unquote(self.path), dict(self.headers)))
            found = answers.get(unquote(self.path))
            body = json.dumps(found or {"message": "Not Found"}).encode()
            self.send_response(status if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


GITHUB_ANSWER = {
    "id": 412890077,
    "full_name": "Octo-Org/octo-repo",
    "owner": {"id": 13420041, "login": "Octo-Org"},
    "default_branch": "trunk",
}
GITLAB_ANSWER = {
    "id": 61204418,
    "path_with_namespace": "octo-group/app",
    "namespace": {"id": 84410237},
    "default_branch": "main",
}


def test_the_ids_and_the_branch_are_asked_of_a_github_server(tmp_path: Path) -> None:
    with api({"/api/v3/repos/octo-org/octo-repo": GITHUB_ANSWER}) as (server, asked):
        result = github(
            tmp_path, "--server", server, ids=(), name=f"{server}/octo-org/octo-repo.git"
        )
        tokens = {"GITHUB_TOKEN": "for-github-com", "GH_ENTERPRISE_TOKEN": "for-here"}
        words = ("github", "octo-org/octo-repo", "--url", URL, "--server", server, "--print")
        assert run(*words, **tokens).exit_code == 0
    assert result.exit_code == 0, result.output
    (role,) = (tmp_path / "documents").glob("octo-org-*.yaml")
    told = role.read_text()
    assert '"jwt:repository_id": ["412890077"]' in told
    assert '"jwt:repository_owner_id": ["13420041"]' in told
    assert '"jwt:ref": ["refs/heads/trunk"]' in told
    assert f"{server}/_services/token" in told
    assert "Authorization" not in asked[0][1]
    assert asked[1][1]["Authorization"] == "Bearer for-here"


def test_the_ids_are_asked_of_a_gitlab_server(tmp_path: Path) -> None:
    with api({"/api/v4/projects/octo-group/app": GITLAB_ANSWER}) as (server, asked):
        words = ("gitlab", "octo-group/app", "--url", URL, "--into", tmp_path, "--server", server)
        host = server.removeprefix("http://")
        result = run(*words, GITLAB_TOKEN="for-here", GITLAB_HOST=host)
    assert result.exit_code == 0, result.output
    assert asked[0][1]["PRIVATE-TOKEN"] == "for-here"
    checked = CliRunner().invoke(main, ["check", "--strict", str(tmp_path / "documents")])
    assert checked.output == "3 documents: no problems\n"


def test_a_repository_that_is_not_shown_says_how_to_give_the_ids(tmp_path: Path) -> None:
    with api({}) as (server, _):
        result = github(tmp_path, "--server", server, ids=())
    assert result.exit_code == 1
    assert "HTTP 404 about octo-org/octo-repo" in " ".join(result.stderr.split())
    assert "gh api repos/octo-org/octo-repo" in result.stderr
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"id": True},
        {"id": -5},
        {"id": 10**30},
        {"owner": {"id": False}},
        {"default_branch": 'main"]\npermissions: write-all'},
        {"default_branch": "refs/heads/main"},
        {"default_branch": "*"},
    ],
    ids=str,
)
def test_an_answer_that_would_make_other_documents_is_refused(change: dict[str, object]) -> None:
    answer = GITHUB_ANSWER | change
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=answer))
    with pytest.raises(ClientError, match=r"is no (id|branch)"):
        look_up("github", "o/r", "https://github.com", Sender(httpx2.Client(transport=transport)))


def test_a_name_that_only_looks_alike_is_not_taken_from_the_answer() -> None:
    answer = GITHUB_ANSWER | {"full_name": "octo/\u212a"}  # the sign for kelvin, `k` in lower case
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=answer))
    sender = Sender(httpx2.Client(transport=transport))
    assert look_up("github", "octo/k", "https://github.com", sender).name == "octo/k"


@pytest.mark.parametrize(
    ("kind", "server", "url"),
    [
        ("github", "https://github.com", "https://api.github.com/repos/o/r"),
        ("github", "https://acme.ghe.com", "https://api.acme.ghe.com/repos/o/r"),
        ("github", "https://git.example.com", "https://git.example.com/api/v3/repos/o/r"),
        ("gitlab", "https://gitlab.com", "https://gitlab.com/api/v4/projects/o%2Fr"),
        ("gitlab", "https://example.com/git", "https://example.com/git/api/v4/projects/o%2Fr"),
    ],
)
def test_each_server_is_asked_at_its_api(kind: Kind, server: str, url: str) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        return httpx2.Response(200, json=GITHUB_ANSWER if kind == "github" else GITLAB_ANSWER)

    sender = Sender(httpx2.Client(transport=httpx2.MockTransport(answer)))
    assert look_up(kind, "o/r", server, sender).id
    assert asked == [url]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (301, "another name"),
        (401, "Renew the token"),
        (403, "not without a token"),
        (200, "--server"),
    ],
)
def test_an_answer_without_the_ids_says_its_cause(status: int, words: str) -> None:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(status, text="[]"))
    sender = Sender(httpx2.Client(transport=transport))
    with pytest.raises(ClientError, match=words):
        look_up("github", "o/r", "https://github.com", sender, "secret")


@pytest.mark.parametrize(
    ("kind", "server", "host", "variables"),
    [
        ("github", "https://github.com", "", ("GH_TOKEN", "GITHUB_TOKEN")),
        ("github", "https://acme.ghe.com", "", ("GH_TOKEN", "GITHUB_TOKEN")),
        ("github", "https://ghe.com.evil.example", "",
         ("GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")),
        ("gitlab", "https://gitlab.com", "", ("GITLAB_TOKEN",)),
        ("gitlab", "https://gitlab.com", "git.example.com", ()),
        ("gitlab", "https://git.example.com", "", ()),
        ("gitlab", "https://git.example.com", "https://git.example.com/", ("GITLAB_TOKEN",)),
    ],
)  # fmt: skip
def test_a_token_for_one_server_is_not_sent_to_another(
    kind: Kind, server: str, host: str, variables: tuple[str, ...]
) -> None:
    assert token_variables(kind, server, host) == variables


# Words that it does not take


@pytest.mark.parametrize(
    "given",
    ["octo-org/octo-repo", "https://github.com/octo-org/octo-repo", "git@github.com:octo-org/octo-repo.git",
     "https://github.com/octo-org/octo-repo.git/", "ssh://git@github.com/octo-org/octo-repo.git",
     " octo-org/octo-repo\n"],
)  # fmt: skip
def test_a_name_may_be_an_address(given: str) -> None:
    assert repository_name("github", given, "https://github.com") == "octo-org/octo-repo"


@pytest.mark.parametrize(
    "given",
    ["octo-repo", "a/b/c", "../x", "a/..", "https://gitlab.com/a/b", "a/b?x=1", "a/b#c", "", "a b/c",
     "-a/b", "a/b\n/c"],
)  # fmt: skip
def test_what_is_no_name_is_refused(given: str) -> None:
    with pytest.raises(ClientError, match="OWNER/NAME"):
        repository_name("github", given, "https://github.com")


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_one_id_alone_is_refused_with_what_to_give(tmp_path: Path, kind: str) -> None:
    result = CliRunner().invoke(
        main,
        ["init", kind, "octo/app", "--url", URL, "--id", "7", "--into", str(tmp_path)],
    )
    assert result.exit_code == 1
    assert "Both --id and --owner-id are needed.\nGive both ids" in result.stderr


def test_another_site_is_told_where_its_documents_are() -> None:
    result = run("bitbucket", "octo/app", "--url", URL)
    assert (result.exit_code, "docs/providers.md" in result.stderr) == (2, True)
    near = run("githb", "octo/app").stderr
    assert "Did you mean" in near
    assert "'github'" in near


@pytest.mark.parametrize("command", [("init", "github", "octo-org/octo-repo"), ("exchange",)])
def test_a_url_that_is_missing_is_told_with_its_variable(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, command, env={"FEDERATION_URL": None})
    assert (result.exit_code, "FEDERATION_URL" in result.stderr) == (2, True)


@pytest.mark.parametrize("branch", ["refs/heads/main", "-x", "a b", "a*", '"', "$x", "a\nb", ""])
def test_what_is_no_branch_is_refused(branch: str) -> None:
    with pytest.raises(ClientError, match="no branch"):
        require_branch(branch)


@pytest.mark.parametrize(
    "words",
    [
        ("--id", "5"),
        ("--id", "x", "--owner-id", "5"),
        ("--namespace", "A:*", *IDS),
        ("--source", "octo-org/federation@main", *IDS),
        ("--server", "http://git.example.com", *IDS),
        ("--server", 'https://x.example/"', *IDS),
        ("--url", "http://gateway.example.com", *IDS),
        ("--branch", "refs/heads/main", *IDS),
    ],
    ids=str,
)
def test_words_that_would_make_other_documents_are_refused(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    result = github(tmp_path, *words, ids=())
    assert result.exit_code in {1, 2}
    assert "Traceback" not in result.output
    assert files(tmp_path) == set()


def test_the_placeholder_is_of_the_right_form() -> None:
    for kind, source in SOURCES.items():
        repository = Repository(kind, f"https://{kind}.com", "o/r", "1", "2", "main")  # type: ignore[arg-type]
        assert source.partition("@")[0] in workflow_yaml(repository, URL, "", source)
