"""
Bitbucket Pipelines: one issuer for each workspace.

Claims: https://support.atlassian.com/bitbucket-cloud/docs/integrate-pipelines-with-resource-servers-using-oidc/.
All ids are UUIDs in braces.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.providers.profile import (
    BRACED_UUID,
    BRANCH,
    InVariable,
    JobToken,
    OwnerClaims,
    Profile,
    Shape,
)

_IDS = (
    *("workspaceUuid", "repositoryUuid", "pipelineUuid", "stepUuid", "accountUuid"),
    "deploymentEnvironmentUuid",
)

PROFILE = Profile(
    name="bitbucket",
    display_name="Bitbucket Pipelines",
    issuers=re.compile(
        r"https://api\.bitbucket\.org/2\.0/workspaces/[^/]+/pipelines-config/identity/oidc"
    ),
    issuer_example="https://api.bitbucket.org/2.0/workspaces/harbourlab/pipelines-config/identity/oidc",
    no_issuers=MappingProxyType(
        {
            "https://bitbucket.org": "jobs' tokens come from the workspace's own issuer, "
            "https://api.bitbucket.org/2.0/workspaces/WORKSPACE/pipelines-config/identity/oidc"
        }
    ),
    default_audiences=re.compile(r"ari:cloud:bitbucket::workspace/.+"),
    required=("workspaceUuid", "repositoryUuid", "stepUuid"),
    audience_list=True,
    scalars=frozenset({"iss", "sub", "branchName", *_IDS}),
    telling=("workspaceUuid", "repositoryUuid"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(_IDS, BRACED_UUID),
            "branchName": BRANCH,
            "sub": Shape(
                whole=re.compile(r"\{.+\}(?::.+)?"),
                words="UUIDs in braces, as in {repository}:{environment}:{step}",
                begins=("{",),
            ),
        }
    ),
    owner=OwnerClaims(
        ids=("workspaceUuid",),
        code_ids=("repositoryUuid",),
        composed=MappingProxyType({"sub": re.compile(r"^\{[^{}]+\}:")}),
        whole_issuer=("workspaceUuid",),
        pin=("repositoryUuid", "{<UUID of the repository>}"),
        sub_begins="{",
    ),
    selective=("repositoryUuid", "sub", "workspaceUuid"),
    free=MappingProxyType(
        {"accountUuid": "it names who started the pipeline, not whose code runs"}
    ),
    circumstances=frozenset(
        {"branchName", "deploymentEnvironmentUuid", "pipelineUuid", "stepUuid"}
    ),
    only_if=MappingProxyType({"deploymentEnvironmentUuid": "the step names a deployment"}),
    ref_claims=("branchName",),
    environment_claims=("deploymentEnvironmentUuid",),
    environment_within=re.compile(r"^\{[^{}]+\}:\{[^{}]+\}:"),
    ref_example=(("deploymentEnvironmentUuid", "{<UUID of the environment>}"),),
    job_token=JobToken(
        marks=(("BITBUCKET_BUILD_NUMBER", ""),),
        sources=(InVariable(names=("BITBUCKET_STEP_OIDC_TOKEN",)),),
        advice="Add to the step:\n  oidc:\n    audiences: [{audience}]",
    ),
)
