"""
GitLab CI/CD: gitlab.com and self-managed instances.

Claims: https://docs.gitlab.com/ci/secrets/id_token_authentication/#token-payload.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.errors import Reason
from federation.providers.profile import Demand, NameWithId, OwnerClaims, Profile, Provider


def _of_merge_request(claims: Claims) -> bool:
    return claims.get("pipeline_source") == "merge_request_event"


def _of_fork(claims: Claims) -> bool:
    """Return whether the job runs in another project than the one the token speaks for."""
    runs_in = text(claims.get("job_project_id"))  # absent before GitLab 18.4
    return runs_in is not None and runs_in != text(claims.get("project_id"))


GITLAB = Profile(
    provider=Provider.GITLAB,
    display_name="GitLab",
    # A self-managed instance has the host of its owner, so its documents write `provider: gitlab`.
    issuers=re.compile(r"https://gitlab\.com"),
    shared_hosts=("gitlab.com",),
    # A person's sign-in token has the same issuer and the same key set as a CI token, but none of
    # these three claims.
    required=("project_id", "pipeline_id", "job_id"),
    lacking=Reason.NOT_A_CI_TOKEN,
    scalars=frozenset(
        {
            *("iss", "sub", "project_id", "project_path", "project_visibility"),
            *("namespace_id", "namespace_path", "job_project_id", "job_project_path"),
            *("job_namespace_id", "job_namespace_path", "user_id", "user_login", "user_email"),
            *("user_access_level", "pipeline_id", "pipeline_source", "job_id", "ref", "ref_type"),
            *("ref_path", "ref_protected", "environment", "environment_protected"),
            *("environment_action", "deployment_tier", "runner_id", "runner_environment"),
            *("ci_config_ref_uri", "ci_config_sha", "sha"),
        }
    ),
    lists=frozenset({"groups_direct", "user_identities"}),
    # The name of an environment may hold a `*`.
    starless=frozenset(
        {
            *("iss", "sub", "project_path", "project_id", "namespace_path", "namespace_id"),
            *("job_project_path", "job_project_id", "job_namespace_path", "job_namespace_id"),
            *("ref", "ref_path", "ref_type", "pipeline_source", "user_login", "sha"),
        }
    ),
    owner=OwnerClaims(
        ids=("namespace_id",),
        code_ids=("project_id",),
        paths=("project_path", "namespace_path"),
        path_and_owner=("project_path", "namespace_path"),
        pin=("namespace_id", "<id of the group>"),
    ),
    selective=("project_id", "project_path", "sub", "namespace_id", "namespace_path"),
    free=MappingProxyType(
        {
            "user_login": "it names who started the pipeline, and the user can change it",
            "user_email": "it names who started the pipeline, and the user can change it",
        }
    ),
    circumstances=frozenset(
        {
            *("ref", "ref_type", "ref_path", "ref_protected", "environment"),
            *("environment_protected", "environment_action", "deployment_tier"),
            *("pipeline_source", "job_source", "runner_environment", "runner_id"),
            *("project_visibility", "user_access_level", "sha", "ci_config_sha"),
            *("pipeline_id", "job_id", "target_audience"),
        }
    ),
    demands=(
        Demand(
            applies=_of_merge_request,
            claims=("pipeline_source",),
            sentence="This is a merge request pipeline, so only Roles that name "
            "jwt:pipeline_source may admit it.",
            wildcard_admits="every pipeline, those of merge requests included",
        ),
        Demand(
            applies=_of_fork,
            claims=("job_project_id", "job_project_path"),
            sentence="The code comes from a fork, so only Roles that name a jwt:job_project_ key "
            "may admit it.",
            wildcard_admits="pipelines of every fork",
        ),
    ),
    names=(
        NameWithId(
            names=("project_path", "namespace_path"),
            ids=("project_id", "namespace_id"),
            where="the project's page shows it, and so does `glab api projects/GROUP%2FNAME`",
            sub_name=re.compile(r"(?:^|:)(?:project_path|namespace_path):"),
            sub_id=re.compile(r"(?:^|:)(?:project_id|namespace_id):[0-9]+(?::|$)"),
        ),
        NameWithId(names=("user_login",), ids=("user_id",)),
        NameWithId(names=("job_project_path",), ids=("job_project_id", "job_namespace_id")),
    ),
    ref_claims=("ref", "ref_path", "ref_protected"),
    ref_example=(("ref_path", "refs/heads/main"), ("ref_protected", "true")),
    sub_begins="project_path:",
)
