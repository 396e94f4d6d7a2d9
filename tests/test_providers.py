"""The provider table: issuers, profiles, and the demands of a token's situation."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from federation.claims import Claims, at, text
from federation.errors import Reason
from federation.policy.conditions import key_path
from federation.providers.table import (
    LEEWAY,
    PROFILES,
    Profile,
    demands,
    known_provider,
    likely_providers,
    shared,
)
from tests.harness.builders import ABSENT, owner_pins, provider_of, sample
from tests.harness.second_evaluator import OUTSIDERS, WRITERS

VECTORS = Path(__file__).parent / "vectors" / "claims"


@pytest.mark.parametrize(
    ("iss", "provider"),
    [
        ("https://token.actions.githubusercontent.com", "github"),
        ("https://token.actions.githubusercontent.com/octo-enterprise", "github"),
        ("https://token.actions.githubusercontent.com/", "github"),
        ("https://token.actions.octocorp.ghe.com", "github"),
        ("https://token.actions.octo-corp-2.ghe.com/octo-corp-2", "github"),
        ("https://gitlab.com", "gitlab"),
        ("https://gitlab.com/", None),
        ("https://gitlab.com/group", None),
        ("https://gitlab.example.com", None),
        ("https://github.example.com/_services/token", None),
        ("https://vstoken.actions.githubusercontent.com", None),
        ("http://token.actions.githubusercontent.com", None),
        ("https://token.actions.githubusercontent.com.evil.example", None),
        ("https://token.actions.githubusercontent.com@evil.example", None),
        ("https://evil.example/token.actions.githubusercontent.com", None),
        ("https://token.actions.a.b.ghe.com", None),
        ("https://token.actions..ghe.com", None),
        ("https://tokenxactions.octocorp.ghe.com", None),
        ("https://token.actionsxoctocorp.ghe.com", None),
        ("https://token.actions.octocorpxghe.com", None),
        ("https://token.actions.octocorp.ghexcom", None),
        ("https://tokenxactions.githubusercontent.com", None),
        ("https://token.actionsxgithubusercontent.com", None),
        ("https://token.actions.githubusercontentxcom", None),
        ("https://gitlabxcom", None),
        ("xhttps://gitlab.com", None),
        ("https://token-actions-x.ghe.com", None),
        ("https://token.actions.octocorp.ghe.com.evil.example", None),
        ("gitlab.com", None),
        ("", None),
    ],
)
def test_a_provider_is_known_only_by_its_exact_issuers(iss: str, provider: str | None) -> None:
    assert known_provider(iss) is provider


@pytest.mark.parametrize(
    ("iss", "expected"),
    [
        ("https://token.actions.githubusercontent.com", True),
        ("https://token.actions.githubusercontent.com/octo-enterprise", True),
        ("https://TOKEN.actions.githubusercontent.com", True),
        ("https://token.actions.githubusercontent.com:443", True),
        ("https://vstoken.actions.githubusercontent.com", True),
        ("https://gitlab.com", True),
        ("https://gitlab.com/", True),
        ("https://GitLab.com", True),
        ("https://gitlab.com:443", True),
        ("https://token.actions.octocorp.ghe.com", False),
        ("https://github.example.com/_services/token", False),
        ("https://gitlab.example.com", False),
        ("https://notgitlab.com", False),
        ("https://gitlab.com.example.com", False),
        ("https://evil.example/?gitlab.com", False),
        ("https://idp.example.com", False),
    ],
)
def test_shared_is_github_com_in_any_form_and_gitlab_com(iss: str, expected: bool) -> None:
    assert shared(iss) is expected


def demanded(provider: str, claims: Claims) -> list[str]:
    """The first key of each demand, without its prefix."""
    return [min(demand.keys).removeprefix("jwt:") for demand in demands(provider, claims)]


@pytest.mark.parametrize("event", OUTSIDERS)
def test_an_event_of_outsiders_must_be_named(event: str) -> None:
    claims = sample("github-push-main", event_name=event)
    assert demanded("github", claims) == ["event_name"]
    assert [demand.keys for demand in demands("github", claims)] == [{"jwt:event_name"}]


@pytest.mark.parametrize("event", WRITERS)
def test_an_event_that_only_writers_cause_demands_nothing(event: str) -> None:
    assert demanded("github", sample("github-push-main", event_name=event)) == []


@pytest.mark.parametrize(
    "event",
    [
        *("gollum", "commit_comment", "star", "an_event_of_next_year", "Push", "push ", ""),
        *(None, ABSENT, [], ["push"], {}, 1, True),
    ],
)
def test_an_event_that_nobody_has_heard_of_must_be_named(event: object) -> None:
    assert demanded("github", sample("github-push-main", event_name=event)) == ["event_name"]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        pytest.param("gitlab-branch-main", {}, [], id="branch"),
        pytest.param("gitlab-tag", {}, [], id="tag"),
        pytest.param(
            "gitlab-branch-main",
            {"pipeline_source": "merge_request_event"},
            ["pipeline_source"],
            id="merge-request",
        ),
        pytest.param(
            "gitlab-branch-main",
            {"pipeline_source": "external_pull_request_event"},
            ["pipeline_source"],
            id="pull-request-of-a-repository-elsewhere",
        ),
        pytest.param(
            "gitlab-fork-merge-request",
            {},
            ["pipeline_source", "job_project_id"],
            id="merge-request-of-a-fork",
        ),
        pytest.param(
            "gitlab-fork-merge-request",
            {"pipeline_source": "push"},
            ["job_project_id"],
            id="another-pipeline-of-a-fork",
        ),
        pytest.param(
            "gitlab-branch-main", {"job_project_id": ABSENT}, [], id="before-the-claim-existed"
        ),
        pytest.param("gitlab-branch-main", {"job_project_id": None}, [], id="null"),
        pytest.param("gitlab-branch-main", {"job_project_id": 61204418}, [], id="as-a-number"),
        pytest.param(
            "gitlab-branch-main", {"project_id": ABSENT}, ["job_project_id"], id="no-project"
        ),
        pytest.param(
            "gitlab-branch-main", {"event_name": "pull_request_target"}, [], id="not-its-claim"
        ),
    ],
)
def test_merge_requests_and_forks_must_be_named(
    name: str, changes: dict[str, object], expected: list[str]
) -> None:
    assert demanded("gitlab", sample(name, **changes)) == expected


OTHERS: dict[str, tuple[str, dict[str, object], list[str]]] = {
    "azure-devops branch": ("azure-devops-main", {}, []),
    "azure-devops tag": ("azure-devops-main", {"rpo_ref": "refs/tags/pull/1"}, []),
    "azure-devops pull request": ("azure-devops-pull-request", {}, ["rpo_ref"]),
    "azure-devops without a ref": ("azure-devops-main", {"rpo_ref": ABSENT}, []),
    "azure-devops list": ("azure-devops-main", {"rpo_ref": ["refs/pull/1"]}, []),
    "circleci push": ("circleci-branch-main", {}, []),
    "circleci without a word about SSH": (
        "circleci-branch-main",
        {"oidc.circleci.com/ssh-rerun": ABSENT},
        [],
    ),
    "circleci no SSH": ("circleci-branch-main", {"oidc.circleci.com/ssh-rerun": False}, []),
    "circleci SSH": ("circleci-ssh-rerun", {}, ["oidc.circleci.com/ssh-rerun"]),
    "circleci SSH as text": (
        "circleci-branch-main",
        {"oidc.circleci.com/ssh-rerun": "false"},
        ["oidc.circleci.com/ssh-rerun"],
    ),
    "codefresh push": ("codefresh-push-main", {"initiator": ABSENT}, []),
    "codefresh push, both empty": (
        "codefresh-push-main",
        {"initiator": "", "scm_pull_request_target_branch": ""},
        [],
    ),
    "codefresh push, both null": (
        "codefresh-push-main",
        {"initiator": None, "scm_pull_request_target_branch": None},
        [],
    ),
    "codefresh pull request": (
        "codefresh-pull-request",
        {"initiator": ABSENT},
        ["scm_pull_request_target_branch"],
    ),
    "codefresh by hand": ("codefresh-push-main", {"initiator": "ann"}, ["initiator"]),
    "forgejo push": ("forgejo-push-main", {}, []),
    "forgejo pull request": ("forgejo-pull-request", {}, ["event_name"]),
    "forgejo event of outsiders": ("forgejo-push-main", {"event_name": "issues"}, ["event_name"]),
    "forgejo without an event": ("forgejo-push-main", {"event_name": ABSENT}, ["event_name"]),
    "semaphore branch": ("semaphore-branch-main", {}, []),
    "semaphore tag": ("semaphore-branch-main", {"ref_type": "tag"}, []),
    "semaphore pull request": ("semaphore-pull-request", {}, ["ref_type"]),
    "semaphore shell": ("semaphore-debug-job", {}, ["job_type"]),
    "semaphore without a type": (
        "semaphore-branch-main",
        {"ref_type": ABSENT, "job_type": ABSENT},
        ["ref_type", "job_type"],
    ),
    "spacelift tracked": ("spacelift-tracked", {}, []),
    "spacelift destroy": ("spacelift-tracked", {"runType": "DESTROY"}, []),
    "spacelift proposed": ("spacelift-proposed", {}, ["runType"]),
    "spacelift task": ("spacelift-tracked", {"runType": "TASK"}, ["runType"]),
    "terraform apply": ("terraform-apply", {}, []),
    "terraform plan": ("terraform-plan", {}, ["terraform_run_phase"]),
    "terraform without a phase": (
        "terraform-apply",
        {"terraform_run_phase": ABSENT},
        ["terraform_run_phase"],
    ),
}


@pytest.mark.parametrize(("name", "changes", "expected"), OTHERS.values(), ids=OTHERS)
def test_a_run_that_others_may_have_caused_must_be_named(
    name: str, changes: dict[str, object], expected: list[str]
) -> None:
    assert demanded(provider_of(name), sample(name, **changes)) == expected


def test_a_generic_token_demands_nothing() -> None:
    claims = sample(
        "keycloak-user",
        event_name="pull_request_target",
        pipeline_source="merge_request_event",
        job_project_id="1",
        project_id="2",
    )
    assert demanded("generic", claims) == []


def test_a_demand_applies_to_its_own_provider_only() -> None:
    claims = sample(
        "github-pull-request-target", pipeline_source="merge_request_event", job_project_id="1"
    )
    assert demanded("github", claims) == ["event_name"]


def test_the_profiles_of_ci_systems_are_strict() -> None:
    for name in ("github", "gitlab"):
        profile = PROFILES[name]
        assert profile.algorithms == {"RS256"}
        assert not profile.audience_list
    generic = PROFILES["generic"]
    assert generic.algorithms == {
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    }
    assert generic.audience_list
    assert timedelta(seconds=30) == LEEWAY


def test_a_token_is_taken_once_except_where_a_file_holds_it_for_its_lifetime() -> None:
    assert [name for name, profile in PROFILES.items() if not profile.single_use] == ["kubernetes"]


def test_the_facts_that_few_providers_differ_in() -> None:
    profiles = PROFILES.values()
    for_people = [profile.name for profile in profiles if not profile.ci]
    assert for_people == ["auth0", "entra", "generic", "google", "keycloak", "okta"]
    other_azp = [profile.name for profile in profiles if not profile.azp_is_client]
    assert other_azp == ["google", "kubernetes"]
    assert {p.name: p.id_token_typ for p in profiles if p.id_token_typ is not None} == {
        "keycloak": "ID"
    }


SYSTEMS = {name: profile.job_token for name, profile in PROFILES.items() if profile.job_token}
ADVICE = {
    "aws": "Install the AWS CLI",
    "azure-devops": "SYSTEM_ACCESSTOKEN: $(System.AccessToken)",
    "bitbucket": "oidc:\n    audiences: [https://gateway.example.com]",
    "buildkite": "mount-buildkite-agent: true",
    "circleci": "uses a context",
    "codefresh": "obtain-oidc-id-token with AUDIENCE: https://gateway.example.com",
    "forgejo": "enable-openid-connect: true",
    "github": "permissions:\n    id-token: write",
    "gitlab": "FEDERATION_ID_TOKEN:\n      aud: https://gateway.example.com",
    "google": "give the machine a service account",
    "jenkins": "bind it to FEDERATION_ID_TOKEN with withCredentials",
    "kubernetes": "{path: token, audience: https://gateway.example.com, expirationSeconds: 600}",
    "semaphore": "Its audience is the organisation's URL",
    "spacelift": "Its audience is the account's host name",
    "terraform": "TFC_WORKLOAD_IDENTITY_AUDIENCE=https://gateway.example.com",
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_advice_is_what_to_write_there(name: str) -> None:
    assert ADVICE[name] in SYSTEMS[name].advice.format(audience="https://gateway.example.com")


def test_a_forks_pull_request_gets_other_advice_on_github_alone() -> None:
    assert [name for name, how in SYSTEMS.items() if how.fork_advice] == ["github"]
    assert "Deploy after the merge" in SYSTEMS["github"].fork_advice


def test_only_forgejos_jobs_are_marked_as_anothers_and_only_clusters_run_them() -> None:
    marked = {name: how.also_marked_as for name, how in SYSTEMS.items() if how.also_marked_as}
    assert marked == {"forgejo": ("github",)}
    assert [name for name, how in SYSTEMS.items() if how.platform] == ["kubernetes"]


def test_the_table_has_every_provider_under_its_own_name() -> None:
    assert list(PROFILES) == [
        *("auth0", "aws", "azure-devops", "bitbucket", "buildkite", "circleci", "codefresh"),
        *("entra", "forgejo", "generic", "github", "gitlab", "google", "jenkins", "keycloak"),
        *("kubernetes", "okta", "semaphore", "spacelift", "terraform"),
    ]
    assert all(name == profile.name for name, profile in PROFILES.items())


def test_a_sign_in_token_lacks_what_makes_a_ci_token() -> None:
    gitlab, login = PROFILES["gitlab"], sample("gitlab-user-login")
    assert gitlab.lacking is Reason.NOT_A_CI_TOKEN
    assert set(gitlab.required) == {"project_id", "pipeline_id", "job_id"}
    assert not set(gitlab.required) & login.keys()
    assert set(gitlab.required) <= sample("gitlab-branch-main").keys()
    github = PROFILES["github"]
    assert github.lacking is Reason.MISSING_CLAIM
    assert set(github.required) <= sample("github-push-main").keys()
    assert len(github.required) == 5


@pytest.mark.parametrize("profile", [p for p in PROFILES.values() if p.ci], ids=lambda p: p.name)
def test_a_profile_decides_only_by_claims_that_it_lists(profile: Profile) -> None:
    owner = profile.owner
    used = {
        *(*profile.required, *profile.free, *profile.selective, *profile.telling),
        *(*profile.shapes, *profile.circumstances, *profile.misnamed.values()),
        *(*owner_pins(profile), *owner.other_paths, *(owner.path_and_owner or ())),
        *(*profile.ref_claims, *profile.environment_claims, *profile.file_refs),
        *(*profile.ref_within, *profile.verified_by),
        *(claim for claim, _ in profile.ref_example),
        *(claim for demand in profile.demands for claim in demand.claims),
        *(claim for names in profile.names for claim in (*names.names, *names.ids)),
        *(claim for pair in profile.never_together for claim in (pair.claim, pair.other)),
    }
    tops = {claim if claim[0] != "/" else key_path(f"jwt:{claim}")[0] for claim in used}
    assert [claim for claim in sorted(tops) if not profile.lists_claim(claim)] == []
    assert not profile.lists & profile.scalars


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_a_profile_knows_its_own_issuer(profile: Profile) -> None:
    example = profile.issuer_example
    told = known_provider(example), *likely_providers(example)
    assert profile.name in told or profile.name in {"generic", "gitlab", "keycloak"}


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_a_hint_advises_a_claim_that_pins(profile: Profile) -> None:
    assert profile.owner.pin[0] in {*owner_pins(profile), "sub"}


NO_JOBS = {"gitlab-user-login", "azure-devops-service-connection"}
"""Samples of the same issuers that are no job's tokens."""
SAMPLES = sorted(path.stem for path in VECTORS.glob("*.json"))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_token_has_the_claims_and_the_shapes_of_its_provider(name: str) -> None:
    claims, profile = sample(name), PROFILES[provider_of(name)]
    if name not in NO_JOBS:
        assert [claim for claim in profile.required if text(at(claims, claim)) is None] == []
        if profile.ci:
            assert [claim for claim in claims if not profile.lists_claim(claim)] == []
    if name in NO_JOBS:
        return
    for claim, shape in profile.shapes.items():
        value = text(at(claims, claim))
        assert value is None or shape.whole.fullmatch(value), (claim, value)
    for pair in profile.never_together:
        if claims.get(pair.claim) in pair.values:
            assert str(claims[pair.other]).startswith(pair.begins)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_every_provider_has_a_sample_token(profile: Profile) -> None:
    assert any(name.startswith(profile.name) for name in SAMPLES) or profile.name == "generic"
