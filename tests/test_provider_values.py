"""The forms that claims, subjects and issuers of each provider have, and those they never have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.documents.model import Effect, Policy, Statement
from federation.documents.resources import Resource
from federation.documents.rules.lint import lint
from federation.documents.rules.owners import fixed_owner
from federation.errors import Problem
from federation.policy.conditions import Condition, Operator
from federation.providers.table import PROFILES, known_provider, likely_providers, shared
from tests.harness.builders import Document, issuer, role

UUID = "9b1c64f0-3d0e-4a7b-8f52-70d1c3aa9e10"
CIRCLECI = "oidc.circleci.com/"
DEPLOY = Policy(
    "deploy",
    (Statement("1", Effect.ALLOW, frozenset({"Function:Create"}), (Resource("fn:*"),)),),
)


def problems(provider: str, block: Document) -> list[Problem]:
    """The problems of a Role with this condition, at the issuer that the provider's page shows."""
    iss = PROFILES[provider].issuer_example
    block = {**block, "StringEqual": {"jwt:iss": iss, **block.get("StringEqual", {})}}
    made = role(condition=block)
    places = [("spec", "condition", each.operator.value, each.key) for each in made.conditions]
    issuers = {iss: issuer(iss, provider)}
    return lint(issuers, [replace(made, places=tuple(places))], {"deploy": DEPLOY})


# Issuers

ISSUERS: dict[str, tuple[list[str], list[str]]] = {
    "auth0": (
        ["https://octo.auth0.com/", "https://octo.eu.auth0.com/", "https://octo-1.eu.auth0.com/"],
        [
            *("https://octo.auth0.com", "https://.auth0.com/", "https://octo_eu.auth0.com/"),
            *("https://octo-eu.auth0.com.evil.example/", "https://octoxeu.auth0xcom/"),
            *(
                "https://octo.euxauth0.com/",
                "https://octo.eu.auth0xcom/",
                "https://octoxauth0.com/",
            ),
            *("https://octo.eu.auth0.com/x", "https://a.octo.eu.auth0.com/"),
        ],
    ),
    "aws": (
        ["https://6a0c41d7-92be.tokens.sts.global.api.aws"],
        [
            *("https://.tokens.sts.global.api.aws", "https://g.tokens.sts.global.api.aws"),
            *("https://6axtokens.sts.global.api.aws", "https://6a.tokensxsts.global.api.aws"),
            *("https://6a.tokens.stsxglobal.api.aws", "https://6a.tokens.sts.globalxapi.aws"),
            *("https://6a.tokens.sts.global.apixaws", "https://6a.tokens.sts.global.api.aws/"),
        ],
    ),
    "azure-devops": (
        [f"https://vstoken.dev.azure.com/{UUID}"],
        [
            *("https://vstoken.dev.azure.com/", f"https://vstokenxdev.azure.com/{UUID}"),
            *(f"https://vstoken.devxazure.com/{UUID}", f"https://vstoken.dev.azurexcom/{UUID}"),
            *(f"https://vstoken.dev.azure.com/{UUID}/", f"https://dev.azure.com/{UUID}"),
        ],
    ),
    "bitbucket": (
        ["https://api.bitbucket.org/2.0/workspaces/lab/pipelines-config/identity/oidc"],
        [
            "https://api.bitbucket.org/2.0/workspaces//pipelines-config/identity/oidc",
            "https://api.bitbucket.org/2.0/workspaces/a/b/pipelines-config/identity/oidc",
            "https://apixbitbucket.org/2.0/workspaces/lab/pipelines-config/identity/oidc",
            "https://api.bitbucketxorg/2.0/workspaces/lab/pipelines-config/identity/oidc",
            "https://api.bitbucket.org/2x0/workspaces/lab/pipelines-config/identity/oidc",
            "https://api.bitbucket.org/2.0/workspaces/lab/pipelines-config/identity/oidc/",
        ],
    ),
    "buildkite": (
        ["https://agent.buildkite.com"],
        [
            *("https://agent.buildkite.com/", "https://agentxbuildkite.com"),
            *("https://agent.buildkitexcom", "https://buildkite.com"),
        ],
    ),
    "circleci": (
        ["https://oidc.circleci.com", f"https://oidc.circleci.com/org/{UUID}"],
        [
            *("https://oidc.circleci.com/", "https://oidc.circleci.com/org/"),
            *("https://oidcxcircleci.com", "https://oidc.circlecixcom"),
            *("https://oidc.circleci.com/org/octo", f"https://oidc.circleci.com/org/{UUID}/x"),
        ],
    ),
    "codefresh": (
        ["https://oidc.codefresh.io"],
        [
            *("https://oidc.codefresh.io/", "https://oidcxcodefresh.io"),
            *("https://oidc.codefreshxio", "https://g.codefresh.io"),
        ],
    ),
    "entra": (
        [
            f"https://login.microsoftonline.com/{UUID}/v2.0",
            f"https://login.microsoftonline.us/{UUID}/v2.0",
            f"https://sts.windows.net/{UUID}/",
        ],
        [
            f"https://login.microsoftonline.com/{UUID}",
            "https://login.microsoftonline.com//v2.0",
            f"https://loginxmicrosoftonline.com/{UUID}/v2.0",
            f"https://login.microsoftonlinexcom/{UUID}/v2.0",
            f"https://login.microsoftonline.com/{UUID}/v2x0",
            f"https://login.microsoftonline.cn/{UUID}/v2.0",
            f"https://login.microsoftonline./{UUID}/v2.0",
            f"https://sts.windows.net/{UUID}",
            "https://sts.windows.net//",
            f"https://stsxwindows.net/{UUID}/",
            f"https://sts.windowsxnet/{UUID}/",
        ],
    ),
    "forgejo": (
        ["https://codeberg.org/api/actions"],
        [
            *("https://codeberg.org/api/actions/", "https://codebergxorg/api/actions"),
            *("https://codeberg.org", "https://git.example.org/api/actions"),
        ],
    ),
    "google": (
        ["https://accounts.google.com"],
        [
            *("https://accounts.google.com/", "https://accountsxgoogle.com"),
            *("https://accounts.googlexcom", "accounts.google.com"),
        ],
    ),
    "kubernetes": (
        [
            "https://oidc.eks.eu-west-1.amazonaws.com/id/4F0A",
            "https://oidc.eks.cn-north-1.amazonaws.com.cn/id/4F0A",
            "https://container.googleapis.com/v1/projects/p/locations/l/clusters/c",
            f"https://westeurope.oic.prod-aks.azure.com/{UUID}/{UUID}/",
        ],
        [
            "https://oidc.eks.eu-west-1.amazonaws.com/id/",
            "https://oidc.eks..amazonaws.com/id/4F0A",
            "https://oidcxeks.eu-west-1.amazonaws.com/id/4F0A",
            "https://oidc.eksxeu-west-1.amazonaws.com/id/4F0A",
            "https://oidc.eks.eu-west-1xamazonaws.com/id/4F0A",
            "https://oidc.eks.eu-west-1.amazonawsxcom/id/4F0A",
            "https://oidc.eks.cn-north-1.amazonaws.comxcn/id/4F0A",
            "https://container.googleapis.com/v1/projects//locations/l/clusters/c",
            "https://container.googleapis.com/v1/projects/p/locations//clusters/c",
            "https://container.googleapis.com/v1/projects/p/locations/l/clusters/",
            "https://containerxgoogleapis.com/v1/projects/p/locations/l/clusters/c",
            "https://container.googleapisxcom/v1/projects/p/locations/l/clusters/c",
            f"https://westeuropexoic.prod-aks.azure.com/{UUID}/{UUID}/",
            f"https://westeurope.oicxprod-aks.azure.com/{UUID}/{UUID}/",
            f"https://westeurope.oic.prod-aksxazure.com/{UUID}/{UUID}/",
            f"https://westeurope.oic.prod-aks.azurexcom/{UUID}/{UUID}/",
            f"https://.oic.prod-aks.azure.com/{UUID}/{UUID}/",
            f"https://westeurope.oic.prod-aks.azure.com//{UUID}/",
            f"https://westeurope.oic.prod-aks.azure.com/{UUID}//",
            "https://kubernetes.default.svc",
        ],
    ),
    "okta": (
        [
            *("https://octo.okta.com", "https://octo.oktapreview.com"),
            *("https://octo.okta-emea.com", "https://octo-1.okta.com/oauth2/aus1B"),
        ],
        [
            *("https://.okta.com", "https://octoxokta.com", "https://octo.oktaxcom"),
            *("https://octo.okta.com/oauth2/", "https://octo.okta.com/", "https://octo..com"),
            *("https://octo.okta.com/oauth2/a/b", "https://a.octo.okta.com"),
        ],
    ),
    "semaphore": (
        ["https://harbourlab.semaphoreci.com"],
        [
            *("https://.semaphoreci.com", "https://harbourlabxsemaphoreci.com"),
            *("https://harbourlab.semaphorecixcom", "https://harbourlab.semaphoreci.com/"),
        ],
    ),
    "spacelift": (
        ["https://harbourlab.app.spacelift.io", "https://harbourlab.app.us.spacelift.io"],
        [
            *("https://.app.spacelift.io", "https://harbourlabxapp.spacelift.io"),
            *("https://lab.appxspacelift.io", "https://lab.app.spaceliftxio"),
            *("https://lab.appxus.spacelift.io", "https://lab.app.eu.spacelift.io"),
            "https://lab.app.spacelift.io/",
        ],
    ),
    "terraform": (
        ["https://app.terraform.io"],
        [
            *("https://app.terraform.io/", "https://appxterraform.io"),
            *("https://app.terraformxio", "https://terraform.io"),
        ],
    ),
}


@pytest.mark.parametrize("provider", ISSUERS)
def test_an_issuer_is_a_providers_only_in_its_exact_form(provider: str) -> None:
    its_own, others = ISSUERS[provider]
    assert {iss: known_provider(iss) for iss in its_own} == dict.fromkeys(its_own, provider)
    assert {iss: known_provider(iss) for iss in others} == dict.fromkeys(others)


def test_every_known_issuer_is_tried_here() -> None:
    assert {*ISSUERS, "github", "gitlab"} == {n for n, p in PROFILES.items() if p.issuers}


@pytest.mark.parametrize(
    ("iss", "expected"),
    [
        ("https://github.example.com/_services/token", "github"),
        ("https://github.example.com/_services/token/", "github"),
        ("https://github.example.com/_services/token/x", None),
        ("https://git.example.org/api/actions", "forgejo"),
        ("https://git.example.org/api/actions/", "forgejo"),
        ("https://git.example.org/api/actions/x", None),
        ("https://git.example.org/api", None),
        ("https://kubernetes.default.svc", "kubernetes"),
        ("https://kubernetes.default.svc/", "kubernetes"),
        ("https://kubernetes.default.svc.cluster.local", "kubernetes"),
        ("https://kubernetes.default.svc.example.org", None),
        ("https://kubernetesxdefault.svc", None),
        ("https://kubernetes.defaultxsvc", None),
        ("https://kubernetes.default.svcxcluster.local", None),
        ("https://kubernetes.default.svc.clusterxlocal", None),
        ("https://a.example/?https://kubernetes.default.svc", None),
        ("https://jenkins.example.com/oidc", "jenkins"),
        ("http://jenkins/oidc/", "jenkins"),
        ("https://my-jenkins/oidc", "jenkins"),
        ("https://jenkins/ci/team/oidc", "jenkins"),
        ("https://jenkins.example.com/oidc/x", None),
        ("https://jenkins//oidc", None),
        ("https://jenkins.example.com/xoidc", None),
        ("https://ci.example.com/jenkins/oidc", None),
        ("https://ci.example.com/?https://jenkins/oidc", None),
    ],
)
def test_an_installation_of_ones_own_is_recognised_by_its_issuer(
    iss: str, expected: str | None
) -> None:
    assert likely_providers(iss) == ((expected,) if expected else ())


@pytest.mark.parametrize(
    ("iss", "expected"),
    [
        ("https://agent.buildkite.com", True),
        ("https://oidc.circleci.com", True),
        ("https://oidc.circleci.com/", True),
        ("https://oidc.circleci.com/org/", True),
        ("https://oidc.circleci.com/org/octo", True),
        (f"https://oidc.circleci.com/org/{UUID}/more", True),
        (f"https://oidc.circleci.com/org/{UUID}", False),
        ("https://oidc.codefresh.io", True),
        ("https://codeberg.org/api/actions", True),
        ("https://git.codeberg.org/api/actions", False),
        ("https://accounts.google.com", True),
        ("https://app.terraform.io", True),
        ("https://sts.windows.net/common/", True),
        ("https://login.microsoftonline.us/common/v2.0", True),
        ("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", True),
        (f"https://login.microsoftonline.com/{UUID}", True),
        (f"https://login.microsoftonline.com/{UUID}/v2x0", True),
        (f"https://login.microsoftonline.com/{UUID}/v2.0", False),
        (f"https://sts.windows.net/{UUID}/", False),
        ("https://actions.githubusercontent.com", False),
        ("https://xactions.githubusercontent.com", False),
        ("https://token.actions.githubusercontent.com.", True),
        ("https://.token.actions.githubusercontent.com", True),
        ("https://gitlab.com..", True),
        ("not a URL", False),
        ("", False),
    ],
)
def test_an_issuer_is_shared_if_strangers_get_tokens_there_too(iss: str, expected: bool) -> None:
    assert shared(iss) is expected


# Audiences

ASKED_FOR_NONE: dict[str, tuple[list[str], list[str]]] = {
    "azure-devops": (["api://AzureADTokenExchange"], ["api://other", ""]),
    "bitbucket": (
        ["ari:cloud:bitbucket::workspace/50a6"],
        ["ari:cloud:bitbucket::workspace/", "50a6"],
    ),
    "buildkite": (
        ["https://buildkite.com/harbour-lab"],
        ["https://buildkite.com/", "https://buildkitexcom/lab", "https://buildkite.com/a/b"],
    ),
    "circleci": ([UUID], [UUID.upper(), f"{{{UUID}}}", ""]),
    "codefresh": (
        ["https://g.codefresh.io"],
        ["https://gxcodefresh.io", "https://g.codefreshxio", "https://g.codefresh.io/"],
    ),
    "forgejo": (
        ["https://codeberg.org/octo"],
        ["https://codeberg.org/", "https://codebergxorg/octo", "https://codeberg.org/a/b"],
    ),
    "github": (
        ["https://github.com/octo-org", "https://octo.ghe.com/octo-org"],
        [
            *("https://github.com/", "https://githubxcom/octo-org", "https://github.com/a/b"),
            *("https://octoxghe.com/octo-org", "https://octo.ghexcom/octo-org"),
            *("https://.ghe.com/octo-org", "https://gitlab.com/octo-org", "https:///octo-org"),
        ],
    ),
    "gitlab": (["https://gitlab.com"], ["https://gitlabxcom", "https://gitlab.com/octo"]),
    "kubernetes": (
        ["https://kubernetes.default.svc", "https://kubernetes.default.svc.cluster.local"],
        [
            *("https://kubernetesxdefault.svc", "https://kubernetes.defaultxsvc"),
            *("https://kubernetes.default.svcxcluster.local", "https://kubernetes.default.svc/"),
            "https://kubernetes.default.svc.clusterxlocal",
        ],
    ),
    "semaphore": (
        ["https://harbourlab.semaphoreci.com"],
        [
            *("https://.semaphoreci.com", "https://labxsemaphoreci.com"),
            "https://lab.semaphorecixcom",
        ],
    ),
    "spacelift": (
        ["lab.app.spacelift.io", "lab.app.us.spacelift.io"],
        [
            *("labxapp.spacelift.io", "lab.appxspacelift.io", "lab.app.spaceliftxio"),
            *(".app.spacelift.io", "lab.appxus.spacelift.io", "https://lab.app.spacelift.io"),
        ],
    ),
}


@pytest.mark.parametrize("provider", ASKED_FOR_NONE)
def test_the_audience_of_tokens_that_asked_for_none_is_known(provider: str) -> None:
    default = PROFILES[provider].default_audiences
    known, others = ASKED_FOR_NONE[provider]
    assert default
    assert [audience for audience in known if not default.fullmatch(audience)] == []
    assert [audience for audience in others if default.fullmatch(audience)] == []


def test_every_default_audience_is_tried_here() -> None:
    assert ASKED_FOR_NONE.keys() == {n for n, p in PROFILES.items() if p.default_audiences}


# Values of claims

PATH = (
    ["octo-org/octo-repo", "a/b/c"],
    [
        *("octo-org", "/b", "a/", "a//b", "a b/c", "a/b c", "a*/b", "a/b*", "a:b/c", "a/b:c", ""),
        *("https://github.com/octo-org/octo-repo", "git@github.com:octo-org/octo-repo", "a@b/c"),
        "a/b@c",
    ],
)
NUMBER = (["0", "412890077"], ["", "12a", "-1", "1 "])
IN_LOWER_CASE = ([UUID], [UUID.upper(), f"{{{UUID}}}", UUID[1:], UUID[:-1], ""])
IN_BRACES = ([f"{{{UUID}}}"], [UUID, f"{{{UUID.upper()}}}", f"{{{UUID}", f"{UUID}}}", "{}"])
BRANCH = (["main", "feature/x"], ["refs/heads/main", "main*", ""])
WORD = (["alice", "dependabot[bot]"], ["two words", "alice*", ""])
FORMS: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("aws", "sub"): (
        [
            "arn:aws:iam::705331894220:role/web-releaser",
            "arn:aws-us-gov:sts::705331894220:assumed-role/x/y",
        ],
        [
            *("arn:aws:iam::705331894220:", "arn:aws:iam::705331894220:role/*"),
            *("arn:aws:iam::70533189422:role/x", "arn:aws:ec2::705331894220:x", "role/x"),
            "arn:aws:::705331894220:role/x",
        ],
    ),
    ("aws", "/https:~1~1sts.amazonaws.com~1/aws_account"): (
        ["705331894220"],
        ["", "70533189422", "7053318942200", "7053-3189-4220"],
    ),
    ("azure-devops", "org_id"): IN_LOWER_CASE,
    ("azure-devops", "run_id"): NUMBER,
    ("azure-devops", "sub"): (
        ["p://octo/web/deploy", "p://octo/web/a/b"],
        ["p:///web/deploy", "p://octo//deploy", "p://octo/web/", "octo/web/deploy", ""],
    ),
    ("bitbucket", "repositoryUuid"): IN_BRACES,
    ("bitbucket", "branchName"): BRANCH,
    ("bitbucket", "sub"): (["{a}", "{a}:{b}:{c}"], ["{}", "{a}:", "{a", "a}", "a", ""]),
    ("buildkite", "pipeline_slug"): (
        ["web", "harbour-lab", "a-b-1"],
        ["", "-web", "web-", "a--b", "Web", "web_1"],
    ),
    ("buildkite", "build_source"): (["ui", "trigger_job"], ["", "push", "uix"]),
    ("circleci", CIRCLECI + "vcs-origin"): (
        ["github.com/octo-org/octo-repo", "github.com/octo"],
        [
            *("github.com", "/octo", "github.com/", "github.com//octo", "git hub.com/octo", ""),
            *("github.com/octo org", "github.com/octo*", "git*/octo"),
            *("https://github.com/octo-org/octo-repo", "git@github.com:octo-org/octo-repo"),
        ],
    ),
    ("codefresh", "account_id"): (["65d0" * 6], ["65d0" * 5, "65D0" * 6, "65d0" * 7, ""]),
    ("codefresh", "scm_ref"): (["main", "feature/x"], ["refs/heads/main", "ma*", ""]),
    ("codefresh", "sub"): (
        ["account:65d0:pipeline:66e1"],
        ["account::x", "account:65d0:", "pipeline:65d0:x", "account:65d0", ""],
    ),
    ("github", "repository"): PATH,
    ("github", "repository_owner"): (
        ["octo-org"],
        ["octo-org/app", "a b", "a:b", "a@b", "octo*", ""],
    ),
    ("github", "repository_id"): NUMBER,
    ("github", "ref"): (
        ["refs/heads/main", "refs/tags/v1", "refs/pull/7/merge"],
        [
            *("main", "refs/heads/", "refs/heads/ma*", "refs/remotes/x", "heads/main", ""),
            "refs/merge-requests/1/head",
        ],
    ),
    ("github", "ref_protected"): (["true", "false"], ["True", "yes", "", "truex"]),
    ("github", "ref_type"): (["branch", "tag"], ["branches", "pull", ""]),
    ("github", "event_name"): (
        ["push", "pull_request", "pull_request_review_comment"],
        ["", "Push", "push_", "_push", "push ", "a__b"],
    ),
    ("github", "sub"): (
        ["repo:octo-org/octo-repo:ref:refs/heads/main", "a:b", "environment:two\nlines"],
        ["octo-org/octo-repo", "a::b", ":b", "a:", ""],
    ),
    ("github", "base_ref"): BRANCH,
    ("github", "actor"): WORD,
    ("github", "workflow_ref"): (
        ["octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main", "a/b/c@d"],
        ["a/b@d", "/b/c@d", "a//c@d", "a/b/@d", "a/b/c@", "a/b/c", "a:b/c/d@e", "a/b:c/d@e"],
    ),
    ("gitlab", "project_path"): PATH,
    ("gitlab", "namespace_path"): (
        ["octo-group", "octo-group/sub"],
        ["https://gitlab.com/octo-group", "a b", "a*", "a@b", "a:b", ""],
    ),
    ("gitlab", "ref"): (["main", "v1"], ["refs/heads/main", "refs/tags/v1", "ma*", ""]),
    ("gitlab", "ref_path"): (
        ["refs/heads/main", "refs/tags/v1", "refs/merge-requests/7/head"],
        ["main", "refs/pull/7/merge", "refs/heads/"],
    ),
    ("gitlab", "user_login"): WORD,
    ("gitlab", "sub"): (
        ["project_path:octo-group/app:ref_type:branch:ref:main", "a:b", "ref:two\nlines"],
        ["octo-group/app", "a::b", ":b", "a:", "Project:b", ""],
    ),
    ("gitlab", "ci_config_ref_uri"): (
        ["gitlab.com/octo/app//.gitlab-ci.yml@refs/heads/main", "a@b@c"],
        ["a", "@b", "a@", ""],
    ),
    ("google", "email"): (
        ["ann@example.org", "a+b@c+d"],
        ["ann", "@b", "a@", "a@b@c", "a b@c", "a@b c", "*@b", "a@*", ""],
    ),
    ("jenkins", "sub"): (
        ["https://jenkins.example.com/job/web/", "http://jenkins/job/web/"],
        ["ftp://jenkins/job/web/", "https://", "https://jenkins/job/*", "job/web", ""],
    ),
    ("kubernetes", "/kubernetes.io/namespace"): (
        ["a", "ab", "web-1", "a.b"],
        ["-a", "a-", "A", "a_b", ""],
    ),
    ("kubernetes", "sub"): (
        ["system:serviceaccount:web:deployer"],
        [
            *("system:serviceaccount::deployer", "system:serviceaccount:web:", "web:deployer"),
            *("system:serviceaccount:a:b:c", "system:serviceaccount:web", ""),
        ],
    ),
    ("semaphore", "ref"): (["refs/heads/main", "refs/pull/7"], ["main", "refs/", "refs/ma*", ""]),
    ("spacelift", "runType"): (["PROPOSED", "TRACKED"], ["tracked", "TRACKEDX", ""]),
    ("terraform", "terraform_workspace_id"): (["ws-A1b"], ["ws-", "ws_1", "prj-A1", "ws-a b", ""]),
    ("terraform", "terraform_project_id"): (["prj-A1b"], ["prj-", "ws-A1"]),
    ("terraform", "sub"): (
        ["organization:octo:project:web"],
        ["organization::web", "organization:octo:", "project:octo:web", ""],
    ),
}


@pytest.mark.parametrize(("provider", "claim"), FORMS, ids=" ".join)
def test_a_value_has_the_form_of_its_claim(provider: str, claim: str) -> None:
    form = PROFILES[provider].shapes[claim].whole
    fit, do_not = FORMS[provider, claim]
    assert [value for value in fit if not form.fullmatch(value)] == []
    assert [value for value in do_not if form.fullmatch(value)] == []


def test_a_claim_of_few_values_is_compared_to_all_of_them() -> None:
    few = {
        (name, claim): "|".join(sorted(shape.values))
        for name, profile in PROFILES.items()
        for claim, shape in profile.shapes.items()
        if shape.values
    }
    assert few["github", "ref_protected"] == "false|true"
    assert few["github", "ref_type"] == "branch|tag"
    assert few["semaphore", "ref_type"] == "branch|pull-request|tag"


REF_SLIPS = {
    "ref/head/main": "refs/heads/main",
    "ref/heads/main": "refs/heads/main",
    "refs/head/main": "refs/heads/main",
    "refs/branch/main": "refs/heads/main",
    "ref/branches/main": "refs/heads/main",
    "refs/tag/v1": "refs/tags/v1",
    "ref/tags/v1": "refs/tags/v1",
    "heads/main": "refs/heads/main",
    "main": "refs/heads/main",
    "feature/x": "refs/heads/feature/x",
    "feature/": None,
    "/main": None,
    "ref/head/": None,
    "ref/tag/": None,
    "ref/other/x": None,
}
PATH_SLIPS = {
    "https://github.com/octo-org/octo-repo": "octo-org/octo-repo",
    "http://github.com/octo-org/octo-repo": "octo-org/octo-repo",
    "https://github.com/octo-org/octo-repo.git": "octo-org/octo-repo",
    "https://github.com/octo-org/octo-repo.git/": "octo-org/octo-repo",
    "https://github.com/octo-org/octo-repo/": "octo-org/octo-repo",
    "https://github.com/octo-org/octo-xgit": "octo-org/octo-xgit",
    "git@github.com:octo-org/octo-repo.git": "octo-org/octo-repo",
    "https:///octo-org/octo-repo": None,
    "git@:octo-org/octo-repo": None,
    "https://github.com/": None,
    "git@github.com:": None,
    "octo-repo": None,
}
SHORT_SLIPS = {
    "refs/heads/feature/x": "feature/x",
    "refs/tags/v1": "v1",
    "refs/heads/": None,
}
SLIPS: dict[tuple[str, str], dict[str, str | None]] = {
    ("azure-devops", "org_id"): {f"{{{UUID}}}": UUID, "{octo}": None, "{}": None, "octo": None},
    ("bitbucket", "repositoryUuid"): {UUID: f"{{{UUID}}}", "web": None, "deploy": None},
    ("bitbucket", "branchName"): {"refs/heads/feature/x": "feature/x", "refs/heads/": None},
    ("circleci", CIRCLECI + "vcs-origin"): {
        "https://github.com/octo-org/octo-repo": "github.com/octo-org/octo-repo",
        "http://github.com/octo-org/octo-repo": "github.com/octo-org/octo-repo",
        "https://github.com/octo-org/octo-repo.git": "github.com/octo-org/octo-repo",
        "https://github.com/octo-org/octo-repo/": "github.com/octo-org/octo-repo",
        "https://github.com/octo-org/octo-xgit": "github.com/octo-org/octo-xgit",
        "git@github.com:octo-org/octo-repo.git": "github.com/octo-org/octo-repo",
        "https:///octo-org/octo-repo": None,
        "https://github.com/": None,
        "github.com:octo-repo": None,
        "octo-repo": None,
    },
    ("codefresh", "scm_ref"): {**SHORT_SLIPS, "refs/pull/7": None},
    ("github", "repository"): PATH_SLIPS,
    ("github", "repository_owner"): {
        "octo-org/octo-repo": "octo-org",
        "octo-org/": "octo-org",
        "https://github.com/octo-org": "octo-org",
        "http://github.com/octo-org/octo-repo": "octo-org",
        "https:///octo-org": None,
        "https://github.com/": None,
        "/octo-repo": None,
        "octo org": None,
    },
    ("github", "ref"): REF_SLIPS,
    ("github", "ref_protected"): {
        **dict.fromkeys(("yes", "on", "TRUE", "1", "Yes"), "true"),
        **dict.fromkeys(("no", "off", "False", "0"), "false"),
        **dict.fromkeys(("maybe", "10", "yesno"), None),
    },
    ("github", "sub"): {
        "octo-org/octo-repo": "repo:octo-org/octo-repo:ref:refs/heads/main",
        "octo-repo": None,
        "/octo-repo": None,
        "octo-org/": None,
        "octo org/octo-repo": None,
        "octo-org/octo repo": None,
    },
    ("gitlab", "project_path"): {
        "https://gitlab.com/octo-group/sub/app": "octo-group/sub/app",
        "app": None,
    },
    ("gitlab", "namespace_path"): {
        "https://gitlab.com/octo-group": "octo-group",
        "octo group": None,
    },
    ("gitlab", "ref"): SHORT_SLIPS,
    ("gitlab", "ref_path"): {"main": "refs/heads/main", "refs/pull/7": None},
    ("gitlab", "sub"): {
        "octo-group/sub/app": "project_path:octo-group/sub/app:ref_type:branch:ref:main",
        "app": None,
        "/app": None,
        "octo-group/": None,
        "octo group/app": None,
        "octo-group/my app": None,
    },
    ("kubernetes", "sub"): {
        "web:deployer": "system:serviceaccount:web:deployer",
        "web/deployer.1": "system:serviceaccount:web:deployer.1",
        ":deployer": None,
        "web:": None,
        "deployer": None,
    },
    ("semaphore", "ref"): {"main": "refs/heads/main", "ref/tag/v1": "refs/tags/v1"},
}
WRONG_VALUES = [
    pytest.param(provider, claim, wrong, right, id=f"{provider} {claim} {wrong}")
    for (provider, claim), slips in SLIPS.items()
    for wrong, right in slips.items()
]


@pytest.mark.parametrize(("provider", "claim", "wrong", "right"), WRONG_VALUES)
def test_a_usual_mistake_is_told_with_the_value_that_was_meant(
    provider: str, claim: str, wrong: str, right: str | None
) -> None:
    told = [
        problem
        for problem in problems(provider, {"StringEqual": {f"jwt:{claim}": wrong}})
        if problem.code == "W108" and f'"{wrong}" is none' in problem.message
    ]
    shown = "write the value as the provider's tokens have it; docs/providers.md shows one"
    hint = f'write "{right}"' if right else shown
    assert [problem.hint for problem in told] == [hint]


@pytest.mark.parametrize(
    ("provider", "claim", "pattern", "possible"),
    [
        ("github", "ref", "refs/he*", True),
        ("github", "ref", "refs/pull/7/*", True),
        ("github", "ref", "heads/*", False),
        ("github", "ref_type", "br*", True),
        ("github", "ref_type", "x*", False),
        ("github", "actor", "dependa*", True),
        ("gitlab", "ref_path", "refs/merge-requests/*", True),
        ("gitlab", "ref_path", "refs/pull/*", False),
        ("aws", "sub", "arn:aws:iam::705331894220:role/w*", True),
        ("aws", "sub", "arn:other*", False),
        ("azure-devops", "sub", "p://octo/web/*", True),
        ("azure-devops", "sub", "q://octo/web/*", False),
        ("bitbucket", "sub", "{a}:*", True),
        ("bitbucket", "sub", "a*", False),
        ("codefresh", "sub", "account:65d0:*", True),
        ("codefresh", "sub", "pipeline:*", False),
        ("jenkins", "sub", "http://jenkins/job/w/*", True),
        ("jenkins", "sub", "ftp://*", False),
        ("kubernetes", "sub", "system:serviceaccount:web:*", True),
        ("kubernetes", "sub", "system:node:*", False),
        ("semaphore", "ref", "refs/heads/*", True),
        ("semaphore", "ref", "heads/*", False),
        ("terraform", "terraform_workspace_id", "ws-A*", True),
        ("terraform", "terraform_workspace_id", "prj-A*", False),
    ],
)
def test_a_pattern_that_no_value_of_the_claim_can_match_is_told(
    provider: str, claim: str, pattern: str, possible: bool
) -> None:
    told = problems(provider, {"StringLike": {f"jwt:{claim}": pattern}})
    assert ("W108" not in {problem.code for problem in told}) is possible


@pytest.mark.parametrize(
    ("provider", "claim", "expected"),
    [
        ("github", "repo_property_team", True),
        ("github", "repo_property_", False),
        ("github", "repo_property_two\nlines", False),
        ("github", "my_repo_property_team", False),
        ("buildkite", "agent_tag:queue", True),
        ("buildkite", "agent_tag:", False),
        ("jenkins", "anything", True),
        ("jenkins", "", False),
        ("google", "google", True),
        ("keycloak", "realm_access", True),
        ("kubernetes", "kubernetes.io", True),
        *(("generic", claim, True) for claim in ("iss", "sub", "aud", "exp", "nbf", "iat", "jti")),
        ("gitlab", "groups_direct", True),
        ("gitlab", "ref", True),
        ("gitlab", "made_up", False),
        ("gitlab", "", False),
    ],
)
def test_a_provider_lists_the_claims_that_its_tokens_may_have(
    provider: str, claim: str, expected: bool
) -> None:
    assert PROFILES[provider].lists_claim(claim) is expected


# Parts of a subject

SUB_OWNERS: dict[str, dict[str, str | None]] = {
    "aws": {
        "arn:aws:iam::705331894220:role/x": "arn:aws:iam::705331894220:",
        "arn:aws-us-gov:sts::705331894220:assumed-role/x": "arn:aws-us-gov:sts::705331894220:",
        "arn:aws:iam:::role/x": None,
        "arn:aws:ec2::705331894220:x": None,
        "arn:aws:::705331894220:x": None,
        "xarn:aws:iam::705331894220:role/x": None,
        "": None,
    },
    "azure-devops": {
        "p://octo/web/deploy": "p://octo/web/",
        "p://octo/web": "p://octo/web/",
        "p:///web/deploy": None,
        "p://octo//deploy": None,
        "p://octo": None,
        "xp://octo/web/deploy": None,
    },
    "bitbucket": {
        "{a}:{b}:{c}": "{a}:",
        "{a}": "{a}:",
        "{}:{b}": None,
        "x{a}:{b}": None,
        "a:b": None,
    },
    "buildkite": {
        "organization:lab:pipeline:web": "organization:lab:",
        "organization:lab": "organization:lab:",
        "organization::pipeline:web": None,
        "xorganization:lab:pipeline:web": None,
        "pipeline:web": None,
    },
    "circleci": {
        "org/9b1c/project/70d1/user/1": "org/9b1c/",
        "org/9b1c": "org/9b1c/",
        "org//project/70d1": None,
        "xorg/9b1c/project/70d1": None,
        "project/70d1": None,
    },
    "codefresh": {
        "account:65d0:pipeline:66e1": "account:65d0:",
        "account::pipeline:66e1": None,
        "xaccount:65d0:pipeline:66e1": None,
        "pipeline:66e1": None,
    },
    "jenkins": {
        "https://jenkins/job/web/job/main/": "https://jenkins/job/web/",
        "http://jenkins/job/web": "http://jenkins/job/web/",
        "https://jenkins/ci/team/job/web/": "https://jenkins/ci/team/job/web/",
        "https:///job/web/": None,
        "https://jenkins//job/web/": None,
        "https://jenkins/job//": None,
        "https://jenkins/view/web/": None,
        "xhttps://jenkins/job/web/": None,
    },
    "kubernetes": {
        "system:serviceaccount:web:deployer": "system:serviceaccount:web:",
        "system:serviceaccount::deployer": None,
        "xsystem:serviceaccount:web:deployer": None,
        "system:node:web": None,
    },
    "semaphore": {
        "org:lab:project:web:repo:x": "org:lab:project:web:",
        "org:lab:project:web": "org:lab:project:web:",
        "org::project:web:x": None,
        "org:lab:project::x": None,
        "org:lab": None,
        "xorg:lab:project:web:x": None,
    },
    "spacelift": {
        "space:a:stack:b:run_type:TRACKED": "space:a:stack:b:",
        "space:a:module:b:run_type:TRACKED": "space:a:module:b:",
        "space::stack:b:x": None,
        "space:a:stack::x": None,
        "space:a::b:x": None,
        "space:a": None,
        "xspace:a:stack:b:x": None,
    },
    "terraform": {
        "organization:octo:project:web": "organization:octo:",
        "organization::project:web": None,
        "xorganization:octo:project:web": None,
        "project:web": None,
    },
    "github": {
        "repo:octo/app:x": "repo:octo/",
        "repository:octo/app:x": "repository:octo/",
        "ref:x:repo:octo/app": "ref:x:repo:octo/",
        "repository_owner:octo:x": "repository_owner:octo:",
        "repository_owner_id:12:x": "repository_owner_id:12:",
        "repository_id:34": "repository_id:34:",
        "ref:x:repository_id:34": "ref:x:repository_id:34:",
        "xrepo:octo/app:x": None,
        "xrepository_id:34": None,
        "repo:/app:x": None,
        "repository_id::x": None,
        "ref:octo/app": None,
        "a::b:x": None,
        ":octo/app": None,
        "": None,
    },
    "gitlab": {
        "project_path:octo/app:x": "project_path:octo/",
        "namespace_path:octo/sub:x": "namespace_path:octo/",
        "ref:x:project_path:octo/app": "ref:x:project_path:octo/",
        "project_id:12:x": "project_id:12:",
        "namespace_id:34": "namespace_id:34:",
        "ref:x:project_id:12": "ref:x:project_id:12:",
        "xproject_path:octo/app:x": None,
        "job_project_id:12:x": None,
        "project_path:/app:x": None,
        "project_id::x": None,
        "ref:octo/app": None,
        "a::b:x": None,
        ":octo/app": None,
        "": None,
    },
}


@pytest.mark.parametrize("provider", SUB_OWNERS)
def test_the_beginning_of_a_sub_fixes_the_owner(provider: str) -> None:
    def owner(sub: str) -> str | None:
        made = Condition(Operator.STRING_EQUAL, "jwt:sub", (sub,))
        return fixed_owner(PROFILES[provider], made, sub)

    assert {sub: owner(sub) for sub in SUB_OWNERS[provider]} == SUB_OWNERS[provider]


def test_the_subs_of_every_provider_are_tried_here() -> None:
    assert SUB_OWNERS.keys() == {n for n, p in PROFILES.items() if "sub" in p.owner.composed}


def test_a_whole_workspace_name_of_terraform_fixes_the_owner_as_its_sub_does() -> None:
    key = "jwt:terraform_full_workspace"
    value = "organization:octo:project:web:workspace:main"
    made = Condition(Operator.STRING_EQUAL, key, (value,))
    assert fixed_owner(PROFILES["terraform"], made, value) == "organization:octo:"


RESTRICTS_THE_REF: dict[tuple[str, str], tuple[list[str], list[str]]] = {
    ("buildkite", "sub"): (
        ["organization:a:pipeline:b:ref:refs/heads/main"],
        ["organization:a:pipeline:b:ref:refs/*", "organization:a:ref:refs//x", "organization:a"],
    ),
    ("circleci", "sub"): (
        ["org/a/project/b/vcs-ref/refs/heads/main"],
        ["org/a/project/b/vcs-ref/refs/*", "org/a/vcs-ref/refs//x", "org/a/project/b"],
    ),
    ("codefresh", "sub"): (
        ["account:a:pipeline:b:scm_ref:main"],
        ["account:a:pipeline:b:scm_ref:*", "account:a:scm_ref:?x", "account:a"],
    ),
    ("forgejo", "sub"): (
        ["repo:o/a:ref:refs/heads/main"],
        ["repo:o/a:ref:refs/*", "repo:o/a:ref:refs//x", "repo:o/a:pull_request"],
    ),
    ("forgejo", "workflow_ref"): (
        ["o/a/.forgejo/workflows/d.yml@refs/heads/main"],
        ["o/a/d.yml@refs/*", "o/a/d.yml@refs//x", "o/a/d.yml"],
    ),
    ("github", "sub"): (
        ["repo:o/a:ref:refs/heads/main", "repo:o/a:ref_protected:true"],
        ["repo:o/a:ref:refs/*", "repo:o/a:ref:refs//x", "repo:o/a:x", "repo:o/a:ref_protected:*"],
    ),
    ("github", "workflow_ref"): (
        ["o/a/.github/workflows/d.yml@refs/heads/main"],
        ["o/a/d.yml@refs/*", "o/a/d.yml@refs//x", "o/a/d.yml"],
    ),
    ("gitlab", "sub"): (
        [
            *("project_path:o/a:ref_type:branch:ref:main", "project_id:1:ref_protected:true"),
            "project_path:o/a:ref_path:refs/heads/main",
        ],
        [
            *("project_path:o/a:ref:*", "project_path:o/a:ref:?x", "project_path:o/a:x"),
            *("project_path:o/a:ref_path:refs/*", "project_path:o/a:ref_path:refs//x"),
        ],
    ),
    ("semaphore", "sub"): (
        ["org:a:project:b:repo:c:ref_type:branch:ref:refs/heads/main"],
        ["org:a:project:b:ref:refs/*", "org:a:project:b:ref:refs//x", "org:a:project:b"],
    ),
    ("spacelift", "sub"): (
        ["space:a:stack:b:run_type:TRACKED"],
        ["space:a:stack:b:run_type:*", "space:a:stack:b:run_type:?", "space:a:stack:b"],
    ),
    ("terraform", "sub"): (
        ["organization:a:project:b:run_phase:apply"],
        ["organization:a:run_phase:*", "organization:a:run_phase:?", "organization:a"],
    ),
}


@pytest.mark.parametrize(("provider", "claim"), RESTRICTS_THE_REF, ids=" ".join)
def test_a_claim_of_several_parts_restricts_the_ref_only_if_it_names_one(
    provider: str, claim: str
) -> None:
    part = PROFILES[provider].ref_within[claim]
    do, do_not = RESTRICTS_THE_REF[provider, claim]
    assert [value for value in do if not part.search(value)] == []
    assert [value for value in do_not if part.search(value)] == []


def test_every_claim_that_holds_a_ref_is_tried_here() -> None:
    assert RESTRICTS_THE_REF.keys() == {
        (name, claim) for name, profile in PROFILES.items() for claim in profile.ref_within
    }


@pytest.mark.parametrize(
    ("provider", "sub", "expected"),
    [
        ("bitbucket", "{a}:{b}:{c}", True),
        ("bitbucket", "{a}:{c}", False),
        ("bitbucket", "{}:{b}:{c}", False),
        ("bitbucket", "{a}:{}:{c}", False),
        ("bitbucket", "{x}{a}:{b}:{c}", False),
        ("github", "repo:o/a:environment:production", True),
        ("github", "repo:o/a:environment:*", False),
        ("github", "repo:o/a:environment:?", False),
        ("github", "repo:o/a:ref:refs/heads/main", False),
        ("gitlab", "project_path:o/a:environment:production", True),
        ("gitlab", "project_path:o/a:environment:*", False),
        ("gitlab", "project_path:o/a:ref:main", False),
    ],
)
def test_a_sub_restricts_the_environment_only_if_it_names_one(
    provider: str, sub: str, expected: bool
) -> None:
    within = PROFILES[provider].environment_within
    assert within
    assert bool(within.search(sub)) is expected


NAMED: dict[str, tuple[list[str], list[str]]] = {
    "buildkite": (["organization:lab:pipeline:web"], ["xorganization:lab", "pipeline:web"]),
    "forgejo": (["repo:octo/app:ref:x"], ["xrepo:octo/app", "repository_id:1"]),
    "github": (
        [
            *("repo:octo/app:ref:x", "repository:octo/app", "ref:x:repo:octo/app"),
            *("repository_owner:octo", "ref:x:repository_owner:octo", "repo::ref:x"),
        ],
        [
            *("repo:octo@1/app@2:ref:x", "xrepo:octo/app:x", "xrepository_owner:octo"),
            *("repository_id:1:x", "ref:x:y", ""),
        ],
    ),
    "gitlab": (
        ["project_path:octo/app:x", "namespace_path:octo:x", "ref:x:project_path:octo/app"],
        ["job_project_path:octo/app", "project_id:1:x", "ref:x:y", ""],
    ),
    "terraform": (["organization:octo:project:web"], ["xorganization:octo", "project:web"]),
}
WITH_ID: dict[str, tuple[list[str], list[str]]] = {
    "github": (
        [
            *("repo:octo@1/app@2:ref:x", "ref:x:repo:octo@1/app@2"),
            *("repository_id:1", "repository_id:1:x", "ref:x:repository_owner_id:2"),
        ],
        [
            *("repo:octo/app:x", "repo:@1/app", "repo:octo@/app", "repo:oc*@1/app", "x:y"),
            *("repository_id:", "repository_id:1*", "xrepository_id:1", "xrepo:octo@1/app"),
            *("ref:12", "ref:x:12", "repo:octo@x/app", "repository_id::x", ":1"),
        ],
    ),
    "gitlab": (
        ["project_id:1", "project_id:1:x", "ref:x:namespace_id:2"],
        [
            *("project_id:", "project_id:1*", "job_project_id:1", "project_path:o/a", "x:y"),
            *("ref:12", "project_id::x", ":1"),
        ],
    ),
}


@pytest.mark.parametrize("provider", NAMED)
def test_a_sub_that_holds_a_name_is_told_from_one_that_does_not(provider: str) -> None:
    name = next(names.sub_name for names in PROFILES[provider].names if names.sub_name)
    holds, does_not = NAMED[provider]
    assert [sub for sub in holds if not name.search(sub)] == []
    assert [sub for sub in does_not if name.search(sub)] == []


@pytest.mark.parametrize("provider", WITH_ID)
def test_a_sub_that_holds_an_id_is_told_from_one_that_does_not(provider: str) -> None:
    with_id = next(names.sub_id for names in PROFILES[provider].names if names.sub_id)
    holds, does_not = WITH_ID[provider]
    assert [sub for sub in holds if not with_id.search(sub)] == []
    assert [sub for sub in does_not if with_id.search(sub)] == []


@pytest.mark.parametrize(
    ("sub", "older"),
    [
        ("repo:octo@13/app@41:ref:x", "repo:octo/app@41:ref:x"),
        ("repo:octo/app:ref:x", "repo:octo/app:ref:x"),
        ("x:repo:octo@13/app", "x:repo:octo@13/app"),
        ("repo:@13/app", "repo:@13/app"),
        ("repo:octo@/app", "repo:octo@/app"),
        ("repo:octo@x/app", "repo:octo@x/app"),
    ],
)
def test_a_sub_with_ids_means_the_same_owner_as_the_older_form(sub: str, older: str) -> None:
    renamed = PROFILES["github"].owner.renamed_sub
    assert renamed
    assert renamed[0].sub(renamed[1], sub) == older


# Groups


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ("/resource_access/web/roles", True),
        ("/resource_access/account-console/roles", True),
        ("/resource_access/account/roles", False),
        ("/resource_access//roles", False),
        ("/resource_access/a/b/roles", False),
        ("/realm_access/roles", False),
        ("", False),
    ],
)
def test_the_roles_of_a_client_of_keycloak_are_groups_but_not_those_of_everybodys_own_page(
    claim: str, expected: bool
) -> None:
    more = PROFILES["keycloak"].owner.more_groups
    assert more
    assert bool(more.fullmatch(claim)) is expected


@pytest.mark.parametrize(
    ("provider", "group", "expected"),
    [
        ("keycloak", "default-roles-octo", True),
        ("keycloak", "offline_access", True),
        ("keycloak", "uma_authorization", True),
        ("keycloak", "default-roles-", False),
        ("keycloak", "deployers", False),
        ("keycloak", "", False),
        ("okta", "Everyone", True),
        ("okta", "Deployers", False),
        ("okta", "", False),
    ],
)
def test_a_group_that_everybody_has_is_known(provider: str, group: str, expected: bool) -> None:
    everybody = PROFILES[provider].owner.everybody
    assert everybody
    assert bool(everybody.fullmatch(group)) is expected


# What a hint advises

PINS = {
    "auth0": ("sub", "<the caller's sub>"),
    "aws": ("sub", "arn:aws:iam::<account>:role/<role>"),
    "azure-devops": ("prj_id", "<id of the project>"),
    "bitbucket": ("repositoryUuid", "{<UUID of the repository>}"),
    "buildkite": ("organization_id", "<id of the organisation>"),
    "circleci": (CIRCLECI + "project-id", "<id of the project>"),
    "codefresh": ("pipeline_id", "<id of the pipeline>"),
    "entra": ("oid", "<object id>"),
    "forgejo": ("repository_owner_id", "<id of the owner>"),
    "generic": ("sub", "<the caller's sub>"),
    "github": ("repository_owner_id", "<id of the owner>"),
    "gitlab": ("namespace_id", "<id of the group>"),
    "google": ("sub", "<number of the account>"),
    "jenkins": ("sub", "<the job's URL>"),
    "keycloak": ("sub", "<the caller's sub>"),
    "kubernetes": ("sub", "system:serviceaccount:<namespace>:<name>"),
    "okta": ("sub", "<the caller's sub>"),
    "semaphore": ("prj_id", "<id of the project>"),
    "spacelift": ("callerId", "<the stack>"),
    "terraform": ("terraform_workspace_id", "ws-<id of the workspace>"),
}


@pytest.mark.parametrize("provider", PROFILES)
def test_the_hint_for_a_role_that_names_nobody_is_the_claim_to_pin(provider: str) -> None:
    claim, value = PINS[provider]
    [told] = [p for p in problems(provider, {}) if p.code in {"T002", "W114"}]
    assert f'{{"jwt:{claim}": ["{value}"]}}' in told.hint


SUBS_OF_AN_OWNER = {
    "aws": "arn:aws:iam::<owner>:*",
    "azure-devops": "p://<owner>/*",
    "bitbucket": "{<owner>:*",
    "buildkite": "organization:<owner>:*",
    "circleci": "org/<owner>/*",
    "codefresh": "account:<owner>:*",
    "forgejo": "repo:<owner>/*",
    "github": "repo:<owner>/*",
    "gitlab": "project_path:<owner>/*",
    "jenkins": "https://<controller>/job/<owner>/*",
    "kubernetes": "system:serviceaccount:<owner>:*",
    "semaphore": "org:<organisation>:project:<owner>:*",
    "spacelift": "space:<space>:stack:<owner>:*",
    "terraform": "organization:<owner>:*",
}


@pytest.mark.parametrize("provider", SUBS_OF_AN_OWNER)
def test_the_hint_for_a_sub_of_anybody_shows_where_the_owner_stands(provider: str) -> None:
    [told] = [p for p in problems(provider, {"StringLike": {"jwt:sub": "*"}}) if p.code == "T003"]
    assert told.hint == f'write "{SUBS_OF_AN_OWNER[provider]}"'


def test_a_sub_of_an_unknown_issuer_is_mended_as_it_begins() -> None:
    told = problems("generic", {"StringLike": {"jwt:sub": "organization:acme*"}})
    assert [p.hint for p in told if p.code == "T003"] == ['write "organization:acme:*"']


OF_ALL_AT_THE_ISSUER = {
    "aws account": ("aws", "/https:~1~1sts.amazonaws.com~1/aws_account", "705331894220"),
    "aws organisation": ("aws", "/https:~1~1sts.amazonaws.com~1/org_id", "o-a1"),
    "aws sub": ("aws", "sub", "arn:aws:iam::705331894220:*"),
    "azure-devops": ("azure-devops", "org_id", UUID),
    "bitbucket": ("bitbucket", "workspaceUuid", f"{{{UUID}}}"),
    "circleci": ("circleci", CIRCLECI + "org-id", UUID),
    "circleci sub": ("circleci", "sub", f"org/{UUID}/*"),
    "semaphore id": ("semaphore", "org_id", UUID),
    "semaphore name": ("semaphore", "org", "lab"),
}


@pytest.mark.parametrize(
    ("provider", "claim", "value"), OF_ALL_AT_THE_ISSUER.values(), ids=OF_ALL_AT_THE_ISSUER
)
def test_what_all_tokens_of_an_issuer_have_names_nobody(
    provider: str, claim: str, value: str
) -> None:
    operator = "StringLike" if "*" in value else "StringEqual"
    told = problems(provider, {operator: {f"jwt:{claim}": value}})
    assert "W114" in {problem.code for problem in told}


@pytest.mark.parametrize(
    ("provider", "path", "owner"),
    [
        ("github", "repository", "repository_owner"),
        ("forgejo", "repository", "repository_owner"),
        ("gitlab", "project_path", "namespace_path"),
    ],
)
def test_a_path_that_is_not_of_the_owner_beside_it_is_told(
    provider: str, path: str, owner: str
) -> None:
    def codes(name: str) -> set[str]:
        block = {"StringEqual": {f"jwt:{path}": "octo/app", f"jwt:{owner}": name}}
        return {problem.code for problem in problems(provider, block)}

    assert "W108" in codes("acme")
    assert "W108" not in codes("octo")
