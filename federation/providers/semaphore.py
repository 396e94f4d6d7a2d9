"""
Semaphore: one issuer for each organisation, whose audience cannot be chosen.

Claims: https://docs.semaphore.io/reference/openid. In a pull request `branch` is the target, so
a Role compares `ref` and `ref_type`.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.providers.profile import (
    FULL_REF,
    UUID,
    Demand,
    InVariable,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
    one_of,
)


def _of_pull_request(claims: Claims) -> bool:
    return text(claims.get("ref_type")) not in {"branch", "tag"}


def _with_a_shell(claims: Claims) -> bool:
    return claims.get("job_type") != "pipeline_job"


PROFILE = Profile(
    name="semaphore",
    display_name="Semaphore",
    issuers=re.compile(r"https://[a-z0-9-]+\.semaphoreci\.com"),
    issuer_example="https://harbourlab.semaphoreci.com",
    default_audiences=re.compile(r"https://[a-z0-9-]+\.semaphoreci\.com"),
    audience_fixed=True,
    required=("org_id", "prj_id", "job_id", "job_type", "ref_type"),
    scalars=frozenset(
        {
            *("iss", "sub", "sub127", "org", "org_id", "prj", "prj_id", "repo", "repo_slug"),
            *("branch", "pr_branch", "pr", "ref", "ref_type", "tag", "wf_id", "ppl_id", "job_id"),
            *("job_type", "trg"),
        }
    ),
    telling=("prj_id", "ppl_id", "wf_id"),
    telling_sub=re.compile(r"org:[^:]+:project:"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(("org_id", "prj_id"), UUID),
            "ref_type": one_of("branch", "tag", "pull-request"),
            "job_type": one_of("pipeline_job", "debug_job", "project_debug_job"),
            "trg": Shape(whole=re.compile(r"[^:*]+:[^*]+"), words="several words with :"),
            "ref": Shape(
                whole=re.compile(r"refs/[^*]+"),
                words="a full ref, such as refs/heads/main",
                begins=("refs/",),
                slips=FULL_REF.slips,
            ),
        }
    ),
    owner=OwnerClaims(
        ids=("org_id",),
        names=("org",),
        code_ids=("prj_id",),
        composed=MappingProxyType({"sub": re.compile(r"^org:[^:]+:project:[^:]+:")}),
        whole_issuer=("org_id", "org"),
        pin=("prj_id", "<id of the project>"),
        sub_begins="org:<organisation>:project:",
    ),
    selective=("prj_id", "sub", "org_id", "org"),
    free=MappingProxyType(
        {
            "repo": "any owner can have a repository called so",
            "branch": "in a pull request it is the branch that the pull request is for",
            "pr_branch": "the author of a pull request chooses it",
            "sub127": "it is a shortened sub, and several can be shortened to the same",
        }
    ),
    circumstances=frozenset(
        {
            *("ref", "ref_type", "tag", "pr", "wf_id", "ppl_id", "job_id", "job_type", "trg"),
            *("branch", "pr_branch"),
        }
    ),
    demands=(
        Demand(
            applies=_of_pull_request,
            claims=("ref_type",),
            sentence="This job is of a pull request, so only Roles that name jwt:ref_type may "
            "admit it.",
            wildcard_admits="every job, those of pull requests included",
            examples=("pull-request",),
        ),
        Demand(
            applies=_with_a_shell,
            claims=("job_type",),
            sentence="A person has a shell in this job, so only Roles that name jwt:job_type may "
            "admit it.",
            wildcard_admits="every job, those with a shell included",
            examples=("debug_job", "project_debug_job"),
        ),
    ),
    names=(
        NameWithId(
            names=("org", "prj", "repo_slug"),
            ids=("prj_id", "org_id"),
            where="`sem get project NAME` prints it",
        ),
    ),
    ref_claims=("ref",),
    ref_within=MappingProxyType({"sub": re.compile(r":ref:refs/[^/*?]+/")}),
    ref_example=(("ref", "refs/heads/main"), ("ref_type", "branch")),
    job_token=JobToken(
        marks=(("SEMAPHORE", "true"),),
        sources=(InVariable(names=("SEMAPHORE_OIDC_TOKEN",)),),
        advice="Every job has a token. Its audience is the organisation's URL, so write that under "
        "aud of the JwtIssuer, and give it with --audience.",
    ),
)
