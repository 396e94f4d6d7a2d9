"""
GitHub Actions: github.com, ghe.com tenants and GitHub Enterprise Server.

Claims: https://docs.github.com/en/actions/reference/security/oidc. An administrator can add
`repo_property_*` claims, so a claim that is missing here need not be wrong.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.providers.profile import Demand, NameWithId, OwnerClaims, Profile, Provider

# Somebody outside the repository can cause these events, yet the job runs in the context of the
# base repository: `ref` and `sub` look like those of a push to the default branch.
_OUTSIDERS_EVENTS = frozenset(
    {
        "pull_request_target",
        "workflow_run",
        "issue_comment",
        "issues",
        "discussion",
        "discussion_comment",
        "pull_request_review",
        "pull_request_review_comment",
        "watch",
        "fork",
    }
)


def _caused_by_outsiders(claims: Claims) -> bool:
    return text(claims.get("event_name")) in _OUTSIDERS_EVENTS


GITHUB = Profile(
    provider=Provider.GITHUB,
    display_name="GitHub",
    # An enterprise with a path of its own under github.com's issuer still shares its key set. A
    # tenant on ghe.com has one label before the domain. GitHub Enterprise Server has the host of
    # its owner, so its documents write `provider: github`.
    issuers=re.compile(
        r"https://token\.actions\.(?:githubusercontent|[a-z0-9-]+\.ghe)\.com(?:[/?#].*)?"
    ),
    shared_hosts=(".actions.githubusercontent.com",),
    required=(
        "repository",
        "repository_owner",
        "repository_id",
        "repository_owner_id",
        "event_name",
    ),
    scalars=frozenset(
        {
            *("iss", "sub", "repository", "repository_id", "repository_owner"),
            *("repository_owner_id", "repository_visibility", "ref", "ref_type", "ref_protected"),
            *("base_ref", "head_ref", "event_name", "environment", "environment_node_id"),
            *("workflow", "workflow_ref", "workflow_sha", "job_workflow_ref", "job_workflow_sha"),
            *("actor", "actor_id", "run_id", "run_number", "run_attempt", "check_run_id"),
            *("runner_environment", "enterprise", "enterprise_id", "sha"),
        }
    ),
    # The name of an environment may hold a `*`.
    starless=frozenset(
        {
            *("iss", "sub", "repository", "repository_id", "repository_owner"),
            *("repository_owner_id", "ref", "ref_type", "base_ref", "head_ref", "event_name"),
            *("actor", "sha"),
        }
    ),
    owner=OwnerClaims(
        ids=("repository_owner_id",),
        names=("repository_owner",),
        code_ids=("repository_id",),
        paths=("repository",),
        sub_paths=("repo",),
        # The workflow file may belong to somebody else than the repository that calls it.
        other_paths=("job_workflow_ref", "workflow_ref"),
        path_and_owner=("repository", "repository_owner"),
        pin=("repository_owner_id", "<id of the owner>"),
    ),
    selective=(
        "repository_id",
        "repository",
        "sub",
        "workflow_ref",
        "repository_owner_id",
        "repository_owner",
    ),
    free=MappingProxyType(
        {
            "workflow": "it is a display name, and any repository can have a workflow called so",
            "actor": "it names who started the run, not whose code runs",
            "job_workflow_ref": "it names the workflow that was called, and any repository may "
            "call it",
        }
    ),
    circumstances=frozenset(
        {
            *("ref", "ref_type", "ref_protected", "base_ref", "head_ref", "event_name"),
            *("environment", "environment_node_id", "runner_environment"),
            *("repository_visibility", "sha", "workflow_sha", "job_workflow_sha"),
            *("run_id", "run_number", "run_attempt", "check_run_id"),
        }
    ),
    demands=(
        Demand(
            applies=_caused_by_outsiders,
            claims=("event_name",),
            sentence="Outsiders can cause this event, so only Roles that name jwt:event_name may "
            "admit it.",
            wildcard_admits="every event, those that outsiders cause included",
        ),
    ),
    names=(
        NameWithId(
            names=("repository", "repository_owner"),
            ids=("repository_owner_id", "repository_id"),
            where="`gh api repos/OWNER/NAME --jq .owner.id` prints it",
            sub_name=re.compile(
                r"(?:^|:)(?:repo|repository):[^:@]*(?::|$)|(?:^|:)repository_owner:"
            ),
            # Since 15 July 2026 a repository that was renamed has `repo:OWNER@ID/NAME@ID:`.
            sub_id=re.compile(
                r"(?:^|:)(?:repo:[^/:@*?]+@[0-9]+/"
                r"|(?:repository_owner_id|repository_id):[0-9]+(?::|$))"
            ),
        ),
        NameWithId(names=("actor",), ids=("actor_id",)),
        NameWithId(names=("enterprise",), ids=("enterprise_id",)),
    ),
    ref_claims=("ref", "ref_protected"),
    ref_example=(("ref", "refs/heads/main"),),
)
