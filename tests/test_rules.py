"""The trust rules: Roles that are refused, Roles with a warning, and safe twins with neither."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from federation.documents.model import Effect, JwtIssuer, Origin, Policy, Role, Statement
from federation.documents.resources import Resource
from federation.documents.rules import lint as rules
from federation.documents.rules.lint import CODES
from federation.errors import Problem, Severity
from federation.policy.conditions import ALIASES, Condition, Operator
from federation.providers.table import known_provider

GITHUB = "https://token.actions.githubusercontent.com"
ENTERPRISE = GITHUB + "/octo-enterprise"
TENANT = "https://token.actions.octo.ghe.com"
SERVER = "https://github.example.com/_services/token"
GITLAB = "https://gitlab.com"
SELF_MANAGED = "https://gitlab.example.org"
KEYCLOAK = "https://sso.example.com/realms/octo"
INSIDE = "https://sso.corp.internal"
AUDIENCE = "https://gateway.example.com"

Block = Mapping[str, Mapping[str, str | list[str]]]
SAFE_GITHUB = {
    "jwt:iss": GITHUB,
    "jwt:repository_id": "412890077",
    "jwt:ref": "refs/heads/main",
}
SAFE_GITLAB = {
    "jwt:iss": GITLAB,
    "jwt:project_id": "61204418",
    "jwt:ref_path": "refs/heads/main",
}


def issuer(iss: str, *audiences: str) -> JwtIssuer:
    """An issuer document for *iss*; the two self-hosted ones name their provider."""
    told = {SERVER: "github", SELF_MANAGED: "gitlab"}
    provider = told.get(iss) or known_provider(iss) or "generic"
    return JwtIssuer(
        iss, iss, audiences or (AUDIENCE,), provider, timedelta(minutes=15), single_use=True
    )


ISSUERS = {
    iss: issuer(iss)
    for iss in (GITHUB, ENTERPRISE, TENANT, SERVER, GITLAB, SELF_MANAGED, KEYCLOAK, INSIDE)
}


def conditions(block: Block) -> Iterable[Condition]:
    """The conditions that *block* holds, in its order."""
    for operator, keys in block.items():
        for key, values in keys.items():
            listed = (values,) if isinstance(values, str) else tuple(values)
            yield Condition(ALIASES.get(operator) or Operator(operator), key, listed)


def role(block: Block, principal: Mapping[str, str | list[str]] | None = None) -> Role:
    """A Role with these conditions and one policy."""
    before = conditions({"principal": principal}) if principal else ()
    return Role("deployer", ("deploy",), (*before, *conditions(block)))


def lint(
    issuers: Mapping[str, JwtIssuer], roles: Iterable[Role], policies: Mapping[str, Policy]
) -> list[Problem]:
    """The problems of these documents, with each condition where a document would have it."""
    placed = [replace(role, places=tuple(map(_place, role.conditions))) for role in roles]
    return rules.lint(issuers, placed, policies)


def _place(condition: Condition) -> tuple[str, ...]:
    if condition.operator is Operator.PRINCIPAL:
        return ("spec", "principal", condition.key)
    return ("spec", "condition", condition.operator.value, condition.key)


def statement(sid: str, effect: Effect, actions: str, *resources: str) -> Statement:
    """A statement on these resources; *actions* are separated by spaces."""
    return Statement(sid, effect, frozenset(actions.split()), tuple(map(Resource, resources)))


DEPLOY = Policy("deploy", (statement("1", Effect.ALLOW, "Function:Create", "fn:*"),))


def problems(block: Block, principal: Mapping[str, str | list[str]] | None = None) -> list[Problem]:
    """The problems of a Role with these conditions."""
    return lint(ISSUERS, [role(block, principal)], {"deploy": DEPLOY})


def codes(block: Block, principal: Mapping[str, str | list[str]] | None = None) -> set[str]:
    """The codes of the problems."""
    return {problem.code for problem in problems(block, principal)}


def errors(block: Block) -> set[str]:
    """The codes that keep the Role from being loaded."""
    return {code for code in codes(block) if code.startswith("T")}


def github(**more: str | list[str]) -> dict[str, str | list[str]]:
    """Conditions on a github.com token, pinned by id and ref, with *more* of them."""
    return {**SAFE_GITHUB, **{f"jwt:{claim}": values for claim, values in more.items()}}


def gitlab(**more: str | list[str]) -> dict[str, str | list[str]]:
    """Conditions on a gitlab.com token, pinned by id and ref, with *more* of them."""
    return {**SAFE_GITLAB, **{f"jwt:{claim}": values for claim, values in more.items()}}


def equal(keys: Mapping[str, str | list[str]]) -> Block:
    """A block of `StringEqual` alone."""
    return {"StringEqual": keys}


def like(claim: str, value: str, rest: Mapping[str, str | list[str]] = SAFE_GITHUB) -> Block:
    """*rest*, and a pattern on one claim."""
    return {"StringEqual": rest, "StringLike": {f"jwt:{claim}": value}}


REFUSED: Mapping[str, tuple[str, Block]] = {
    # T001
    "S2 no iss": ("T001", equal({"jwt:repository_id": "1", "jwt:ref": "refs/heads/main"})),
    "iss by pattern": (
        "T001",
        {"StringLike": {"jwt:iss": GITHUB}, "StringEqual": {"jwt:repository_id": "1"}},
    ),
    "iss by pattern with a star": (
        "T001",
        {"StringLike": {"jwt:iss": "https://*"}, "StringEqual": {"jwt:repository_id": "1"}},
    ),
    "iss ignoring case": (
        "T001",
        {
            "StringEqualIgnoreCase": {"jwt:iss": GITHUB},
            "StringEqual": {"jwt:repository_id": "1"},
        },
    ),
    "iss by negation": (
        "T001",
        {"StringNotEqual": {"jwt:iss": GITLAB}, "StringEqual": {"jwt:repository_id": "1"}},
    ),
    "iss with a slash more": ("T001", equal(github(iss=GITHUB + "/"))),
    "iss in another case": ("T001", equal(github(iss=GITHUB.upper()))),
    "iss without a JwtIssuer": ("T001", equal(github(iss="https://ci.example.net"))),
    # T002
    "S1 iss and aud alone": ("T002", equal({"jwt:iss": GITHUB, "jwt:aud": AUDIENCE})),
    "iss alone, gitlab.com": ("T002", equal({"jwt:iss": GITLAB})),
    "iss alone, enterprise path": ("T002", equal({"jwt:iss": ENTERPRISE})),
    "ref alone": ("T002", equal({"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"})),
    "environment alone": ("T002", equal({"jwt:iss": GITHUB, "jwt:environment": "production"})),
    "enterprise alone": ("T002", equal({"jwt:iss": GITHUB, "jwt:enterprise_id": "41877"})),
    "workflow_ref alone": (
        "T002",
        equal({"jwt:iss": GITHUB, "jwt:workflow_ref": "acme/app/.github/workflows/d.yml@x"}),
    ),
    "job project alone": ("T002", equal({"jwt:iss": GITLAB, "jwt:job_project_id": "1"})),
    "owner by negation": (
        "T002",
        {"StringEqual": {"jwt:iss": GITHUB}, "StringNotEqual": {"jwt:repository_owner": "evil"}},
    ),
    "owner by a list operator": (
        "T002",
        {
            "StringEqual": {"jwt:iss": GITHUB},
            "ForAnyValue:StringEqual": {"jwt:repository_owner": "acme"},
        },
    ),
    "owner id with a star": (
        "T002",
        {"StringEqual": {"jwt:iss": GITHUB}, "StringLike": {"jwt:repository_owner_id": "12*"}},
    ),
    "project id of only stars": (
        "T002",
        {"StringEqual": {"jwt:iss": GITLAB}, "StringLike": {"jwt:project_id": "*"}},
    ),
    "one value of several pins nothing": (
        "T002",
        {"StringEqual": {"jwt:iss": GITHUB}, "StringLike": {"jwt:repository_id": ["1", "*"]}},
    ),
    "custom sub without owner": (
        "T002",
        equal({"jwt:iss": GITHUB, "jwt:sub": "repository_visibility:private"}),
    ),
    # T003
    **{
        f"S3 sub like {value}": (
            "T003",
            {"StringEqual": github(), "StringLike": {"jwt:sub": value}},
        )
        for value in (
            "*",
            "?*",
            "repo:*",
            "repo:*/app:*",
            "repo:?cme/app:*",
            "rep*",
            "repo:/*",
            "repository_owner:ac*",
            "repository_id:12*",
            "repo:acme@*",
            "environment:production:repo:*",
        )
    },
    "S4 sub like repo:acme*": (
        "T003",
        {"StringEqual": github(), "StringLike": {"jwt:sub": "repo:acme*"}},
    ),
    "S4 gitlab sub": (
        "T003",
        {"StringEqual": gitlab(), "StringLike": {"jwt:sub": "project_path:acme*"}},
    ),
    **{
        f"{claim} like {value}": (
            "T003",
            {"StringEqual": github(), "StringLike": {f"jwt:{claim}": value}},
        )
        for claim, value in (
            ("repository", "acme*"),
            ("repository", "acme?/app"),
            ("repository", "*/app"),
            ("repository", "*"),
            ("repository", "/*"),
            ("repository_owner", "acme*"),
            ("repository_owner", "acme/*"),
            ("repository_owner", "?cme"),
            ("job_workflow_ref", "*/ci/.github/workflows/d.yml@refs/heads/main"),
            ("job_workflow_ref", "acme*"),
            ("workflow_ref", "acme-*/app/.github/workflows/d.yml@refs/heads/main"),
        )
    },
    **{
        f"{claim} like {value}": (
            "T003",
            {"StringEqual": gitlab(), "StringLike": {f"jwt:{claim}": value}},
        )
        for claim, value in (
            ("project_path", "octo-group*"),
            ("project_path", "*/app"),
            ("namespace_path", "octo*"),
            ("namespace_path", "*"),
        )
    },
    "T003 on an issuer of one's own": (
        "T003",
        {
            "StringEqual": {"jwt:iss": SERVER, "jwt:repository_id": "1"},
            "StringLike": {"jwt:repository": "acme*"},
        },
    ),
    "T003 on a generic issuer": (
        "T003",
        {"StringEqual": {"jwt:iss": KEYCLOAK}, "StringLike": {"jwt:sub": "repo:acme*"}},
    ),
    "T003 by way of a pointer": (
        "T003",
        {"StringEqual": github(), "StringLike": {"jwt:/repository": "acme*"}},
    ),
    "T003 in a list operator": (
        "T003",
        {"StringEqual": github(), "ForAnyValue:StringLike": {"jwt:repository": "acme*"}},
    ),
    # T004, on issuers that are not shared, so that T002 does not apply
    "workflow": ("T004", equal({"jwt:iss": SERVER, "jwt:workflow": "Deploy"})),
    "actor": ("T004", equal({"jwt:iss": SERVER, "jwt:actor": "octocat"})),
    "actor and a ref": (
        "T004",
        equal({"jwt:iss": TENANT, "jwt:actor": "octocat", "jwt:ref": "refs/heads/main"}),
    ),
    "user_login": ("T004", equal({"jwt:iss": SELF_MANAGED, "jwt:user_login": "carol"})),
    "user_email": (
        "T004",
        equal(
            {
                "jwt:iss": SELF_MANAGED,
                "jwt:user_email": "carol@example.org",
                "jwt:user_access_level": "owner",
            }
        ),
    ),
    "user_email by pattern": (
        "T004",
        {
            "StringEqual": {"jwt:iss": SELF_MANAGED},
            "StringLike": {"jwt:user_email": "*@example.org"},
        },
    ),
    "called workflow without the caller": (
        "T004",
        equal(
            {
                "jwt:iss": SERVER,
                "jwt:job_workflow_ref": "acme/ci/.github/workflows/d.yml@refs/tags/v3",
                "jwt:environment": "production",
                "jwt:event_name": "push",
            }
        ),
    ),
    "free values beside an owner of only stars": (
        "T004",
        {
            "StringEqual": {"jwt:iss": SERVER, "jwt:workflow": "Deploy"},
            "StringLike": {"jwt:repository_id": "*"},
        },
    ),
    "free values beside an owner by negation": (
        "T004",
        {
            "StringEqual": {"jwt:iss": SERVER, "jwt:workflow": "Deploy"},
            "StringNotEqual": {"jwt:repository_owner": "evil"},
        },
    ),
    "free value by way of a pointer": (
        "T004",
        equal({"jwt:iss": SERVER, "jwt:/workflow": "Deploy"}),
    ),
    "a firm key that no provider lists": (
        "T004",
        equal({"jwt:iss": SERVER, "jwt:workflow": "Deploy", "jwt:enterprise_id": "41877"}),
    ),
    "one value shows a free claim and the other the owner": (
        "T004",
        equal(
            {
                "jwt:iss": SERVER,
                "jwt:sub": ["workflow:Deploy", "repo:acme/app:ref:refs/heads/main"],
            }
        ),
    ),
    "actor by id": ("T004", equal({"jwt:iss": SERVER, "jwt:actor_id": "58323107"})),
    "workflow file of somebody beside its display name": (
        "T004",
        equal(
            {
                "jwt:iss": SERVER,
                "jwt:workflow": "Deploy",
                "jwt:workflow_ref": "acme/app/.github/workflows/d.yml@refs/heads/main",
            }
        ),
    ),
    # T005
    "a shared issuer beside one of one's own": (
        "T005",
        equal({**SAFE_GITHUB, "jwt:iss": [SERVER, GITHUB]}),
    ),
    "issuers of two providers": (
        "T005",
        equal({"jwt:iss": [SERVER, SELF_MANAGED], "jwt:repository_id": "1"}),
    ),
    "free value inside a sub": (
        "T004",
        equal({"jwt:iss": SERVER, "jwt:sub": "workflow:Deploy:ref:refs/heads/main"}),
    ),
}


@pytest.mark.parametrize(("code", "block"), REFUSED.values(), ids=REFUSED)
def test_a_role_that_lets_strangers_in_is_refused(code: str, block: Block) -> None:
    assert errors(block) == {code}


# Spelled out here, because a claim that the provider table loses would count as a pin.
CONTEXT_OF_GITHUB = (
    *("ref", "ref_type", "ref_protected", "base_ref", "head_ref", "event_name", "environment"),
    *("environment_node_id", "runner_environment", "repository_visibility", "sha", "workflow_sha"),
    *("job_workflow_sha", "run_id", "run_number", "run_attempt", "check_run_id"),
)
CONTEXT_OF_GITLAB = (
    *("ref", "ref_type", "ref_path", "ref_protected", "environment", "environment_protected"),
    *("environment_action", "deployment_tier", "pipeline_source", "job_source", "pipeline_id"),
    *("runner_environment", "runner_id", "project_visibility", "user_access_level", "sha"),
    *("ci_config_sha", "job_id", "target_audience"),
)
CONTEXT = ("aud", "jti", "exp", "iat", "nbf")


@pytest.mark.parametrize(
    ("iss", "free", "context"),
    [
        *((SERVER, "workflow", claim) for claim in (*CONTEXT, *CONTEXT_OF_GITHUB)),
        *((SELF_MANAGED, "user_login", claim) for claim in (*CONTEXT, *CONTEXT_OF_GITLAB)),
    ],
)
def test_how_a_job_runs_is_no_pin_beside_a_free_value_on_an_issuer_of_ones_own(
    iss: str, free: str, context: str
) -> None:
    block = equal({"jwt:iss": iss, f"jwt:{free}": "Deploy", f"jwt:{context}": "x"})
    assert errors(block) == {"T004"}


def test_a_sub_that_begins_as_a_ci_systems_needs_its_whole_owner_on_any_issuer() -> None:
    jobs = ("project_path:ac*", "repo:ac*", "repo:*/app:*", "project_path:*", "repo:a?me/app")
    for sub in (*jobs, "organization:ac*", "system:serviceaccount:?", "repo:acme*:x"):
        block: Block = {"StringEqual": {"jwt:iss": KEYCLOAK}, "StringLike": {"jwt:sub": sub}}
        assert "T003" in errors(block), sub


def test_a_free_value_is_told_by_its_claim_or_at_the_beginning_of_a_sub() -> None:
    for claim, value in (("environment", "workflow:x"), ("sub", "environment:a:workflow:x")):
        assert not errors(equal({"jwt:iss": SERVER, f"jwt:{claim}": value})), claim


def test_free_values_alone_on_a_shared_issuer_break_two_rules() -> None:
    for free in ("actor", "actor_id", "workflow"):
        assert errors(equal({"jwt:iss": GITHUB, f"jwt:{free}": "1"})) == {"T002", "T004"}
    assert errors(equal({"jwt:iss": GITLAB, "jwt:user_id": "1"})) == {"T002", "T004"}
    called = "job_workflow_ref:acme/ci/.github/workflows/d.yml@refs/heads/main"
    assert errors(equal({"jwt:iss": GITHUB, "jwt:sub": called})) == {"T002", "T004"}


DOUBTED: Mapping[str, tuple[str, Block]] = {
    "repository by name": (
        "W101",
        equal(
            {
                "jwt:iss": GITHUB,
                "jwt:repository": "octo-org/octo-repo",
                "jwt:ref": "refs/heads/main",
            }
        ),
    ),
    "owner by name, tenant": (
        "W101",
        equal({"jwt:iss": TENANT, "jwt:repository_owner": "acme", "jwt:ref": "refs/heads/main"}),
    ),
    "every project of a group, by name": (
        "W101",
        {
            "StringEqual": {"jwt:iss": GITLAB, "jwt:ref_path": "refs/heads/main"},
            "StringLike": {"jwt:project_path": "octo-group/*"},
        },
    ),
    "id of only stars beside the name": (
        "W101",
        {
            "StringEqual": {
                "jwt:iss": GITHUB,
                "jwt:repository_owner": "acme",
                "jwt:ref": "refs/heads/main",
            },
            "StringLike": {"jwt:repository_owner_id": "*"},
        },
    ),
    "actor by name": ("W101", equal(github(actor="octocat"))),
    "enterprise by name": ("W101", equal(github(enterprise="octo-enterprise"))),
    "user by name": ("W101", equal(gitlab(user_login="alice"))),
    "job project by name": ("W101", equal(gitlab(job_project_path="octo-group/app"))),
    "gitlab sub by name": (
        "W101",
        equal({"jwt:iss": GITLAB, "jwt:sub": "project_path:g/app:ref_type:branch:ref:main"}),
    ),
    "any ref, github": ("W102", equal({"jwt:iss": GITHUB, "jwt:repository_id": "1"})),
    "any ref, gitlab": ("W102", equal({"jwt:iss": GITLAB, "jwt:project_id": "1"})),
    "a ref of only stars": (
        "W102",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
            "StringLike": {"jwt:ref": "*"},
        },
    ),
    "only refs that are not": (
        "W102",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
            "StringNotLike": {"jwt:ref": "refs/pull/*"},
        },
    ),
    "one of two subjects without a ref": (
        "W102",
        {
            "StringEqual": {"jwt:iss": GITLAB, "jwt:project_id": "1"},
            "StringLike": {
                "jwt:sub": ["project_path:g/a:ref_type:branch:ref:main", "project_path:g/a:*"]
            },
        },
    ),
    "S8 pull request": (
        "W102",
        equal(
            {
                "jwt:iss": GITHUB,
                "jwt:repository_id": "1",
                "jwt:sub": ["repo:acme/app:pull_request", "repo:acme@1/app@2:pull_request"],
            }
        ),
    ),
    "environment alone": (
        "W103",
        equal({"jwt:iss": GITHUB, "jwt:repository_id": "1", "jwt:environment": "production"}),
    ),
    "environment alone, gitlab": (
        "W103",
        equal({"jwt:iss": GITLAB, "jwt:project_id": "1", "jwt:environment": "production"}),
    ),
    "environment in the sub": (
        "W103",
        equal(
            {
                "jwt:iss": GITHUB,
                "jwt:repository_id": "1",
                "jwt:sub": ["repo:o/a:environment:prod", "repo:o@1/a@2:environment:prod"],
            }
        ),
    ),
    "S6 release*": (
        "W104",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
            "StringLike": {"jwt:ref": "refs/heads/release*"},
        },
    ),
    "repository prefix": (
        "W104",
        {"StringEqual": github(), "StringLike": {"jwt:repository": "octo-org/octo*"}},
    ),
    "environment prefix": (
        "W104",
        {"StringEqual": github(), "StringLike": {"jwt:environment": "prod*"}},
    ),
    "S7 gitlab ref": (
        "W105",
        equal({"jwt:iss": GITLAB, "jwt:project_id": "1", "jwt:ref": "main"}),
    ),
    "S7 gitlab ref, protected": (
        "W105",
        equal(
            {
                "jwt:iss": SELF_MANAGED,
                "jwt:project_id": "1",
                "jwt:ref": "main",
                "jwt:ref_protected": "true",
            }
        ),
    ),
    "old sub": ("W107", equal(github(sub="repo:octo-org/octo-repo:ref:refs/heads/main"))),
    "new sub": (
        "W107",
        equal(github(sub="repo:octo-org@13420041/octo-repo@412890077:ref:refs/heads/main")),
    ),
    "an unknown issuer beside known ones": (
        "W108",
        equal(github(iss=[GITHUB, "https://token.actions.githubusercontent.con"])),
    ),
    "two exact values": (
        "W108",
        {"StringEqual": github(), "StringEqualIgnoreCase": {"jwt:ref": "refs/heads/dev"}},
    ),
    "exact against pattern": (
        "W108",
        {"StringEqual": github(), "StringLike": {"jwt:ref": "refs/tags/*"}},
    ),
    "exact against negation": (
        "W108",
        {"StringEqual": github(), "StringNotEqual": {"jwt:ref": "refs/heads/main"}},
    ),
    "one value and a list": (
        "W108",
        {
            "StringEqual": {"jwt:iss": KEYCLOAK, "jwt:groups": "platform"},
            "ForAnyValue:StringEqual": {"jwt:groups": "platform"},
        },
    ),
    "a literal star": ("W108", equal(github(repository="octo-org/*"))),
    "a literal star ignoring case": (
        "W108",
        {"StringEqual": github(), "StringEqualIgnoreCase": {"jwt:repository": "octo-org/*"}},
    ),
    "gitlab's key on github": ("W108", equal(github(project_path="octo-org/octo-repo"))),
    "github's key on gitlab": ("W108", equal(gitlab(event_name="push"))),
    "an empty value": ("W108", equal(github(environment=""))),
    "a list operator on a scalar": (
        "W108",
        {"StringEqual": github(), "ForAnyValue:StringEqual": {"jwt:event_name": "push"}},
    ),
    "a scalar operator on a list": ("W108", equal(gitlab(groups_direct="octo-group"))),
    "an audience the issuer does not take": ("W108", equal(github(aud="https://other.example"))),
    "a repository of another owner": (
        "W108",
        equal(github(repository="octo-org/octo-repo", repository_owner="octo-corp")),
    ),
    "an environment beside a ref in sub": (
        "W108",
        equal(
            github(
                environment="production",
                sub=["repo:o/a:ref:refs/heads/main", "repo:o@1/a@2:ref:refs/heads/main"],
            )
        ),
    ),
    "S5 star inside a sub": (
        "W112",
        {
            "StringEqual": github(),
            "StringLike": {
                "jwt:sub": ["repo:o/*:ref:refs/heads/main", "repo:o@1/*:ref:refs/heads/main"]
            },
        },
    ),
    "S7 ref like *main": (
        "W112",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
            "StringLike": {"jwt:ref": "*main"},
        },
    ),
    "S9 any event": (
        "W113",
        {"StringEqual": github(), "StringLike": {"jwt:event_name": "*"}},
    ),
    "any pipeline of one's own or a fork's": (
        "W113",
        {"StringEqual": gitlab(), "StringLike": {"jwt:pipeline_source": ["push", "?*"]}},
    ),
    "any event with an underscore": (
        "W113",
        {"StringEqual": github(), "StringLike": {"jwt:event_name": "*_*"}},
    ),
    "events that begin like the one meant": (
        "W113",
        {"StringEqual": github(), "StringLike": {"jwt:event_name": "pull_request_*"}},
    ),
    "every ref": (
        "W102",
        {
            "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
            "StringLike": {"jwt:ref": "refs/*"},
        },
    ),
    "protected or not": (
        "W102",
        equal(
            {"jwt:iss": GITHUB, "jwt:repository_id": "1", "jwt:ref_protected": ["true", "false"]}
        ),
    ),
    "an enterprise server's main branches": (
        "W114",
        equal({"jwt:iss": SERVER, "jwt:ref": "refs/heads/main"}),
    ),
    "a tenant's main branches": (
        "W114",
        equal({"jwt:iss": TENANT, "jwt:ref": "refs/heads/main"}),
    ),
    "a self-managed instance's main branches": (
        "W114",
        equal({"jwt:iss": SELF_MANAGED, "jwt:ref_path": "refs/heads/main"}),
    ),
    "only what is made up": (
        "W114",
        equal({"jwt:iss": SERVER, "jwt:enterprise_id": "41877", "jwt:ref": "refs/heads/main"}),
    ),
    "any workflow but one": (
        "W114",
        {
            "StringEqual": {"jwt:iss": SERVER, "jwt:ref": "refs/heads/main"},
            "StringNotEqual": {"jwt:workflow": "Deploy"},
        },
    ),
    "everybody": ("W114", equal({"jwt:iss": KEYCLOAK})),
    "everybody in some group": (
        "W114",
        {"StringEqual": {"jwt:iss": KEYCLOAK}, "ForAnyValue:StringLike": {"jwt:groups": "*"}},
    ),
    "everybody but one": (
        "W114",
        {"StringEqual": {"jwt:iss": KEYCLOAK}, "StringNotEqual": {"jwt:sub": "evil"}},
    ),
    "a claim of one's own on the internet": (
        "W115",
        equal({"jwt:iss": KEYCLOAK, "jwt:department": "ops"}),
    ),
    "an address that nobody checked": (
        "W116",
        equal({"jwt:iss": KEYCLOAK, "jwt:email": "dana@example.com"}),
    ),
    "a name that people choose": (
        "W116",
        equal({"jwt:iss": KEYCLOAK, "jwt:preferred_username": "dana"}),
    ),
    **{
        f"unseen: {value!r}": ("W117", equal(github(environment=value)))
        for value in (
            *("production\u00a0", "\u200bproduction", "\u201cproduction\u201d", "production\n"),
            *("${ENVIRONMENT}", "{{ .Values.environment }}", "$(ENVIRONMENT)", "$[[ inputs.e ]]"),
            *("<environment>", " production", "prod\ufeffuction"),
        )
    },
    **{
        f"shape of {claim}: {value}": ("W108", equal(github(**{claim: value})))
        for claim, value in (
            *(("ref", "main"), ("ref", "refs/head/main"), ("ref", "heads/main")),
            *(("repository_owner_id", "octo-org"), ("repository_id", "octo-org/octo-repo")),
            *(("repository", "https://github.com/octo-org/octo-repo"), ("repository", "octo-repo")),
            *(("ref_protected", "yes"), ("ref_type", "branches"), ("branch", "main")),
            *(("event_name", "Push"), ("base_ref", "refs/heads/main"), ("sub", "octo-org/app")),
            *(("event_name", "pull_request"), ("ref_type", "tag"), ("owner", "octo-org")),
        )
    },
    **{
        f"shape of {claim}: {value}": ("W108", equal(gitlab(**{claim: value})))
        for claim, value in (
            *(("ref", "refs/heads/main"), ("ref_path", "main"), ("project_id", "octo-group/app")),
            *(("project_path", "app"), ("ref_type", "tag"), ("branch", "main")),
        )
    },
    "any workflow file at a ref": (
        "W112",
        {
            "StringEqual": github(),
            "StringLike": {"jwt:workflow_ref": "o/a/.github/workflows/*@refs/heads/main"},
        },
    ),
}


@pytest.mark.parametrize(("code", "block"), DOUBTED.values(), ids=DOUBTED)
def test_a_careless_role_loads_with_exactly_its_warning(code: str, block: Block) -> None:
    assert codes(block) == {code}


SAFE: Mapping[str, Block] = {
    "github by ids and ref": equal(SAFE_GITHUB),
    "gitlab by ids and ref": equal(SAFE_GITLAB),
    "operator alias": {"StringEquals": SAFE_GITHUB},
    "name beside its id": equal(github(repository="octo-org/octo-repo")),
    "owner id beside the repository's name": equal(
        {
            "jwt:iss": GITHUB,
            "jwt:repository": "octo-org/octo-repo",
            "jwt:repository_owner_id": "13420041",
            "jwt:ref": "refs/heads/main",
        }
    ),
    "T001 two configured issuers": equal(github(iss=[GITHUB, ENTERPRISE])),
    "T001 a pattern beside an exact issuer": {
        "StringEqual": github(),
        "StringLike": {"jwt:iss": "https://*"},
    },
    "T002 keycloak by subject": equal({"jwt:iss": KEYCLOAK, "jwt:sub": "8a4c1f7e"}),
    "T002 owner pin beside others that pin nothing": {
        "StringEqual": github(),
        "StringNotEqual": {"jwt:repository_owner": "evil"},
    },
    "T002 sub that holds the repository's id": {
        "StringEqual": {"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"},
        "StringLike": {"jwt:sub": "repository_id:412890077:*"},
    },
    "T002 custom sub with owner id": equal(
        {
            "jwt:iss": GITHUB,
            "jwt:ref": "refs/heads/main",
            "jwt:sub": "repository_owner_id:13420041:repository_visibility:private",
        }
    ),
    "T003 S4 the wildcard follows the slash": {
        "StringEqual": github(),
        "StringLike": {"jwt:repository": "octo-org/*"},
    },
    "T003 wildcard in the repository's name": {
        "StringEqual": github(),
        "StringLike": {"jwt:repository": "octo-org/octo-*"},
    },
    "T003 both subjects past their owner": {
        "StringEqual": github(),
        "StringLike": {"jwt:sub": ["repo:octo-org/*", "repo:octo-org@13420041/*"]},
    },
    "T003 pattern without a wildcard": {
        "StringEqual": github(),
        "StringLike": {"jwt:repository_owner": "octo-org"},
    },
    "T003 by negation": {
        "StringEqual": github(),
        "StringNotLike": {"jwt:repository": "octo-org/evil*", "jwt:repository_owner": "evil*"},
    },
    "T003 nested groups": {
        "StringEqual": gitlab(),
        "StringLike": {"jwt:project_path": "octo-group/team/*"},
    },
    "T003 called workflow at any tag": {
        "StringEqual": github(),
        "StringLike": {"jwt:job_workflow_ref": "octo-org/ci/.github/workflows/d.yml@refs/tags/*"},
    },
    "T003 a sub of Keycloak": {
        "StringEqual": {"jwt:iss": KEYCLOAK},
        "StringLike": {"jwt:sub": "service-account-*"},
    },
    "T003 an owner's name of one letter": like("repository", "a/*"),
    "T003 a sub that holds such a beginning further in": {
        "StringEqual": {"jwt:iss": KEYCLOAK},
        "StringLike": {"jwt:sub": "x-repo:a-*"},
    },
    "T003 a sub that only looks like a repository": {
        "StringEqual": {"jwt:iss": KEYCLOAK},
        "StringLike": {"jwt:sub": "reporter:*"},
    },
    "T004 actor beside an owner": equal(github(actor="octocat", actor_id="58323107")),
    "T004 workflow beside a repository": equal(github(workflow="Deploy")),
    "T004 called workflow and its caller": equal(
        github(job_workflow_ref="octo-org/ci/.github/workflows/d.yml@refs/tags/v3")
    ),
    "T004 mail beside an id": equal(
        {
            "jwt:iss": SELF_MANAGED,
            "jwt:user_email": "carol@example.org",
            "jwt:namespace_id": "57",
            "jwt:ref_path": "refs/heads/main",
        }
    ),
    "W114 a group": {
        "StringEqual": {"jwt:iss": KEYCLOAK},
        "ForAnyValue:StringEqual": {"jwt:groups": "platform-engineers"},
    },
    "W115 an issuer that only one's own network reaches": equal(
        {"jwt:iss": INSIDE, "jwt:department": "ops"}
    ),
    "W116 a checked address": equal(
        {"jwt:iss": KEYCLOAK, "jwt:email": "dana@example.com", "jwt:email_verified": "true"}
    ),
    "W116 an address beside the subject": equal(
        {"jwt:iss": KEYCLOAK, "jwt:email": "dana@example.com", "jwt:sub": "8a4c1f7e"}
    ),
    "W101 ids inside the sub": equal(
        {
            "jwt:iss": GITHUB,
            "jwt:repository": "o/a",
            "jwt:ref": "refs/heads/main",
            "jwt:sub": ["repository_owner_id:1:ref:refs/heads/main"],
        }
    ),
    "W101 job project by id": equal(gitlab(job_project_path="octo-group/app", job_project_id="1")),
    "W102 protected refs": equal(
        {"jwt:iss": GITHUB, "jwt:repository_id": "1", "jwt:ref_protected": "true"}
    ),
    "W102 the ref of the workflow": equal(
        {
            "jwt:iss": GITHUB,
            "jwt:repository_id": "1",
            "jwt:workflow_ref": "o/a/.github/workflows/d.yml@refs/heads/main",
        }
    ),
    "W102 the ref in the sub": equal(
        {
            "jwt:iss": GITHUB,
            "jwt:repository_id": "1",
            "jwt:sub": ["repo:o/a:ref:refs/heads/main", "repo:o@1/a@2:ref:refs/heads/main"],
        }
    ),
    "W102 the ref in gitlab's sub": equal(
        {
            "jwt:iss": GITLAB,
            "jwt:project_id": "61204418",
            "jwt:sub": "project_path:octo-group/app:ref_type:branch:ref:main",
        }
    ),
    "W102 keycloak has no refs": equal({"jwt:iss": KEYCLOAK, "jwt:sub": "8a4c1f7e"}),
    "W103 environment and ref": equal(github(environment="production")),
    "W103 environment and type of ref": equal(
        {
            "jwt:iss": GITLAB,
            "jwt:project_id": "1",
            "jwt:environment": "production",
            "jwt:ref_type": "tag",
        }
    ),
    "W103 environment of Keycloak": equal(
        {"jwt:iss": KEYCLOAK, "jwt:environment": "production", "jwt:sub": "8a4c1f7e"}
    ),
    "W104 S6 the wildcard follows a separator": {
        "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
        "StringLike": {"jwt:ref": ["refs/heads/release/*", "refs/tags/v1.*", "refs/heads/rel-*"]},
    },
    "W104 a question mark at the end": {
        "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_id": "1"},
        "StringLike": {"jwt:ref": "refs/tags/v?"},
    },
    "W104 by negation": {
        "StringEqual": github(),
        "StringNotLike": {"jwt:workflow": "Nightly*"},
    },
    "W105 ref and its type": equal(
        {"jwt:iss": GITLAB, "jwt:project_id": "1", "jwt:ref": "main", "jwt:ref_type": "branch"}
    ),
    "W105 ref and its path": equal(gitlab(ref="main")),
    "W105 github's ref is whole": equal(github()),
    "W107 both forms": equal(
        github(
            sub=[
                "repo:octo-org/octo-repo:ref:refs/heads/main",
                "repo:octo-org@13420041/octo-repo@412890077:ref:refs/heads/main",
            ]
        )
    ),
    "W107 enterprise server has one form": equal(
        {
            "jwt:iss": SERVER,
            "jwt:repository_id": "1",
            "jwt:sub": "repo:acme/app:ref:refs/heads/main",
        }
    ),
    "W107 a custom sub": equal(github(sub="repository_owner:octo-org:ref:refs/heads/main")),
    "W108 conditions that agree": {
        "StringEqual": github(),
        "StringLike": {"jwt:ref": "refs/heads/*"},
        "StringNotEqual": {"jwt:ref": "refs/heads/dev"},
        "StringEqualIgnoreCase": {"jwt:ref": "REFS/HEADS/MAIN"},
    },
    "W108 one of several values is left over": {
        "StringEqual": github(ref=["refs/heads/main", "refs/heads/dev"]),
        "StringNotEqual": {"jwt:ref": "refs/heads/dev"},
    },
    "W108 a star where names may hold one": equal(github(environment="all-*")),
    "W108 keys that both providers send": equal(
        github(ref_type="branch", runner_environment="github-hosted")
    ),
    "W108 an audience of the issuer": equal(github(aud=AUDIENCE)),
    "W108 owner and repository agree but for case": equal(
        github(repository="Octo-Org/octo-repo", repository_owner="octo-org")
    ),
    "W108 an empty value among others": equal(github(environment=["", "production"])),
    "W108 a key of this tenant's own": equal(github(repo_property_business_unit="payments")),
    "W112 any repository of the owner": {
        "StringEqual": github(),
        "StringLike": {"jwt:repository": "octo-org/*-service"},
    },
    "W113 S9 an event on purpose": equal(github(event_name="pull_request_target")),
    "W113 a pattern beside the events that are meant": {
        "StringEqual": github(event_name=["push", "schedule"]),
        "StringLike": {"jwt:event_name": "*"},
    },
    "W112 keycloak": {
        "StringEqual": {"jwt:iss": KEYCLOAK},
        "StringLike": {"jwt:sub": "system:*:deployer"},
    },
}


@pytest.mark.parametrize("block", SAFE.values(), ids=SAFE)
def test_the_safe_twin_is_not_reported(block: Block) -> None:
    assert problems(block) == []


def test_a_principal_pins_like_a_condition() -> None:
    block = equal({"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"})
    assert codes(block, {"jwt:repository_id": "412890077"}) == set()


def test_a_principal_may_name_the_issuer() -> None:
    rest = {key: value for key, value in SAFE_GITHUB.items() if key != "jwt:iss"}
    assert codes(equal(rest), {"jwt:iss": GITHUB}) == set()


def test_issuers_that_principal_and_condition_name_must_have_one_in_common() -> None:
    assert "T001" in codes(equal(SAFE_GITHUB), {"jwt:iss": GITLAB})


def test_a_role_for_two_providers_must_pin_both() -> None:
    mixed: dict[str, str | list[str]] = {"jwt:iss": [GITHUB, GITLAB], "jwt:ref_protected": "true"}
    assert "T002" in codes(equal(mixed))


def test_each_value_is_its_own_problem_at_its_own_line() -> None:
    place = ("spec", "condition", "StringLike", "jwt:repository")
    below = {place: 11, (*place, 0): 12, (*place, 1): 13, (*place, 2): 14}
    bad = Role(
        "deployer",
        ("deploy",),
        (
            *conditions(equal(SAFE_GITHUB)),
            *conditions({"StringLike": {"jwt:repository": ["acme*", "acme/*", "*/app"]}}),
        ),
        places=(*[("spec", "condition", "StringEqual", key) for key in SAFE_GITHUB], place),
        origin=Origin("roles.yaml", 1, below),
    )
    found = lint(ISSUERS, [bad], {"deploy": DEPLOY})
    assert [(p.code, p.line, p.field) for p in found] == [
        ("T003", 13, 'condition.StringLike["jwt:repository"][0]'),
        ("T003", 15, 'condition.StringLike["jwt:repository"][2]'),
    ]
    assert str(found[0]) == (
        'roles.yaml:13: error[T003] Role/deployer: condition.StringLike["jwt:repository"][0]: '
        '"acme*" also matches "acme-evil/…"; write "acme/*"'
    )


ON_KEYCLOAK = {"jwt:iss": KEYCLOAK}
INTRUDERS: Mapping[str, tuple[Block, str, str]] = {
    "path": (like("repository", "acme*"), "acme-evil/…", '"acme/*"'),
    "path with a name": (like("repository", "acme*/app"), "acme-evil/app", '"acme/*"'),
    "path with stars": (like("repository", "acme**/a*?b"), "acme-evil/a…b", '"acme/*"'),
    "path that begins with a slash": (
        like("repository", "/acme/*"),
        *("/acme/-evil/…", '"<owner>/*"'),
    ),
    "one character": (like("repository", "acme?/app"), "acmex/app", '"<owner>/*"'),
    "one character of any repository": (like("repository", "acme?/*"), "acmex/…", '"<owner>/*"'),
    "one character of the owner": (
        like("repository_owner", "a?me"),
        *("axme", 'StringEqual: {"jwt:repository_owner": ["<owner>"]}'),
    ),
    "owner": (
        like("repository_owner", "acme*"),
        *("acme-evil", 'StringEqual: {"jwt:repository_owner": ["acme"]}'),
    ),
    "owner with a slash": (
        like("repository_owner", "acme/*"),
        *("acme/-evil", 'StringEqual: {"jwt:repository_owner": ["acme"]}'),
    ),
    "owner with a colon": (
        like("repository_owner", "ac:*"),
        *("ac:-evil", 'StringEqual: {"jwt:repository_owner": ["<owner>"]}'),
    ),
    "workflow file": (like("job_workflow_ref", "acme*"), "acme-evil/…", '"acme/*"'),
    "sub": (like("sub", "repo:acme*"), "repo:acme-evil/…", '"repo:acme/*"'),
    "sub with a repository": (
        like("sub", "repo:acme*/app:*"),
        *("repo:acme-evil/app:…", '"repo:acme/*"'),
    ),
    "sub with a ref": (
        like("sub", "repo:acme*:ref:refs/heads/main"),
        *("repo:acme-evil/…:ref:refs/heads/main", '"repo:acme/*"'),
    ),
    "sub with more parts": (
        like("sub", "repository:acme*:environment:a/b:x"),
        *("repository:acme-evil/…:environment:a/b:x", '"repository:acme/*"'),
    ),
    "sub with any id": (
        like("sub", "repo:acme@*"),
        *("repo:acme@-evil/…", '"repo:<owner>/*"'),
    ),
    "sub of a project": (
        like("sub", "project_path:acme*", SAFE_GITLAB),
        *("project_path:acme-evil/…", '"project_path:acme/*"'),
    ),
    "sub of a group": (
        like("sub", "namespace_path:ac*", SAFE_GITLAB),
        *("namespace_path:ac-evil/…", '"namespace_path:ac/*"'),
    ),
    "sub of an unknown issuer": (
        like("sub", "project_path:ac?/b", ON_KEYCLOAK),
        *("project_path:acx/b", '"project_path:<owner>/*"'),
    ),
    "sub of an organisation": (
        like("sub", "organization:ac*", ON_KEYCLOAK),
        *("organization:ac-evil:…", '"organization:ac:*"'),
    ),
    "sub of a cluster": (
        like("sub", "system:serviceaccount:ac*:b", ON_KEYCLOAK),
        *("system:serviceaccount:ac-evil:b", '"system:serviceaccount:ac:*"'),
    ),
}


@pytest.mark.parametrize(("block", "intruder", "safe"), INTRUDERS.values(), ids=INTRUDERS)
def test_the_intruder_in_a_message_really_matches_the_wildcard(
    block: Block, intruder: str, safe: str
) -> None:
    [problem] = [p for p in problems(block) if p.code == "T003"]
    [pattern] = conditions({"StringLike": block["StringLike"]})
    assert problem.message == f'"{pattern.values[0]}" also matches "{intruder}"'
    assert problem.hint == f"write {safe}"
    assert pattern.accepts(intruder.replace("…", "anything"))


ANYBODY: Mapping[str, tuple[Block, str]] = {
    "sub": (like("sub", "*"), '"repo:<owner>/*"'),
    "the beginning of the word": (like("sub", "rep*"), '"repo:<owner>/*"'),
    "an empty owner": (like("sub", "repo:/*"), '"repo:<owner>/*"'),
    "any project": (like("sub", "pro*", SAFE_GITLAB), '"project_path:<owner>/*"'),
    "any organisation": (like("sub", "organization:*", ON_KEYCLOAK), '"organization:<owner>:*"'),
    "path": (like("repository", "*/app"), '"<owner>/*"'),
    "owner": (
        like("repository_owner", "?cme"),
        'StringEqual: {"jwt:repository_owner": ["<owner>"]}',
    ),
}


@pytest.mark.parametrize(("block", "safe"), ANYBODY.values(), ids=ANYBODY)
def test_a_wildcard_before_every_owner_is_told_with_what_to_write(block: Block, safe: str) -> None:
    [problem] = [p for p in problems(block) if p.code == "T003"]
    [pattern] = conditions({"StringLike": block["StringLike"]})
    assert problem.message == f'"{pattern.values[0]}" matches whoever owns the code'
    assert problem.hint == f"write {safe}"


WRITE_ISS = 'write StringEqual: {"jwt:iss": ["<iss of the JwtIssuer>"]}'
ADD_OWNER = 'add StringEqual: {"jwt:repository_owner_id": ["<id of the owner>"]}'
ADD_GROUP = 'add StringEqual: {"jwt:namespace_id": ["<id of the group>"]}'
ONE_EACH = "write one Role for each issuer"
TOLD: Mapping[str, tuple[Block, str, str, str]] = {
    "no issuer": (
        equal({"jwt:repository_id": "1"}),
        "condition",
        "no StringEqual on jwt:iss, so a token of any issuer could be admitted",
        WRITE_ISS,
    ),
    "an issuer by pattern": (
        {"StringNotEqual": {"jwt:iss": GITLAB}, "StringLike": {"jwt:iss": GITHUB}},
        'condition.StringNotEqual["jwt:iss"]',
        "StringNotEqual on jwt:iss does not name an issuer exactly",
        WRITE_ISS,
    ),
    "an issuer that is nearly one": (
        equal(github(iss=[GITHUB + "/", "urn:1"])),
        'condition.StringEqual["jwt:iss"]',
        f'no JwtIssuer is configured for "{GITHUB}/", "urn:1"',
        f'did you mean "{GITHUB}"?',
    ),
    "issuers that are like none, after a pattern": (
        {"StringLike": {"jwt:iss": "*"}, **equal(github(iss=["urn:1", "urn:2", "urn:3", "urn:4"]))},
        'condition.StringEqual["jwt:iss"]',
        'no JwtIssuer is configured for "urn:1", "urn:2", "urn:3"',
        "add a JwtIssuer document with this iss",
    ),
    "strangers": (
        equal({"jwt:iss": GITLAB, "jwt:aud": AUDIENCE}),
        "condition",
        f'anybody can get a token from "{GITLAB}", and nothing pins who owns the code',
        ADD_GROUP,
    ),
    "strangers, whatever the ref": (
        {
            **equal({"jwt:iss": GITLAB, "jwt:ref": "main", "jwt:sha": "x"}),
            "StringLike": {"jwt:ref": "m*"},
        },
        "condition",
        (
            f'anybody can get a token from "{GITLAB}", and nothing pins who owns the code'
            " (jwt:ref, jwt:sha cannot)"
        ),
        ADD_GROUP,
    ),
    "a free value": (
        equal({"jwt:iss": SERVER, "jwt:actor": ["a", "b"], "jwt:workflow": "Deploy"}),
        'condition.StringEqual["jwt:actor"]',
        '"a" proves nothing by itself: it names who started the run, not whose code runs',
        ADD_OWNER,
    ),
    "a free value in a sub": (
        equal({"jwt:iss": SERVER, "jwt:sub": ["env:x", "actor:a:repo:b/c:x", "actor:octocat"]}),
        'condition.StringEqual["jwt:sub"]',
        (
            '"actor:octocat" proves nothing by itself: it names who started the run, not whose '
            "code runs"
        ),
        ADD_OWNER,
    ),
    "issuers of two providers": (
        equal({"jwt:iss": [SELF_MANAGED, SERVER, GITHUB], "jwt:repository_id": "1"}),
        'condition.StringEqual["jwt:iss"]',
        (
            "its issuers are of different providers (github, gitlab), whose claims mean "
            "different things"
        ),
        ONE_EACH,
    ),
    "a shared issuer, after a pattern": (
        {"StringLike": {"jwt:iss": "*"}, **equal(github(iss=[TENANT, GITHUB, SERVER]))},
        'condition.StringEqual["jwt:iss"]',
        f'anybody can get a token from "{GITHUB}", and the ids there are not those of "{SERVER}"',
        ONE_EACH,
    ),
}


@pytest.mark.parametrize(("block", "place", "message", "hint"), TOLD.values(), ids=TOLD)
def test_a_role_that_is_refused_is_told_where_why_and_what_to_write(
    block: Block, place: str, message: str, hint: str
) -> None:
    found = [(p.field, p.message, p.hint) for p in problems(block) if p.code.startswith("T")]
    assert (place, message, hint) in found


def test_the_hint_names_the_issuer_if_only_one_is_configured() -> None:
    [problem] = lint({GITHUB: issuer(GITHUB)}, [role({})], {"deploy": DEPLOY})
    assert problem.hint == f'write StringEqual: {{"jwt:iss": ["{GITHUB}"]}}'


@pytest.mark.parametrize("other", [GITLAB, "https://ci.example.net"])
def test_issuers_that_exclude_each_other_are_told_at_the_first(other: str) -> None:
    told = [p for p in problems(equal(SAFE_GITHUB), {"jwt:iss": other}) if p.code == "T001"]
    assert [(p.field, p.message, p.hint) for p in told] == [
        (
            'principal["jwt:iss"]',
            "the conditions on jwt:iss leave no configured issuer over",
            "name the issuer once",
        )
    ]


def test_an_unknown_issuer_gets_a_hint_at_the_nearest_configured_one() -> None:
    block = equal(github(iss=[GITHUB, GITLAB + "/"]))
    [problem] = [p for p in problems(block) if p.code == "W108"]
    assert problem.field == 'condition.StringEqual["jwt:iss"][1]'
    assert problem.hint == f'did you mean "{GITLAB}"?'


def test_a_message_stays_on_one_line_and_holds_no_terminal_controls() -> None:
    value = "acme*\n::error::\x1b[31m\x7f\u202e\u009b"
    [problem] = [
        p
        for p in problems({"StringEqual": github(), "StringLike": {"jwt:repository": value}})
        if p.code == "T003"
    ]
    assert re.fullmatch(r"[\x20-\x7e…]+", problem.message + problem.hint)


SHARED_AUDIENCES = {
    "aws": (GITHUB, "sts.amazonaws.com"),
    "sigstore": (GITHUB, "sigstore"),
    "pypi": (GITLAB, "pypi"),
    "testpypi": (GITLAB, "testpypi"),
    "crates": (GITHUB, "crates.io"),
    "rubygems": (GITHUB, "rubygems.org"),
    "azure": (GITHUB, "api://AzureADTokenExchange"),
    "npm": (GITHUB, "npm:registry.npmjs.org"),
    "octo-sts": (GITHUB, "octo-sts.dev"),
    "vault": (GITLAB, "vault"),
    "github's default": (GITHUB, "https://github.com/octo-org"),
    "the server's default": (SERVER, "https://github.example.com/octo-org"),
    "gitlab": (GITLAB, "https://gitlab.com"),
}


@pytest.mark.parametrize(("iss", "audience"), SHARED_AUDIENCES.values(), ids=SHARED_AUDIENCES)
def test_an_audience_that_other_services_accept_gets_a_warning(iss: str, audience: str) -> None:
    found = lint({iss: issuer(iss, AUDIENCE, audience)}, [], {})
    assert [(p.code, p.kind, p.field) for p in found] == [("W106", "JwtIssuer", "aud[1]")]


@pytest.mark.parametrize(
    "audience",
    ["https://gateway.example.com", "https://github.com", "https://github.example.com/octo-org"],
)
def test_an_audience_of_the_brokers_own_gets_no_warning(audience: str) -> None:
    assert lint({GITHUB: issuer(GITHUB, audience)}, [], {}) == []


def test_a_policy_that_no_role_uses_gets_a_warning() -> None:
    spare = Policy("spare", DEPLOY.statements)
    found = lint(ISSUERS, [role(equal(SAFE_GITHUB))], {"deploy": DEPLOY, "spare": spare})
    assert [(p.code, p.kind, p.name) for p in found] == [("W109", "Policy", "spare")]


ALLOW, DENY = Effect.ALLOW, Effect.DENY
MIXED = "Function:Create Function:Delete"
VOID = {
    "the same": (statement("a", ALLOW, MIXED, "fn:*"), [statement("d", DENY, MIXED, "fn:*")]),
    "more": (
        statement("a", ALLOW, "Function:Create", "fn:api"),
        [statement("d", DENY, MIXED, "*")],
    ),
    "a wider pattern": (
        statement("a", ALLOW, "Function:Create", "team-a:x-*"),
        [statement("d", DENY, MIXED, "team-*:x*")],
    ),
    "two together": (
        statement("a", ALLOW, MIXED, "fn:*"),
        [
            statement("d", DENY, "Function:Create", "*"),
            statement("e", DENY, "Function:Delete", "fn:*"),
        ],
    ),
}
ALIVE = {
    "one action left": (
        statement("a", ALLOW, MIXED, "fn:*"),
        [statement("d", DENY, "Function:Create", "fn:*")],
    ),
    "one resource left": (
        statement("a", ALLOW, MIXED, "fn:*", "dev:*"),
        [statement("d", DENY, MIXED, "fn:*")],
    ),
    "a narrower pattern": (
        statement("a", ALLOW, MIXED, "team-*:*"),
        [statement("d", DENY, MIXED, "team-a:*")],
    ),
    "the whole cluster": (
        statement("a", ALLOW, MIXED, "*"),
        [statement("d", DENY, MIXED, "fn:*")],
    ),
    "a Deny with a condition": (
        statement("a", ALLOW, MIXED, "fn:*"),
        [
            Statement(
                "d",
                DENY,
                frozenset(MIXED.split()),
                (Resource("*"),),
                tuple(conditions(equal({"jwt:actor": "octocat"}))),
            )
        ],
    ),
}


@pytest.mark.parametrize(("allow", "denies"), VOID.values(), ids=VOID)
@pytest.mark.parametrize("apart", [False, True], ids=["one policy", "two policies"])
def test_a_statement_that_a_deny_makes_void_gets_a_warning(
    allow: Statement, denies: list[Statement], apart: bool
) -> None:
    assert _void(allow, denies, apart) == [("W110", "grant", "statement[0]")]


@pytest.mark.parametrize(("allow", "denies"), ALIVE.values(), ids=ALIVE)
@pytest.mark.parametrize("apart", [False, True], ids=["one policy", "two policies"])
def test_a_statement_that_still_grants_something_gets_no_warning(
    allow: Statement, denies: list[Statement], apart: bool
) -> None:
    assert _void(allow, denies, apart) == []


def _void(allow: Statement, denies: list[Statement], apart: bool) -> list[tuple[str, str, str]]:
    policies = (
        {"grant": Policy("grant", (allow,)), "wall": Policy("wall", tuple(denies))}
        if apart
        else {"grant": Policy("grant", (allow, *denies))}
    )
    using = Role("r", tuple(policies), tuple(conditions(equal(SAFE_GITHUB))))
    return [(p.code, p.name, p.field) for p in lint(ISSUERS, [using], policies)]


def test_a_statement_is_not_void_while_one_role_uses_it_without_the_deny() -> None:
    policies = {
        "grant": DEPLOY,
        "wall": Policy("wall", (statement("d", DENY, "Function:Create", "*"),)),
    }
    safe = tuple(conditions(equal(SAFE_GITHUB)))
    walled, free = Role("a", ("grant", "wall"), safe), Role("b", ("grant",), safe)
    assert {p.code for p in lint(ISSUERS, [walled], policies)} == {"W110"}
    assert lint(ISSUERS, [walled, free], policies) == []


def test_an_unused_policy_can_be_void_by_itself() -> None:
    walls = (statement("a", ALLOW, MIXED, "fn:*"), statement("d", DENY, MIXED, "*"))
    found = lint(ISSUERS, [], {"grant": Policy("grant", walls)})
    assert {p.code for p in found} == {"W109", "W110"}


def test_errors_keep_documents_out_and_warnings_do_not() -> None:
    found = problems(equal({"jwt:iss": GITHUB, "jwt:actor": "octocat"}))
    assert {p.severity for p in found if p.code.startswith("T")} == {Severity.ERROR}
    assert {p.severity for p in found if p.code.startswith("W")} == {Severity.WARNING}


def test_problems_come_in_the_order_of_the_documents() -> None:
    block = equal({"jwt:iss": GITHUB, "jwt:actor": "octocat"})
    roles = [
        Role(name, ("deploy",), tuple(conditions(block)), origin=Origin("roles.yaml", line))
        for name, line in (("b", 20), ("a", 3))
    ]
    lines = [problem.line for problem in lint(ISSUERS, roles, {"deploy": DEPLOY})]
    assert lines == sorted(lines)


def test_every_code_is_given_by_some_case_here() -> None:
    told = {code for code, _ in (*REFUSED.values(), *DOUBTED.values())}
    of_other_documents = {"W106", "W109", "W110", "W118", "W119", "W120", "W121"}
    of_resources = {"T006", "W122", "W123", "W124"}  # tests/test_variables_in_resources.py has them
    assert told | of_other_documents | of_resources == CODES.keys()


@pytest.mark.alone
def test_ten_thousand_roles_are_read_in_seconds() -> None:
    roles = [
        Role(
            f"r{n}", (f"p{n % 1000}", "wall"), tuple(conditions(equal(github(repository=f"o/{n}"))))
        )
        for n in range(10_000)
    ]
    policies = {f"p{n}": Policy(f"p{n}", DEPLOY.statements) for n in range(1000)}
    policies["wall"] = Policy("wall", (statement("d", DENY, "Function:Delete", "*"),))
    started = time.process_time()
    assert lint(ISSUERS, roles, policies) == []
    assert time.process_time() - started < 5
