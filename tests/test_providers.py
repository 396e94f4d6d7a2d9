"""The provider table: issuers, profiles, and the demands of a token's situation."""

from __future__ import annotations

from datetime import timedelta

import pytest

from federation.claims import Claims
from federation.errors import Reason
from federation.providers.table import (
    LEEWAY,
    PROFILES,
    Profile,
    Provider,
    demands,
    known_provider,
    shared,
)
from tests.harness.builders import ABSENT, sample
from tests.harness.second_evaluator import OUTSIDERS


@pytest.mark.parametrize(
    ("iss", "provider"),
    [
        ("https://token.actions.githubusercontent.com", Provider.GITHUB),
        ("https://token.actions.githubusercontent.com/octo-enterprise", Provider.GITHUB),
        ("https://token.actions.octocorp.ghe.com", Provider.GITHUB),
        ("https://token.actions.octo-corp-2.ghe.com/octo-corp-2", Provider.GITHUB),
        ("https://gitlab.com", Provider.GITLAB),
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
def test_a_provider_is_known_only_by_its_exact_issuers(iss: str, provider: Provider | None) -> None:
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


def demanded(provider: Provider, claims: Claims) -> list[str]:
    """The first key of each demand, without its prefix."""
    return [min(demand.keys).removeprefix("jwt:") for demand in demands(provider, claims)]


@pytest.mark.parametrize("event", OUTSIDERS)
def test_an_event_of_outsiders_must_be_named(event: str) -> None:
    claims = sample("github-push-main", event_name=event)
    assert demanded(Provider.GITHUB, claims) == ["event_name"]
    assert [demand.keys for demand in demands(Provider.GITHUB, claims)] == [{"jwt:event_name"}]


@pytest.mark.parametrize(
    "event",
    [
        *("push", "pull_request", "workflow_dispatch", "schedule", "merge_group", "release"),
        *("", None, ABSENT, [], ["pull_request_target"], {}, 1, True),
    ],
)
def test_other_events_demand_nothing(event: object) -> None:
    assert demanded(Provider.GITHUB, sample("github-push-main", event_name=event)) == []


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
    assert demanded(Provider.GITLAB, sample(name, **changes)) == expected


def test_a_generic_token_demands_nothing() -> None:
    claims = sample(
        "keycloak-user",
        event_name="pull_request_target",
        pipeline_source="merge_request_event",
        job_project_id="1",
        project_id="2",
    )
    assert demanded(Provider.GENERIC, claims) == []


def test_a_demand_applies_to_its_own_provider_only() -> None:
    claims = sample(
        "github-pull-request-target", pipeline_source="merge_request_event", job_project_id="1"
    )
    assert demanded(Provider.GITHUB, claims) == ["event_name"]


def test_each_profile_is_as_strict_as_its_issuer_allows() -> None:
    for provider in (Provider.GITHUB, Provider.GITLAB):
        profile = PROFILES[provider]
        assert profile.algorithms == {"RS256"}
        assert profile.single_use
        assert not profile.audience_list
        assert not profile.key_id_optional
    generic = PROFILES[Provider.GENERIC]
    assert generic.algorithms == {"RS256", "PS256", "ES256", "ES384", "EdDSA"}
    assert not generic.single_use
    assert generic.audience_list
    assert generic.key_id_optional
    assert set(PROFILES) == set(Provider)
    assert timedelta(seconds=30) == LEEWAY


def test_a_sign_in_token_lacks_what_makes_a_ci_token() -> None:
    gitlab, login = PROFILES[Provider.GITLAB], sample("gitlab-user-login")
    assert gitlab.lacking is Reason.NOT_A_CI_TOKEN
    assert set(gitlab.required) == {"project_id", "pipeline_id", "job_id"}
    assert not set(gitlab.required) & login.keys()
    assert set(gitlab.required) <= sample("gitlab-branch-main").keys()
    github = PROFILES[Provider.GITHUB]
    assert github.lacking is Reason.MISSING_CLAIM
    assert set(github.required) <= sample("github-push-main").keys()
    assert len(github.required) == 5


@pytest.mark.parametrize(
    "profile", [p for p in PROFILES.values() if p.ci], ids=lambda p: p.provider
)
def test_a_profile_decides_only_by_claims_that_it_lists(profile: Profile) -> None:
    owner = profile.owner
    used = {
        *(*profile.required, *profile.starless, *profile.free, *profile.selective),
        *(*owner.ids, *owner.names, *owner.code_ids, *owner.paths, *owner.other_paths),
        *(*(owner.path_and_owner or ()), owner.pin[0]),
        *(*profile.ref_claims, *(claim for claim, _ in profile.ref_example)),
        *(claim for demand in profile.demands for claim in demand.claims),
        *(claim for names in profile.names for claim in (*names.names, *names.ids)),
    }
    assert used <= profile.scalars
    assert not profile.lists & profile.scalars
