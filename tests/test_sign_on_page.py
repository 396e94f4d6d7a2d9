"""
docs/sign-on.md: the documents of each provider's section admit that provider's ID token, and each
trap that the section names is caught.

The tokens and the metadata are those of `vectors/sign_on`, signed with keys of the tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from federation.cli.check import check
from federation.documents.assemble import assemble
from federation.documents.model import JwtIssuer, Role
from federation.documents.parse import parse
from federation.policy.roles import evaluate
from federation.providers.table import PROFILES
from tests.harness.builders import ABSENT, NOW, sample
from tests.harness.issuer import FakeIssuer
from tests.harness.verification import proven, refused

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "tests" / "vectors" / "sign_on"
PAGE = (ROOT / "docs" / "sign-on.md").read_text("utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
POLICY = BLOCKS[0]
DOCUMENTS: Mapping[str, str] = {
    found[1]: f"{block}---\n{POLICY}"
    for block in BLOCKS
    if (found := re.search(r"kind: JwtIssuer\nmetadata: \{name: (\w+)\}", block))
}
PROVIDERS = sorted(DOCUMENTS)
CLIENT = {
    name: json.loads((VECTORS / name / "id_token.json").read_text())["aud"] for name in PROVIDERS
}


@cache
def discovery(name: str) -> dict[str, Any]:
    """The metadata that a provider publishes."""
    found: dict[str, Any] = json.loads((VECTORS / name / "discovery.json").read_text("utf-8"))
    return found


def id_token(name: str, **changes: object) -> dict[str, object]:
    """The claims of a provider's ID token, issued a minute ago, with *changes*."""
    claims = json.loads((VECTORS / name / "id_token.json").read_text("utf-8"))
    lifetime = claims["exp"] - claims["iat"]
    claims |= {"iat": NOW - 60, "exp": NOW - 60 + lifetime}
    claims.pop("nbf", None)
    return {k: v for k, v in (claims | changes).items() if v is not ABSENT}


def issuers(text: str) -> list[JwtIssuer]:
    return [d for d in parse("sign-on.md", text.encode()).documents if isinstance(d, JwtIssuer)]


def roles(text: str) -> list[Role]:
    return [d for d in parse("sign-on.md", text.encode()).documents if isinstance(d, Role)]


def provider(name: str) -> FakeIssuer:
    """An issuer that publishes the provider's metadata, with a key of the tests."""
    fake = FakeIssuer(discovery(name)["issuer"])

    async def published(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=discovery(name))

    fake.discovery = published
    return fake


def admitted(name: str, claims: Mapping[str, object], text: str | None = None) -> bool:
    """Whether the documents of a section admit an ID token. Raises: Refusal."""
    text = text or DOCUMENTS[name]
    fake = provider(name)
    verified = proven(fake.token(claims), fake, issuers(text))
    kind = issuers(text)[0].provider
    return any(held.admits for held in evaluate(roles(text), kind, verified.claims))


def codes(text: str) -> set[str]:
    """The codes of the problems of documents."""
    return {problem.code for problem in assemble([parse("sign-on.md", text.encode())]).problems}


def test_every_provider_has_a_section_a_token_and_metadata() -> None:
    assert sorted(path.name for path in VECTORS.iterdir() if path.is_dir()) == PROVIDERS
    assert len(PROVIDERS) == 9
    assert PAGE.count("\nTraps:\n\n- ") == 9


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_documents_pass_a_strict_check(name: str, tmp_path: Path) -> None:
    (tmp_path / "documents.yaml").write_text(DOCUMENTS[name], "utf-8")
    result = CliRunner().invoke(check, [str(tmp_path), "--strict"])
    assert (result.exit_code, result.output) == (0, "3 documents: no problems\n")


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_documents_admit_the_provider_s_id_token(name: str) -> None:
    assert admitted(name, id_token(name))


@pytest.mark.parametrize("name", PROVIDERS)
def test_the_documents_are_for_the_published_issuer_and_its_algorithms(name: str) -> None:
    (issuer,) = issuers(DOCUMENTS[name])
    assert issuer.iss == discovery(name)["issuer"] == id_token(name)["iss"]
    published = set(discovery(name)["id_token_signing_alg_values_supported"])
    assert published & PROFILES[issuer.provider].algorithms
    assert {"code"} <= set(discovery(name)["response_types_supported"])


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_token_of_another_client_is_refused(name: str) -> None:
    fake = provider(name)
    other = fake.token(id_token(name, aud="another-client", azp=ABSENT))
    assert refused(other, fake, issuers(DOCUMENTS[name])).reason == "wrong_audience"
    party = fake.token(id_token(name, azp="another-client"))
    assert refused(party, fake, issuers(DOCUMENTS[name])).reason == "wrong_party"


KEYS = "https://www.googleapis.com/oauth2/v3/certs"
NO_GROUPS = {
    "keycloak": "groups",
    "auth0": "https://openfaas.example.com/groups",
    "okta": "groups",
    "entra": "roles",
    "gitlab": "groups_direct",
    "dex": "groups",
    "authentik": "groups",
    "zitadel": "urn:zitadel:iam:org:project:310921870012345600:roles",
}


@pytest.mark.parametrize("name", NO_GROUPS)
def test_nobody_is_admitted_where_groups_are_not_in_the_id_token(name: str) -> None:
    assert not admitted(name, id_token(name, **{NO_GROUPS[name]: ABSENT}))


NOT_ADMITTED: list[tuple[str, str, dict[str, object]]] = [
    ("keycloak", "a group of that name below another", {"groups": ["/team/dev"]}),
    ("keycloak", "the name without its path", {"groups": ["dev"]}),
    ("auth0", "who signed up without the organisation", {"org_id": ABSENT}),
    (
        "auth0",
        "groups under a name that is no URL",
        {"groups": ["dev"], "https://openfaas.example.com/groups": ABSENT},
    ),
    ("google", "an address at the domain without hd", {"hd": ABSENT}),
    ("google", "an address that was not verified", {"email_verified": False}),
    ("google", "somebody else of the Workspace", {"sub": "117290034418852200932"}),
    ("okta", "the group of everybody", {"groups": ["Everyone"]}),
    (
        "entra",
        "a person in too many groups",
        {
            "roles": ABSENT,
            "_claim_names": {"groups": "src1"},
            "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/…"}},
        },
    ),
    ("gitlab", "a member of the group above only", {"groups_direct": ["octo-group"]}),
    (
        "gitlab",
        "groups of the userinfo endpoint",
        {"groups_direct": ABSENT, "groups": ["octo-group/platform"]},
    ),
    (
        "dex",
        "the group of another connector",
        {"federated_claims": {"connector_id": "gitlab", "user_id": "583231"}},
    ),
    ("dex", "no federated:id", {"federated_claims": ABSENT}),
    (
        "zitadel",
        "the role of another organisation",
        {
            "urn:zitadel:iam:org:project:310921870012345600:roles": {
                "deployer": {"310921870099999999": "octo.example.com"}
            }
        },
    ),
    (
        "zitadel",
        "the roles of whichever project",
        {"urn:zitadel:iam:org:project:310921870012345600:roles": ABSENT},
    ),
]


@pytest.mark.parametrize(
    ("name", "changes"),
    [pytest.param(name, changes, id=f"{name}: {what}") for name, what, changes in NOT_ADMITTED],
)
def test_a_trap_admits_nobody(name: str, changes: dict[str, object]) -> None:
    assert not admitted(name, id_token(name, **changes))


REFUSED: list[tuple[str, str, dict[str, object], str]] = [
    ("keycloak", "an access token", {"typ": "Bearer", "aud": "account"}, "wrong_audience"),
    ("keycloak", "an access token for the client", {"typ": "Bearer"}, "wrong_token_type"),
    ("keycloak", "a logout token", {"events": {}, "nonce": ABSENT}, "wrong_token_type"),
    ("auth0", "no slash at the end", {"iss": "https://octo.eu.auth0.com"}, "untrusted_issuer"),
    (
        "okta",
        "a custom server",
        {"iss": "https://octo.okta.com/oauth2/default"},
        "untrusted_issuer",
    ),
    ("okta", "an access token", {"aud": "https://octo.okta.com"}, "wrong_audience"),
    (
        "entra",
        "another tenant",
        {"iss": "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0"},
        "untrusted_issuer",
    ),
    (
        "entra",
        "the v1.0 endpoint",
        {"iss": "https://sts.windows.net/c71179c2-3b75-4d3a-aecf-c1e15aee1a88/"},
        "untrusted_issuer",
    ),
    ("gitlab", "a token that was kept", {"iat": NOW - 300, "exp": NOW - 180}, "expired"),
    ("dex", "a trusted peer", {"azp": "another-client"}, "wrong_party"),
    (
        "authentik",
        "another application",
        {"iss": "https://authentik.example.com/application/o/dashboard/"},
        "untrusted_issuer",
    ),
    ("zitadel", "another application", {"azp": "310921870012345679"}, "wrong_party"),
]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [pytest.param(name, made, slug, id=f"{name}: {what}") for name, what, made, slug in REFUSED],
)
def test_a_trap_is_refused(name: str, changes: dict[str, object], reason: str) -> None:
    fake = provider(name)
    token = fake.token(id_token(name, **changes))
    assert refused(token, fake, issuers(DOCUMENTS[name])).reason == reason


@pytest.mark.parametrize("name", ["auth0", "authentik"])
def test_a_token_that_is_signed_with_hs256_is_refused(name: str) -> None:
    fake = provider(name)
    token = fake.token(id_token(name), header={"alg": "HS256"})
    assert refused(token, fake, issuers(DOCUMENTS[name])).reason == "unsupported_algorithm"


@pytest.mark.parametrize("name", ["auth0", "google", "entra"])
def test_an_opaque_access_token_is_refused(name: str) -> None:
    opaque = "ya29.a0AfH6SMBx0pAqUe"
    assert refused(opaque, provider(name), issuers(DOCUMENTS[name])).reason == "malformed_token"


def test_a_google_service_account_cannot_sign_in_as_a_person() -> None:
    fake = provider("google")
    account = "108820461937750012846"
    claims = id_token("google", sub=account, azp=account, hd=ABSENT)
    assert refused(fake.token(claims), fake, issuers(DOCUMENTS["google"])).reason == "wrong_party"


def test_a_gitlab_job_that_asks_for_the_client_as_audience_is_refused() -> None:
    fake = provider("gitlab")
    iss = discovery("gitlab")["issuer"]
    job = dict(sample("gitlab-branch-main", iss=iss, aud=CLIENT["gitlab"]))
    job |= {"iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 240}
    assert refused(fake.token(job), fake, issuers(DOCUMENTS["gitlab"])).reason == "wrong_token_type"


def test_a_person_of_gitlab_is_no_job() -> None:
    fake = provider("gitlab")
    token = fake.token(id_token("gitlab", aud="https://gateway.example.com"))
    assert refused(token, fake, issuers(DOCUMENTS["gitlab"])).reason == "not_a_ci_token"


ORG_AND_GROUPS = """\
      jwt:org_id: org_9ybsU1dN2dKfDkBi
    ForAnyValue:StringEqual:
      jwt:https://openfaas.example.com/groups: [dev]
"""
ALICE_OF_GOOGLE = """\
  principal:
    jwt:sub: ["117290034418852200931"]
"""
GROUP_OF_GITLAB = """\
ForAnyValue:StringEqual:
      jwt:groups_direct: [octo-group/platform]
"""
BY_NICKNAME = """\
StringLike:
      jwt:nickname: [alice]
"""
CHANGED: list[tuple[str, str, dict[str, str], str]] = [
    (
        "keycloak",
        "people by user name",
        {
            "ForAnyValue:StringEqual:\n      jwt:groups: [/dev]": "StringLike:\n      jwt:preferred_username: [alice]"
        },
        "W116",
    ),
    ("auth0", "nobody is pinned", {ORG_AND_GROUPS: ""}, "W114"),
    (
        "google",
        "nobody is pinned",
        {ALICE_OF_GOOGLE: "", "      jwt:hd: example.com\n": ""},
        "T002",
    ),
    ("okta", "everybody's group", {"[openfaas-dev]": "[Everyone]"}, "W114"),
    (
        "entra",
        "an address of everybody",
        {"c71179c2-3b75-4d3a-aecf-c1e15aee1a88/v2.0": "common/v2.0"},
        "W118",
    ),
    (
        "entra",
        "people by address",
        {
            "ForAnyValue:StringEqual:\n      jwt:roles: [OpenFaaS.Deployer]": "StringLike:\n      jwt:preferred_username: [alice@example.com]"
        },
        "W116",
    ),
    ("gitlab", "people by nickname only", {GROUP_OF_GITLAB: BY_NICKNAME}, "T004"),
]


@pytest.mark.parametrize(
    ("name", "edits", "code"),
    [pytest.param(name, edits, code, id=f"{name}: {what}") for name, what, edits, code in CHANGED],
)
def test_a_trap_in_the_documents_is_reported(name: str, edits: dict[str, str], code: str) -> None:
    text = DOCUMENTS[name]
    for old, new in edits.items():
        assert old in text
        text = text.replace(old, new)
    assert code in codes(text)


def test_keys_at_another_host_than_google_s_are_not_fetched() -> None:
    fake = provider("google")
    evil = {**discovery("google"), "jwks_uri": "https://www.googleapis.com.example/certs"}

    async def published(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=evil)

    fake.discovery = published
    token = fake.token(id_token("google"))
    assert refused(token, fake, issuers(DOCUMENTS["google"])).reason == "keys_unavailable"
    assert not fake.fetches
    written = {uri: f"  provider: google\n  jwksUri: {uri}\n" for uri in (evil["jwks_uri"], KEYS)}
    reported = [
        codes(DOCUMENTS["google"].replace("  provider: google\n", text))
        for text in written.values()
    ]
    assert reported == [{"W119"}, set()]


def test_a_role_for_jobs_on_an_issuer_with_clients_is_still_checked_as_one() -> None:
    text = DOCUMENTS["gitlab"]
    audiences = re.search(r"      jwt:aud:\n(?:        - .*\n)+", text)
    assert audiences
    for job in ("", "      jwt:aud: https://gateway.example.com\n"):
        assert codes(text.replace(audiences[0], job)) & {"T002", "W102", "W114"}
