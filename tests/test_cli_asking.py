"""`federation who-can` and `federation role from-token`, as people call them."""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from federation.cli import main
from tests.harness.builders import sample
from tests.harness.documents import DOCUMENTS
from tests.harness.issuer import FakeIssuer

VECTORS = Path(__file__).parent / "vectors" / "claims"


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "all.yaml"
    path.write_text(DOCUMENTS, "utf-8")
    return path


def run(*words: object, given: bytes | str | None = None, **environ: str) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words], input=given, env=environ)


def who_can(documents: Path, *words: object) -> Result:
    return run("who-can", *words, f"--documents={documents}")


def test_who_can_names_roles_conditions_and_denies(documents: Path) -> None:
    said = who_can(documents, "Function:Create", "dev:figlet")
    assert said.exit_code == 0
    assert "yes  Role octo-deployer  by deploy/deploy" in said.output
    assert "StringEqual jwt:ref  refs/heads/main" in said.output
    said = who_can(documents, "Function:Invoke", "dev:vault")
    assert said.exit_code == 1
    assert "no   Role octo-deployer  by deploy/deploy" in said.output
    assert "denied by deploy/never  (always)" in said.output
    assert said.output.endswith("nobody can\n")


EXAMPLES = Path(__file__).parents[1] / "examples"
MANY = [EXAMPLES / f"github-{name}.yaml" for name in ("repository", "many-repositories")]


def test_who_can_tells_the_value_that_reaches_an_access() -> None:
    words = ("Function:Create", "repo-77:api", *(f"--documents={path}" for path in MANY))
    said = run("who-can", *words)
    assert said.exit_code == 0
    assert "access token must say\n         StringEqual jwt:repository_id  77\n" in said.output
    (way,) = json.loads(run("who-can", *words, "--format=json").output)["roles"]
    told = [each for each in way["conditions"] if each["of"] == "resource"]
    assert told == [
        {"operator": "StringEqual", "key": "jwt:repository_id", "values": ["77"], "of": "resource"}
    ]


def test_who_can_tells_what_a_role_reaches_by_its_own_pins(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    text = "\n---\n".join(each.read_text("utf-8") for each in MANY)
    path.write_text(
        text.replace("repo-${jwt:repository_id}", "o-${jwt:repository_owner_id}"), "utf-8"
    )
    said = run("who-can", "--role=octo-org-repositories", f"--documents={path}")
    assert "on o-${jwt:repository_owner_id}:*\n       for this Role: o-13420041:*\n" in said.output


def test_who_can_says_a_resource_once_where_the_role_pins_none_of_its_claims() -> None:
    words = ("--role=octo-org-repositories", *(f"--documents={path}" for path in MANY))
    said = run("who-can", *words)
    assert "on repo-${jwt:repository_id}:*\n" in said.output
    assert "for this Role" not in said.output


@pytest.mark.parametrize(
    ("claims", "became"),
    [
        ({}, "became repo-412890077:*, as ${jwt:repository_id} is 412890077\n"),
        ({"repository_id": "4*"}, "matches nothing, as ${jwt:repository_id} is 4*\n"),
    ],
    ids=["an id", "a pattern"],
)
def test_explain_tells_what_a_variable_became(claims: dict[str, str], became: str) -> None:
    said = run(
        *("explain", "--claims=-", "--access=Function:Create=repo-412890077:api"),
        *(f"--documents={path}" for path in MANY),
        given=json.dumps(sample("github-push-main", **claims)),
    )
    assert said.exit_code == bool(claims)
    assert f"own-namespace/deploy: repo-${{jwt:repository_id}}:* {became}" in said.output


def test_who_can_tells_the_roles_that_give_it_first(tmp_path: Path) -> None:
    text = (EXAMPLES / "github-repository.yaml").read_text("utf-8")
    role = text[text.index("kind: Role\n") :]
    shadow = role.replace("name: octo-repo-main", "name: a-shadow")
    shadow = shadow.replace("spec:\n", "spec:\n  effect: Shadow\n", 1)
    path = tmp_path / "all.yaml"
    path.write_text(f"{text}\n---\napiVersion: iam.openfaas.com/v1\n{shadow}", "utf-8")
    said = who_can(path, "Function:Create", "openfaas-fn:api")
    answers = [line[:20] for line in said.output.splitlines() if "  Role " in line]
    assert answers == ["yes  Role octo-repo-", "no   Role a-shadow  "]


def test_nobody_can_is_exit_code_1(documents: Path) -> None:
    said = who_can(documents, "Secret:List", "dev:*")
    assert (said.exit_code, said.output) == (1, "nobody can\n")


def test_an_access_that_no_request_asks_for_is_told_with_what_to_ask() -> None:
    asked = "dev:* is more than one request for Function:Create asks for: it names one function;"
    said = who_can(EXAMPLES / "github-repository.yaml", "Function:Create", "dev:*")
    assert said.output == f"note: {asked} ask about dev:<function>.\nnobody can\n"
    said = run(
        *("explain", "--claims=-", "--access=Function:Create=dev:*"),
        f"--documents={EXAMPLES / 'github-repository.yaml'}",
        given=json.dumps(sample("github-push-main")),
    )
    assert f"(nothing matches)\n     {asked} ask about dev:<function>\n" in said.output


@pytest.mark.parametrize(
    ("words", "saying"),
    [
        (["Function:Creat", "dev:x"], "did you mean Function:Create?"),
        (["Function:Deploy", "dev:x"], "; write Function:Create and Function:Update"),
        (["Function:*", "dev:x"], "is not an action; ask about one action, such as Function:"),
        (["*", "dev:x"], "is not an action; ask about one action, such as Function:"),
        (["Function:Read", "dev:x"], "ask about one action, such as Function:Get"),
        (["Function:Admin", "dev:x"], "ask about one action, such as Function:Create"),
        (["Secret:Read", "dev:x"], "ask about one action, such as Secret:List"),
        (["Function:Create", "dev"], "is not *, <namespace>:* or"),
        (["Function:Create", "figlet"], 'for example "openfaas-fn:figlet"'),
        (["Function:Create", "de*"], "is not *, <namespace>:* or <namespace>:<function>\n"),
        (["Function:Create", "a:b:c"], "is not *, <namespace>:* or"),
        (["Audit:Read", "dev:*"], "the only resource of Audit:Read"),
        (["Function:Create"], "give either ACTION and RESOURCE, or --role"),
        ([], "give either"),
        (["Function:Create", "dev:x", "--role=r"], "give either"),
        (["--role=octo-deploye"], "did you mean octo-deployer?"),
        (["--role=\x1b[2J"], "no Role is called"),
    ],
)
def test_wrong_use_is_exit_code_2(documents: Path, words: list[str], saying: str) -> None:
    said = who_can(documents, *words)
    assert said.exit_code == 2
    assert saying in said.output
    assert "\x1b" not in said.output


def test_a_role_is_asked_the_other_way_round(documents: Path) -> None:
    said = who_can(documents, "--role", "octo-deployer")
    assert said.exit_code == 0
    assert "Allow  deploy/deploy\n       Function:*\n       on dev:*" in said.output
    assert "Deny  deploy/never\n       Function:Invoke\n       on dev:vault" in said.output
    told = json.loads(who_can(documents, "--role=octo-deployer", "--format=json").output)
    assert [grant["effect"] for grant in told["grants"]] == ["Allow", "Deny"]


def test_the_documents_of_the_setting_are_the_default(documents: Path) -> None:
    words = ("who-can", "Function:Create", "dev:figlet")
    assert run(*words, FEDERATION_DOCUMENTS=str(documents)).exit_code == 0
    missing = run(*words, FEDERATION_DOCUMENTS=str(documents / "none"))
    assert missing.exit_code == 2
    unset = run(*words, FEDERATION_DOCUMENTS="")
    assert unset.exit_code == 2
    assert "FEDERATION_DOCUMENTS" in unset.output


def test_documents_with_errors_are_told_and_nothing_else(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: iam.openfaas.com/v1\nkind: Role\nmetadata: {name: r}\n", "utf-8")
    said = who_can(bad, "Function:Create", "dev:x")
    assert said.exit_code == 1
    assert "bad.yaml" in said.output
    assert "nobody can" not in said.output


def test_a_role_is_made_from_claims_or_from_a_token() -> None:
    path = VECTORS / "github-push-main.json"
    by_file = run("role", "from-token", path)
    assert by_file.exit_code == 0
    assert '"jwt:repository_id": ["412890077"]' in by_file.output
    token = FakeIssuer("https://token.actions.githubusercontent.com").token(
        sample("github-push-main")
    )
    assert run("role", "from-token", "-", given=f" {token}\n").output == by_file.output
    named = run("role", "from-token", path, "--policy=release")
    assert 'policy: ["release"]' in named.output


def test_a_role_to_watch_first_is_a_shadow_role(tmp_path: Path) -> None:
    claims = VECTORS / "github-push-main.json"
    admitting = run("role", "from-token", claims)
    watched = run("role", "from-token", claims, "--shadow")
    assert watched.exit_code == 0
    assert watched.output == admitting.output.replace("spec:\n", "spec:\n  effect: Shadow\n")
    told = json.loads(run("role", "from-token", claims, "--shadow", "--format=json").output)
    assert told["rule"] == watched.output
    documents = (EXAMPLES / "github-repository.yaml").read_text("utf-8")
    rest = documents[: documents.index("---\napiVersion: iam.openfaas.com/v1\nkind: Role")]
    (tmp_path / "all.yaml").write_text(f"{rest}---\n{watched.output}", "utf-8")
    said = run("explain", f"--documents={tmp_path}", f"--claims={claims}")
    assert said.exit_code == 1
    assert "a shadow Role: it admits nobody, and would admit\n" in said.output


def test_notes_are_comments_so_that_the_output_is_a_document() -> None:
    said = run("role", "from-token", VECTORS / "github-pull-request-target.json")
    assert said.output.startswith("# Careful: Outsiders can cause this event")
    assert said.exit_code == 0
    told = run("role", "from-token", VECTORS / "github-pull-request-target.json", "--format=json")
    written = json.loads(told.output)
    assert written["rule"].startswith("apiVersion:")
    assert written["rule_notes"][0].startswith("Careful:")


def test_a_token_that_no_role_can_admit_is_exit_code_1() -> None:
    said = run("role", "from-token", VECTORS / "gitlab-user-login.json")
    assert said.exit_code == 1
    assert "it lacks project_id" in said.output
    told = run("role", "from-token", VECTORS / "gitlab-user-login.json", "--format=json")
    assert (told.exit_code, json.loads(told.output)["rule"]) == (1, None)


def test_a_whole_answer_with_a_token_is_told_what_this_command_takes() -> None:
    token = FakeIssuer("https://token.actions.githubusercontent.com").token(
        sample("github-push-main")
    )
    answer = json.dumps({"value": token, "count": 1})
    said = run("role", "from-token", "-", given=answer)
    assert said.exit_code == 2
    assert "a whole JSON answer with a token in value; give that token alone\n" in said.output
    said = run("explain", f"--documents={EXAMPLES}", "--claims=-", given=answer)
    assert "a token in value; give that token with --token\n" in said.output


def test_an_access_may_be_given_as_other_commands_take_it(documents: Path) -> None:
    both = who_can(documents, "Function:Create", "dev:figlet")
    assert who_can(documents, "Function:Create=dev:figlet").output == both.output
    assert both.exit_code == 0
    wrong = who_can(documents, "Function:Create=")
    assert wrong.exit_code == 2
    assert "is not *, <namespace>:* or <namespace>:<function>" in wrong.output


def test_a_file_in_place_of_a_code_is_told_with_the_options_that_take_it() -> None:
    said = run("explain", VECTORS / "github-push-main.json")
    assert said.exit_code == 2
    assert "is a file; give it with --claims or --token" in said.output


_READERS = [
    ("explain", f"--documents={EXAMPLES / 'github-repository.yaml'}", "--claims=-"),
    ("explain", f"--documents={EXAMPLES / 'github-repository.yaml'}", "--token=-"),
    ("role", "from-token", "-"),
    ("replay", f"--against={EXAMPLES / 'github-repository.yaml'}", "--events=-"),
    ("convert", "-"),
]


@pytest.mark.parametrize("words", _READERS, ids=["claims", "token", "role", "events", "documents"])
def test_a_closed_standard_input_is_an_empty_one(words: tuple[str, ...]) -> None:
    closed = _in_a_shell(words, "<&-")
    empty = _in_a_shell(words, "</dev/null")
    assert "Traceback" not in closed.stderr
    assert (closed.returncode, closed.stdout, closed.stderr) == (
        empty.returncode,
        empty.stdout,
        empty.stderr,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
def test_a_full_disk_is_told_in_one_line() -> None:
    done = _in_a_shell(("check", str(EXAMPLES / "github-repository.yaml")), ">/dev/full")
    assert done.returncode == 1
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


def test_a_full_disk_is_told_where_the_output_is_closed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def write(*_words: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "state/keys")

    monkeypatch.setattr(main, "main", write)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capfd.readouterr().err == (
        "Error: state/keys cannot be written: No space left on device\n"
    )


def _in_a_shell(words: Sequence[str], redirected: str) -> subprocess.CompletedProcess[str]:
    command = shlex.join([sys.executable, "-m", "federation", *words])
    return subprocess.run(  # noqa: S602  ours
        f"{command} {redirected}", shell=True, capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"a":1,"a":2}', b"a.b.c", b"secret-words", b"{}" * 9],
    ids=repr,
)
def test_what_is_no_token_is_refused_and_not_quoted(given: bytes) -> None:
    said = run("role", "from-token", "-", given=given)
    assert said.exit_code == 2
    assert "secret-words" not in said.output
