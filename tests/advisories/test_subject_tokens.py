"""
Attacks on the way from a subject token to a Role, which must keep failing.

Each test starts from a valid token that is admitted, and makes one change that has worked against
some verifier.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import Role
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import check_signature, find_signer, verify
from federation.jose import jws
from federation.policy.roles import admit
from federation.providers.table import PROFILES
from tests.harness.builders import (
    ABSENT,
    AUDIENCE,
    GENERIC,
    GITHUB,
    GITLAB,
    NOW,
    catalog,
    good,
    issuer,
    pinned,
    role,
)
from tests.harness.clock import Clock
from tests.harness.issuer import FakeIssuer, FakeKey, answering, compact
from tests.harness.verification import proven, refused

OCTO = pinned(repository_id="412890077", repository_owner_id="13420041")


def admitted(claims: Claims, *roles: Role) -> tuple[str, ...] | Reason:
    """The Roles that admit a token of *claims*, all the way from its signature, or why none."""
    documents: Catalog = catalog(*roles)
    fake = FakeIssuer(str(claims["iss"]))
    try:
        verified = proven(fake.token(claims), fake, documents.issuers.values())
        return tuple(r.name for r in admit(documents, verified.issuer, verified.claims).roles)
    except Refusal as refusal:
        return refusal.reason


def test_the_token_that_the_attacks_begin_with_is_admitted() -> None:
    assert admitted(good(), OCTO) == ("deployer",)


# a subject that its owner may define


def test_a_custom_subject_is_compared_whole_and_never_read_for_a_repository() -> None:
    custom = good("github-custom-sub", sub="repo:octo-org/octo-repo:ref:refs/heads/main:evil")
    whole = role(
        condition={
            "StringEqual": {
                "jwt:iss": [GITHUB],
                "jwt:sub": ["repo:octo-org/octo-repo:ref:refs/heads/main"],
            }
        }
    )
    repository = pinned(repository="octo-org/octo-repo")
    for rule in (whole, repository):
        assert admitted(custom, rule) is Reason.NO_ROLE_ADMITS
        assert admitted(good("github-custom-sub"), rule) is Reason.NO_ROLE_ADMITS
        assert admitted(good(), rule) == ("deployer",)


# claims that anybody can choose freely do not show who owns the code


@pytest.mark.parametrize("claim", ["workflow", "actor", "actor_id", "environment", "head_ref"])
def test_a_strangers_token_that_imitates_freely_chosen_claims_is_not_admitted(claim: str) -> None:
    rule = pinned(repository_owner_id="13420041", **{claim: "Deploy"})
    stranger = good(
        repository="evil/octo-repo",
        repository_owner="evil",
        repository_owner_id="666",
        **{claim: "Deploy"},
    )
    assert admitted(good(**{claim: "Deploy"}), rule) == ("deployer",)
    assert admitted(stranger, rule) is Reason.NO_ROLE_ADMITS


# case


def ignoring_case(value: str) -> Role:
    return role(
        condition={
            "StringEqual": {"jwt:iss": [GITHUB]},
            "StringEqualIgnoreCase": {"jwt:repository": [value]},
        }
    )


def test_names_are_compared_with_their_case_unless_the_operator_says_otherwise() -> None:
    exact = pinned(repository="Acme/Kit-s")
    assert admitted(good(repository="Acme/Kit-s"), exact) == ("deployer",)
    assert admitted(good(repository="acme/kit-s"), exact) is Reason.NO_ROLE_ADMITS
    assert admitted(good(repository="ACME/KIT-S"), ignoring_case("Acme/Kit-s")) == ("deployer",)


@pytest.mark.parametrize("look_alike", ["acme/\u212ait-s", "acme/kit-\u017f", "acme/k\u0131t-s"])
def test_no_letter_beyond_ascii_is_a_case_of_one_within(look_alike: str) -> None:
    for rule, claim in (("acme/kit-s", look_alike), (look_alike, "acme/kit-s")):
        assert admitted(good(repository=claim), ignoring_case(rule)) is Reason.NO_ROLE_ADMITS


# absent claims, and claims of another type

OPERATORS: dict[str, list[str]] = {
    "StringEqual": ["", "None", "null", "production"],
    "StringEqualIgnoreCase": ["", "NONE", "production"],
    "StringLike": ["*", "?", "", "N*"],
    "StringNotEqual": ["staging"],
    "StringNotLike": ["stag*"],
    "ForAnyValue:StringEqual": ["", "production"],
    "ForAnyValue:StringLike": ["*"],
}


def on_environment(operator: str, *values: str) -> Role:
    block: dict[str, Any] = {
        "StringEqual": {"jwt:iss": [GITHUB], "jwt:repository_owner_id": ["13420041"]}
    }
    block.setdefault(operator, {})
    block[operator] = {**block[operator], "jwt:environment": list(values)}
    return role(condition=block)


@pytest.mark.parametrize("absent", [ABSENT, None, "", [], {}], ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_no_operator_matches_a_claim_that_is_not_there(operator: str, absent: object) -> None:
    for value in OPERATORS[operator]:
        claims = good(environment=absent)
        assert admitted(claims, on_environment(operator, value)) is Reason.NO_ROLE_ADMITS


@pytest.mark.parametrize("claim", [["production"], {"production": True}, 1.0, [["production"]]])
@pytest.mark.parametrize("operator", [name for name in OPERATORS if ":" not in name])
def test_no_scalar_operator_matches_a_list_an_object_or_a_fraction(
    operator: str, claim: object
) -> None:
    for value in ("production", "*", "1.0", "1", "x"):
        claims = good(environment=claim)
        assert admitted(claims, on_environment(operator, value)) is Reason.NO_ROLE_ADMITS


@pytest.mark.parametrize("claim", [True, "true"], ids=["boolean", "text"])
def test_a_boolean_and_its_text_are_one(claim: object) -> None:
    rule = pinned(repository_owner_id="13420041", ref_protected="true")
    assert admitted(good(ref_protected=claim), rule) == ("deployer",)
    assert admitted(good(ref_protected="True"), rule) is Reason.NO_ROLE_ADMITS
    assert admitted(good(ref_protected=1), rule) is Reason.NO_ROLE_ADMITS


# slow patterns


@pytest.mark.alone
def test_a_pattern_of_many_stars_costs_no_more_than_pattern_times_value() -> None:
    rule = role(
        condition={
            "StringEqual": {"jwt:iss": [GITHUB], "jwt:repository_owner_id": ["13420041"]},
            "StringLike": {"jwt:ref": ["*a" * 60 + "b"]},
        }
    )
    begin = time.perf_counter()
    assert admitted(good(ref="a" * 4000), rule) is Reason.NO_ROLE_ADMITS
    assert time.perf_counter() - begin < 1


# the algorithm


def hmac_keyed_with(secret: bytes) -> Any:
    return lambda message: hmac.new(secret, message, hashlib.sha256).digest()


def public_pem(key: FakeKey) -> bytes:
    return key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("iss", [GITHUB, GITLAB, GENERIC])
@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "HS256", "hs256", "RSA", "RS1", ""])
def test_algorithms_beyond_the_profile_are_refused_alike(iss: str, alg: str) -> None:
    fake = FakeIssuer(iss)
    claims = good("gitlab-branch-main" if iss == GITLAB else "github-push-main", iss=iss)
    header = {"alg": alg, "kid": "k1"}
    for sign in (
        lambda _: b"",
        lambda _: b"\0",
        hmac_keyed_with(public_pem(fake.keys[0])),
        hmac_keyed_with(json.dumps(fake.keys[0].jwk()).encode()),
        fake.keys[0].sign,
    ):
        token = compact(header, claims, sign)
        refusal = refused(token, fake)
        unsigned = token.endswith(".")
        expected = Reason.MALFORMED_TOKEN if unsigned else Reason.UNSUPPORTED_ALGORITHM
        assert refusal.reason is expected
        assert refusal.public.startswith(expected.sentence)
    assert fake.requests == []


@pytest.mark.parametrize("alg", ["PS256", "RS384", "RS512", "ES256"])
def test_a_ci_token_signed_otherwise_than_with_rs256_is_refused(alg: str) -> None:
    key = FakeKey("k1", alg)
    fake = FakeIssuer(GITHUB, key)
    assert refused(fake.token(good()), fake).reason is Reason.UNSUPPORTED_ALGORITHM
    lying = fake.token(good(), header={"alg": "RS256"})
    fake.keys = (FakeKey("k1"),)
    assert refused(lying, fake).reason is Reason.BAD_SIGNATURE


ALGORITHMS = sorted(PROFILES["generic"].algorithms)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_key_verifies_no_signature_of_another_algorithm(alg: str) -> None:
    signer = FakeKey("k1", alg)
    fake = FakeIssuer(GENERIC, signer)
    claims = good(iss=GENERIC)
    assert proven(fake.token(claims), fake).claims == claims
    for other in {*ALGORITHMS} - {alg}:
        token = fake.token(claims, header={"alg": other})
        assert refused(token, fake).reason is Reason.BAD_SIGNATURE


def test_a_weak_rsa_key_verifies_no_token() -> None:
    weak = FakeKey("weak", bits=1024)
    for fake in (FakeIssuer(GITHUB, weak), FakeIssuer(GITHUB, FakeKey(), weak)):
        assert refused(fake.token(good(), key=weak), fake).reason is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    "changes", [{"use": "enc"}, {"alg": "RS512"}, {"alg": "PS256"}, {"key_ops": ["encrypt"]}]
)
def test_a_key_published_for_another_purpose_verifies_no_token(changes: dict[str, Any]) -> None:
    fake = FakeIssuer(GITHUB)
    fake.key_set = answering(
        json={"keys": [FakeKey("good", which=1).jwk(), FakeKey().jwk(**changes)]}
    )
    assert refused(fake.token(good()), fake).reason in {Reason.UNKNOWN_KEY, Reason.BAD_SIGNATURE}


# key names


def two_issuers() -> tuple[FakeIssuer, FakeIssuer, KeyRing]:
    github, gitlab = FakeIssuer(GITHUB, FakeKey("a")), FakeIssuer(GITLAB, FakeKey("b", which=1))
    places = {httpx2.URL(fake.iss).host: fake for fake in (github, gitlab)}

    async def both(request: httpx2.Request) -> httpx2.Response:
        return await places[request.url.host].answer(request)

    ring = KeyRing(lambda _: httpx2.AsyncClient(transport=httpx2.MockTransport(both)), Clock())
    return github, gitlab, ring


def test_one_issuers_key_never_verifies_anothers_token() -> None:
    github, gitlab, ring = two_issuers()
    trusted = {fake.iss: issuer(fake.iss) for fake in (github, gitlab)}

    async def reason(token: str) -> Reason | None:
        try:
            parsed = jws.parse(token)
            signer = await find_signer(parsed, trusted, ring)
            verify(check_signature(parsed, signer), NOW)
        except Refusal as refusal:
            return refusal.reason
        return None

    async def story() -> None:
        assert await reason(github.token(good())) is None
        assert await reason(gitlab.token(good("gitlab-branch-main"))) is None
        forged = gitlab.token(good())  # by GitLab's key, in GitHub's name
        assert await reason(forged) is Reason.UNKNOWN_KEY
        renamed = gitlab.token(good(), header={"kid": "a"})
        assert await reason(renamed) is Reason.BAD_SIGNATURE
        await ring.aclose()

    asyncio.run(story())


@pytest.mark.parametrize(
    "kid",
    [
        "https://evil.example/key",
        "../../../../dev/null",
        "/dev/null",
        "file:///etc/passwd",
        "k1\0",
        "' OR 1=1 --",
        "k" * 5000,
        ["k1"],
        {"$ne": ""},
        1,
    ],
    ids=lambda kid: str(kid)[:20],
)
def test_a_kid_is_never_used_as_a_path_or_url(kid: object) -> None:
    fake = FakeIssuer(GITHUB)
    token = fake.token(good(), header={"kid": kid})
    assert refused(token, fake).reason is Reason.UNKNOWN_KEY
    assert all(url.startswith(f"{GITHUB}/.well-known/") for url in fake.requests)


def test_two_keys_with_one_kid_verify_no_token() -> None:
    fake = FakeIssuer(GITHUB, FakeKey("k1"), FakeKey("k1", which=1), FakeKey("k2", which=2))
    for key in fake.keys[:2]:
        assert refused(fake.token(good(), key=key), fake).reason is Reason.UNKNOWN_KEY


# a token that brings its own key


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk", "x5c"])
def test_a_key_that_the_token_brings_is_never_used_nor_fetched(member: str) -> None:
    own = FakeKey("mine", which=1)
    value: dict[str, object] = {
        "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/cert",
        "jwk": own.jwk(),
        "x5c": ["MIIB"],
    }
    fake = FakeIssuer(GITHUB)
    for kid in ("mine", "k1"):
        token = fake.token(good(), key=own, header={member: value[member], "kid": kid})
        expected = Reason.UNKNOWN_KEY if kid == "mine" else Reason.BAD_SIGNATURE
        assert refused(token, fake).reason is expected
    assert not any("evil" in url for url in fake.requests)


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["http://example/unknown"], []])
def test_a_header_that_must_be_understood_is_refused(crit: list[str]) -> None:
    fake = FakeIssuer(GITHUB)
    token = fake.token(good(), header={"crit": crit, "b64": False})
    assert refused(token, fake).reason is Reason.UNSUPPORTED_ALGORITHM


# requests to places of the attacker's choice


@pytest.mark.parametrize(
    "iss",
    [
        "http://169.254.169.254",
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:8080",
        "https://gitlab.com/",
        "https://gitlab.com@evil.example",
        "https://gitlab.com.evil.example",
        "https://gitlab.com:443",
        "https://gitlab.com#",
        "https://gitlab.com?",
        "https://gitlab.com/../evil",
        "https://GITLAB.com",
        "HTTPS://gitlab.com",
        "https://gitlab\uff0ecom",
        "//gitlab.com",
        "gitlab.com",
        " https://gitlab.com",
        "https://gitlab.com\n",
        "file:///etc/passwd",
    ],
)
def test_an_issuer_that_is_not_configured_causes_no_request(iss: str) -> None:
    fake = FakeIssuer(GITLAB)
    assert refused(fake.token(good("gitlab-branch-main", iss=iss)), fake).reason is (
        Reason.UNTRUSTED_ISSUER
    )
    assert fake.requests == []


# a hostile issuer: tests/test_key_ring.py has each bad answer; here, with a valid token


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b" " * 65536


async def bomb() -> AsyncIterator[bytes]:
    yield gzip.compress(b" " * 4_000_000)


@pytest.mark.parametrize(
    ("place", "response"),
    [
        ("discovery", {"json": {"issuer": GITLAB, "jwks_uri": f"{GITHUB}/jwks"}}),
        ("discovery", {"json": {"issuer": GITHUB, "jwks_uri": "https://evil.example/jwks"}}),
        ("discovery", {"status": 301, "headers": {"Location": "https://evil.example/"}}),
        ("key_set", {"content": endless()}),
        ("key_set", {"content": bomb(), "headers": {"Content-Encoding": "gzip"}}),
    ],
    ids=["other issuer", "other host", "redirect", "endless", "bomb"],
)
def test_a_token_is_refused_after_a_hostile_answer(place: str, response: dict[str, Any]) -> None:
    fake = FakeIssuer(GITHUB)
    setattr(fake, place, answering(**response))
    assert refused(fake.token(good()), fake).reason is Reason.KEYS_UNAVAILABLE
    assert not any("evil" in url for url in fake.requests)


# key fetching as a weapon


def test_a_thousand_made_up_key_names_are_one_fetch_and_good_tokens_pass_meanwhile() -> None:
    fake = FakeIssuer(GITHUB)
    ring = KeyRing(fake.connect, Clock())
    trusted = {GITHUB: issuer()}

    async def reason(token: str) -> Reason | None:
        try:
            parsed = jws.parse(token)
            signer = await find_signer(parsed, trusted, ring)
            verify(check_signature(parsed, signer), NOW)
        except Refusal as refusal:
            return refusal.reason
        return None

    async def story() -> None:
        template = fake.token(good())
        assert await reason(template) is None
        _, payload, signature = template.split(".")
        for number in range(1000):
            header = compact({"alg": "RS256", "kid": f"x{number}"}, {}, lambda _: b"x")
            flooded = f"{header.split('.')[0]}.{payload}.{signature}"
            assert await reason(flooded) is Reason.UNKNOWN_KEY
        assert fake.fetches == 2
        fake.discovery = answering(503)
        assert await reason(fake.token(good())) is None
        await ring.aclose()

    asyncio.run(story())


# replay: two tokens with the same `jti` are the same token


def test_a_replayed_token_is_recognised_under_another_header() -> None:
    fake = FakeIssuer(GITHUB)
    first = proven(fake.token(good(jti="j")), fake)
    again = proven(fake.token(good(jti="j"), header={"typ": "at+jwt"}), fake)
    assert first.spend_key == again.spend_key


# clocks


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW - 60}, Reason.EXPIRED),
        ({"exp": ABSENT}, Reason.MISSING_CLAIM),
        ({"exp": None}, Reason.MISSING_CLAIM),
        ({"exp": str(int(NOW) + 300)}, Reason.MALFORMED_TOKEN),
        ({"exp": True}, Reason.MALFORMED_TOKEN),
        ({"exp": 10**30}, Reason.MALFORMED_TOKEN),
        ({"iat": ABSENT}, Reason.MISSING_CLAIM),
        ({"iat": NOW + 60}, Reason.NOT_YET_VALID),
        ({"nbf": NOW + 60}, Reason.NOT_YET_VALID),
        ({"nbf": str(int(NOW))}, Reason.MALFORMED_TOKEN),
    ],
    ids=str,
)
def test_a_token_out_of_its_time_is_refused(changes: dict[str, Any], reason: Reason) -> None:
    assert admitted(good(**changes), OCTO) is reason


@pytest.mark.parametrize("exp", [b"NaN", b"Infinity", b"1e999"])
def test_a_time_that_datetime_cannot_represent_is_refused(exp: bytes) -> None:
    fake = FakeIssuer(GITHUB)
    payload = json.dumps(good(exp="EXP")).encode().replace(b'"EXP"', exp)
    assert refused(fake.token(payload), fake).reason is Reason.MALFORMED_TOKEN


# audiences


@pytest.mark.parametrize(
    "audience",
    [
        [AUDIENCE, "https://other.example"],
        ["https://other.example", AUDIENCE],
        f"{AUDIENCE}/",
        AUDIENCE.upper(),
        f"{AUDIENCE}.evil.example",
        f"{AUDIENCE} https://other.example",
        "https://github.com/octo-org",
        "sts.amazonaws.com",
        "sigstore",
        "pypi",
        {"0": AUDIENCE},
    ],
    ids=str,
)
@pytest.mark.parametrize("sample", ["github-push-main", "gitlab-branch-main"])
def test_a_ci_token_that_was_meant_for_others_too_is_refused(sample: str, audience: object) -> None:
    rule = OCTO if sample.startswith("github") else pinned(iss=GITLAB, project_id="61204418")
    assert admitted(good(sample), rule) == ("deployer",)
    assert admitted(good(sample, aud=audience), rule) is Reason.WRONG_AUDIENCE


def test_the_audience_of_one_issuer_is_not_that_of_another() -> None:
    fake = FakeIssuer(GITHUB)
    trusted = [
        issuer(GITHUB, audiences=("https://staging.example",)),
        issuer(GITLAB, audiences=(AUDIENCE,)),
    ]
    assert refused(fake.token(good()), fake, trusted).reason is Reason.WRONG_AUDIENCE


# a person's sign-in, a fork's merge request

GROUP = pinned(iss=GITLAB, ref="main", ref_type="branch", project_id="61204418")


def test_a_persons_sign_in_token_is_no_ci_token_whatever_it_leaves_out() -> None:
    rule = role(condition={"StringEqual": {"jwt:iss": [GITLAB], "jwt:sub": ["14200311"]}})
    assert admitted(good("gitlab-user-login"), rule) is Reason.NOT_A_CI_TOKEN
    bare = good("gitlab-user-login", nonce=ABSENT, auth_time=ABSENT, sub_legacy=ABSENT)
    assert admitted(bare, rule) is Reason.NOT_A_CI_TOKEN
    for claim in ("project_id", "pipeline_id", "job_id"):
        partly = good("gitlab-branch-main", **{claim: ABSENT})
        assert admitted(partly, GROUP) is Reason.NOT_A_CI_TOKEN


def test_a_forks_merge_request_is_admitted_only_by_a_role_that_names_it() -> None:
    assert admitted(good("gitlab-branch-main"), GROUP) == ("deployer",)
    fork = good("gitlab-fork-merge-request")
    assert admitted(fork, GROUP) is Reason.NO_ROLE_ADMITS
    # Before GitLab's fix `project_*` named the parent.
    old = {"project_id": "61204418", "project_path": "octo-group/app", "namespace_id": "84410237"}
    for gone in (ABSENT, "61204418"):
        older = good("gitlab-fork-merge-request", **old, job_project_id=gone)
        assert admitted(older, GROUP) is Reason.EVENT_NOT_ALLOWED
    of_bob = pinned(iss=GITLAB, project_id="63990127")
    assert admitted(fork, of_bob) is Reason.EVENT_NOT_ALLOWED
    half = pinned(iss=GITLAB, project_id="63990127", pipeline_source="merge_request_event")
    assert admitted(fork, half) is Reason.EVENT_NOT_ALLOWED
    said = pinned(
        iss=GITLAB,
        project_id="63990127",
        pipeline_source="merge_request_event",
        job_project_id="61204418",
    )
    assert admitted(fork, said) == ("deployer",)


def test_a_child_of_a_forks_merge_request_pipeline_is_no_way_round() -> None:
    """The fork's own `.gitlab-ci.yml` starts the child, whose source is no merge request."""
    child = good("gitlab-branch-main", pipeline_source="parent_pipeline")
    assert admitted(child, GROUP) == ("deployer",), "job_project_id says that the code is no fork's"
    # An instance before GitLab's fix: `project_*` names the parent, and nothing names the fork.
    older = good(
        "gitlab-branch-main",
        pipeline_source="parent_pipeline",
        job_project_id=ABSENT,
        job_project_path=ABSENT,
    )
    assert admitted(older, GROUP) is Reason.EVENT_NOT_ALLOWED
    said = pinned(iss=GITLAB, project_id="61204418", pipeline_source="parent_pipeline")
    assert admitted(older, said) == ("deployer",)


# what a stranger can learn


def test_a_stranger_gets_the_same_answer_whatever_it_probes_for() -> None:
    fake = FakeIssuer(GITHUB)
    forged = FakeKey("k1", which=1)
    trusted = [replace(issuer(GITHUB), audiences=("https://a-secret-audience.example",))]
    heard = {
        refused(fake.token(good(**changes), key=forged), fake, trusted).public
        for changes in (
            {},
            {"sub": ABSENT},
            {"aud": "x"},
            {"aud": "https://a-secret-audience.example"},
            {"exp": 1},
            {"repository": ABSENT},
            {"repository": "octo-org/octo-repo"},
        )
    }
    assert heard == {Reason.BAD_SIGNATURE.sentence}
    elsewhere = refused(fake.token(good()), fake, trusted)
    assert elsewhere.public == Reason.WRONG_AUDIENCE.sentence
    assert "a-secret-audience" in str(elsewhere.evidence), "the operator is told"


def test_the_github_profile_is_as_strict_under_any_issuers_name() -> None:
    trusted = [issuer("https://ghes.example/_services/token", "github")]
    fake = FakeIssuer("https://ghes.example/_services/token")
    several = fake.token(good(iss=fake.iss, aud=[AUDIENCE, "x"]))
    assert refused(several, fake, trusted).reason is Reason.WRONG_AUDIENCE
