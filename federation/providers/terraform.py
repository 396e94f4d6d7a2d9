"""
HCP Terraform (and Terraform Enterprise): one issuer for all organisations.

Claims: https://developer.hashicorp.com/terraform/cloud-docs/workspaces/dynamic-provider-credentials/workload-identity-tokens.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims
from federation.providers.profile import (
    Demand,
    InVariable,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
    one_of,
)


def _id(prefix: str) -> Shape:
    return Shape(
        whole=re.compile(rf"{prefix}-[A-Za-z0-9]+"),
        words=f"an id, which begins with {prefix}-",
        begins=(prefix + "-",),
    )


def _maybe_speculative(claims: Claims) -> bool:
    return claims.get("terraform_run_phase") != "apply"


_COMPOSED = re.compile(r"^organization:[^:]+:")

PROFILE = Profile(
    name="terraform",
    display_name="HCP Terraform",
    issuers=re.compile(r"https://app\.terraform\.io"),
    issuer_example="https://app.terraform.io",
    shared_hosts=("app.terraform.io",),
    required=("terraform_organization_id", "terraform_run_id", "terraform_run_phase"),
    scalars=frozenset(
        {
            *("iss", "sub", "terraform_organization_id", "terraform_organization_name"),
            *("terraform_project_id", "terraform_project_name", "terraform_workspace_id"),
            *("terraform_workspace_name", "terraform_full_workspace", "terraform_run_id"),
            "terraform_run_phase",
        }
    ),
    telling=(
        *("terraform_organization_id", "terraform_organization_name", "terraform_project_id"),
        *("terraform_project_name", "terraform_workspace_id", "terraform_workspace_name"),
        *("terraform_full_workspace", "terraform_run_phase"),
    ),
    telling_sub=re.compile(r"organization:[^:]+:(?:project|workspace):"),
    shapes=MappingProxyType(
        {
            "terraform_organization_id": _id("org"),
            "terraform_project_id": _id("prj"),
            "terraform_workspace_id": _id("ws"),
            "terraform_run_id": _id("run"),
            "terraform_run_phase": one_of("plan", "apply"),
            "sub": Shape(
                whole=re.compile(r"organization:[^:]+:.+"),
                words="names, as in organization:ORG:project:PROJECT:workspace:WORKSPACE:"
                "run_phase:apply",
                begins=("organization:",),
            ),
        }
    ),
    owner=OwnerClaims(
        ids=("terraform_organization_id",),
        names=("terraform_organization_name",),
        code_ids=("terraform_workspace_id", "terraform_project_id"),
        composed=MappingProxyType({"sub": _COMPOSED, "terraform_full_workspace": _COMPOSED}),
        pin=("terraform_workspace_id", "ws-<id of the workspace>"),
        sub_begins="organization:",
    ),
    selective=(
        *("terraform_workspace_id", "sub", "terraform_full_workspace", "terraform_project_id"),
        *("terraform_organization_id", "terraform_organization_name"),
    ),
    free=MappingProxyType(
        {
            "terraform_project_name": "another organisation can have a project called so",
            "terraform_workspace_name": "another organisation can have a workspace called so",
        }
    ),
    circumstances=frozenset({"terraform_run_id", "terraform_run_phase"}),
    demands=(
        Demand(
            applies=_maybe_speculative,
            claims=("terraform_run_phase",),
            sentence="This run plans, and whoever opens a pull request can start such a run, so "
            "only Roles that name jwt:terraform_run_phase may admit it.",
            wildcard_admits="every phase, plans of pull requests included",
            examples=("plan",),
        ),
    ),
    names=(
        NameWithId(
            names=(
                *("terraform_organization_name", "terraform_project_name"),
                *("terraform_workspace_name", "terraform_full_workspace"),
            ),
            ids=(
                *("terraform_workspace_id", "terraform_project_id"),
                "terraform_organization_id",
            ),
            where="the workspace's settings show it",
            sub_name=re.compile(r"^organization:"),
        ),
    ),
    ref_claims=("terraform_run_phase",),
    ref_within=MappingProxyType({"sub": re.compile(r":run_phase:[^*?]")}),
    ref_example=(("terraform_run_phase", "apply"),),
    job_token=JobToken(
        marks=(("TFC_RUN_ID", ""),),
        sources=(InVariable(names=("TFC_WORKLOAD_IDENTITY_TOKEN",)),),
        advice="Set the workspace's environment variable TFC_WORKLOAD_IDENTITY_AUDIENCE={audience}",
    ),
)
