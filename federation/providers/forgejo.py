"""
Forgejo Actions, as on codeberg.org: GitHub's protocol and most of its claims.

Claims: https://forgejo.org/docs/next/user/actions/security-openid-connect/. Gitea has no such
tokens.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType

from federation.claims import Claims, text
from federation.providers.github import BY_OUTSIDERS, OUTSIDERS_EVENTS, WRITERS_EVENTS
from federation.providers.github import PROFILE as GITHUB
from federation.providers.profile import (
    ByRequest,
    JobToken,
    NameWithId,
    OwnerClaims,
    Profile,
)

_SCALARS = frozenset(
    {
        *("iss", "sub", "actor", "actor_id", "base_ref", "event_name", "ref", "ref_protected"),
        *("ref_type", "repository", "repository_id", "repository_owner", "repository_owner_id"),
        *("run_attempt", "run_id", "run_number", "sha", "workflow", "workflow_ref"),
    }
)


def _maybe_by_outsiders(claims: Claims) -> bool:
    # Nobody has documented that the `pull_request` of a fork gets no token, as on GitHub.
    event = text(claims.get("event_name"))
    return event not in WRITERS_EVENTS or event == "pull_request"


PROFILE = Profile(
    name="forgejo",
    display_name="Forgejo",
    issuers=re.compile(r"https://codeberg\.org/api/actions"),
    looks_like=re.compile(r"/api/actions/?$"),
    issuer_example="https://git.example.org/api/actions",
    shared_hosts=("codeberg.org",),
    default_audiences=re.compile(r"https://codeberg\.org/[^/]+"),
    required=("repository", "repository_owner", "event_name"),
    scalars=_SCALARS,
    telling=("repository_id", "repository_owner_id", "workflow_ref"),
    telling_sub=re.compile(r"repo:"),
    shapes=MappingProxyType(
        {
            claim: shape
            for claim, shape in GITHUB.shapes.items()
            if claim in _SCALARS and claim != "sub"
        }
    ),
    owner=OwnerClaims(
        ids=("repository_owner_id",),
        names=("repository_owner",),
        code_ids=("repository_id",),
        paths=("repository",),
        # `sub` pins nobody: `repo:acme-12/app-3:` is owner 12 called acme in the form with ids,
        # and the owner `acme-12` in the older form.
        other_paths=("workflow_ref",),
        path_and_owner=("repository", "repository_owner"),
        pin=("repository_owner_id", "<id of the owner>"),
        sub_begins="repo:",
    ),
    selective=("repository_id", "repository", "sub", "repository_owner_id", "repository_owner"),
    free=MappingProxyType(
        {claim: GITHUB.free[claim] for claim in ("workflow", "actor", "actor_id")}
    ),
    personal=GITHUB.personal,
    circumstances=GITHUB.circumstances & _SCALARS,
    demands=(
        replace(
            BY_OUTSIDERS,
            applies=_maybe_by_outsiders,
            examples=(*OUTSIDERS_EVENTS, "pull_request"),
        ),
    ),
    names=(
        NameWithId(
            names=("repository", "repository_owner"),
            ids=("repository_owner_id", "repository_id"),
            where="older servers have no ids; then keep the name and leave the warning",
            sub_name=re.compile(r"^repo:"),
        ),
        NameWithId(names=("actor",), ids=("actor_id",)),
    ),
    only_if=MappingProxyType(
        dict.fromkeys(
            ("repository_id", "repository_owner_id", "actor_id"), "the server is new enough"
        )
    ),
    ref_claims=("ref", "ref_protected"),
    ref_within=MappingProxyType(
        {
            "sub": re.compile(r":ref:refs/[^/*?]+/"),
            "workflow_ref": re.compile(r"@refs/[^/*?]+/"),
        }
    ),
    file_refs=("workflow_ref",),
    misnamed=MappingProxyType({"branch": "ref", "owner": "repository_owner", "repo": "repository"}),
    ref_example=(("ref", "refs/heads/main"),),
    job_token=JobToken(
        marks=(("FORGEJO_ACTIONS", "true"),),
        sources=(
            ByRequest(url="ACTIONS_ID_TOKEN_REQUEST_URL", bearer="ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        ),
        advice="Add to the workflow or the job:\n  enable-openid-connect: true",
        # The runner sets GitHub's variables too, for actions that were written for GitHub.
        also_marked_as=("github",),
    ),
)
