"""
Attacks through Roles on every issuer of the provider table, made from the table's own data.

On each shared issuer, more than a hundred Roles that some stranger satisfies are refused, and the
Roles that a careful person writes get no problem at all. The same holds for what people write for
each sample token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.claims import at, text
from federation.documents.assemble import Assembled, assemble
from federation.documents.parse import parse
from federation.errors import Severity
from federation.policy.roles import evaluate
from federation.providers.github import OUTSIDERS_EVENTS, WRITERS_EVENTS
from federation.providers.table import PROFILES, Profile, shared
from tests.harness.builders import AUDIENCE, GITHUB, GITLAB, owner_pins, sample

Block = Mapping[str, Mapping[str, Any]]
SERVER = "https://github.example.com/_services/token"
SELF_MANAGED = "https://gitlab.example.org"


def assembled(issuers: list[dict[str, Any]], roles: Mapping[str, Block]) -> Assembled:
    """A set of these JwtIssuers, one Policy, and a Role with each condition block."""
    statement = {"sid": "a", "effect": "Allow", "action": ["Function:*"], "resource": ["*"]}
    specs = [
        *(("JwtIssuer", f"issuer-{n}", {"aud": [AUDIENCE], **i}) for n, i in enumerate(issuers)),
        ("Policy", "deploy", {"statement": [statement]}),
        *(("Role", name, {"policy": ["deploy"], "condition": b}) for name, b in roles.items()),
    ]
    head = {"apiVersion": "iam.openfaas.com/v1"}
    written = [
        {**head, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, name, spec in specs
    ]
    return assemble([parse(f"{n}.json", json.dumps(d).encode()) for n, d in enumerate(written)])


def parsed_alone(issuer: Mapping[str, Any], block: Block) -> Assembled:
    """A set of this JwtIssuer, as it is, and a Role with this condition block."""
    statement = {"sid": "a", "effect": "Allow", "action": ["Function:*"], "resource": ["*"]}
    specs: dict[str, Any] = {
        "JwtIssuer": issuer,
        "Policy": {"statement": [statement]},
        "Role": {"policy": ["deploy"], "condition": block},
    }
    head = {"apiVersion": "iam.openfaas.com/v1", "metadata": {"name": "deploy"}}
    written = [{**head, "kind": kind, "spec": spec} for kind, spec in specs.items()]
    return assemble([parse(f"{n}.json", json.dumps(d).encode()) for n, d in enumerate(written)])


def codes(iss: str, block: Block, **issuer: Any) -> list[str]:
    """The codes of the problems of a Role with this condition on the issuer *iss*."""
    on = with_issuer(block, iss)
    return [p.code for p in assembled([{"iss": iss, **issuer}], {"deployer": on}).problems]


def with_issuer(block: Block, iss: str) -> Block:
    """*block* with the issuer named exactly."""
    return {**block, "StringEqual": {"jwt:iss": iss, **block.get("StringEqual", {})}}


def equal(**claims: Any) -> Block:
    """A block of `StringEqual` alone."""
    return {"StringEqual": {f"jwt:{claim}": value for claim, value in claims.items()}}


# Shared issuers


@dataclass(frozen=True)
class Shared:
    """A shared issuer of a provider, and a token of it."""

    provider: str
    iss: str
    sample: str

    @property
    def profile(self) -> Profile:
        """The profile of the provider."""
        return PROFILES[self.provider]

    def value(self, claim: str) -> str:
        """The value of *claim* in the sample token, or some value."""
        return text(at(sample(self.sample), claim)) or "acme"


PERSONAL = "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"
SHARED = [
    Shared("buildkite", "https://agent.buildkite.com", "buildkite-branch-main"),
    Shared("circleci", "https://oidc.circleci.com", "circleci-branch-main"),
    Shared("codefresh", "https://oidc.codefresh.io", "codefresh-push-main"),
    Shared("entra", PERSONAL, "entra-application"),
    Shared("forgejo", "https://codeberg.org/api/actions", "forgejo-push-main"),
    Shared("github", GITHUB, "github-push-main"),
    Shared("github", f"{GITHUB}/octo-enterprise", "github-push-main"),
    Shared("gitlab", GITLAB, "gitlab-branch-main"),
    Shared("google", "https://accounts.google.com", "google-service-account"),
    Shared("terraform", "https://app.terraform.io", "terraform-apply"),
]
ON_SHARED = pytest.mark.parametrize("on", SHARED, ids=lambda on: f"{on.provider} {on.iss}")


def test_every_provider_with_a_shared_issuer_is_attacked_here() -> None:
    assert all(shared(on.iss) for on in SHARED)
    assert {on.provider for on in SHARED} == {n for n, p in PROFILES.items() if p.shared_hosts}


def open_blocks(on: Shared) -> Iterator[Block]:
    """Condition blocks that a stranger's token of the issuer can satisfy."""
    free = sorted({*on.profile.free, *on.profile.verified_by} - set(owner_pins(on.profile)))
    about = sorted(on.profile.circumstances)
    weak = [*free, *about, "made_up", "jti"]
    yield {}
    for claim in weak:
        yield equal(**{claim: "x"})
        yield {"StringLike": {f"jwt:{claim}": "x*"}}
        yield {"ForAnyValue:StringEqual": {f"jwt:{claim}": "x"}}
    for one in [*free, "made_up"]:
        for other in about[:12] or ["nonce"]:
            yield equal(**{one: "x", other: "y"})
    for pin in owner_pins(on.profile):
        yield from _open_pins(on, f"jwt:{pin}", on.value(pin))
        for claim in weak[:6]:
            yield {**equal(**{claim: "x"}), "StringNotEqual": {f"jwt:{pin}": "evil"}}


def _open_pins(on: Shared, key: str, value: str) -> Iterator[Block]:
    owner = on.profile.owner
    for pattern in ("*", "?*", "**", f"*{value[-3:]}", f"?{value[1:]}", f"{value[:2]}*"):
        yield {"StringLike": {key: pattern}}
        yield {"StringLike": {key: [value, pattern]}}
        yield {"StringNotLike": {key: pattern}}
        yield {"ForAnyValue:StringLike": {key: pattern}}
    yield {"StringNotEqual": {key: "evil"}}
    yield {"ForAnyValue:StringEqual": {key: value}}
    whole = {*owner.ids, *owner.names, *owner.code_ids}
    if key.removeprefix("jwt:") in whole:
        yield {"StringLike": {key: f"{value}*"}}
        yield {"StringLike": {key: f"{value}?"}}


@ON_SHARED
def test_a_hundred_roles_that_strangers_satisfy_are_refused(on: Shared) -> None:
    roles = {
        f"open-{number}": with_issuer(block, on.iss) for number, block in enumerate(open_blocks(on))
    }
    assert len(roles) >= 100
    found = assembled([{"iss": on.iss}], roles)
    refused = {p.name for p in found.problems if p.code in {"T002", "T003", "T004"}}
    assert {name: roles[name] for name in roles.keys() - refused} == {}
    assert found.catalog is None


@pytest.mark.parametrize("iss", [GITLAB, "https://codeberg.org/", "https://accounts.google.com"])
@pytest.mark.parametrize("provider", [None, "keycloak", "okta"])
@pytest.mark.parametrize("claim", ["azp", "client_id", "cid"])
def test_at_a_shared_issuer_the_program_of_a_sign_in_pins_nobody(
    iss: str, provider: str | None, claim: str
) -> None:
    """Everybody at gitlab.com can sign in to the program, and all of them have its id."""
    block = with_issuer(equal(aud="app", **{claim: "app"}), iss)
    issuer = {"iss": iss, "clients": ["app"], **({"provider": provider} if provider else {})}
    found = assembled([issuer], {"deployer": block})
    assert {p.code for p in found.problems} & {"T002", "D022"}
    assert found.catalog is None
    pinned = with_issuer(equal(aud="app", sub="117290034418852200931", **{claim: "app"}), iss)
    alone = assembled([{"iss": iss, "clients": ["app"]}], {"deployer": pinned})
    assert alone.catalog is not None


@pytest.mark.parametrize(
    ("iss", "claim", "value", "hint"),
    [
        pytest.param(
            *("https://app.terraform.io", "terraform_full_workspace", "org*"),
            'write "organization:<owner>:*"',
            id="a claim made as the sub is",
        ),
        pytest.param(
            *("https://oidc.circleci.com", "sub", "org/5e*"),
            'write "org/5e/*"',
            id="a sub whose parts end in slashes",
        ),
        pytest.param(
            *("https://accounts.google.com", "email", "re*"),
            'write StringEqual: {"jwt:email": ["<owner>"]}',
            id="a name that is not whole",
        ),
    ],
)
def test_a_hint_has_the_form_of_the_providers_own_claims(
    iss: str, claim: str, value: str, hint: str
) -> None:
    block = with_issuer({"StringLike": {f"jwt:{claim}": value}}, iss)
    found = assembled([{"iss": iss}], {"deployer": block})
    assert [problem.hint for problem in found.problems if problem.code == "T003"] == [hint]


def tight_blocks(on: Shared) -> Iterator[Block]:
    """Condition blocks of which each pins the owner by another claim, and the ref."""
    profile = on.profile
    ids = [names.ids[0] for names in profile.names if names.ids[0] in owner_pins(profile)]
    beside = {claim: on.value(claim) for claim, _ in profile.ref_example}
    if profile.fork_told_by:
        beside[profile.fork_told_by] = on.value(profile.fork_told_by)
    for pin in owner_pins(profile):
        value: str | list[str] = on.value(pin)
        if value == "acme":
            continue  # the sample lacks it
        if pin == "sub" and on.provider == "github":
            immutable = text(sample("github-immutable-sub")["sub"])
            value = [on.value(pin), immutable or ""]
        yield equal(**{**beside, **{claim: on.value(claim) for claim in ids}, pin: value})


@ON_SHARED
def test_the_tight_roles_of_every_pin_have_no_problem(on: Shared) -> None:
    roles = {
        f"tight-{number}": with_issuer(block, on.iss)
        for number, block in enumerate(tight_blocks(on))
    }
    assert len(roles) >= 2
    found = assembled([{"iss": on.iss}], roles)
    assert [str(problem) for problem in found.problems] == []


# Every sample token, and the Role that somebody would write for it

ANY_PROJECT = {"jwt:project_id": "61204418", "jwt:ref_protected": "true"}
IN_GROUP: Block = {"ForAnyValue:StringEqual": {"jwt:groups": "platform-engineers"}}
CIRCLE = {
    "jwt:oidc.circleci.com/project-id": "a66101a7-2dbf-449b-aa14-f0bab6eb225a",
    "jwt:oidc.circleci.com/vcs-origin": "github.com/harbour-lab/web",
    "jwt:oidc.circleci.com/vcs-ref": "refs/heads/main",
}
BUILDKITE = "40082947-3916-4e8f-a119-134dd262e351"
SEMAPHORE = "ac1b0314-833f-4f3f-a956-40ecd4a0a3ad"
SENSIBLE: list[tuple[str, Block]] = [
    ("auth0-user", equal(sub="auth0|5f7c8ec7c33c6c004bbafe82")),
    ("auth0-user", equal(email="dana@example.com", email_verified="true")),
    ("auth0-user", equal(org_id="org_9ybsU1dN2dKfDkBi")),
    ("aws-role", equal(sub="arn:aws:iam::705331894220:role/web-releaser")),
    ("aws-role", {"StringLike": {"jwt:sub": "arn:aws:iam::705331894220:role/web-*"}}),
    (
        "azure-devops-main",
        equal(
            prj_id="927689cf-3faf-42f0-a8e6-d97a673482f7", def_id="17", rpo_ref="refs/heads/main"
        ),
    ),
    (
        "azure-devops-main",
        equal(sub="p://harbour-lab/webshop/release", rpo_ref="refs/heads/main"),
    ),
    (
        "bitbucket-branch",
        equal(repositoryUuid="{071ca222-7754-4058-a7aa-3ef9748ed59e}", branchName="feature/x"),
    ),
    (
        "bitbucket-environment",
        equal(
            repositoryUuid="{071ca222-7754-4058-a7aa-3ef9748ed59e}",
            deploymentEnvironmentUuid="{b77349bf-1fa9-426d-a5d5-45d7d64dad96}",
        ),
    ),
    (
        "bitbucket-environment",
        {
            "StringLike": {
                "jwt:sub": "{071ca222-7754-4058-a7aa-3ef9748ed59e}:"
                "{b77349bf-1fa9-426d-a5d5-45d7d64dad96}:*"
            }
        },
    ),
    ("buildkite-branch-main", equal(pipeline_id=BUILDKITE, build_branch="main")),
    (
        "buildkite-branch-main",
        equal(pipeline_id=BUILDKITE, build_branch="main", step_key="publish"),
    ),
    ("circleci-branch-main", {"StringEqual": CIRCLE}),
    (
        "codefresh-push-main",
        equal(
            pipeline_id="65d0ab3e8c7f25d1e9a4b610",
            scm_repo_url="https://github.com/harbour-lab/web",
            scm_ref="main",
        ),
    ),
    ("entra-application", equal(oid="68c55cdc-265d-45eb-ace8-85c914c4774f")),
    ("entra-application", equal(azp="a172cedc-ae47-474b-a15c-54d510a5d84a")),
    ("entra-application", {"ForAnyValue:StringEqual": {"jwt:roles": "Release"}}),
    ("forgejo-push-main", equal(repository_id="2210", ref="refs/heads/main")),
    (
        "forgejo-push-main",
        equal(repository_owner_id="58", repository="harbour-lab/web", ref_protected="true"),
    ),
    (
        "forgejo-pull-request",
        {
            **equal(repository_id="2210", event_name="pull_request"),
            "StringLike": {"jwt:ref": "refs/pull/*"},
        },
    ),
    (
        "github-custom-sub",
        equal(
            repository_owner_id="13420041",
            sub="repository_owner:octo-org:repository_visibility:private",
            ref="refs/heads/main",
        ),
    ),
    ("github-enterprise-slug", equal(repository_id="733184502", ref="refs/heads/main")),
    (
        "github-environment-production",
        equal(repository_id="412890077", environment="production", ref="refs/heads/main"),
    ),
    ("github-immutable-sub", equal(repository_id="1310447702", ref="refs/heads/main")),
    (
        "github-pull-request",
        {
            **equal(repository_id="412890077", event_name="pull_request"),
            "StringLike": {"jwt:ref": "refs/pull/*"},
        },
    ),
    (
        "github-pull-request-target",
        equal(repository_id="412890077", event_name="pull_request_target", ref="refs/heads/main"),
    ),
    ("github-push-main", equal(repository_id="412890077", ref_protected="true")),
    (
        "github-push-main",
        {
            **equal(repository_owner_id="13420041", ref="refs/heads/main"),
            "StringLike": {"jwt:repository": "octo-org/octo-*"},
        },
    ),
    ("gitlab-branch-main", {"StringEqual": ANY_PROJECT}),
    ("gitlab-branch-main", equal(project_id="61204418", ref="main", ref_type="branch")),
    ("google-person", equal(sub="117290034418852200931")),
    ("google-service-account", equal(sub="108820461937750012846")),
    ("jenkins-job", equal(sub="https://jenkins.example.com/job/web/job/main/")),
    ("jenkins-job", {"StringLike": {"jwt:sub": "https://jenkins.example.com/job/web/*"}}),
    ("keycloak-user", equal(sub="8a4c1f7e-30b6-4a52-9d27-6b6a0d0c9e11")),
    ("keycloak-user", equal(email="dana@example.com", email_verified="true")),
    (
        "keycloak-user",
        {**equal(email_verified="true"), "StringLike": {"jwt:email": "*@example.com"}},
    ),
    ("keycloak-user", IN_GROUP),
    ("kubernetes-service-account", equal(sub="system:serviceaccount:web:releaser")),
    (
        "kubernetes-service-account",
        equal(
            **{"/kubernetes.io/namespace": "web", "/kubernetes.io/serviceaccount/name": "releaser"}
        ),
    ),
    ("okta-user", equal(sub="00uid4BxXw6I6TV4m0g3")),
    ("okta-user", IN_GROUP),
    (
        "semaphore-branch-main",
        equal(prj_id=SEMAPHORE, ref="refs/heads/main", ref_type="branch", job_type="pipeline_job"),
    ),
    ("spacelift-tracked", equal(callerId="web-prod", callerType="stack", runType="TRACKED")),
    (
        "terraform-apply",
        equal(terraform_workspace_id="ws-Lk4GvN6oPy1Sd8Wf", terraform_run_phase="apply"),
    ),
    (
        "terraform-plan",
        equal(terraform_workspace_id="ws-Lk4GvN6oPy1Sd8Wf", terraform_run_phase="plan"),
    ),
]


@pytest.mark.parametrize(("name", "block"), SENSIBLE, ids=[name for name, _ in SENSIBLE])
def test_what_a_careful_person_writes_for_a_token_admits_it_without_a_problem(
    name: str, block: Block
) -> None:
    claims = sample(name)
    iss = str(claims["iss"])
    provider = max((p for p in PROFILES if name.startswith(p)), key=len)
    audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    document = {"iss": iss, "aud": audience, "provider": provider}
    found = assembled([document], {"deployer": with_issuer(block, iss)})
    assert [str(problem) for problem in found.problems] == []
    assert found.catalog is not None
    assert [held.admits for held in evaluate(found.catalog.roles, provider, claims)] == [True]


# Roles that everybody at an issuer of one's own satisfies

REALM = "https://sso.example.com/realms/octo"
EVERYBODY: dict[str, tuple[str, str, Block]] = {
    "a role that Keycloak gives everybody": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringEqual": {"jwt:/realm_access/roles": ["deployer", "offline_access"]}},
    ),
    "Keycloak's roles of the realm": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringEqual": {"jwt:/realm_access/roles": "default-roles-octo"}},
    ),
    "Keycloak's page on oneself": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringEqual": {"jwt:/resource_access/account/roles": "view-profile"}},
    ),
    "every group, by its slash": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringLike": {"jwt:groups": "/*"}},
    ),
    "the form of every id": (
        REALM,
        "keycloak",
        {"StringLike": {"jwt:sub": "????????-*"}},
    ),
    "any address": (
        REALM,
        "keycloak",
        {**equal(email_verified="true"), "StringLike": {"jwt:email": "*@*"}},
    ),
    "Okta's group of everybody": (
        "https://octo.okta.com",
        "okta",
        {"ForAnyValue:StringEqual": {"jwt:groups": "Everyone"}},
    ),
    "whoever signed up at Auth0": (
        "https://octo.eu.auth0.com/",
        "auth0",
        {"StringLike": {"jwt:sub": "google-oauth2|*"}},
    ),
    "Entra's tenant": (
        "https://login.microsoftonline.com/c71179c2-3b75-4d3a-aecf-c1e15aee1a88/v2.0",
        "entra",
        equal(tid="c71179c2-3b75-4d3a-aecf-c1e15aee1a88"),
    ),
    "Bitbucket's workspace": (
        "https://api.bitbucket.org/2.0/workspaces/harbourlab/pipelines-config/identity/oidc",
        "bitbucket",
        equal(workspaceUuid="{50a66195-d31a-4bb6-afd4-6c844c16e396}", branchName="main"),
    ),
    "the AWS account": (
        "https://6a0c41d7-92be-4f0a-b1c3-5d8e7f60a924.tokens.sts.global.api.aws",
        "aws",
        {"StringLike": {"jwt:sub": "arn:aws:iam::705331894220:*"}},
    ),
    "CircleCI's organisation": (
        "https://oidc.circleci.com/org/5e6de4c4-1c14-4875-a238-b432df711d18",
        "circleci",
        {
            "StringEqual": {
                **{k: v for k, v in CIRCLE.items() if "project" not in k and "origin" not in k},
                "jwt:oidc.circleci.com/org-id": "5e6de4c4-1c14-4875-a238-b432df711d18",
            },
            "StringLike": {"jwt:oidc.circleci.com/vcs-origin": "github.com/harbour-lab/*"},
        },
    ),
    "a group, or every group by its slash": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringLike": {"jwt:groups": ["/ops/*", "/*"]}},
    ),
    "something within a client's roles": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringEqual": {"jwt:/resource_access/gateway/roles/more": "deployer"}},
    ),
    "an address, or any address": (
        REALM,
        "keycloak",
        {**equal(email_verified="true"), "StringLike": {"jwt:email": ["dana@example.com", "*@*"]}},
    ),
    "the end of an address without a domain": (
        REALM,
        "keycloak",
        {**equal(email_verified="true"), "StringLike": {"jwt:email": "*dana"}},
    ),
    "the beginning of a random id": (REALM, "keycloak", {"StringLike": {"jwt:sub": "f81d4fae-*"}}),
    "an id by its end": (REALM, "generic", {"StringLike": {"jwt:sub": ["service-*", "*x"]}}),
    "the AWS account beside a role": (
        "https://6a0c41d7-92be-4f0a-b1c3-5d8e7f60a924.tokens.sts.global.api.aws",
        "aws",
        {
            "StringLike": {
                "jwt:sub": ["arn:aws:iam::705331894220:role/web", "arn:aws:iam::705331894220:*"]
            }
        },
    ),
    "the last digit of an id": (
        SERVER,
        "github",
        {**equal(ref="refs/heads/main"), "StringLike": {"jwt:repository_owner_id": "*1"}},
    ),
}


@pytest.mark.parametrize(("iss", "provider", "block"), EVERYBODY.values(), ids=EVERYBODY)
def test_a_role_that_everybody_at_ones_own_issuer_satisfies_is_told(
    iss: str, provider: str, block: Block
) -> None:
    assert {"W114", "T004"} & set(codes(iss, block, provider=provider))


STARTED_BY: dict[str, Block] = {
    "groups": {"ForAnyValue:StringEqual": {"jwt:groups_direct": "octo-group/platform"}},
    "groups and a ref": {
        **equal(ref_path="refs/heads/main"),
        "ForAnyValue:StringLike": {"jwt:groups_direct": "octo-group/*"},
    },
    "the first group": equal(**{"/groups_direct/0": "octo-group/platform"}),
    "an identity": equal(**{"/user_identities/0/extern_uid": "dana"}),
}


@pytest.mark.parametrize("clients", [[], ["app"]])
@pytest.mark.parametrize("block", STARTED_BY.values(), ids=STARTED_BY)
def test_a_job_of_any_project_does_not_have_the_rights_of_who_started_it(
    block: Block, clients: list[str]
) -> None:
    """GitLab writes the groups of who started the pipeline into the tokens of all its jobs."""
    issuer = {
        "iss": SELF_MANAGED,
        "provider": "gitlab",
        **({"clients": clients} if clients else {}),
    }
    found = assembled([issuer], {"deployer": with_issuer(block, SELF_MANAGED)})
    assert "T004" in {problem.code for problem in found.problems}
    assert found.catalog is None
    exact = {**block.get("StringEqual", {}), "jwt:iss": SELF_MANAGED, "jwt:project_id": "318"}
    pinned = {**block, "StringEqual": exact}
    assert assembled([issuer], {"deployer": pinned}).catalog is not None


@pytest.mark.parametrize("issuer", [{"aud": [AUDIENCE]}, {}], ids=["jobs too", "people alone"])
def test_the_groups_of_people_who_sign_in_say_who_they_are(issuer: dict[str, Any]) -> None:
    block = with_issuer(STARTED_BY["groups"], SELF_MANAGED)
    if issuer:
        block = {**block, **equal(iss=SELF_MANAGED, aud="app")}
    on = {"iss": SELF_MANAGED, "provider": "gitlab", "clients": ["app"], **issuer}
    found = parsed_alone(on, block)
    assert [str(problem) for problem in found.problems] == []
    assert found.catalog is not None


SIGN_IN = "a172cedc-ae47-474b-a15c-54d510a5d84a"
TENANT = "https://login.microsoftonline.com/3c1f4a02-6d7e-4b19-8c55-0e9f2a7b6d31/v2.0"


@pytest.mark.parametrize(
    ("iss", "provider", "claim"),
    [
        ("https://idp.example.com", "generic", "azp"),
        (REALM, "keycloak", "azp"),
        (REALM, "keycloak", "client_id"),
        (TENANT, "entra", "azp"),
        (TENANT, "entra", "appid"),
        ("https://octo.okta.com", "okta", "cid"),
    ],
)
def test_the_program_that_people_sign_in_to_says_nothing_about_who_they_are(
    iss: str, provider: str, claim: str
) -> None:
    on = {"provider": provider, "clients": [SIGN_IN]}
    robot = "68c55cdc-265d-45eb-ace8-85c914c4774f"
    for named in (SIGN_IN, [robot, SIGN_IN]):
        assert "W114" in codes(iss, equal(**{claim: named}), **on)
    # A program that has an account of its own is somebody.
    assert "W114" not in codes(iss, equal(**{claim: robot}), **on)
    assert "W114" not in codes(iss, equal(sub="x", **{claim: SIGN_IN}), **on)


NAMED: dict[str, tuple[str, str, Block]] = {
    "a role that a client of Keycloak has": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringEqual": {"jwt:/resource_access/gateway/roles": "deployer"}},
    ),
    "a group that is only called like everybody's": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringEqual": {"jwt:groups": ["ops", "offline_access_team"]}},
    ),
    "groups within two": (
        REALM,
        "keycloak",
        {"ForAnyValue:StringLike": {"jwt:groups": ["/ops/*", "/dev/*"]}},
    ),
    "a person, or everybody of a domain": (
        REALM,
        "keycloak",
        {
            **equal(email_verified="true"),
            "StringLike": {"jwt:email": ["dana@*", "*@example.com", "*@*@example.com"]},
        },
    ),
    "ids that an administrator chose": (REALM, "generic", {"StringLike": {"jwt:sub": "service-*"}}),
    "two kinds of roles in AWS": (
        "https://6a0c41d7-92be-4f0a-b1c3-5d8e7f60a924.tokens.sts.global.api.aws",
        "aws",
        {"StringLike": {"jwt:sub": [f"arn:aws:iam::705331894220:role/{a}-*" for a in "xy"]}},
    ),
}


@pytest.mark.parametrize(("iss", "provider", "block"), NAMED.values(), ids=NAMED)
def test_a_role_that_names_people_or_programs_has_no_problem(
    iss: str, provider: str, block: Block
) -> None:
    assert codes(iss, block, provider=provider) == []


def test_a_sub_of_a_ci_system_that_names_no_owner_takes_no_wildcard() -> None:
    block = {**equal(repository_id="2210", ref="refs/heads/main"), "StringLike": {"jwt:sub": "x-*"}}
    assert codes("https://codeberg.org/api/actions", block) == ["T003"]


def test_what_lies_within_a_free_claim_is_as_free() -> None:
    iss, tags = EVERYBODY["the AWS account"][0], "/https:~1~1sts.amazonaws.com~1/request_tags"
    block = with_issuer(equal(**{f"{tags}/team": "web"}), iss)
    [problem] = assembled([{"iss": iss, "provider": "aws"}], {"deployer": block}).problems
    reason = PROFILES["aws"].free[tags]
    assert (problem.code, problem.message) == (
        *("T004", f'"web" proves nothing by itself: {reason}'),
    )
    assert codes(iss, equal(**{f"{tags}_more": "web"}), provider="aws") == ["W114"]


def test_everybodys_tenant_is_not_pinned_by_itself_or_by_an_application() -> None:
    for claim in ("tid", "azp", "appid"):
        block = equal(**{claim: "9188040d-6c67-4c5b-b112-36a304b66dad"})
        assert "T002" in codes(PERSONAL, block)


REF_IN_VAIN: dict[str, Block] = {
    "unprotected branches": equal(ref_protected="false"),
    "each kind of ref": {"StringLike": {"jwt:ref": ["refs/heads/*", "refs/tags/*", "refs/pull/*"]}},
    "one character open": {"StringLike": {"jwt:ref": "?efs/*"}},
    "any two parts": {"StringLike": {"jwt:ref": "*/*"}},
    "sub with any ref": {
        "StringLike": {"jwt:sub": ["repo:o/a:ref:refs/*", "repo:o@1/a@2:ref:refs/*"]}
    },
    "workflow at any ref": {"StringLike": {"jwt:workflow_ref": "o/a/.github/workflows/d.yml@re*"}},
}


@pytest.mark.parametrize("block", REF_IN_VAIN.values(), ids=REF_IN_VAIN)
def test_a_condition_that_every_branch_satisfies_restricts_no_ref(block: Block) -> None:
    owned = {**block, "StringEqual": {**block.get("StringEqual", {}), "jwt:repository_id": "1"}}
    assert "W102" in codes(GITHUB, owned)


def test_a_pattern_that_forks_match_tells_no_fork() -> None:
    iss = "https://oidc.circleci.com/org/5e6de4c4-1c14-4875-a238-b432df711d18"
    origin = "jwt:oidc.circleci.com/vcs-origin"
    rest: Block = {"StringEqual": {key: v for key, v in CIRCLE.items() if key != origin}}
    assert codes(iss, {**rest, "StringLike": {origin: "github.com/*"}}) == ["W121"]
    assert codes(iss, {**rest, "StringLike": {origin: "github.com/harbour-lab/*"}}) == []


INNER_STARS = {
    "buildkite": (
        "https://agent.buildkite.com",
        "organization:acme:pipeline:*:ref:refs/heads/main:x",
    ),
    "codefresh": ("https://oidc.codefresh.io", "account:65d0:pipeline:*:scm_ref:main"),
    "semaphore": ("https://acme.semaphoreci.com", "org:acme:project:x:*:ref:refs/heads/main"),
    "spacelift": ("https://acme.app.spacelift.io", "space:a:stack:b:*:scope:write"),
}


@pytest.mark.parametrize(("iss", "sub"), INNER_STARS.values(), ids=INNER_STARS)
def test_a_star_inside_a_sub_is_told_for_every_ci_system(iss: str, sub: str) -> None:
    assert "W112" in codes(iss, {"StringLike": {"jwt:sub": sub}})


# A provider that was forgotten

FORGOTTEN: dict[str, tuple[str, Block, str]] = {
    "GitHub Enterprise Server": (SERVER, equal(sub="repo:o/a:ref:refs/heads/main"), "github"),
    "Forgejo": ("https://git.example.org/api/actions", equal(sub="x"), "forgejo"),
    "a cluster": ("https://kubernetes.default.svc.cluster.local", equal(sub="x"), "kubernetes"),
    "Jenkins": ("https://jenkins.example.com/oidc", equal(sub="x"), "jenkins"),
    "GitLab, by a claim": (SELF_MANAGED, equal(project_id="318", ref_path="x"), "gitlab"),
    "GitLab, by a pointer": (SELF_MANAGED, equal(**{"/project_id": "318"}), "gitlab"),
    "a cluster, by a claim": (
        "https://oidc.cluster.example.org",
        equal(**{"/kubernetes.io/namespace": "web"}),
        "kubernetes",
    ),
    "by a condition that excludes": (
        SELF_MANAGED,
        {"StringEqual": {"jwt:sub": "x"}, "StringNotEqual": {"jwt:project_path": "a/b"}},
        "gitlab",
    ),
    "GitLab, by its group and a ref": (
        SELF_MANAGED,
        equal(namespace_path="octo-group", ref_path="refs/heads/main"),
        "gitlab",
    ),
    "GitLab, by the source of the pipeline": (
        SELF_MANAGED,
        equal(pipeline_source="push"),
        "gitlab",
    ),
    "GitLab, by the project of the code": (SELF_MANAGED, equal(job_project_path="a/b"), "gitlab"),
    "Terraform Enterprise, by its names": (
        "https://tfe.example.org",
        equal(terraform_organization_name="acme", terraform_workspace_name="prod"),
        "terraform",
    ),
    "Terraform Enterprise, by a whole name": (
        "https://tfe.example.org",
        equal(terraform_full_workspace="organization:acme:project:web:workspace:prod"),
        "terraform",
    ),
    "Terraform Enterprise, by a project": (
        "https://tfe.example.org",
        {"StringLike": {"jwt:terraform_project_id": "prj-*"}},
        "terraform",
    ),
    "a server of CircleCI, by the repository": (
        "https://circle.example.org",
        equal(**{"oidc.circleci.com/vcs-origin": "github.com/harbour-lab/web"}),
        "circleci",
    ),
    "Spacelift, by a space": ("https://spacelift.example.org", equal(spacePath="a/b"), "spacelift"),
    "GitLab, by a subject": (
        SELF_MANAGED,
        equal(sub="project_path:octo-group/app:ref_type:branch:ref:main"),
        "gitlab",
    ),
    "GitLab, by a pattern of subjects": (
        SELF_MANAGED,
        {"StringLike": {"jwt:/sub": ["x", "project_path:octo-group/*"]}},
        "gitlab",
    ),
    "GitLab, by a subject of ids": (
        SELF_MANAGED,
        equal(sub="project_id:318:ref_type:branch:ref:main"),
        "gitlab",
    ),
    "GitHub or Forgejo, by a subject": (
        "https://ci.example.org",
        equal(sub="repo:octo-org/octo-repo:ref:refs/heads/main"),
        "github",
    ),
    "GitHub, by a subject of an id": (
        "https://ci.example.org",
        equal(sub="repository_owner_id:13420041:environment:production"),
        "github",
    ),
    "Terraform Enterprise, by a subject": (
        "https://tfe.example.org",
        {"StringLike": {"jwt:sub": "organization:acme:project:web:workspace:prod:run_phase:*"}},
        "terraform",
    ),
    "a server of CircleCI, by a subject": (
        "https://circle.example.org",
        {"StringLike": {"jwt:sub": "org/5e4bc7f0/project/a66101a7/*"}},
        "circleci",
    ),
    "Spacelift, by a subject": (
        "https://spacelift.example.org",
        {"StringLike": {"jwt:sub": "space:web:stack:prod:*"}},
        "spacelift",
    ),
    "Semaphore, by a subject": (
        "https://semaphore.example.org",
        {"StringLike": {"jwt:sub": "org:acme:project:web:*"}},
        "semaphore",
    ),
    "Codefresh, by a subject": (
        "https://codefresh.example.org",
        {"StringLike": {"jwt:sub": "account:65d0ab3e:pipeline:*"}},
        "codefresh",
    ),
    "Azure DevOps, by a subject": (
        "https://devops.example.org",
        equal(sub="p://harbour-lab/webshop/release"),
        "azure-devops",
    ),
}


@pytest.mark.parametrize(("iss", "block", "provider"), FORGOTTEN.values(), ids=FORGOTTEN)
def test_an_issuer_that_looks_like_a_ci_systems_must_name_its_provider(
    iss: str, block: Block, provider: str
) -> None:
    role = {"deployer": with_issuer(block, iss)}
    found = assembled([{"iss": iss}], role)
    [told] = [problem for problem in found.problems if problem.code == "D025"]
    assert told.severity is Severity.ERROR
    assert f"provider: {provider}" in told.hint
    assert found.catalog is None
    for written in (provider, "generic"):
        assert "D025" not in codes(iss, block, provider=written)


def test_a_strangers_event_is_not_granted_because_a_provider_was_forgotten() -> None:
    block = with_issuer(equal(repository_id="412890077", ref="refs/heads/main"), SERVER)
    token = sample("github-pull-request-target", iss=SERVER)
    assert assembled([{"iss": SERVER}], {"deployer": block}).catalog is None
    catalog = assembled([{"iss": SERVER, "provider": "github"}], {"deployer": block}).catalog
    assert catalog is not None
    assert not any(held.admits for held in evaluate(catalog.roles, "github", token))


def test_a_merge_request_of_a_fork_is_not_granted_because_a_provider_was_forgotten() -> None:
    """Its subject names the project, and the branch of the fork as if it were the project's."""
    subject = "project_path:octo-group/app:ref_type:branch:ref:main"
    block = with_issuer(equal(sub=subject), SELF_MANAGED)
    token = sample("gitlab-fork-merge-request", iss=SELF_MANAGED, sub=subject)
    assert assembled([{"iss": SELF_MANAGED}], {"deployer": block}).catalog is None
    catalog = assembled([{"iss": SELF_MANAGED, "provider": "gitlab"}], {"deployer": block}).catalog
    assert catalog is not None
    assert not any(held.admits for held in evaluate(catalog.roles, "gitlab", token))


@pytest.mark.parametrize(
    "sub",
    [
        *("alice", "8a4c1f7e-30b6-4a52-9d27-6b6a0d0c9e11", "auth0|5f7c8ec7", "org-deployers"),
        *("report:x", "organization:acme", "space:web", "project:x", "*", "", "account:7"),
        "system:serviceaccount:web:releaser",
    ],
)
def test_no_other_subject_asks_for_a_provider(sub: str) -> None:
    assert "D025" not in codes("https://idp.example.org", {"StringLike": {"jwt:sub": sub}})


# Ids of one issuer at another


def test_an_id_of_a_shared_issuer_does_not_pass_for_the_same_id_of_ones_own() -> None:
    block = {"StringEqual": {"jwt:iss": [SELF_MANAGED, GITLAB], **ANY_PROJECT}}
    issuers = [{"iss": SELF_MANAGED, "provider": "gitlab"}, {"iss": GITLAB}]
    found = assembled(issuers, {"deployer": block})
    assert [problem.code for problem in found.problems] == ["T005"]
    assert found.catalog is None


def test_claims_of_two_providers_do_not_mean_the_same() -> None:
    block = {"StringEqual": {"jwt:iss": [SERVER, SELF_MANAGED], "jwt:sub": "repo:a/b:ref:x"}}
    issuers = [
        {"iss": SERVER, "provider": "github"},
        {"iss": SELF_MANAGED, "provider": "gitlab"},
    ]
    assert "T005" in {p.code for p in assembled(issuers, {"deployer": block}).problems}


def test_one_service_under_two_addresses_is_one() -> None:
    both = [GITHUB, f"{GITHUB}/octo-enterprise"]
    block = {
        "StringEqual": {"jwt:iss": both, "jwt:repository_id": "1", "jwt:ref": "refs/heads/main"}
    }
    assert assembled([{"iss": iss} for iss in both], {"deployer": block}).problems == ()


# Pointers to whole claims

CLAIMS = ["ref", "repository_id", "repository", "event_name", "workflow", "actor", "sub", "made_up"]
VALUES = ["refs/heads/main", "412890077", "octo-org/*", "push", "*", "Deploy", "main"]
OPERATORS = ["StringEqual", "StringLike", "StringNotEqual", "StringEqualIgnoreCase"]
written_keys = st.dictionaries(
    st.sampled_from(OPERATORS),
    st.dictionaries(st.sampled_from(CLAIMS), st.sampled_from(VALUES), min_size=1),
    max_size=3,
)
tokens = st.sampled_from(
    ["github-push-main", "github-pull-request-target", "github-tag", "github-reusable-workflow"]
)


@given(block=written_keys, name=tokens)
def test_a_pointer_to_a_whole_claim_is_read_as_the_claim(
    block: dict[str, dict[str, str]], name: str
) -> None:
    def written(begins: str) -> tuple[list[tuple[str, str, str]], list[bool]]:
        keyed = {op: {f"{begins}{c}": v for c, v in keys.items()} for op, keys in block.items()}
        found = assembled([{"iss": GITHUB}], {"deployer": with_issuer(keyed, GITHUB)})
        problems = [(p.code, p.message, p.hint) for p in found.problems]
        if found.catalog is None:
            return problems, []
        return problems, [h.admits for h in evaluate(found.catalog.roles, "github", sample(name))]

    assert written("jwt:/") == written("jwt:")


# What passed in silence

SILENT: dict[str, tuple[str, dict[str, Any], Block]] = {
    "keys of github.com from elsewhere": (
        "W119",
        {"iss": GITHUB, "jwksUri": "https://keys.example.net/jwks"},
        equal(repository_id="1", ref="refs/heads/main"),
    ),
    "github.com somewhere inside": (
        "W119",
        {"iss": GITHUB, "issInternal": "https://github.proxy.example.net"},
        equal(repository_id="1", ref="refs/heads/main"),
    ),
    "a job's token many times": (
        "W120",
        {"iss": GITHUB, "subjectTokenUse": "many"},
        equal(repository_id="1", ref="refs/heads/main"),
    ),
    "events with an underscore": (
        "W113",
        {"iss": GITHUB},
        {
            **equal(repository_id="1", ref="refs/heads/main"),
            "StringLike": {"jwt:event_name": "*_*"},
        },
    ),
    "every ref": (
        "W102",
        {"iss": GITHUB},
        {**equal(repository_id="1"), "StringLike": {"jwt:ref": "refs/*"}},
    ),
    "protected or not": (
        "W102",
        {"iss": GITHUB},
        equal(repository_id="1", ref_protected=["true", "false"]),
    ),
    "the issuer of 2021's beta": (
        "W118",
        {"iss": "https://vstoken.actions.githubusercontent.com"},
        equal(repository="octo-org/octo-repo"),
    ),
    "a tenant's own audience": (
        "W106",
        {"iss": "https://token.actions.octo.ghe.com", "aud": ["https://octo.ghe.com/octo-org"]},
        equal(repository_id="1", ref="refs/heads/main"),
    ),
}


@pytest.mark.parametrize(("code", "issuer", "block"), SILENT.values(), ids=SILENT)
def test_what_passed_in_silence_is_told(code: str, issuer: dict[str, Any], block: Block) -> None:
    found = assembled([issuer], {"deployer": with_issuer(block, issuer["iss"])})
    assert code in {problem.code for problem in found.problems}


# Events


@pytest.mark.parametrize(
    "event",
    [*OUTSIDERS_EVENTS, "commit_comment", "gollum", "invented_tomorrow", "", None, ["push"]],
)
def test_an_event_that_may_be_an_outsiders_must_be_named(event: object) -> None:
    token = sample("github-push-main", event_name=event)
    by_ids = equal(repository_id="412890077", ref="refs/heads/main")
    roles: dict[str, Block] = {"by-ids": with_issuer(by_ids, GITHUB)}
    if isinstance(event, str) and event:
        named = equal(repository_id="412890077", ref="refs/heads/main", event_name=event)
        roles["named"] = with_issuer(named, GITHUB)
    catalog = assembled([{"iss": GITHUB}], roles).catalog
    assert catalog is not None
    held = {h.role.name: h.admits for h in evaluate(catalog.roles, "github", token)}
    assert held == {name: name == "named" for name in roles}


def test_no_event_is_of_writers_and_of_outsiders() -> None:
    assert WRITERS_EVENTS.isdisjoint(OUTSIDERS_EVENTS)
    assert not WRITERS_EVENTS & {"commit_comment", "gollum", "pull_request_target", "workflow_run"}


# The mistakes of the first hour, and what to write instead

FIRST_HOUR: dict[str, tuple[dict[str, Any], Block, str, str]] = {
    "a short ref": ({}, equal(ref="main"), "W108", '"refs/heads/main"'),
    "head for heads": ({}, equal(ref="refs/head/main"), "W108", '"refs/heads/main"'),
    "a name for an id": (
        {},
        equal(repository_id="octo-org/octo-repo", ref="refs/heads/main"),
        "W108",
        "as the provider's tokens have it",
    ),
    "a URL for a repository": (
        {},
        equal(repository="https://github.com/octo-org/octo-repo.git"),
        "W108",
        '"octo-org/octo-repo"',
    ),
    "a claim that there is not": ({}, equal(branch="main"), "W108", "did you mean jwt:ref?"),
    "an event and a ref that exclude each other": (
        {},
        equal(event_name="pull_request", ref="refs/heads/main"),
        "W108",
        "drop one of the two",
    ),
    "yes for true": ({}, equal(ref_protected="yes"), "W108", '"true"'),
    "a sub without its beginning": (
        {},
        equal(sub="octo-org/octo-repo"),
        "W108",
        '"repo:octo-org/octo-repo:ref:refs/heads/main"',
    ),
    "GitHub's site for its issuer": ({"iss": "https://github.com"}, {}, "W118", "mend iss"),
    "an audience with a slash": (
        {"aud": [AUDIENCE + "/"]},
        equal(ref="refs/heads/main"),
        "W118",
        f'"{AUDIENCE}"',
    ),
}


@pytest.mark.parametrize(("issuer", "block", "code", "hint"), FIRST_HOUR.values(), ids=FIRST_HOUR)
def test_a_mistake_of_the_first_hour_is_told_with_what_to_write(
    issuer: dict[str, Any], block: Block, code: str, hint: str
) -> None:
    document = {"iss": GITHUB, **issuer}
    owned = {"StringEqual": {"jwt:repository_owner_id": "1", **block.get("StringEqual", {})}}
    found = assembled([document], {"deployer": with_issuer(owned, cast("str", document["iss"]))})
    hints = [problem.hint for problem in found.problems if problem.code == code]
    assert any(hint in told for told in hints), [str(problem) for problem in found.problems]


NEVER_ADVISED: dict[str, tuple[str, Block]] = {
    "a branch for a pull request": ("refs/pull/*", equal(event_name="pull_request")),
    "a branch for a release": ("refs/tags/*", equal(event_name="release")),
    "a branch for a merge queue": ("gh-readonly-queue/*", equal(event_name="merge_group")),
}


@pytest.mark.parametrize(("advised", "block"), NEVER_ADVISED.values(), ids=NEVER_ADVISED)
def test_a_hint_is_never_what_cannot_match(advised: str, block: Block) -> None:
    owned = with_issuer({"StringEqual": {"jwt:repository_id": "1", **block["StringEqual"]}}, GITHUB)
    [problem] = assembled([{"iss": GITHUB}], {"deployer": owned}).problems
    assert problem.code == "W102"
    assert advised in problem.hint


def test_a_longer_value_in_a_message_is_one_that_the_claim_can_have() -> None:
    block = {**equal(ref="refs/heads/main"), "StringLike": {"jwt:repository_id": "41*"}}
    owned = {**block, "StringEqual": {"jwt:repository_owner_id": "1", **block["StringEqual"]}}
    [problem] = assembled([{"iss": GITHUB}], {"deployer": with_issuer(owned, GITHUB)}).problems
    assert (problem.code, "410" in problem.message) == ("W104", True)
    assert "/" not in problem.hint
