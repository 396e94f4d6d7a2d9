"""
Codefresh: one issuer for all accounts.

Claims: https://codefresh.io/docs/docs/integrations/oidc-pipelines/.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims
from federation.providers.profile import (
    SHORT_REF,
    ByRequest,
    Demand,
    InVariable,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
)


def _of_pull_request(claims: Claims) -> bool:
    return claims.get("scm_pull_request_target_branch") not in (None, "")


def _by_hand(claims: Claims) -> bool:
    return claims.get("initiator") not in (None, "")


_ID = Shape(whole=re.compile(r"[0-9a-f]{24}"), words="an id of 24 hexadecimal digits")

PROFILE = Profile(
    name="codefresh",
    display_name="Codefresh",
    issuers=re.compile(r"https://oidc\.codefresh\.io"),
    issuer_example="https://oidc.codefresh.io",
    shared_hosts=("oidc.codefresh.io",),
    default_audiences=re.compile(r"https://g\.codefresh\.io"),
    required=("account_id", "pipeline_id", "workflow_id"),
    scalars=frozenset(
        {
            *("iss", "sub", "account_id", "account_name", "pipeline_id", "pipeline_name"),
            *("workflow_id", "initiator", "scm_user_name", "scm_repo_url", "scm_ref"),
            *("scm_pull_request_target_branch", "runner_environment", "platform_url", "sid"),
        }
    ),
    telling=("account_id", "pipeline_id", "scm_repo_url"),
    telling_sub=re.compile(r"account:[^:]+:pipeline:"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(("account_id", "pipeline_id"), _ID),
            "scm_ref": Shape(
                whole=re.compile(r"(?!refs/)[^*]+"),
                words="a short name, such as main",
                slips=SHORT_REF.slips,
            ),
            "sub": Shape(
                whole=re.compile(r"account:[^:]+:.+"),
                words="account:<id>:pipeline:<id>:…",
                begins=("account:",),
            ),
        }
    ),
    owner=OwnerClaims(
        ids=("account_id",),
        names=("account_name",),
        code_ids=("pipeline_id",),
        composed=MappingProxyType({"sub": re.compile(r"^account:[^:]+:")}),
        pin=("pipeline_id", "<id of the pipeline>"),
        sub_begins="account:",
    ),
    selective=("pipeline_id", "sub", "account_id", "account_name"),
    free=MappingProxyType(
        {
            "pipeline_name": "another account can have a pipeline called so",
            "scm_repo_url": "another account can have a trigger on the same repository",
            "scm_user_name": "it names who pushed, not whose pipeline runs",
            "initiator": "it names who started the run, not whose pipeline runs",
            "platform_url": "it is the same for everybody",
        }
    ),
    personal=frozenset({"scm_user_name"}),
    circumstances=frozenset(
        {"scm_ref", "scm_pull_request_target_branch", "runner_environment", "workflow_id"}
    ),
    demands=(
        Demand(
            applies=_of_pull_request,
            claims=("scm_pull_request_target_branch",),
            sentence="This run is of a pull request, so only Roles that name "
            "jwt:scm_pull_request_target_branch may admit it.",
            wildcard_admits="every pull request",
        ),
        Demand(
            applies=_by_hand,
            claims=("initiator",),
            sentence="A person started this run by hand and could choose its branch and variables, "
            "so only Roles that name jwt:initiator may admit it.",
            wildcard_admits="every run that a person started by hand",
        ),
    ),
    names=(
        NameWithId(
            names=("account_name", "pipeline_name"),
            ids=("pipeline_id", "account_id"),
            where="the pipeline's settings show it",
        ),
    ),
    ref_claims=("scm_ref",),
    ref_within=MappingProxyType({"sub": re.compile(r":scm_ref:[^*?]")}),
    ref_example=(("scm_ref", "main"),),
    job_token=JobToken(
        marks=(("CF_BUILD_ID", ""),),
        sources=(
            ByRequest(
                url="CF_OIDC_REQUEST_URL",
                bearer="CF_OIDC_REQUEST_TOKEN",
                member="id_token",
                scheme="",
            ),
            InVariable(names=("ID_TOKEN",)),
        ),
        advice="Put the step obtain-oidc-id-token with AUDIENCE: {audience} before this one. It "
        "leaves the token in ID_TOKEN.",
    ),
)
