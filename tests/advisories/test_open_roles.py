"""
Attacks through careless Roles, as documents and tokens.

Each case holds a Role that somebody might write, a token that an attacker can get, and the safe
twin. The careless Role is not loaded, or is loaded with its warning; the twin admits the
project's own token and refuses the attacker's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.assemble import Assembled, assemble
from federation.documents.parse import parse
from federation.policy.roles import evaluate

GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.com"
SELF_MANAGED = "https://gitlab.example.org"
VECTORS = Path(__file__).parents[1] / "vectors" / "claims"

Block = Mapping[str, Mapping[str, Any]]


def token(sample: str, **changes: object) -> Claims:
    """The sample token, with *changes*."""
    return Claims({**json.loads((VECTORS / f"{sample}.json").read_text("utf-8")), **changes})


def documents(condition: Block) -> Assembled:
    """A set with every issuer, one policy, and a Role with this condition."""
    issuers = [
        {"iss": iss, "aud": ["https://gateway.example.com"], "provider": provider}
        for iss, provider in ((GITHUB, "github"), (GITLAB, "gitlab"), (SELF_MANAGED, "gitlab"))
    ]
    statement = {"sid": "a", "effect": "Allow", "action": ["Function:*"], "resource": ["*"]}
    specs = [
        *(("JwtIssuer", f"issuer-{number}", spec) for number, spec in enumerate(issuers)),
        ("Policy", "deploy", {"statement": [statement]}),
        ("Role", "deployer", {"policy": ["deploy"], "condition": condition}),
    ]
    written = (
        {
            "apiVersion": "iam.openfaas.com/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": spec,
        }
        for kind, name, spec in specs
    )
    return assemble(
        [parse(f"{n}.json", json.dumps(document).encode()) for n, document in enumerate(written)]
    )


def admits(condition: Block, claims: Claims) -> bool:
    """Return whether the Role loads and admits *claims*."""
    catalog = documents(condition).catalog
    assert catalog is not None
    issuer = catalog.issuers[str(claims["iss"])]
    return any(held.admits for held in evaluate(catalog.roles, issuer.provider, claims))


@dataclass(frozen=True)
class Attack:
    """A careless Role, the problem it must get, its safe twin, and two tokens."""

    code: str
    careless: Block
    safe: Block
    own: Claims
    foreign: Claims


EVIL = {
    "repository": "octo-org-evil/octo-repo",
    "repository_owner": "octo-org-evil",
    "repository_id": "999",
    "repository_owner_id": "998",
    "sub": "repo:octo-org-evil/octo-repo:ref:refs/heads/main",
    "workflow_ref": "octo-org-evil/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
}
MAIN = token("github-push-main")
STRANGER = token("github-push-main", **EVIL)
BY_IDS = {
    "jwt:iss": GITHUB,
    "jwt:repository_id": "412890077",
    "jwt:repository_owner_id": "13420041",
    "jwt:ref": "refs/heads/main",
}
IDS: Block = {"StringEqual": BY_IDS}
PROJECT = {"jwt:iss": GITLAB, "jwt:project_id": "61204418"}
BRANCH = token("gitlab-branch-main")

ATTACKS = {
    "S1 any job anywhere": Attack(
        "T002",
        {"StringEqual": {"jwt:iss": GITHUB, "jwt:aud": "https://gateway.example.com"}},
        IDS,
        MAIN,
        STRANGER,
    ),
    "S2 a second issuer says the same": Attack(
        "T001",
        {"StringEqual": {"jwt:project_id": "61204418", "jwt:ref_path": "refs/heads/main"}},
        {"StringEqual": {**PROJECT, "jwt:ref_path": "refs/heads/main"}},
        BRANCH,
        token("gitlab-branch-main", iss=SELF_MANAGED),
    ),
    "S3 any owner's repository of that name": Attack(
        "T003",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"},
            "StringLike": {"jwt:sub": "repo:*/octo-repo:*"},
        },
        IDS,
        MAIN,
        STRANGER,
    ),
    "S4 an owner whose name begins alike": Attack(
        "T003",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"},
            "StringLike": {"jwt:sub": "repo:octo-org*"},
        },
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"},
            "StringLike": {"jwt:sub": ["repo:octo-org/*", "repo:octo-org@13420041/*"]},
        },
        MAIN,
        STRANGER,
    ),
    "S4 a group whose name begins alike": Attack(
        "T003",
        {
            "StringEqual": {"jwt:iss": GITLAB, "jwt:ref_path": "refs/heads/main"},
            "StringLike": {"jwt:project_path": "octo-group*"},
        },
        {
            "StringEqual": {"jwt:iss": GITLAB, "jwt:ref_path": "refs/heads/main"},
            "StringLike": {"jwt:project_path": "octo-group/*"},
        },
        BRANCH,
        token(
            "gitlab-branch-main",
            project_path="octo-group-evil/app",
            project_id="9",
            job_project_id="9",
        ),
    ),
    "S5 an environment that imitates a ref": Attack(
        "W112",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_owner_id": "13420041"},
            "StringLike": {"jwt:sub": "repo:octo-org/*:ref:refs/heads/main"},
        },
        {
            "StringEqual": {
                "jwt:iss": GITHUB,
                "jwt:repository_owner_id": "13420041",
                "jwt:ref": "refs/heads/main",
            },
            "StringLike": {"jwt:repository": "octo-org/*"},
        },
        MAIN,
        token(
            "github-environment-production",
            ref="refs/heads/dev",
            sub="repo:octo-org/octo-repo:environment:a:ref:refs/heads/main",
        ),
    ),
    "S6 a branch that begins like a release": Attack(
        "W104",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "412890077"},
            "StringLike": {"jwt:ref": "refs/heads/release*"},
        },
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "412890077"},
            "StringLike": {"jwt:ref": "refs/heads/release/*"},
        },
        token("github-push-main", ref="refs/heads/release/1"),
        token("github-push-main", ref="refs/heads/release-evil"),
    ),
    "S7 a tag called main": Attack(
        "W105",
        {"StringEqual": {**PROJECT, "jwt:ref": "main"}},
        {"StringEqual": {**PROJECT, "jwt:ref_path": "refs/heads/main"}},
        BRANCH,
        token("gitlab-tag", ref="main", ref_path="refs/tags/main"),
    ),
    "S7 a branch called x/main": Attack(
        "W112",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "412890077"},
            "StringLike": {"jwt:ref": "*main"},
        },
        IDS,
        MAIN,
        token("github-push-main", ref="refs/heads/x/main"),
    ),
    "S8 any pull request": Attack(
        "W102",
        {
            "StringEqual": {
                "jwt:iss": GITHUB,
                "jwt:repository_id": "412890077",
                "jwt:sub": "repo:octo-org/octo-repo:pull_request",
            }
        },
        IDS,
        MAIN,
        token("github-pull-request"),
    ),
    "S9 a stranger's pull request on main": Attack(
        "W113",
        {"StringEqual": BY_IDS, "StringLike": {"jwt:event_name": "*"}},
        {"StringEqual": {**BY_IDS, "jwt:event_name": ["push", "workflow_dispatch"]}},
        MAIN,
        token("github-pull-request-target"),
    ),
    "an environment named from a branch": Attack(
        "W103",
        {
            "StringEqual": {
                "jwt:iss": GITHUB,
                "jwt:repository_id": "412890077",
                "jwt:environment": "production",
            }
        },
        {"StringEqual": {**BY_IDS, "jwt:environment": "production"}},
        token("github-environment-production"),
        token("github-environment-production", ref="refs/heads/feature"),
    ),
    "the name was registered again": Attack(
        "W101",
        {
            "StringEqual": {
                "jwt:iss": GITHUB,
                "jwt:repository": "octo-org/octo-repo",
                "jwt:ref": "refs/heads/main",
            }
        },
        {"StringEqual": {**BY_IDS, "jwt:repository": "octo-org/octo-repo"}},
        MAIN,
        token("github-push-main", repository_id="999", repository_owner_id="998"),
    ),
    "another workflow called Deploy": Attack(
        "T004",
        {
            "StringEqual": {
                "jwt:iss": SELF_MANAGED,
                "jwt:user_login": "carol",
                "jwt:ref_path": "refs/heads/main",
            }
        },
        {
            "StringEqual": {
                "jwt:iss": SELF_MANAGED,
                "jwt:project_id": "318",
                "jwt:user_id": "42",
                "jwt:ref_path": "refs/heads/main",
            }
        },
        token("gitlab-self-managed"),
        token("gitlab-self-managed", user_id="666", project_id="9", job_project_id="9"),
    ),
    "a stranger calls the public workflow": Attack(
        "T002",
        {
            "StringEqual": {
                "jwt:iss": GITHUB,
                "jwt:job_workflow_ref": token("github-reusable-workflow")["job_workflow_ref"],
            }
        },
        {
            "StringEqual": {
                **BY_IDS,
                "jwt:job_workflow_ref": token("github-reusable-workflow")["job_workflow_ref"],
            }
        },
        token("github-reusable-workflow"),
        token("github-reusable-workflow", **EVIL),
    ),
    "a fork's merge request in the parent": Attack(
        "T002",
        {
            "StringEqual": {
                "jwt:iss": GITLAB,
                "jwt:job_project_id": "61204418",
                "jwt:ref_path": "refs/heads/main",
                "jwt:pipeline_source": ["push", "merge_request_event"],
            }
        },
        {
            "StringEqual": {
                **PROJECT,
                "jwt:job_project_id": "61204418",
                "jwt:ref_path": "refs/heads/main",
                "jwt:pipeline_source": ["push", "merge_request_event"],
            }
        },
        BRANCH,
        token("gitlab-fork-merge-request"),
    ),
    "a branch that holds another ref": Attack(
        "W112",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "412890077"},
            "StringLike": {
                "jwt:workflow_ref": "octo-org/octo-repo/.github/workflows/*@refs/heads/main"
            },
        },
        {
            "StringEqual": BY_IDS,
            "StringLike": {"jwt:workflow_ref": "octo-org/octo-repo/.github/workflows/*"},
        },
        MAIN,
        token(
            "github-push-main",
            ref="refs/heads/x@refs/heads/main",
            workflow_ref="octo-org/octo-repo/.github/workflows/d.yml@refs/heads/x@refs/heads/main",
        ),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_careless_role_gets_its_problem(attack: Attack) -> None:
    found = documents(attack.careless)
    assert attack.code in {problem.code for problem in found.problems}
    assert (found.catalog is None) == attack.code.startswith("T")


@pytest.mark.parametrize(
    "attack",
    [attack for attack in ATTACKS.values() if attack.code.startswith("W")],
    ids=[name for name, attack in ATTACKS.items() if attack.code.startswith("W")],
)
def test_the_attack_behind_a_warning_works(attack: Attack) -> None:
    assert admits(attack.careless, attack.foreign)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_safe_twin_admits_its_own_and_refuses_the_attacker(attack: Attack) -> None:
    assert admits(attack.safe, attack.own)
    assert not admits(attack.safe, attack.foreign)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_the_safe_twin_does_not_get_that_problem(attack: Attack) -> None:
    assert attack.code not in {problem.code for problem in documents(attack.safe).problems}


def test_a_custom_sub_satisfies_no_rule_about_a_repository() -> None:
    by_sub: Block = {
        "StringEqual": {"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"},
        "StringLike": {"jwt:sub": ["repo:octo-org/*", "repo:octo-org@13420041/*"]},
    }
    assert not admits(by_sub, token("github-custom-sub"))
