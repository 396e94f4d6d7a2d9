"""`federation check`: its four formats, its exit codes, and what it refuses to print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from federation.cli.check import check

ISSUER = """\
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {name: github}
spec:
  iss: https://token.actions.githubusercontent.com
  aud: [https://gateway.example.com]
"""
POLICY = """\
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {name: deploy}
spec:
  statement:
    - {sid: a, effect: Allow, action: ["Function:*"], resource: ["*"]}
"""
ROLE = """\
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {name: deployer}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: https://token.actions.githubusercontent.com
      jwt:repository_id: "412890077"
      jwt:ref: refs/heads/main
"""
OPEN = ROLE + '    StringLike:\n      jwt:repository:\n        - acme/*\n        - "acme*"\n'
DOUBTFUL = ROLE.replace("      jwt:ref: refs/heads/main\n", "")
KEYS = {"path", "line", "kind", "name", "field", "code", "severity", "message", "hint"}

Check = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks `documents` in an empty directory, with the third document as given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)

    def checked(role: str, *arguments: str, color: bool = False) -> Result:
        write(role)
        return CliRunner().invoke(check, ["documents", *arguments], color=color)

    return checked


def write(role: str) -> None:
    """The three documents, a file each, below `documents`."""
    for name, text in (("issuer", ISSUER), ("policy", POLICY), ("role", role)):
        path = Path("documents", f"{name}.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def problems(result: Result) -> list[dict[str, Any]]:
    """The problems in JSON output."""
    found: list[dict[str, Any]] = json.loads(result.output)["problems"]
    return found


EXITS = {
    "clean": (ROLE, [], 0),
    "clean, strict": (ROLE, ["--strict"], 0),
    "warning": (DOUBTFUL, [], 0),
    "warning, strict": (DOUBTFUL, ["--strict"], 1),
    "error": (OPEN, [], 1),
    "error, strict": (OPEN, ["--strict"], 1),
}


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize(("role", "arguments", "code"), EXITS.values(), ids=EXITS)
def test_the_exit_code_says_whether_the_set_would_be_adopted(
    run: Check, role: str, arguments: list[str], code: int, form: str
) -> None:
    assert run(role, *arguments, "--format", form).exit_code == code


def test_a_problem_is_a_line_with_its_place(run: Check) -> None:
    assert run(OPEN).output.splitlines() == [
        (
            "documents/role.yaml:14: error[T003] Role/deployer: "
            'condition.StringLike["jwt:repository"][1]: '
            '"acme*" also matches "acme-evil/…"; write "acme/*"'
        ),
        "For what T003 means, run: federation explain T003",
        "3 documents: 1 error",
    ]


def test_a_clean_set_says_so(run: Check) -> None:
    assert run(ROLE).output == "3 documents: no problems\n"


def test_warnings_are_counted_apart(run: Check) -> None:
    assert run(DOUBTFUL).output.splitlines()[-1] == "3 documents: 1 warning"


def test_colours_are_for_terminals_that_want_them(
    run: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[" in run(OPEN, color=True).output
    assert "\x1b[" not in run(OPEN).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run(OPEN, color=True).output


def test_json_has_every_key_always(run: Check) -> None:
    result = run(OPEN, "--format", "json")
    assert json.loads(result.output)["documents"] == 3
    assert problems(result) == [
        {
            "path": "documents/role.yaml",
            "line": 14,
            "kind": "Role",
            "name": "deployer",
            "field": 'condition.StringLike["jwt:repository"][1]',
            "code": "T003",
            "severity": "error",
            "message": '"acme*" also matches "acme-evil/…"',
            "hint": 'write "acme/*"',
        }
    ]


def test_json_has_every_key_where_there_is_no_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    result = CliRunner().invoke(check, ["empty", "--format", "json"])
    [problem] = problems(result)
    assert (result.exit_code, problem["code"], set(problem)) == (1, "D021", KEYS)
    assert json.loads(result.output)["documents"] == 0


def test_an_empty_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "bare"):
        Path(name).mkdir()
    lines = CliRunner().invoke(check, ["empty", "bare"]).output.splitlines()
    assert [line.partition("[")[0] for line in lines[:2]] == ["bare: error", "empty: error"]


def test_json_of_a_clean_set_is_empty(run: Check) -> None:
    assert json.loads(run(ROLE, "--format", "json").output) == {"documents": 3, "problems": []}


def test_github_shows_the_problem_beside_its_line(run: Check) -> None:
    first, more, last = run(OPEN, "--format", "github").output.splitlines()
    assert first == (
        "::error file=documents/role.yaml,line=14,title=T003 Role/deployer::"
        'condition.StringLike["jwt:repository"][1]: "acme*" also matches "acme-evil/…"; '
        'write "acme/*"'
    )
    assert "federation explain T003" in more
    assert last == "3 documents: 1 error"


def test_github_shows_warnings_as_such(run: Check) -> None:
    assert run(DOUBTFUL, "--format", "github").output.startswith("::warning file=")


def test_github_escapes_what_would_end_a_property_or_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b:100%.yaml").write_text(OPEN.replace('"acme*"', '"100%*"'))
    output = CliRunner().invoke(check, ["a,b:100%.yaml", "--format", "github"]).output
    assert "::error file=a%2Cb%3A100%25.yaml,line=" in output
    assert '"100%25*" also matches' in output


HOSTILE = {
    "a value": OPEN.replace('"acme*"', r'"acme*\n::error::x\r\e[31m\u202e"'),
    "a key": ROLE + '      "jwt:x\\n::error::y\\e[31m": ""\n',
    "a name": OPEN.replace("name: deployer", r'name: "a\n::stop-commands::z\e[31m"'),
    "a field": OPEN + '  "x\\n::add-mask::y\\e[31m": 1\n',
}


@pytest.mark.parametrize("form", ["text", "github", "json", "sarif"])
@pytest.mark.parametrize("role", HOSTILE.values(), ids=HOSTILE)
def test_text_of_documents_cannot_be_a_command_to_a_terminal_or_runner(
    run: Check, role: str, form: str
) -> None:
    result = run(role, "--format", form)
    assert result.exit_code in {0, 1}
    assert re.search(r"error|::y|z|mask", result.output)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", result.output)
    orders = [line for line in result.output.splitlines() if line.lstrip().startswith("::")]
    assert all(re.match(r"::(error|warning) (file|title)=", order) for order in orders)


def test_sarif_names_rule_file_and_line(run: Check) -> None:
    log = json.loads(run(OPEN, "--format", "sarif").output)
    assert log["version"] == "2.1.0"
    [sarif] = log["runs"]
    [rule], [result] = sarif["tool"]["driver"]["rules"], sarif["results"]
    assert rule["id"] == result["ruleId"] == "T003"
    assert "docs/lint.md" in rule["help"]["text"]
    assert result["level"] == "error"
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "documents/role.yaml"},
                "region": {"startLine": 14},
            }
        }
    ]


def test_sarif_knows_a_rule_for_problems_of_shape(run: Check) -> None:
    log = json.loads(run(ROLE + "  colour: red\n", "--format", "sarif").output)
    [rule] = log["runs"][0]["tool"]["driver"]["rules"]
    assert rule["id"].startswith("D")
    assert rule["shortDescription"]["text"]
    assert "docs/documents.md" in rule["help"]["text"]


def test_sarif_of_a_clean_set_has_no_results(run: Check) -> None:
    [sarif] = json.loads(run(ROLE, "--format", "sarif").output)["runs"]
    assert (sarif["results"], sarif["tool"]["driver"]["rules"]) == ([], [])


WRONG_USE = {
    "no path": [],
    "a path that is not there": ["nowhere"],
    "a format that does not exist": [".", "--format", "xml"],
    "a flag that does not exist": [".", "--loose"],
}


@pytest.mark.parametrize("arguments", WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_exits_with_two(arguments: list[str]) -> None:
    assert CliRunner().invoke(check, arguments).exit_code == 2


def test_several_paths_are_one_set(run: Check) -> None:
    run(ROLE)
    apart = ["documents/role.yaml", "documents/issuer.yaml", "documents/policy.yaml"]
    assert CliRunner().invoke(check, apart).output == "3 documents: no problems\n"
    assert CliRunner().invoke(check, apart[:1]).exit_code == 1


def test_problems_come_by_file_and_line(run: Check) -> None:
    Path("documents").mkdir()
    Path("documents/a.yaml").write_text(f"{DOUBTFUL.replace('deployer', 'a')}---\n{OPEN}")
    found = problems(run(DOUBTFUL.replace("deployer", "b"), "--format", "json"))
    places = [(problem["path"], problem["line"]) for problem in found]
    assert len(places) == 3
    assert places == sorted(places)


def test_a_character_that_the_terminal_lacks_causes_no_crash(run: Check, tmp_path: Path) -> None:
    write(OPEN)
    done = subprocess.run(
        [sys.executable, "-c", "from federation.cli.check import check; check()", "documents"],
        cwd=tmp_path,
        env={"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert b"T003" in done.stdout
    assert done.stderr == b""
