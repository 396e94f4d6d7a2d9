"""Rule tests hide no document, read no other file, and print nothing that a terminal obeys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from federation.cli import main
from federation.documents.parse import parse, parse_value
from tests.harness.builders import sample

HEAD = "apiVersion: iam.openfaas.com/v1\nkind: RuleTest\n"
DOCUMENTS = Path(__file__).parents[2] / "examples" / "github-repository.yaml"
ESCAPE = "\x1b[2J"


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["test", str(DOCUMENTS), *map(str, words)])


def with_file(folder: Path, name: str) -> Path:
    spec = f"metadata: {{name: t}}\nspec:\n  claimsFile: '{name}'\n  expect: {{roles: []}}\n"
    path = folder / "test.yaml"
    path.write_text(HEAD + spec, "utf-8")
    return path


# A Policy that another reader would find must not be dropped.


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: iam.openfaas.com/v1\nkind: RuleTest\nkind: Policy\nmetadata: {name: x}\n",
        "apiVersion: iam.openfaas.com/v1\nkind: RuleTest\napiVersion: x\nmetadata: {name: x}\n",
        "apiVersion: v1\nkind: RuleTest\nmetadata: {name: x}\n",
        "kind: RuleTest\nmetadata: {name: x}\n",
        "apiVersion: iam.openfaas.com/v1\nkind: ruletest\nmetadata: {name: x}\n",
        "apiVersion: iam.openfaas.com/v1\nkind: [RuleTest]\nmetadata: {name: x}\n",
    ],
)
def test_what_is_not_surely_a_rule_test_is_an_error_of_the_set(text: str) -> None:
    assert parse("x.yaml", text.encode()).problems


def test_an_api_server_has_no_rule_tests() -> None:
    value = {"apiVersion": "iam.openfaas.com/v1", "kind": "RuleTest", "metadata": {"name": "x"}}
    assert parse_value("x", value).problems


@pytest.mark.parametrize(
    "text",
    [
        '{"iss": "x", "sub": "y", "kind": "Policy"}',
        '{"iss": "x", "sub": "y", "spec": {"statement": []}}',
        '{"iss": "x", "sub": "y", "apiVersion": "iam.openfaas.com/v1"}',
        '{"iss": "x", "sub": "y", "items": [{"apiVersion": "iam.openfaas.com/v1"}]}',
        '{"iss": "x", "aud": ["y"]}',
        '{"iss": "x", "sub": "y"',
    ],
)
def test_a_json_file_that_may_hold_a_document_is_not_passed_over_as_claims(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "x.json").write_text(text, "utf-8")
    (tmp_path / "documents.yaml").write_text(DOCUMENTS.read_text("utf-8"), "utf-8")
    assert CliRunner().invoke(main, ["check", str(tmp_path)]).exit_code == 1


# A file outside of the folder is never read.


@pytest.mark.parametrize(
    "name",
    ["../secret.json", "/etc/passwd", "below/../../secret.json", "link.json", "folder/s.json"],
)
def test_claims_come_from_no_file_outside(tmp_path: Path, name: str) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"iss": "hunter2"}', "utf-8")
    inside = tmp_path / "inside"
    (inside / "below").mkdir(parents=True)
    (tmp_path / "s.json").write_text('{"iss": "hunter2"}', "utf-8")
    (inside / "link.json").symlink_to(secret)
    (inside / "folder").symlink_to(tmp_path)
    path = with_file(inside, name)
    for given in (inside, path):
        done = run(given)
        assert done.exit_code == 1
        assert "leads out of the given folder" in done.output
        assert "hunter2" not in done.output


def test_a_pipe_or_a_folder_is_no_file_of_claims(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        done = run(with_file(tmp_path, name))
        assert done.exit_code == 1
        assert "RuleTest/t" in done.output


@pytest.mark.parametrize(
    "content",
    [
        "eyJhbGciOiJub25lIn0.e30.hunter2",
        "hunter2",
        '["hunter2"]',
        '{"a": "hunter2", "a": 1}',
        " " * 1_100_000,
    ],
    ids=["token", "text", "list", "duplicate", "large"],
)
def test_a_file_that_holds_no_claims_is_not_quoted(tmp_path: Path, content: str) -> None:
    (tmp_path / "claims.txt").write_text(content, "utf-8")
    done = run(with_file(tmp_path, "claims.txt"))
    assert done.exit_code == 1
    assert "is not a JSON object of claims" in done.output
    assert "hunter2" not in done.output


def test_a_sample_is_a_name_and_no_path(tmp_path: Path) -> None:
    spec = (
        "metadata: {name: t}\nspec:\n  sample: ../claims/github-push-main\n  expect: {roles: []}\n"
    )
    (tmp_path / "test.yaml").write_text(HEAD + spec, "utf-8")
    assert "no sample token is called" in run(tmp_path / "test.yaml").output


# Nothing that a claim holds acts on a terminal or a CI runner.


@pytest.mark.parametrize("form", ["text", "json", "junit", "github"])
def test_control_characters_and_commands_are_not_printed(tmp_path: Path, form: str) -> None:
    hostile = "\\e[2J\\n::set-env name=X::1\\n##[command]x##vso[task.setvariable]y"
    spec = (
        "metadata: {name: t}\nspec:\n  sample: github-push-main\n"
        f'  claims: {{ref: "{hostile}", aud: ["{hostile}"]}}\n'
        f'  expect: {{roles: [octo-repo-main], policies: ["deploy"]}}\n'
    )
    (tmp_path / "test.yaml").write_text(HEAD + spec, "utf-8")
    done = run(tmp_path / "test.yaml", "--format", form)
    assert done.exit_code == 1
    assert ESCAPE not in done.output
    assert "##[" not in done.output
    assert "##vso[" not in done.output
    assert not [line for line in done.output.splitlines() if line.lstrip().startswith("::set-env")]
    assert sample("github-push-main")


def test_many_and_deep_claims_are_bounded(tmp_path: Path) -> None:
    deep = "[" * 60 + "]" * 60
    many = ", ".join(f"a{number}: 1" for number in range(2000))
    for claims in (f"{{a: {deep}}}", f"{{{many}}}", f"{{a: {'9' * 5000}}}"):
        spec = f"metadata: {{name: t}}\nspec:\n  claims: {claims}\n  expect: {{roles: []}}\n"
        (tmp_path / "test.yaml").write_text(HEAD + spec, "utf-8")
        assert run(tmp_path / "test.yaml").exit_code == 1


@pytest.mark.parametrize("form", ["text", "json", "junit", "github"])
def test_the_name_of_a_file_is_no_command(tmp_path: Path, form: str) -> None:
    spec = "metadata: {name: t}\nspec:\n  sample: github-push-main\n  expect: {roles: []}\n"
    path = tmp_path / "##vso[task.setvariable variable=x]y.yaml"
    path.write_text(HEAD + spec, "utf-8")
    done = run(path, "--format", form)
    assert done.exit_code == 1
    assert "##vso[" not in done.output


# No test is passed over.


@pytest.mark.parametrize("kind", ["Rule\\x54est", "\\u0052uleTest", "Rule\\\n  Test"])
def test_one_whose_kind_is_written_with_escapes_is_run(tmp_path: Path, kind: str) -> None:
    spec = "metadata: {name: t}\nspec:\n  sample: github-push-main\n  expect: {roles: []}\n"
    (tmp_path / "test.yaml").write_text(HEAD.replace("RuleTest", f'"{kind}"') + spec, "utf-8")
    done = run(tmp_path / "test.yaml")
    assert done.exit_code == 1
    assert "1 failed" in done.output


@pytest.mark.parametrize(
    ("expected", "so"),
    [
        ("denied: ['Function:List=dev:*']", "no policy denied anything"),
        ("roles: []", "no Role was asked"),
        ("policies: []", "no Role was asked"),
    ],
)
@pytest.mark.parametrize("form", ["text", "json", "github"])
def test_one_that_no_document_can_fail_says_so(
    tmp_path: Path, expected: str, so: str, form: str
) -> None:
    spec = (
        "metadata: {name: t}\nspec:\n  claims: {iss: https://example.com}\n"
        f"  expect: {{{expected}}}\n"
    )
    (tmp_path / "test.yaml").write_text(HEAD + spec, "utf-8")
    done = run(tmp_path / "test.yaml", "--format", form)
    assert done.exit_code == 0
    assert f"refused with untrusted_issuer, so {so}" in done.output
    assert form != "github" or "::warning " in done.output
