"""
The claims of the demo's CI jobs.

The claims have the names and types of real GitHub and GitLab tokens. The values are invented.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

_SHA = "4076587227f89e1b841c46131d60c37dffcc20e5"

_GITHUB: Mapping[str, object] = {
    "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
    "ref": "refs/heads/main",
    "sha": _SHA,
    "repository": "octo-org/octo-repo",
    "repository_owner": "octo-org",
    "repository_owner_id": "13420041",
    "repository_id": "412890077",
    "repository_visibility": "private",
    "run_id": "18204519204",
    "run_number": "129",
    "run_attempt": "1",
    "actor": "octocat",
    "actor_id": "58323107",
    "workflow": "Deploy",
    "head_ref": "",
    "base_ref": "",
    "event_name": "push",
    "ref_protected": "true",
    "ref_type": "branch",
    "workflow_ref": "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
    "workflow_sha": _SHA,
    "job_workflow_ref": "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
    "job_workflow_sha": _SHA,
    "runner_environment": "github-hosted",
}
_GITLAB: Mapping[str, object] = {
    "sub": "project_path:octo-group/app:ref_type:branch:ref:main",
    "project_id": "61204418",
    "project_path": "octo-group/app",
    "namespace_id": "84410237",
    "namespace_path": "octo-group",
    "job_project_id": "61204418",
    "job_project_path": "octo-group/app",
    "job_namespace_id": "84410237",
    "job_namespace_path": "octo-group",
    "user_id": "14200311",
    "user_login": "alice",
    "user_email": "alice@example.com",
    "user_access_level": "maintainer",
    "pipeline_id": "2290431877",
    "pipeline_source": "push",
    "job_id": "12744510932",
    "ref": "main",
    "ref_type": "branch",
    "ref_path": "refs/heads/main",
    "ref_protected": "true",
    "runner_id": 12270831,
    "runner_environment": "gitlab-hosted",
    "sha": _SHA,
    "project_visibility": "private",
    "ci_config_ref_uri": "gitlab.com/octo-group/app//.gitlab-ci.yml@refs/heads/main",
    "ci_config_sha": _SHA,
}

JOBS: Mapping[str, Mapping[str, Mapping[str, object]]] = {
    "github": {
        "main": _GITHUB,
        "environment": {
            **_GITHUB,
            "sub": "repo:octo-org/octo-repo:environment:production",
            "environment": "production",
            "event_name": "workflow_dispatch",
        },
        "feature": {
            **_GITHUB,
            "sub": "repo:octo-org/octo-repo:ref:refs/heads/feature/login",
            "ref": "refs/heads/feature/login",
            "ref_protected": "false",
        },
        "stranger": {
            **_GITHUB,
            "sub": "repo:mallory/octo-repo:ref:refs/heads/main",
            "repository": "mallory/octo-repo",
            "repository_owner": "mallory",
            "repository_owner_id": "99000001",
            "repository_id": "900000001",
        },
    },
    "gitlab": {
        "main": _GITLAB,
        "feature": {
            **_GITLAB,
            "sub": "project_path:octo-group/app:ref_type:branch:ref:feature",
            "ref": "feature",
            "ref_path": "refs/heads/feature",
            "ref_protected": "false",
        },
    },
}
"""By provider, then by the name of the job."""

_LIFETIMES_SECONDS: Mapping[str, tuple[int, int]] = {"github": (600, 300), "gitlab": (5, 3600)}
"""By provider: how long before `iat` the token becomes valid, and how long after it expires."""


def claims_of(
    provider: str,
    job: str,
    *,
    iss: str,
    audience: str | list[str],
    now: float,
    jobs: Mapping[str, Mapping[str, Mapping[str, object]]] = JOBS,
) -> dict[str, object]:
    """
    The claims of a token for *job* that *provider* issues at *now*, with a new `jti`.

    Raises: KeyError if there is no such job.
    """
    before, after = _LIFETIMES_SECONDS[provider]
    issued = int(now)
    return {
        **jobs[provider][job],
        "iss": iss,
        "aud": audience,
        "jti": secrets.token_hex(16),
        "iat": issued,
        "nbf": issued - before,
        "exp": issued + after,
    }
