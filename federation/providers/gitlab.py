"""
GitLab CI/CD: gitlab.com and self-managed instances.

Claims: https://docs.gitlab.com/ci/secrets/id_token_authentication/#token-payload.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.errors import Reason
from federation.providers.profile import (
    BOOLEAN,
    DIGITS,
    SHORT_REF,
    URL_SLIPS,
    Demand,
    InVariable,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
    Together,
    full_ref,
    one_of,
    path,
)

_MERGE_REQUESTS = ("merge_request_event", "external_pull_request_event")
_CHILD = "parent_pipeline"


def _of_merge_request(claims: Claims) -> bool:
    return claims.get("pipeline_source") in _MERGE_REQUESTS


def _of_unknown_parent(claims: Claims) -> bool:
    """
    Return whether the parent of a child pipeline may be a merge request pipeline of a fork.

    The fork's own file can start a child, which has the branch of the merge request and another
    source. Only `job_project_id` says then that the code is no fork's.
    """
    return claims.get("pipeline_source") == _CHILD and text(claims.get("job_project_id")) is None


def _of_fork(claims: Claims) -> bool:
    """Return whether the job runs in another project than the one the token speaks for."""
    runs_in = text(claims.get("job_project_id"))  # absent before GitLab 18.4
    return runs_in is not None and runs_in != text(claims.get("project_id"))


PROFILE = Profile(
    name="gitlab",
    display_name="GitLab",
    # A self-managed instance has the host of its owner, so its documents write `provider: gitlab`.
    issuers=re.compile(r"https://gitlab\.com"),
    issuer_example="https://gitlab.com",
    shared_hosts=("gitlab.com",),
    default_audiences=re.compile(r"https://gitlab\.com"),
    # A person's sign-in token has the same issuer and the same key set as a CI token, but none of
    # these three claims.
    required=("project_id", "pipeline_id", "job_id"),
    lacking=Reason.NOT_A_CI_TOKEN,
    scalars=frozenset(
        {
            *("iss", "sub", "project_id", "project_path", "project_visibility"),
            *("namespace_id", "namespace_path", "job_project_id", "job_project_path"),
            *("job_namespace_id", "job_namespace_path", "user_id", "user_login", "user_email"),
            *("user_access_level", "pipeline_id", "pipeline_source", "job_id", "job_source"),
            *("ref", "ref_type", "ref_path", "ref_protected", "environment"),
            *("environment_protected", "environment_action", "deployment_tier"),
            *("runner_id", "runner_environment", "target_audience"),
            *("ci_config_ref_uri", "ci_config_sha", "sha"),
        }
    ),
    lists=frozenset({"groups_direct", "user_identities"}),
    telling=(
        *("project_id", "project_path", "namespace_id", "namespace_path", "ci_config_ref_uri"),
        *("job_project_id", "job_project_path", "pipeline_source", "ref_path"),
    ),
    telling_sub=re.compile(r"(?:project_path|project_id|namespace_path|namespace_id):"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(("project_path", "job_project_path"), path("octo-group/app")),
            **dict.fromkeys(
                ("namespace_path", "job_namespace_path"),
                Shape(
                    whole=re.compile(r"[^:@*\s]+"),
                    words="a group's path, such as octo-group",
                    slips=URL_SLIPS,
                ),
            ),
            **dict.fromkeys(("project_id", "namespace_id", "job_project_id"), DIGITS),
            **dict.fromkeys(("job_namespace_id", "user_id", "pipeline_id", "job_id"), DIGITS),
            "runner_id": DIGITS,
            "ref": SHORT_REF,
            "ref_path": full_ref("merge-requests"),
            "ref_type": one_of("branch", "tag"),
            **dict.fromkeys(("ref_protected", "environment_protected"), BOOLEAN),
            "project_visibility": one_of("public", "private", "internal"),
            "runner_environment": one_of("gitlab-hosted", "self-hosted"),
            **dict.fromkeys(
                ("pipeline_source", "user_login", "sha"),
                Shape(whole=re.compile(r"[^*\s]+"), words="one word"),
            ),
            "sub": Shape(
                whole=re.compile(r"[a-z_]+:[^:].*", re.DOTALL),
                words="claims and their values, such as "
                "project_path:octo-group/app:ref_type:branch:ref:main",
                slips=(
                    (
                        re.compile(r"([^/:@*\s]+/[^:@*\s]+)"),
                        r"project_path:\1:ref_type:branch:ref:main",
                    ),
                ),
            ),
            "ci_config_ref_uri": Shape(whole=re.compile(r"[^@]+@.+"), words="a file and its ref"),
        }
    ),
    owner=OwnerClaims(
        ids=("namespace_id",),
        code_ids=("project_id",),
        paths=("project_path", "namespace_path"),
        composed=MappingProxyType(
            {
                "sub": re.compile(
                    r"(?:^|:)(?:project_path|namespace_path):[^/:]+/"
                    r"|(?:^|:)(?:project_id|namespace_id):[^:]+:"
                )
            }
        ),
        # The project that a job runs in may be a fork of somebody else.
        other_paths=("job_project_path", "job_namespace_path"),
        path_and_owner=("project_path", "namespace_path"),
        pin=("namespace_id", "<id of the group>"),
        sub_begins="project_path:",
    ),
    selective=("project_id", "project_path", "sub", "namespace_id", "namespace_path"),
    free=MappingProxyType(
        {
            "user_login": "it names who started the pipeline, and the user can change it",
            "user_email": "it names who started the pipeline, and the user can change it",
            "user_id": "it names who started the pipeline, not whose code runs",
            "groups_direct": "they are the groups of who started the pipeline, not whose code runs",
            "user_identities": "they are those of who started the pipeline, not whose code runs",
            "ci_config_ref_uri": "it names the configuration that was included, and any project "
            "may include it",
        }
    ),
    personal=frozenset({"user_login", "user_email", "user_identities"}),
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
            examples=_MERGE_REQUESTS,
        ),
        Demand(
            applies=_of_unknown_parent,
            claims=("pipeline_source",),
            sentence="This is a child pipeline, and a token without job_project_id does not say "
            "whether a merge request started its parent, so only Roles that name "
            "jwt:pipeline_source may admit it.",
            wildcard_admits="child pipelines, those of merge requests included",
            examples=(_CHILD,),
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
    ref_within=MappingProxyType(
        {"sub": re.compile(r":(?:ref:[^*?]|ref_path:refs/[^/*?]+/|ref_protected:true)")}
    ),
    environment_claims=("environment",),
    environment_within=re.compile(r":environment:[^*?]"),
    open_environments=True,
    short_ref=("ref", ("ref_type", "ref_path")),
    never_together=(
        Together(
            claim="ref_type", values=frozenset({"tag"}), other="ref_path", begins="refs/tags/"
        ),
        Together(
            claim="ref_type", values=frozenset({"branch"}), other="ref_path", begins="refs/heads/"
        ),
    ),
    only_if=MappingProxyType({"environment": "the job names an environment"}),
    file_refs=("ci_config_ref_uri",),
    misnamed=MappingProxyType(
        {
            "branch": "ref_path",
            "project": "project_path",
            "group": "namespace_path",
            "event_name": "pipeline_source",
            "repository": "project_path",
            "tag": "ref_path",
            "repository_id": "project_id",
            "repository_owner_id": "namespace_id",
        }
    ),
    ref_example=(("ref_path", "refs/heads/main"), ("ref_protected", "true")),
    job_token=JobToken(
        marks=(("GITLAB_CI", "true"),),
        sources=(InVariable(names=("FEDERATION_ID_TOKEN",)),),
        advice="Add to the job:\n  id_tokens:\n    FEDERATION_ID_TOKEN:\n      aud: {audience}",
    ),
)
