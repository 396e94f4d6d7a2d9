"""
GitHub Actions: github.com, ghe.com tenants and GitHub Enterprise Server.

Claims: https://docs.github.com/en/actions/reference/security/oidc. An administrator can add
`repo_property_*` claims.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from federation.claims import Claims, text
from federation.providers.profile import (
    BOOLEAN,
    BRANCH,
    DIGITS,
    FULL_REF,
    ByRequest,
    Demand,
    JobToken,
    LookAlike,
    NameWithId,
    OwnerClaims,
    Profile,
    Shape,
    Together,
    one_of,
    path,
)

# Only people with write access to the repository can cause these events. All others can be caused
# by outsiders, or nobody has heard of them yet, while `ref` and `sub` look like those of a push to
# the default branch. GitHub gives the `pull_request` of a fork no token.
WRITERS_EVENTS = frozenset(
    {
        *("push", "schedule", "workflow_dispatch", "repository_dispatch", "release", "create"),
        *("delete", "deployment", "deployment_status", "merge_group", "pull_request"),
        *("registry_package", "page_build"),
    }
)
OUTSIDERS_EVENTS = (
    *("pull_request_target", "workflow_run", "issue_comment", "issues", "discussion"),
    *("discussion_comment", "pull_request_review", "pull_request_review_comment", "watch", "fork"),
    *("commit_comment", "gollum", "star", "public", "label", "milestone", "member"),
)


def _maybe_by_outsiders(claims: Claims) -> bool:
    return text(claims.get("event_name")) not in WRITERS_EVENTS


BY_OUTSIDERS = Demand(
    applies=_maybe_by_outsiders,
    claims=("event_name",),
    sentence="Outsiders can cause this event, so only Roles that name jwt:event_name may admit it.",
    wildcard_admits="every event, those that outsiders cause included",
    examples=OUTSIDERS_EVENTS,
)

PROFILE = Profile(
    name="github",
    display_name="GitHub",
    # An enterprise with a path of its own under github.com's issuer still shares its key set. A
    # tenant on ghe.com has one label before the domain. GitHub Enterprise Server has the host of
    # its owner, so its documents write `provider: github`.
    issuers=re.compile(
        r"https://token\.actions\.(?:githubusercontent|[a-z0-9-]+\.ghe)\.com(?:[/?#].*)?"
    ),
    looks_like=re.compile(r"/_services/token/?$"),
    issuer_example="https://token.actions.githubusercontent.com",
    shared_hosts=(".actions.githubusercontent.com",),
    no_issuers=MappingProxyType(
        {
            "https://github.com": "it is GitHub's site, and jobs' tokens come from "
            "https://token.actions.githubusercontent.com",
            "https://vstoken.actions.githubusercontent.com": "it is the issuer of the beta of "
            "2021, and jobs' tokens come from https://token.actions.githubusercontent.com",
        }
    ),
    default_audiences=re.compile(r"https://(?:github\.com|[a-z0-9-]+\.ghe\.com)/[^/]+"),
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
            *("runner_environment", "enterprise", "enterprise_id", "sha", "issuer_scope"),
        }
    ),
    more_claims=re.compile(r"repo_property_.+"),
    telling=("repository_id", "repository_owner_id", "job_workflow_ref", "workflow_ref"),
    telling_sub=re.compile(
        r"(?:repo|repository|repository_id|repository_owner|repository_owner_id|job_workflow_ref):"
    ),
    shapes=MappingProxyType(
        {
            "repository": path("octo-org/octo-repo"),
            "repository_owner": Shape(
                whole=re.compile(r"[^/:@*\s]+"),
                words="an owner's name",
                slips=((re.compile(r"(?:https?://[^/]+/)?([^/:@*\s]+)(?:/.*)?"), r"\1"),),
            ),
            **dict.fromkeys(
                ("repository_id", "repository_owner_id", "actor_id", "enterprise_id"), DIGITS
            ),
            **dict.fromkeys(("run_id", "run_number", "run_attempt", "check_run_id"), DIGITS),
            "ref": FULL_REF,
            "ref_protected": BOOLEAN,
            "ref_type": one_of("branch", "tag"),
            "repository_visibility": one_of("public", "private", "internal"),
            "runner_environment": one_of("github-hosted", "self-hosted"),
            "event_name": Shape(
                whole=re.compile(r"[a-z]+(?:_[a-z]+)*"),
                words="an event's name, such as push or workflow_dispatch",
            ),
            "sub": Shape(
                # An organisation can choose the claims of which `sub` is made.
                whole=re.compile(r"[^:]+:[^:].*", re.DOTALL),
                words="claims and their values, such as repo:octo-org/octo-repo:ref:refs/heads/main",
                slips=((re.compile(r"([^/:@*\s]+/[^/:@*\s]+)"), r"repo:\1:ref:refs/heads/main"),),
            ),
            **dict.fromkeys(("base_ref", "head_ref"), BRANCH),
            **dict.fromkeys(
                ("actor", "sha"), Shape(whole=re.compile(r"[^*\s]+"), words="one word")
            ),
            **dict.fromkeys(
                ("workflow_ref", "job_workflow_ref"),
                Shape(
                    whole=re.compile(r"[^/:@]+/[^/:@]+/[^@]+@.+"),
                    words="a file and its ref, such as "
                    "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
                ),
            ),
        }
    ),
    owner=OwnerClaims(
        ids=("repository_owner_id",),
        names=("repository_owner",),
        code_ids=("repository_id",),
        paths=("repository",),
        composed=MappingProxyType(
            {
                "sub": re.compile(
                    r"(?:^|:)(?:repo|repository):[^/:]+/"
                    r"|(?:^|:)(?:repository_owner_id|repository_id|repository_owner):[^:]+:"
                )
            }
        ),
        # The workflow file may belong to somebody else than the repository that calls it.
        other_paths=("job_workflow_ref", "workflow_ref"),
        path_and_owner=("repository", "repository_owner"),
        pin=("repository_owner_id", "<id of the owner>"),
        sub_begins="repo:",
        # No name holds an `@`, so both forms mean the same owner.
        renamed_sub=(re.compile(r"\A(repo:[^@/:]+)@[0-9]+/"), r"\1/"),
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
            "actor_id": "it names who started the run, not whose code runs",
            "job_workflow_ref": "it names the workflow that was called, and any repository may "
            "call it",
        }
    ),
    personal=frozenset({"actor"}),
    circumstances=frozenset(
        {
            *("ref", "ref_type", "ref_protected", "base_ref", "head_ref", "event_name"),
            *("environment", "environment_node_id", "runner_environment"),
            *("repository_visibility", "sha", "workflow_sha", "job_workflow_sha"),
            *("run_id", "run_number", "run_attempt", "check_run_id"),
        }
    ),
    demands=(BY_OUTSIDERS,),
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
    ref_within=MappingProxyType(
        {
            "sub": re.compile(r":(?:ref:refs/[^/*?]+/|ref_protected:true)"),
            "workflow_ref": re.compile(r"@refs/[^/*?]+/"),
        }
    ),
    environment_claims=("environment",),
    environment_within=re.compile(r":environment:[^*?]"),
    environment_replaces_ref=True,
    open_environments=True,
    never_together=(
        Together(
            claim="event_name",
            values=frozenset({"pull_request", "pull_request_review"}),
            other="ref",
            begins="refs/pull/",
        ),
        Together(
            claim="event_name", values=frozenset({"release"}), other="ref", begins="refs/tags/"
        ),
        Together(
            claim="event_name",
            values=frozenset({"merge_group"}),
            other="ref",
            begins="refs/heads/gh-readonly-queue/",
        ),
        Together(claim="ref_type", values=frozenset({"tag"}), other="ref", begins="refs/tags/"),
    ),
    only_if=MappingProxyType(
        {
            "environment": "the job names an environment",
            "job_workflow_ref": "the job calls a reusable workflow",
        }
    ),
    file_refs=("workflow_ref", "job_workflow_ref"),
    misnamed=MappingProxyType(
        {
            "branch": "ref",
            "owner": "repository_owner",
            "organization": "repository_owner",
            "repo": "repository",
            "env": "environment",
            "event": "event_name",
            "tag": "ref",
        }
    ),
    ref_example=(("ref", "refs/heads/main"),),
    job_token=JobToken(
        marks=(
            *(("GITHUB_ACTIONS", "true"), ("ACTIONS_ID_TOKEN_REQUEST_URL", "")),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", ""),
        ),
        sources=(
            ByRequest(url="ACTIONS_ID_TOKEN_REQUEST_URL", bearer="ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
        ),
        advice="Add to the job:\n  permissions:\n    id-token: write\n    contents: read\n"
        "In a reusable workflow the calling job must grant it too.",
        fork_advice="The pull request comes from a fork, and GitHub gives those no ID token, "
        "whatever the job asks for. Deploy after the merge, from a push.",
        look_alikes=(
            LookAlike(
                name="Gitea",
                mark=("GITEA_ACTIONS", "true"),
                advice="Gitea so far issues no ID tokens to jobs, so adding permissions does not "
                "help. Deploy from a CI system that issues them, or give a token in "
                "FEDERATION_ID_TOKEN.",
            ),
            LookAlike(
                name="act",
                mark=("ACT", "true"),
                advice="act has no token service, so adding permissions does not help. Run the job "
                "on GitHub. To see here what a job would get, use federation explain or "
                "federation demo --keep.",
            ),
        ),
    ),
)
