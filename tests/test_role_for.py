"""The tightest sensible Role for a token; tests/test_cli_asking.py has the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.claims import UnverifiedClaims, text
from federation.documents.assemble import assemble
from federation.documents.model import JwtIssuer
from federation.documents.parse import parse
from federation.policy.conditions import Operator
from federation.policy.role_for import DraftRole, role_for
from federation.policy.roles import evaluate
from tests.harness import documents
from tests.harness.builders import GITHUB, issuer, provider_of, role, sample

VECTORS = Path(__file__).parent / "vectors" / "claims"
REFUSED = ("azure-devops-service-connection", "gitlab-user-login")
SAMPLES = sorted(path.stem for path in VECTORS.glob("*.json") if path.stem not in REFUSED)
PEOPLE = ("auth0", "entra", "google", "keycloak", "okta")
WITHOUT_IDS = {"buildkite-without-ids": "W101"}
"""Samples whose tokens leave no better Role, with the warning that stays."""


def drafted(name: str, **changes: Any) -> DraftRole:
    """The Role for a sample, made offline."""
    made, _ = role_for(UnverifiedClaims(sample(name, **changes)))
    assert made is not None
    return made


def admits(draft: DraftRole, name: str, **changes: Any) -> bool:
    """True if the Role, as it is written, admits a token like the sample."""
    spec = yaml.safe_load(draft.yaml)["spec"]
    (evaluation,) = evaluate([role(draft.name, **spec)], provider_of(name), sample(name, **changes))
    return evaluation.admits


@pytest.mark.parametrize("name", SAMPLES)
def test_the_role_admits_the_token_and_passes_the_check(name: str) -> None:
    draft, claims = drafted(name), sample(name)
    assert admits(draft, name)
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    person = provider_of(name) in PEOPLE
    spec = {"iss": claims["iss"], "provider": provider_of(name),
            "clients" if person else "aud": audience}  # fmt: skip
    whole = documents.as_text(documents.document("JwtIssuer", "i", spec), documents.DEPLOY)
    found = assemble([parse("all.yaml", f"{whole}\n---\n{draft.yaml}".encode())])
    about = [problem for problem in found.problems if problem.kind == "Role"]
    assert [problem.code for problem in about] == [*filter(None, [WITHOUT_IDS.get(name)])]
    assert found.catalog is not None, found.problems


@pytest.mark.parametrize("name", SAMPLES)
def test_the_role_refuses_a_token_that_differs_in_any_claim_that_it_names(name: str) -> None:
    draft = drafted(name)
    assert len(draft.conditions) >= 2
    for condition in draft.conditions:
        assert condition.operator in {Operator.STRING_EQUAL, Operator.PRINCIPAL}
        top = condition.path[0]
        for other in ("another", None, f"{condition.values[0]}x", [condition.values[0]]):
            claim: object = other
            for step in reversed(condition.path[1:]):
                claim = {step: claim}
            assert not admits(draft, name, **{top: claim}), condition.key


@pytest.mark.parametrize("name", SAMPLES)
def test_no_claim_that_changes_with_each_run_is_named(name: str) -> None:
    claims = sample(name)
    of_a_run = {
        *("sha", "run_id", "run_number", "run_attempt", "jti", "iat", "exp", "nbf", "nonce"),
        *("check_run_id", "workflow_sha", "job_id", "pipeline_id", "build_number", "stepUuid"),
        *("actor", "user_login", "user_email", "workflow_id", "wf_id", "ppl_id"),
    }
    if provider_of(name) in {"buildkite", "codefresh"}:
        of_a_run.remove("pipeline_id")  # there it is the definition, and not a run of it
    assert {c.path[0] for c in drafted(name).conditions} & of_a_run & claims.keys() == set()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("github-push-main", {"repository": "new/name", "repository_owner": "new", "sub": "x"}),
        ("gitlab-branch-main", {"project_path": "new/name", "namespace_path": "new", "sub": "x"}),
        ("forgejo-push-main", {"repository": "new/name", "repository_owner": "new", "sub": "x"}),
        ("buildkite-branch-main", {"organization_slug": "new", "pipeline_slug": "n", "sub": "x"}),
        ("terraform-apply", {"terraform_workspace_name": "new", "sub": "x"}),
        ("semaphore-branch-main", {"org": "new", "prj": "new", "sub": "x"}),
        ("codefresh-push-main", {"account_name": "new", "pipeline_name": "n", "sub": "x"}),
    ],
)
def test_a_rename_changes_nothing_where_there_are_ids(name: str, changes: dict[str, str]) -> None:
    assert admits(drafted(name), name, **changes)


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        ("github-push-main", False),
        ("github-pull-request", False),
        ("github-pull-request-target", True),
        ("gitlab-branch-main", False),
        ("gitlab-fork-merge-request", True),
        ("forgejo-pull-request", True),
        ("azure-devops-pull-request", True),
        ("circleci-ssh-rerun", True),
        ("codefresh-pull-request", True),
        ("semaphore-pull-request", True),
        ("semaphore-debug-job", True),
        ("spacelift-proposed", True),
        ("spacelift-tracked", False),
        ("terraform-plan", True),
        ("terraform-apply", False),
    ],
)
def test_a_job_that_outsiders_can_cause_is_named_and_warned_of(name: str, warned: bool) -> None:
    notes = drafted(name).notes
    assert any(note.startswith("Careful: ") for note in notes) == warned


def test_an_outsiders_event_is_the_only_one_that_the_role_admits() -> None:
    draft = drafted("github-pull-request-target")
    assert draft.exact["jwt:event_name"] == "pull_request_target"
    assert not admits(draft, "github-pull-request-target", event_name="issue_comment")


@pytest.mark.parametrize("name", REFUSED)
def test_a_token_that_no_role_can_admit_has_none_and_a_reason(name: str) -> None:
    made, notes = role_for(UnverifiedClaims(sample(name)))
    assert made is None
    assert "it lacks" in notes[0]


@pytest.mark.parametrize(
    "claims",
    [{}, {"iss": GITHUB}, {"iss": 5, "sub": "s"}, {"iss": "", "sub": "s"}, {"iss": GITHUB, "sub": ""}, {"iss": [], "sub": []}],
    ids=str,
)  # fmt: skip
def test_claims_without_issuer_and_subject_have_no_role(claims: dict[str, object]) -> None:
    made, notes = role_for(UnverifiedClaims(claims))
    assert made is None
    assert "iss and sub" in notes[0]


def test_an_environment_is_named_if_there_is_one() -> None:
    assert drafted("github-environment-production").exact["jwt:environment"] == "production"
    assert "jwt:environment" not in drafted("github-push-main").exact


def test_a_branch_of_gitlab_is_told_from_a_tag() -> None:
    draft = drafted("gitlab-branch-main")
    assert not admits(draft, "gitlab-branch-main", ref_type="tag", ref_path="refs/tags/main")


def test_an_unprotected_branch_is_not_named_as_one() -> None:
    assert "jwt:ref_protected" not in drafted("gitlab-fork-merge-request").exact
    assert drafted("gitlab-branch-main").exact["jwt:ref_protected"] == "true"


def test_for_a_person_it_is_the_subject_and_the_groups_are_told() -> None:
    draft = drafted("keycloak-user")
    assert draft.principal == {"jwt:sub": "8a4c1f7e-30b6-4a52-9d27-6b6a0d0c9e11"}
    assert list(draft.exact) == ["jwt:iss"]
    (note,) = draft.notes
    assert '{"jwt:groups": ["platform-engineers", "gateway-users"]}' in note


def test_groups_that_everybody_has_are_not_offered() -> None:
    everybody = ["offline_access", "default-roles-octo"]
    claims = sample("keycloak-user", groups=[], realm_access={"roles": [*everybody, "ops"]})
    _, notes = role_for(
        UnverifiedClaims(claims), issuer("https://sso.example.com/realms/octo", "keycloak")
    )
    assert '["ops"]' in notes[0]  # fmt: skip


def test_where_documents_have_the_issuer_its_provider_counts() -> None:
    claims = UnverifiedClaims(sample("gitlab-self-managed"))

    def pinned(given: JwtIssuer | None) -> set[str]:
        made, _ = role_for(claims, given)
        assert made is not None
        return {*made.exact, *made.principal}

    iss = "https://gitlab.example.org"
    assert "jwt:project_id" in pinned(None)
    assert "jwt:project_id" in pinned(issuer(iss, "gitlab"))
    assert pinned(issuer(iss, "generic")) == {"jwt:iss", "jwt:sub"}
    clients = issuer(iss, "gitlab", clients=("https://gateway.example.com",))
    assert pinned(clients) == {"jwt:iss", "jwt:sub"}, "a token for a client is a person's"


def test_each_provider_whose_claims_fit_an_unknown_issuer_is_named() -> None:
    claims = {**sample("github-push-main"), "iss": "https://ci.example.org"}
    _, notes = role_for(UnverifiedClaims(claims))
    assert "The JwtIssuer must say provider: forgejo or provider: github." in notes


HOSTILE = [
    *('a"b', "a\\b", "a\nkind: Policy", "a: b", "# no", "- x", "${X}", "\u2028", "\x00", "\x85"),
    *("\U0001f600", "é", "'", "{}", "[a]", "*", "&a", "!!python/object:os.system", "\ufeff", "%"),
    "x" * 4096,
]


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_hostile_value_stays_a_value(value: str) -> None:
    draft = drafted("github-push-main", ref=value, environment=value, repository=value)
    (written,) = yaml.safe_load_all(draft.yaml)
    equal = written["spec"]["condition"]["StringEqual"]
    assert equal["jwt:ref"] == [value]
    assert written["kind"] == "Role"
    assert set(written) == {"apiVersion", "kind", "metadata", "spec"}
    assert draft.yaml.count("\n") < 20
    assert all(char.isprintable() or char == "\n" for char in draft.yaml)
    found = parse("all.yaml", draft.yaml.encode())
    assert found.problems == ()


@pytest.mark.parametrize("value", [*HOSTILE, "123", "null", "true", "-", "2030-01-01"], ids=ascii)
def test_a_name_is_one_that_kubernetes_takes(value: str) -> None:
    name = drafted("github-push-main", ref=value, repository=value).name
    assert len(name) <= 63
    assert name.strip("-") == name
    assert name[0].isalpha()
    assert all(char in "abcdefghijklmnopqrstuvwxyz0123456789-" for char in name)


@pytest.mark.parametrize("name", SAMPLES)
def test_odd_values_in_any_claim_are_no_fault(name: str) -> None:
    for claim in sample(name):
        for odd in (None, "", [], {}, ["a"], {"a": {"b": 1}}, 1, True, 1.5, 10**30, "x" * 9000):
            made, notes = role_for(UnverifiedClaims({**sample(name), claim: odd}))
            assert made is not None or notes
            if made is not None:
                assert all(text(value) for value in made.exact.values())


def test_a_value_that_no_document_may_hold_gives_no_role() -> None:
    made, notes = role_for(UnverifiedClaims(sample("github-push-main", ref="x" * 4097)))
    assert made is None
    assert "jwt:ref" in notes[0]
