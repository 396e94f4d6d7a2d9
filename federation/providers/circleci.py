"""
CircleCI: an issuer for each organisation, and a root issuer that serves everybody.

Claims: https://circleci.com/docs/openid-connect-tokens/. Their names begin with a host.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims
from federation.providers.profile import (
    BOOLEAN,
    FULL_REF,
    UUID,
    ByCommand,
    Demand,
    InVariable,
    JobToken,
    OwnerClaims,
    Profile,
    Shape,
)

_HOST = "oidc.circleci.com/"


def _with_a_shell(claims: Claims) -> bool:
    return claims.get(_HOST + "ssh-rerun") not in (None, False)


PROFILE = Profile(
    name="circleci",
    display_name="CircleCI",
    issuers=re.compile(r"https://oidc\.circleci\.com(?:/org/[0-9a-f-]+)?"),
    issuer_example="https://oidc.circleci.com/org/9b1c64f0-3d0e-4a7b-8f52-70d1c3aa9e10",
    shared_hosts=("oidc.circleci.com",),
    own_paths=re.compile(r"/org/[0-9a-f-]+"),
    default_audiences=re.compile(UUID.whole.pattern),
    required=(_HOST + "org-id", _HOST + "project-id"),
    scalars=frozenset(
        {
            *("iss", "sub"),
            *(
                _HOST + claim
                for claim in (
                    *("org-id", "project-id", "pipeline-id", "pipeline-definition-id"),
                    *("workflow-id", "job-id", "vcs-origin", "vcs-ref", "ssh-rerun"),
                )
            ),
        }
    ),
    lists=frozenset({_HOST + "context-ids"}),
    telling=(
        *(_HOST + "project-id", _HOST + "org-id"),
        *(_HOST + "vcs-origin", _HOST + "vcs-ref", _HOST + "ssh-rerun"),
    ),
    telling_sub=re.compile(r"org/[^/]+/project/"),
    shapes=MappingProxyType(
        {
            **dict.fromkeys(
                (
                    *(_HOST + "org-id", _HOST + "project-id", _HOST + "pipeline-id"),
                    _HOST + "pipeline-definition-id",
                ),
                UUID,
            ),
            _HOST + "vcs-ref": FULL_REF,
            _HOST + "ssh-rerun": BOOLEAN,
            _HOST + "vcs-origin": Shape(
                whole=re.compile(r"[^/@\s*]+(?:/[^/\s*]+)+"),
                words="a host and a path, such as github.com/octo-org/octo-repo",
                slips=((re.compile(r"(?:https?://|git@)([^/:]+)[/:](.+?)(?:\.git)?/?"), r"\1/\2"),),
            ),
        }
    ),
    owner=OwnerClaims(
        ids=(_HOST + "org-id",),
        code_ids=(_HOST + "project-id",),
        composed=MappingProxyType({"sub": re.compile(r"^org/[^/]+/")}),
        separator="/",
        whole_issuer=(_HOST + "org-id", "sub"),
        pin=(_HOST + "project-id", "<id of the project>"),
        sub_begins="org/",
    ),
    selective=(_HOST + "project-id", "sub", _HOST + "org-id"),
    free=MappingProxyType(
        {
            _HOST + "vcs-origin": "another organisation can build the same repository",
            _HOST + "vcs-ref": "any repository can have such a branch",
        }
    ),
    circumstances=frozenset(
        {
            *(_HOST + "vcs-ref", _HOST + "ssh-rerun", _HOST + "pipeline-id"),
            *(_HOST + "workflow-id", _HOST + "job-id", _HOST + "context-ids"),
        }
    ),
    demands=(
        Demand(
            applies=_with_a_shell,
            claims=(_HOST + "ssh-rerun",),
            sentence="Somebody ran this job again with SSH and has a shell in it, so only Roles "
            "that name jwt:oidc.circleci.com/ssh-rerun may admit it.",
            wildcard_admits="jobs that were run again with SSH",
        ),
    ),
    ref_claims=(_HOST + "vcs-ref",),
    ref_within=MappingProxyType({"sub": re.compile(r"/vcs-ref/refs/[^/*?]+/")}),
    misnamed=MappingProxyType(
        {claim: _HOST + claim for claim in ("project-id", "org-id", "vcs-ref", "vcs-origin")}
        | {"project_id": _HOST + "project-id", "ref": _HOST + "vcs-ref"}
    ),
    ref_example=((_HOST + "vcs-ref", "refs/heads/main"),),
    only_if=MappingProxyType(
        dict.fromkeys(
            (_HOST + "vcs-origin", _HOST + "vcs-ref"), "the pipeline was not a custom webhook's"
        )
    ),
    fork_told_by=_HOST + "vcs-origin",
    job_token=JobToken(
        marks=(("CIRCLECI", "true"),),
        sources=(
            ByCommand(
                command=("circleci", "run", "oidc", "get", "--claims", '{"aud": "{audience}"}')
            ),
            InVariable(names=("CIRCLE_OIDC_TOKEN_V2", "CIRCLE_OIDC_TOKEN")),
        ),
        advice="The job gets a token only if it uses a context, and jobs of forks only with "
        '"Pass secrets to builds from forked pull requests".',
    ),
)
