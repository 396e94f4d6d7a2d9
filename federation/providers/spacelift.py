"""
Spacelift: one issuer for each account, whose audience cannot be chosen.

Claims: https://docs.spacelift.io/integrations/cloud-providers/oidc/. Spacelift calls the claim
`scope` advisory.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.providers.profile import (
    Demand,
    InFile,
    InVariable,
    JobToken,
    OwnerClaims,
    Profile,
    one_of,
)


def _not_tracked(claims: Claims) -> bool:
    return text(claims.get("runType")) not in {"TRACKED", "DESTROY"}


PROFILE = Profile(
    name="spacelift",
    display_name="Spacelift",
    issuers=re.compile(r"https://[a-z0-9-]+\.app(?:\.us)?\.spacelift\.io"),
    issuer_example="https://harbourlab.app.spacelift.io",
    default_audiences=re.compile(r"[a-z0-9-]+\.app(?:\.us)?\.spacelift\.io"),
    audience_fixed=True,
    required=("callerType", "callerId", "spaceId", "runType"),
    scalars=frozenset(
        {
            *("iss", "sub", "spaceId", "spacePath", "callerType", "callerId", "runType", "runId"),
            "scope",
        }
    ),
    telling=("callerId", "callerType", "runType", "spacePath"),
    telling_sub=re.compile(r"space:[^:]+:(?:stack|module):"),
    shapes=MappingProxyType(
        {
            "callerType": one_of("stack", "module"),
            "runType": one_of("PROPOSED", "TRACKED", "TASK", "TESTING", "DESTROY"),
            "scope": one_of("read", "write"),
        }
    ),
    owner=OwnerClaims(
        names=("callerId", "spacePath"),
        composed=MappingProxyType({"sub": re.compile(r"^space:[^:]+:(?:stack|module):[^:]+:")}),
        pin=("callerId", "<the stack>"),
        sub_begins="space:<space>:stack:",
    ),
    selective=("callerId", "sub", "spaceId"),
    free=MappingProxyType(
        {"spaceId": "it is a slug, and spaces under different parents can share it"}
    ),
    circumstances=frozenset({"callerType", "runType", "runId", "scope"}),
    demands=(
        Demand(
            applies=_not_tracked,
            claims=("runType",),
            sentence="This run was proposed by a pull request, is a test, or is a command that a "
            "person typed, so only Roles that name jwt:runType may admit it.",
            wildcard_admits="every run, those of pull requests included",
            examples=("PROPOSED", "TASK", "TESTING"),
        ),
    ),
    ref_claims=("runType",),
    ref_within=MappingProxyType({"sub": re.compile(r":run_type:[^*?]")}),
    ref_example=(("runType", "TRACKED"),),
    job_token=JobToken(
        marks=(
            *(("SPACELIFT", "true"), ("TF_VAR_spacelift_run_id", "")),
            ("SPACELIFT_OIDC_TOKEN", ""),
        ),
        sources=(
            InVariable(names=("SPACELIFT_OIDC_TOKEN",)),
            InFile(path="/mnt/workspace/spacelift.oidc"),
        ),
        advice="Every run of a paid account has a token. Its audience is the account's host name, "
        "so write that under aud of the JwtIssuer, and give it with --audience.",
    ),
)
