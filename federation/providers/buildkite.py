"""
Buildkite: one issuer for all organisations.

Claims: https://buildkite.com/docs/agent/cli/reference/oidc. A token has the ids only if the job
asks for them with `--claim organization_id,pipeline_id`.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import (
    BRANCH,
    DIGITS,
    UUID,
    ByCommand,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
    one_of,
)

_SLUG = Shape(
    whole=re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*"), words="a slug, as in the pipeline's address"
)

PROFILE = Profile(
    name="buildkite",
    display_name="Buildkite",
    issuers=re.compile(r"https://agent\.buildkite\.com"),
    issuer_example="https://agent.buildkite.com",
    shared_hosts=("agent.buildkite.com",),
    no_issuers=MappingProxyType(
        {"https://buildkite.com": "jobs' tokens come from https://agent.buildkite.com"}
    ),
    default_audiences=re.compile(r"https://buildkite\.com/[^/]+"),
    required=("organization_slug", "pipeline_slug", "job_id"),
    scalars=frozenset(
        {
            *("iss", "sub", "organization_slug", "organization_id", "pipeline_slug"),
            *("pipeline_id", "build_number", "build_branch", "build_commit", "build_tag"),
            *("build_id", "build_source", "step_key", "job_id", "agent_id", "runner_environment"),
            *("cluster_id", "cluster_name", "queue_id", "queue_key"),
        }
    ),
    more_claims=re.compile(r"agent_tag:.+"),
    telling=("organization_slug", "pipeline_slug"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(("organization_slug", "pipeline_slug"), _SLUG),
            **dict.fromkeys(("organization_id", "pipeline_id", "build_id", "cluster_id"), UUID),
            "build_number": DIGITS,
            "build_branch": BRANCH,
            "build_source": one_of("ui", "api", "webhook", "trigger_job", "schedule"),
        }
    ),
    owner=OwnerClaims(
        ids=("organization_id",),
        names=("organization_slug",),
        code_ids=("pipeline_id",),
        composed=MappingProxyType({"sub": re.compile(r"^organization:[^:]+:")}),
        pin=("organization_id", "<id of the organisation>"),
        sub_begins="organization:",
    ),
    selective=("pipeline_id", "sub", "pipeline_slug", "organization_id", "organization_slug"),
    free=MappingProxyType(
        {
            "pipeline_slug": "another organisation can have a pipeline called so",
            "cluster_name": "another organisation can have a cluster called so",
            "queue_key": "another organisation can have a queue called so",
            "step_key": "the pipeline's file on the branch chooses it",
        }
    ),
    circumstances=frozenset(
        {
            *("build_number", "build_branch", "build_commit", "build_tag", "build_id"),
            *("build_source", "job_id", "agent_id", "runner_environment"),
        }
    ),
    names=(
        NameWithId(
            names=("organization_slug", "pipeline_slug"),
            ids=("organization_id", "pipeline_id"),
            where="the job must ask for it with --claim organization_id,pipeline_id",
            sub_name=re.compile(r"^organization:"),
        ),
    ),
    only_if=MappingProxyType(
        dict.fromkeys(
            ("organization_id", "pipeline_id", "build_id", "cluster_id", "queue_id"),
            "the job asks for it with --claim organization_id,pipeline_id",
        )
        | {"build_tag": "a tag is built"}
    ),
    ref_claims=("build_branch", "build_tag"),
    ref_within=MappingProxyType({"sub": re.compile(r":ref:refs/[^/*?]+/")}),
    misnamed=MappingProxyType(
        {
            "branch": "build_branch",
            "ref": "build_branch",
            "tag": "build_tag",
            "organization": "organization_slug",
            "pipeline": "pipeline_slug",
        }
    ),
    ref_example=(("build_branch", "main"),),
    job_token=JobToken(
        marks=(("BUILDKITE", "true"),),
        sources=(
            ByCommand(
                command=(
                    *("buildkite-agent", "oidc", "request-token", "--audience", "{audience}"),
                    *("--claim", "organization_id,pipeline_id"),
                )
            ),
        ),
        advice="The step needs buildkite-agent on its PATH; in a container, mount it "
        "(mount-buildkite-agent: true).",
    ),
)
