"""
Azure DevOps pipelines: one issuer for each organisation, and one key set for all of them.

Claims are documented by those who verify them; the audience is always Azure's own. The same issuer
signs tokens of service connections, which do not say which pipeline runs.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.errors import Reason
from federation.providers.profile import (
    DIGITS,
    FULL_REF,
    UUID,
    ByRequest,
    Demand,
    JobToken,
    OwnerClaims,
    Profile,
    Shape,
)


def _of_pull_request(claims: Claims) -> bool:
    ref = text(claims.get("rpo_ref"))
    return ref is not None and ref.startswith("refs/pull/")


PROFILE = Profile(
    name="azure-devops",
    display_name="Azure DevOps",
    issuers=re.compile(r"https://vstoken\.dev\.azure\.com/[0-9a-f-]+"),
    issuer_example="https://vstoken.dev.azure.com/d2b9e6c0-41f7-4b35-9a08-5c3e7f1d6a24",
    no_issuers=MappingProxyType(
        {
            "https://dev.azure.com": "pipelines' tokens come from "
            "https://vstoken.dev.azure.com/<id of the organisation>",
            "https://vstoken.dev.azure.com": "the issuer ends in the organisation's id",
        }
    ),
    default_audiences=re.compile(r"api://AzureADTokenExchange"),
    audience_fixed=True,
    required=("org_id", "prj_id", "def_id", "run_id"),
    lacking=Reason.NOT_A_CI_TOKEN,
    scalars=frozenset(
        {
            *("iss", "sub", "org_id", "prj_id", "def_id", "rpo_id", "rpo_uri", "rpo_ver"),
            *("rpo_ref", "run_id"),
        }
    ),
    telling=("prj_id", "def_id", "rpo_ref"),
    telling_sub=re.compile(r"p://"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(("org_id", "prj_id"), UUID),
            **dict.fromkeys(("def_id", "run_id"), DIGITS),
            "rpo_ref": FULL_REF,
            "rpo_uri": Shape(whole=re.compile(r"[^:*]+:[^*]+"), words="a URL"),
            "sub": Shape(
                whole=re.compile(r"p://[^/]+/[^/]+/.+"),
                words="names, as in p://ORGANISATION/PROJECT/PIPELINE",
                begins=("p://",),
            ),
        }
    ),
    owner=OwnerClaims(
        ids=("org_id", "prj_id"),
        composed=MappingProxyType({"sub": re.compile(r"^p://[^/]+/[^/]+/")}),
        separator="/",
        whole_issuer=("org_id",),
        pin=("prj_id", "<id of the project>"),
        sub_begins="p://",
    ),
    selective=("sub", "prj_id", "def_id"),
    free=MappingProxyType({"def_id": "each project counts its pipelines anew"}),
    circumstances=frozenset({"rpo_ref", "rpo_ver", "run_id"}),
    demands=(
        Demand(
            applies=_of_pull_request,
            claims=("rpo_ref",),
            sentence="This run is of a pull request, so only Roles that name jwt:rpo_ref may admit "
            "it.",
            wildcard_admits="every ref, those of pull requests included",
            examples=("refs/pull/1/merge",),
        ),
    ),
    ref_claims=("rpo_ref",),
    ref_example=(("rpo_ref", "refs/heads/main"),),
    job_token=JobToken(
        marks=(("TF_BUILD", "True"),),
        sources=(
            ByRequest(
                url="SYSTEM_OIDCREQUESTURI",
                bearer="SYSTEM_ACCESSTOKEN",
                member="oidcToken",
                method="POST",
                query="api-version=7.1",
                scheme="Bearer",
            ),
        ),
        advice="Add to the step:\n  env:\n    SYSTEM_ACCESSTOKEN: $(System.AccessToken)\n"
        "The audience is always api://AzureADTokenExchange, so write that under aud of the "
        "JwtIssuer, and give it with --audience.",
    ),
)
