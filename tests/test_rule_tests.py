"""`federation test` runs rule tests by the functions that decide, and says why one fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import yaml
from click.testing import CliRunner, Result

from federation.claims import UnverifiedClaims
from federation.cli import main
from federation.documents.rule_tests import merged, rule_tests
from federation.documents.schema import REFUSALS
from federation.errors import Reason
from federation.explained import explain_claims, outcome
from federation.policy.index import PolicySets
from federation.policy.permissions import Access
from federation.sources.files import load
from federation.sources.rule_tests import sample_names
from tests.harness.builders import sample

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
MAIN = {"sample": "github-push-main", "expect": {"roles": ["octo-repo-main"]}}
FIGLET = "Function:Create=openfaas-fn:figlet"


def written(name: str, spec: object) -> dict[str, object]:
    metadata = {"name": name}
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": "RuleTest",
        "metadata": metadata,
        "spec": spec,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the documents of one GitHub repository."""
    text = (EXAMPLES / "github-repository.yaml").read_text("utf-8")
    (tmp_path / "documents.yaml").write_text(text, "utf-8")
    return tmp_path


def put(folder: Path, *specs: object, **named: object) -> None:
    """Write a rule test of each of *specs*, and of each of *named*."""
    all_of_them = {f"test-{number}": spec for number, spec in enumerate(specs)} | named
    texts = [written(name.replace("_", "-"), spec) for name, spec in all_of_them.items()]
    (folder / "tests.yaml").write_text(yaml.safe_dump_all(texts), "utf-8")


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["test", *map(str, words)], catch_exceptions=False)


def report(*words: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run(*words, "--format", "json").stdout)
    return told


# What passes


def test_a_test_passes_where_everything_comes_as_it_expects(folder: Path) -> None:
    expect = {
        "roles": ["octo-repo-main"],
        "policies": ["deploy"],
        "allowed": [FIGLET],
        "denied": ["Function:Create=prod:figlet", "System:Info=*"],
    }
    put(folder, {"sample": "github-push-main", "expect": expect})
    done = run(folder)
    assert (done.exit_code, done.output) == (0, "1 rule test: 1 passed\n")


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"ref": "refs/heads/feature"}, "no_role_admits"),
        ({"event_name": "pull_request_target"}, "event_not_allowed"),
        ({"iss": "https://ci.example.com"}, "untrusted_issuer"),
        ({"aud": "https://other.example.com"}, "wrong_audience"),
        ({"sub": None}, "missing_claim"),
        ({"exp": "soon"}, "malformed_token"),
        ({"repository": None}, "missing_claim"),
        ({"events": {"logout": {}}}, "wrong_token_type"),
    ],
)
def test_a_refusal_is_expected_by_its_reason(
    folder: Path, claims: dict[str, object], refusal: str
) -> None:
    put(folder, {"sample": "github-push-main", "claims": claims, "expect": {"refusal": refusal}})
    assert run(folder).exit_code == 0
    put(folder, {"sample": "github-push-main", "claims": claims, "expect": {"roles": []}})
    assert run(folder).exit_code == 0
    put(folder, {"sample": "github-push-main", "expect": {"refusal": refusal}})
    assert run(folder).exit_code == 1


def test_a_test_may_write_out_its_claims_and_needs_no_times(folder: Path) -> None:
    names = ("iss", "aud", "sub", "event_name", "ref", "repository", "repository_owner")
    ids = ("repository_id", "repository_owner_id")
    claims = {name: sample("github-push-main")[name] for name in (*names, *ids)}
    put(folder, {"claims": claims, "expect": {"roles": ["octo-repo-main"]}})
    assert run(folder).exit_code == 0
    put(folder, {"claims": claims | {"exp": None}, "expect": {"refusal": "missing_claim"}})
    assert run(folder).exit_code == 0


def test_claims_come_from_a_json_file_beside_the_test(folder: Path) -> None:
    (folder / "job.json").write_text(json.dumps(dict(sample("github-push-main"))), "utf-8")
    put(folder, {"claimsFile": "job.json", "expect": {"roles": ["octo-repo-main"]}})
    assert run(folder).exit_code == 0
    spec = {"claimsFile": "job.json", "claims": {"ref": "x"}, "expect": {"roles": []}}
    put(folder, spec)
    assert run(folder).exit_code == 0


def test_the_file_of_claims_is_no_document_to_check_and_serve(folder: Path) -> None:
    (folder / "job.json").write_text(json.dumps(dict(sample("github-push-main"))), "utf-8")
    put(folder, MAIN)
    checked = CliRunner().invoke(main, ["check", "--strict", str(folder)])
    assert checked.exit_code == 0
    assert "job.json is a file of rule tests; passed over" in checked.output
    assert checked.output.endswith("3 documents: no problems\n")


def test_changes_are_merged_and_null_removes() -> None:
    base = {"a": 1, "b": {"c": [1, 2], "d": 2}, "e": 3}
    changed = merged(base, {"a": None, "b": {"c": [3], "d": None}, "f": {"g": None, "h": 1}})
    assert changed == {"b": {"c": [3]}, "e": 3, "f": {"h": 1}}
    assert base == {"a": 1, "b": {"c": [1, 2], "d": 2}, "e": 3}
    assert merged(base, {"b": "text"})["b"] == "text"
    assert merged(base, {"e": {"x": 1}})["e"] == {"x": 1}


def test_claims_keep_their_types(tmp_path: Path) -> None:
    text = """
apiVersion: iam.openfaas.com/v1
kind: RuleTest
metadata: {name: types}
spec:
  claims: {a: 1, b: true, c: "1", d: [x, 2], e: {f: False}, g: 1.5, h: 2026-11-27}
  expect: {roles: []}
"""
    ((test,), problems, found) = rule_tests("x.yaml", text.encode())
    assert (problems, found) == ([], 1)
    assert test.changes == {
        "a": 1,
        "b": True,
        "c": "1",
        "d": ["x", 2],
        "e": {"f": False},
        "g": 1.5,
        "h": "2026-11-27",
    }


@pytest.mark.parametrize("name", sample_names())
def test_a_test_decides_as_explain_does(name: str) -> None:
    catalog = load([EXAMPLES]).catalog
    assert catalog is not None
    accesses = [
        Access.parse("Function:Create", "openfaas-fn:api"),
        Access.parse("System:Info", "*"),
    ]
    claims = UnverifiedClaims(dict(sample(name)))
    explained = explain_claims(catalog, claims, accesses, now=0)
    came = outcome(catalog, claims, PolicySets(), now=0)
    assert explained.admitted == (came.refusal is None)
    admitting = {each.role.name for each in explained.evaluations if each.admits}
    assert (admitting if explained.admitted else set()) == came.roles
    assert set(explained.policies) == came.policies
    assert explained.decisions == tuple(map(came.decide, accesses))


# What fails


def test_a_difference_shows_the_condition_that_decided(folder: Path) -> None:
    spec = {**MAIN, "claims": {"ref": "refs/heads/feature"}}
    put(folder, on_a_branch=spec)
    done = run(folder)
    assert done.exit_code == 1
    assert done.output == (
        f"FAIL  on-a-branch  {folder}/tests.yaml:1\n"
        "  roles\n"
        "    expected  octo-repo-main\n"
        "    got       none: refused with no_role_admits\n"
        "      Role octo-repo-main: StringEqual jwt:ref\n"
        "        expected  refs/heads/main\n"
        "        got       refs/heads/feature\n"
        "\n"
        "1 rule test: 1 failed\n"
    )


def told(folder: Path, spec: dict[str, object]) -> str:
    put(folder, spec)
    done = run(folder)
    assert done.exit_code == 1
    return done.output


def test_a_role_that_admits_against_expectation_is_named_with_its_conditions(folder: Path) -> None:
    text = told(folder, {"sample": "github-push-main", "expect": {"refusal": "no_role_admits"}})
    assert "expected  no_role_admits\n    got       admitted by octo-repo-main" in text
    assert "Role octo-repo-main admits: every condition holds (jwt:iss, jwt:repository," in text


def test_a_claim_that_everybody_lacks_a_role_for_is_shown_with_what_was_accepted(
    folder: Path,
) -> None:
    text = told(folder, {**MAIN, "claims": {"aud": "https://other.example.com"}})
    assert "got       none: refused with wrong_audience" in text
    assert "expected  https://gateway.example.com\n        got       https://other" in text


def test_an_event_of_outsiders_is_told_in_the_words_of_the_refusal(folder: Path) -> None:
    text = told(folder, {**MAIN, "claims": {"event_name": "pull_request_target"}})
    assert "refused with event_not_allowed" in text
    assert "Role octo-repo-main: Outsiders can cause this event" in text
    assert "expected  a condition on jwt:event_name\n        got       pull_request_target" in text


def test_a_policy_that_is_not_expected_is_named_with_the_role_that_gives_it(folder: Path) -> None:
    text = told(folder, {"sample": "github-push-main", "expect": {"policies": []}})
    assert "policies\n    expected  none\n    got       deploy\n" in text
    assert "Role octo-repo-main gives deploy" in text


def test_an_access_is_told_with_the_statement_that_settled_it(folder: Path) -> None:
    expect = {"allowed": ["Function:Delete=openfaas-fn:figlet"], "denied": [FIGLET]}
    text = told(folder, {"sample": "github-push-main", "expect": expect})
    assert "got       denied: no statement of deploy matches" in text
    assert "got       allowed: Allow deploy/deploy-functions" in text


def test_the_list_of_namespaces_is_allowed_as_the_gateway_allows_it(folder: Path) -> None:
    documents = folder / "documents.yaml"
    text = documents.read_text("utf-8")
    expect = {"allowed": ["Namespace:List=*"]}
    listing: dict[str, object] = {"sample": "github-push-main", "expect": expect}
    put(folder, listing)
    assert "no statement of deploy matches" in run(folder).stdout
    documents.write_text(text.replace("Function:List,", "Function:List, Namespace:List,"), "utf-8")
    assert run(folder).exit_code == 0
    condition = '      condition: {StringEqual: {"jwt:environment": production}}\n'
    narrower = documents.read_text("utf-8").replace(
        'resource: ["openfaas-fn:*"]\n', f'resource: ["repo-${{jwt:ref}}:*"]\n{condition}'
    )
    documents.write_text(narrower, "utf-8")
    shown = told(folder, listing)
    assert "Allow deploy/deploy-functions: StringEqual jwt:environment" in shown
    assert "repo-${jwt:ref}:* became nothing" in shown


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        ("Function:List=*", "one namespace; ask about <namespace>:*"),
        ("Secret:Create=*", "one namespace; ask about <namespace>:*"),
        ("Namespace:Get=*", "one namespace; ask about <namespace>:*"),
        ("Function:Create=*", "one function; ask about <namespace>:<function>"),
        ("Function:Delete=openfaas-fn:*", "one function; ask about openfaas-fn:<function>"),
        ("Secret:List=dev:*", ""),
        ("Function:List=dev:*", ""),
        ("Namespace:List=*", ""),
        ("System:Info=*", ""),
        ("Documents:Read=*", ""),
        ("Function:Delete=openfaas-fn:app", ""),
    ],
)
def test_an_access_that_no_request_asks_for_is_told_with_what_to_ask(
    folder: Path, asked: str, instead: str
) -> None:
    action, _, resource = asked.partition("=")
    told_to_ask = f"{resource} is more than one request for {action} asks for: it names {instead}"
    shown = told(folder, {"sample": "github-push-main", "expect": {"allowed": [asked]}})
    assert (told_to_ask in shown) is bool(instead), shown
    assert ("than one request" in shown) is bool(instead)
    put(folder, {"sample": "github-push-main", "expect": {"denied": [asked]}})
    passed = run(folder).stdout
    note = f"note: test-0 ({folder}/tests.yaml:1): denied {asked} passes though less may be allowed"
    assert (f"{note}: {told_to_ask}\n" in passed) is bool(instead), passed
    assert ("note:" in passed) is bool(instead)


def test_an_access_that_a_deny_takes_as_a_whole_gets_no_note(folder: Path) -> None:
    documents = folder / "documents.yaml"
    statement = 'effect: Deny, action: ["Function:Delete"], resource: ["*"]'
    text = documents.read_text("utf-8").replace(
        "  statement:\n", f"  statement:\n    - {{sid: keep, {statement}}}\n"
    )
    documents.write_text(text, "utf-8")
    denied = ["Function:Delete=*", "Function:Delete=openfaas-fn:*"]
    put(folder, {"sample": "github-push-main", "expect": {"denied": denied}})
    assert "note:" not in run(folder).stdout
    put(folder, {"sample": "github-push-main", "expect": {"denied": [*denied, "Function:Get=*"]}})
    assert "denied Function:Get=* passes though less may be allowed" in run(folder).stdout


def test_a_condition_of_a_statement_that_kept_it_back_is_shown(folder: Path) -> None:
    documents = folder / "documents.yaml"
    condition = '      condition: {StringEqual: {"jwt:environment": production}}\n'
    text = documents.read_text("utf-8").replace(
        'resource: ["openfaas-fn:*"]\n', f'resource: ["openfaas-fn:*"]\n{condition}'
    )
    documents.write_text(text, "utf-8")
    shown = told(folder, {"sample": "github-push-main", "expect": {"allowed": [FIGLET]}})
    assert "Allow deploy/deploy-functions: StringEqual jwt:environment\n" in shown
    assert "expected  production\n        got       (absent)" in shown
    put(folder, {"sample": "github-environment-production", "expect": {"allowed": [FIGLET]}})
    assert run(folder).exit_code == 0


def test_a_variable_that_led_elsewhere_is_shown_with_its_value(folder: Path) -> None:
    documents = folder / "documents.yaml"
    text = documents.read_text("utf-8")
    documents.write_text(text.replace("openfaas-fn:*", "repo-${jwt:repository_id}:*"), "utf-8")
    allowed = {"expect": {"allowed": ["Function:Create=repo-412890077:x"]}}
    put(folder, {"sample": "github-push-main", **allowed})
    assert run(folder).exit_code == 0
    shown = told(folder, {"sample": "github-push-main", "expect": {"allowed": [FIGLET]}})
    assert "Allow deploy/deploy-functions:" not in shown  # no value leads there
    other = {"expect": {"allowed": ["Function:Create=repo-7:x"]}}
    shown = told(folder, {"sample": "github-push-main", **other})
    assert (
        "Allow deploy/deploy-functions: repo-${jwt:repository_id}:* became repo-412890077:*,"
        " since jwt:repository_id is 412890077"
    ) in shown.replace("${jwt:repository_id} is", "jwt:repository_id is")


def test_a_refused_token_that_is_expected_to_be_denied_passes_with_a_note(folder: Path) -> None:
    claims = {"ref": "refs/heads/feature"}
    put(folder, {"sample": "github-push-main", "claims": claims, "expect": {"denied": [FIGLET]}})
    done = run(folder)
    assert done.exit_code == 0
    assert "note: test-0" in done.output
    assert "so no policy denied anything; expect refusal: no_role_admits too" in done.output


# Shadow Roles


@pytest.fixture
def shadowed(folder: Path) -> Path:
    """The folder, with a shadow Role that would also admit release branches."""
    text = (folder / "documents.yaml").read_text("utf-8").split("---\n")[2]
    shadow = text.replace("name: octo-repo-main", "name: octo-repo-release")
    shadow = shadow.replace("jwt:ref: refs/heads/main", "jwt:ref: refs/heads/release")
    (folder / "shadow.yaml").write_text(shadow.replace("spec:\n", "spec:\n  effect: Shadow\n"))
    return folder


def test_a_shadow_role_is_expected_apart_and_admits_nobody(shadowed: Path) -> None:
    release = {"sample": "github-push-main", "claims": {"ref": "refs/heads/release"}}
    would = {"shadowRoles": ["octo-repo-release"], "refusal": "no_role_admits"}
    put(shadowed, {**release, "expect": would}, {**MAIN, "expect": {"shadowRoles": []}})
    assert run(shadowed).exit_code == 0
    put(shadowed, {**MAIN, "expect": {"shadowRoles": ["octo-repo-release"]}})
    done = run(shadowed)
    assert done.exit_code == 1
    assert "shadowRoles\n    expected  octo-repo-release\n    got       none\n" in done.output
    assert "Role octo-repo-release: StringEqual jwt:ref" in done.output


@pytest.mark.parametrize(
    ("expect", "hint"),
    [
        ({"roles": ["octo-repo-release"]}, "it belongs under spec.expect.shadowRoles"),
        ({"shadowRoles": ["octo-repo-main"]}, "it belongs under spec.expect.roles"),
        ({"shadowRoles": ["octo-repo-relaese"]}, "did you mean octo-repo-release?"),
    ],
)
def test_a_role_under_the_wrong_field_is_an_error(
    shadowed: Path, expect: dict[str, list[str]], hint: str
) -> None:
    put(shadowed, {**MAIN, "expect": expect})
    done = run(shadowed)
    assert done.exit_code == 1
    assert hint in done.output


def test_coverage_has_shadow_roles_too(shadowed: Path) -> None:
    put(shadowed, MAIN)
    assert ("Role", "octo-repo-release", 1) in set(undecided(shadowed))
    release = {"sample": "github-push-main", "claims": {"ref": "refs/heads/release"}}
    put(shadowed, {**release, "expect": {"shadowRoles": ["octo-repo-release"]}})
    left = {name for kind, name, _ in undecided(shadowed) if kind == "Role"}
    assert left == {"octo-repo-main"}


def test_coverage_looks_at_every_role(shadowed: Path) -> None:
    claims = {"ref": "refs/heads/release", "repository": "octo-org/renamed"}
    put(shadowed, {**MAIN, "claims": claims, "expect": {"roles": []}})
    left = {name for _, name, _ in undecided(shadowed)}
    assert "octo-repo-main: StringEqual jwt:repository" in left  # its ref said no as well
    assert "octo-repo-release: StringEqual jwt:repository" not in left


# What is no test


def test_without_a_test_nothing_passes(folder: Path) -> None:
    done = run(folder)
    assert done.exit_code == 1
    assert "no rule test was found" in done.output


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"sample": "github-push-main", "expect": {}}, "expect: is empty"),
        ({"sample": "github-push-main"}, "expect: is required and missing"),
        ({"sample": "github-push-main", "expect": {"allowed": []}}, "expect.allowed: is empty"),
        ({"expect": {"roles": []}}, "write sample, claimsFile or claims"),
        ({"claims": {}, "expect": {"roles": []}}, "write sample, claimsFile or claims"),
        ({**MAIN, "claimsFile": "x.json"}, "stands beside sample"),
        ({**MAIN, "claim": {}}, "did you mean claims?"),
        ({**MAIN, "allowed": [FIGLET]}, "it belongs under spec.expect"),
        ({**MAIN, "expect": {"role": ["x"]}}, "did you mean roles?"),
        ({**MAIN, "expect": {"refusal": "no_roles_admit"}}, "did you mean no_role_admits?"),
        ({**MAIN, "expect": {"refusal": "expired"}}, '"expired" is not one of'),
        ({**MAIN, "expect": {"allowed": ["Function:Creat=dev:x"]}}, "mean Function:Create?"),
        ({**MAIN, "expect": {"allowed": ["Function:*=dev:x"]}}, "ask about one action"),
        ({**MAIN, "expect": {"denied": ["Function:Create"]}}, "is not ACTION=RESOURCE"),
        ({**MAIN, "expect": {"denied": ["Function:Create=dev"]}}, "D015"),
        ({**MAIN, "expect": {"refusal": "no_role_admits", "roles": ["x"]}}, "to be refused"),
        ({**MAIN, "sample": "github-push"}, "did you mean github-push-main?"),
        ({**MAIN, "expect": {"roles": ["octo-repo-mian"]}}, "did you mean octo-repo-main?"),
        ({**MAIN, "expect": {"policies": ["deplo"]}}, "did you mean deploy?"),
        ({"claimsFile": "gone.json", "expect": {"roles": []}}, "cannot be read: No such file"),
    ],
)
def test_a_mistake_in_a_test_is_an_error_with_what_to_write(
    folder: Path, spec: dict[str, object], message: str
) -> None:
    put(folder, MAIN, wrong=spec)
    done = run(folder)
    assert done.exit_code == 1
    assert message in done.output
    assert f"{folder}/tests.yaml:" in done.output
    assert "RuleTest/wrong" in done.output
    assert done.output.endswith("1 rule test: 1 passed, 1 problem in tests\n")


def test_an_unclear_claim_is_an_error(folder: Path) -> None:
    text = yaml.safe_dump(written("unclear", MAIN)) + "  claims: {run_number: 010}\n"
    (folder / "tests.yaml").write_text(text, "utf-8")
    assert 'quote it: "010"' in run(folder).output


def test_a_name_is_given_once(folder: Path) -> None:
    put(folder, MAIN)
    (folder / "more.yaml").write_text(yaml.safe_dump(written("test-0", MAIN)), "utf-8")
    done = run(folder)
    assert done.exit_code == 1
    assert "D009" in done.output
    assert run(folder, folder / "more.yaml").output == done.output  # a file counts once


def test_documents_with_errors_are_not_tested(folder: Path) -> None:
    put(folder, MAIN)
    (folder / "bad.yaml").write_text("apiVersion: iam.openfaas.com/v1\nkind: Rol\n", "utf-8")
    done = run(folder)
    assert done.exit_code == 1
    assert "did you mean Role?" in done.output
    assert "the documents have errors" in done.output


@pytest.mark.parametrize(
    ("changes", "expected", "got"),
    [
        ({"iss": "https://ci.example.com"}, "the iss of a JwtIssuer", "https://ci.example.com"),
        ({"iss": None}, "the claim iss", "(absent)"),
        ({"sub": None}, "the claim sub", "(absent)"),
    ],
    ids=["another issuer", "no issuer", "no subject"],
)
def test_a_token_that_no_role_is_asked_about_says_which_claim_it_fails_by(
    folder: Path, changes: dict[str, object], expected: str, got: str
) -> None:
    put(folder, {**MAIN, "claims": changes})
    assert f"        expected  {expected}\n        got       {got}\n" in run(folder).output


def test_errors_of_the_documents_are_in_the_report_of_each_form(folder: Path) -> None:
    put(folder, MAIN)
    text = (folder / "documents.yaml").read_text("utf-8").replace("jwt:ref:", "ref:")
    (folder / "documents.yaml").write_text(text, "utf-8")
    told = report(folder)
    assert (told["passed"], told["tests"]) == (False, [])
    (problem,) = told["problems"]
    assert (problem["code"], problem["name"]) == ("D013", "octo-repo-main")
    (suite,) = Xml.fromstring(run(folder, "--format", "junit").stdout)  # noqa: S314  our own output
    (case,) = suite
    assert (case.get("name"), case.get("classname")) == ("octo-repo-main", "Role")
    assert [child.tag for child in case] == ["error"]
    shown = run(folder, "--format", "github")
    assert shown.exit_code == 1
    first, last = shown.stdout.splitlines()
    assert first.startswith("::error file=")
    assert "title=D013 Role/octo-repo-main::condition.StringEqual" in first
    assert last == "the documents have errors, so no rule test ran"


def test_a_kind_that_is_nearly_a_rule_test_is_an_error_with_a_hint(folder: Path) -> None:
    put(folder, MAIN)
    text = (folder / "tests.yaml").read_text("utf-8").replace("RuleTest", "RoleTest")
    (folder / "tests.yaml").write_text(text, "utf-8")
    assert "did you mean RuleTest?" in run(folder).output


def test_the_setting_documents_is_the_default(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, MAIN)
    monkeypatch.delenv("FEDERATION_DOCUMENTS", raising=False)
    assert run().exit_code == 2
    monkeypatch.setenv("FEDERATION_DOCUMENTS", str(folder))
    assert run().exit_code == 0


def test_some_tests_are_chosen_by_a_part_of_their_name(folder: Path) -> None:
    put(folder, main_deploys=MAIN, branch_fails={**MAIN, "claims": {"ref": "x"}})
    assert run(folder).exit_code == 1
    done = run(folder, "--only", "deploys")
    assert (done.exit_code, done.output) == (0, "1 rule test: 1 passed\n")
    assert run(folder, "-k", "deploys", "-k", "branch").exit_code == 1
    missed = run(folder, "-k", "main-deploy5")
    assert missed.exit_code == 1
    assert "did you mean main-deploys?" in missed.output


# Forms


def test_json_is_for_programs(folder: Path) -> None:
    put(folder, {**MAIN, "claims": {"ref": "x"}}, {**MAIN, "expect": {"allowed": [FIGLET]}}, {})
    told = report(folder)
    assert told["passed"] is False
    first, second = told["tests"]
    assert first["differences"] == [
        {
            "field": "roles",
            "expected": "octo-repo-main",
            "got": "none: refused with no_role_admits",
            "causes": [
                {
                    "sentence": "Role octo-repo-main: StringEqual jwt:ref",
                    "expected": "refs/heads/main",
                    "got": "x",
                }
            ],
        }
    ]
    assert (first["refusal"], first["roles"]) == ("no_role_admits", [])
    assert second["passed"]
    assert second["access"][0]["sid"] == "deploy-functions"
    assert told["problems"][0]["code"] == "D008"


def test_junit_counts_failures_and_errors(folder: Path) -> None:
    put(folder, MAIN, {**MAIN, "claims": {"ref": "<x>&"}}, {})
    suites = Xml.fromstring(run(folder, "--format", "junit").stdout)  # noqa: S314  our own
    assert [suites.get(name) for name in ("tests", "failures", "errors")] == ["3", "1", "1"]
    cases = suites.findall("testsuite/testcase")
    assert [len(case) for case in cases] == [0, 1, 1]
    assert "got       <x>&" in str(cases[1][0].text)


def test_github_shows_a_failure_at_its_test(folder: Path) -> None:
    put(folder, {**MAIN, "claims": {"ref": "x"}}, {})
    lines = run(folder, "--format", "github").stdout.splitlines()
    assert any(
        line.startswith("::error file=") and "title=D008 RuleTest/test-1::" in line
        for line in lines
    )
    failure = next(line for line in lines if "title=RuleTest/test-0" in line)
    assert f"file={folder}/tests.yaml,line=1," in failure
    assert "%0A" in failure


# Coverage


def undecided(folder: Path) -> Iterator[tuple[str, str, int]]:
    came = report(folder, "--coverage")
    assert came["problems"] == []
    for rule in came["coverage"]["undecided"]:
        yield rule["kind"], rule["name"], rule["line"]


def test_coverage_lists_the_rules_that_no_test_would_miss(folder: Path) -> None:
    put(folder, {**MAIN, "expect": {"roles": []}, "claims": {"ref": "x"}})
    assert set(undecided(folder)) == {
        ("Role", "octo-repo-main", 32),
        ("statement", "deploy/deploy-functions", 27),
        ("condition", "octo-repo-main: StringEqual jwt:iss", 41),
        ("condition", "octo-repo-main: StringEqual jwt:repository", 44),
        ("condition", "octo-repo-main: StringEqual jwt:repository_id", 45),
        ("condition", "octo-repo-main: StringEqual jwt:repository_owner_id", 46),
    }


def test_coverage_is_whole_where_each_condition_said_no_alone(folder: Path) -> None:
    claims = ("repository", "repository_id", "repository_owner_id", "ref")
    refused = [
        {**MAIN, "claims": {claim: "7"}, "expect": {"refusal": "no_role_admits"}}
        for claim in claims
    ]
    stranger = {
        **MAIN,
        "claims": {"iss": "https://x.example.com"},
        "expect": {"refusal": "untrusted_issuer"},
    }
    put(folder, *refused, stranger, {**MAIN, "expect": {"allowed": [FIGLET]}})
    done = run(folder, "--coverage", "--coverage-fail-under", "100")
    assert done.exit_code == 0
    assert "coverage 100 %: 1 of 1 Roles, 5 of 5 conditions, 1 of 1 statements" in done.output


def test_two_conditions_that_say_no_together_are_decided_by_neither(folder: Path) -> None:
    put(folder, {**MAIN, "claims": {"repository": "x", "ref": "other"}, "expect": {"roles": []}})
    assert len(list(undecided(folder))) == 7


def test_a_token_that_is_refused_before_the_roles_decides_nothing(folder: Path) -> None:
    put(folder, {**MAIN, "claims": {"aud": "x", "ref": "other"}, "expect": {"roles": []}})
    assert len(list(undecided(folder))) == 7
    claims = {"iss": "https://x.example.com", "ref": "other"}
    put(folder, {**MAIN, "claims": claims, "expect": {"roles": []}})
    assert len(list(undecided(folder))) == 7
    # An event of outsiders is refused whatever the ref says.
    claims = {"event_name": "pull_request_target", "ref": "other"}
    put(folder, {**MAIN, "claims": claims, "expect": {"roles": []}})
    assert len(list(undecided(folder))) == 7


def test_a_deny_and_its_condition_are_decided_by_what_they_settle(folder: Path) -> None:
    deny = {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": "Policy",
        "metadata": {"name": "deploy"},
        "spec": {
            "statement": [
                {"sid": "all", "effect": "Allow", "action": ["*"], "resource": ["*"]},
                {
                    "sid": "not-prod",
                    "effect": "Deny",
                    "action": ["*"],
                    "resource": ["prod:*"],
                    "condition": {
                        "StringNotEqual": {"jwt:environment": ["production"]},
                        "StringEqual": {"jwt:event_name": ["push"]},
                    },
                },
            ]
        },
    }
    text = (folder / "documents.yaml").read_text("utf-8").split("---\n")
    text[1] = yaml.safe_dump(deny)
    (folder / "documents.yaml").write_text("---\n".join(text), "utf-8")
    prod = ["Function:Create=prod:x"]
    kept = {"sample": "github-push-main", "expect": {"denied": prod, "allowed": [FIGLET]}}
    pushed = {"sample": "github-environment-production", "claims": {"event_name": "push"}}
    by_hand = {"sample": "github-push-main", "claims": {"event_name": "workflow_dispatch"}}
    both = {"sample": "github-environment-production", "expect": {"allowed": prod}}

    def left() -> set[str]:
        return {name for _, name, _ in undecided(folder) if name.startswith("deploy")}

    conditions = {
        "deploy/not-prod: StringNotEqual jwt:environment",
        "deploy/not-prod: StringEqual jwt:event_name",
    }
    put(folder, kept)
    assert left() == conditions
    put(folder, kept, both)  # two that say no together
    assert left() == conditions
    put(folder, kept, {**pushed, "expect": {"allowed": prod}})
    assert left() == {"deploy/not-prod: StringEqual jwt:event_name"}
    allowed = {"expect": {"allowed": prod}}
    put(folder, kept, {**pushed, **allowed}, {**by_hand, **allowed})
    assert left() == set()


def test_too_little_coverage_fails(folder: Path) -> None:
    put(folder, MAIN)
    done = run(folder, "--coverage-fail-under", "90")
    assert done.exit_code == 1
    assert "tests decide less than 90 % of the rules" in done.output
    assert run(folder, "--coverage").exit_code == 0


# The others pass over rule tests


def test_the_wheel_holds_the_samples() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert '"tests/vectors/claims" = "federation/samples"' in text


def test_check_serve_and_convert_pass_over_rule_tests(folder: Path) -> None:
    before = load([folder])
    put(folder, MAIN, {"nothing": "fits"})
    after = load([folder])
    assert (after.problems, after.documents) == (before.problems, before.documents)
    assert after.catalog is not None
    converted = CliRunner().invoke(main, ["convert", str(folder)])
    assert converted.exit_code == 0
    assert "RuleTest" not in converted.output
    assert converted.output.count("kind: ") == 3


def test_the_reasons_that_a_test_can_expect_are_those_that_claims_and_documents_decide() -> None:
    assert Reason.EXPIRED not in REFUSALS
    assert set(REFUSALS) <= set(Reason)
