"""Verifying a subject token: each step on its own, and one error is enough for a refusal."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from federation.claims import UnverifiedClaims
from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing
from federation.issuers.verify import (
    check_claims,
    check_signature,
    find_signer,
    trusted_issuer,
    verify,
)
from federation.jose import jws
from federation.providers.table import PROFILES
from tests.harness.builders import (
    ABSENT,
    AUDIENCE,
    GENERIC,
    GITHUB,
    GITLAB,
    NOW,
    good,
    issuer,
    provider_of,
)
from tests.harness.issuer import FakeIssuer, FakeKey, answering, compact
from tests.harness.verification import proven, refused

VECTORS = Path(__file__).parent / "vectors" / "claims"
SAMPLE = {"github": "github-push-main", "gitlab": "gitlab-branch-main", "generic": "keycloak-user"}
ISS = {"github": GITHUB, "gitlab": GITLAB, "generic": GENERIC}


def claims_of(provider: str, **changes: Any) -> dict[str, Any]:
    return dict(good(SAMPLE[provider], **{"iss": ISS[provider], **changes}))


def judged(provider: str, **changes: Any) -> Reason | None:
    """The reason why a valid token with *changes* is refused, None if it is not."""
    fake = FakeIssuer(ISS[provider])
    try:
        proven(fake.token(claims_of(provider, **changes)), fake)
    except Refusal as refusal:
        return refusal.reason
    return None


# A valid token


@pytest.mark.parametrize("path", sorted(VECTORS.glob("*.json")), ids=lambda path: path.stem)
def test_every_sample_token_is_proven_except_a_persons_sign_in(path: Path) -> None:
    claims = good(path.stem)
    fake = FakeIssuer(str(claims["iss"]))
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    # A program's `azp` is the program's own, so the document has to list it.
    parties = (str(claims["azp"]),) if path.stem == "entra-application" else ()
    trusted = [
        issuer(
            fake.iss,
            provider_of(path.stem),
            audiences=tuple(audiences),
            authorized_parties=parties,
        )
    ]
    if path.stem in {"gitlab-user-login", "azure-devops-service-connection"}:
        assert refused(fake.token(claims), fake, trusted).reason is Reason.NOT_A_CI_TOKEN
        return
    verified = proven(fake.token(claims), fake, trusted)
    assert verified.claims == claims
    assert verified.issuer == trusted[0]
    assert verified.expires == claims["exp"]


ALGORITHMS = sorted(PROFILES["generic"].algorithms)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_generic_issuer_may_sign_with_any_of_ten_algorithms(alg: str) -> None:
    fake = FakeIssuer(GENERIC, FakeKey("k", alg))
    assert proven(fake.token(claims_of("generic")), fake).claims["sub"]


def test_other_header_members_are_ignored() -> None:
    fake = FakeIssuer()
    header = {"x5t": "abc", "cty": "JWT", "zip": "DEF", "b64": False}
    assert proven(fake.token(good(), header=header), fake).claims == good()


# 2: the issuer, before any key


@pytest.mark.parametrize(
    ("iss", "reason"),
    [
        (ABSENT, Reason.MISSING_CLAIM),
        (None, Reason.MISSING_CLAIM),
        ("", Reason.UNTRUSTED_ISSUER),
        (7, Reason.UNTRUSTED_ISSUER),
        ([GITHUB], Reason.UNTRUSTED_ISSUER),
        ({"iss": GITHUB}, Reason.UNTRUSTED_ISSUER),
        (f"{GITHUB}/", Reason.UNTRUSTED_ISSUER),
        (f"{GITHUB}/octo", Reason.UNTRUSTED_ISSUER),
        (f" {GITHUB}", Reason.UNTRUSTED_ISSUER),
        (GITHUB.upper(), Reason.UNTRUSTED_ISSUER),
        (GITHUB.removeprefix("https://"), Reason.UNTRUSTED_ISSUER),
        (GITHUB.replace("https", "http"), Reason.UNTRUSTED_ISSUER),
        ("https://vstoken.actions.githubusercontent.com", Reason.UNTRUSTED_ISSUER),
    ],
)
def test_the_issuer_is_known_by_its_exact_name_before_any_traffic(
    iss: object, reason: Reason
) -> None:
    fake = FakeIssuer()
    refusal = refused(fake.token(good(iss=iss)), fake)
    assert refusal.reason is reason
    assert refusal.public == reason.sentence
    assert fake.requests == []


# 3: the header


def header_reason(provider: str, header: dict[str, Any], key: FakeKey | None = None) -> Reason:
    fake = FakeIssuer(ISS[provider])
    refusal = refused(fake.token(claims_of(provider), header=header, key=key), fake)
    assert refusal.public.startswith(refusal.reason.sentence)
    assert fake.iss not in refusal.public
    return refusal.reason


@pytest.mark.parametrize(
    "alg",
    [
        *[None, "none", "None", "NONE", "HS256", "RS384", "RS512", "PS256", "ES256", "EdDSA"],
        *["rs256", "RS256 ", "", 7, ["RS256"], {"RS256": 1}, True],
    ],
    ids=str,
)
def test_no_other_algorithm_than_the_profiles_is_taken(alg: object) -> None:
    fake = FakeIssuer()
    token = fake.token(good(), header={"alg": alg})
    assert refused(token, fake).reason is Reason.UNSUPPORTED_ALGORITHM
    assert fake.requests == []


@pytest.mark.parametrize("alg", ["none", "HS256", "HS512", "ES256K", "Ed25519", "Ed448", "RS1"])
def test_a_generic_issuer_has_no_other_algorithm_either(alg: str) -> None:
    assert header_reason("generic", {"alg": alg}) is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize(
    ("provider", "header", "told"),
    [
        ("github", {"alg": "HS256"}, "Its alg is HS256; taken: RS256."),
        ("gitlab", {"alg": 'x"\n\u2028' + "y" * 300}, "Its alg is x%22%0A%E2%80%A8yyy"),
        ("github", {"alg": None}, "Its alg is (absent); taken: RS256."),
        ("generic", {"alg": "none"}, "Its alg is none; taken: ES256, ES384, ES512, EdDSA, PS256,"),
        ("github", {"crit": ["exp"]}, ""),
        ("generic", {"typ": "logout+jwt"}, "Its typ is logout+jwt."),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_refused_header_is_told_by_what_it_says_and_what_the_provider_takes(
    provider: str, header: dict[str, Any], told: str
) -> None:
    fake = FakeIssuer(ISS[provider])
    refusal = refused(fake.token(claims_of(provider), header=header), fake)
    assert refusal.public.startswith(f"{refusal.reason.sentence} {told}".strip())
    assert len(refusal.public) < 500
    assert re.fullmatch(r"[ !#-\[\]-~]+", refusal.public), "as RFC 6749, section 5.2 allows"


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], "exp", False, 0])
def test_a_header_with_crit_is_refused(crit: object) -> None:
    assert header_reason("github", {"crit": crit}) is Reason.UNSUPPORTED_ALGORITHM


@pytest.mark.parametrize("kid", ["other", "K1", " k1", "k" * 257, "../k1", "\0"])
@pytest.mark.parametrize("provider", SAMPLE)
def test_a_kid_must_be_one_that_the_issuer_publishes(provider: str, kid: object) -> None:
    assert header_reason(provider, {"kid": kid}) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("provider", SAMPLE)
def test_without_a_kid_the_one_key_that_fits_must_have_signed(provider: str) -> None:
    for kid in ({}, {"kid": None}, {"kid": ""}):
        fake = FakeIssuer(ISS[provider])
        claims = claims_of(provider)
        header = {"alg": "RS256", **kid}
        assert proven(compact(header, claims, fake.keys[0].sign), fake).claims == claims
        forged = compact(header, claims, FakeKey(which=1).sign)
        assert refused(forged, fake).reason is Reason.BAD_SIGNATURE
        fake.keys += (FakeKey("k2", which=1),)
        assert refused(forged, fake).reason is Reason.UNKNOWN_KEY, "nothing is guessed"


def test_a_kid_of_more_than_256_characters_causes_no_fetch() -> None:
    fake = FakeIssuer()
    for length, requests in ((257, 0), (256, 2)):
        token = fake.token(good(), header={"kid": "k" * length})
        assert refused(token, fake).reason is Reason.UNKNOWN_KEY
        assert len(fake.requests) == requests


@pytest.mark.parametrize("kid", [7, ["k1"], {"k1": 1}, True, False, 0, [], "k" * 257], ids=str)
def test_a_kid_of_the_wrong_type_is_unknown_even_if_it_may_be_absent(kid: object) -> None:
    assert header_reason("generic", {"kid": kid}) is Reason.UNKNOWN_KEY


# 4: the signature


def test_a_signature_by_another_key_under_this_name_is_bad() -> None:
    assert header_reason("github", {}, FakeKey("k1", which=1)) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda s: b"\0", id="one byte"),
        pytest.param(lambda s: s[:-1], id="cut"),
        pytest.param(lambda s: s + b"\0", id="longer"),
        pytest.param(lambda s: b"\0" + s, id="zero before"),
        pytest.param(lambda s: b"\0" * len(s), id="zeros"),
        pytest.param(lambda s: b"\xff" * len(s), id="ones"),
        pytest.param(lambda s: s[:-1] + bytes([s[-1] ^ 1]), id="a bit"),
        pytest.param(lambda s: s * 20, id="twenty times"),
    ],
)
def test_a_damaged_signature_is_bad(alg: str, damage: Any) -> None:
    fake = FakeIssuer(GENERIC, FakeKey("k", alg))
    header = {"alg": alg, "kid": "k"}
    token = compact(header, claims_of("generic"), lambda m: damage(fake.keys[0].sign(m)))
    assert refused(token, fake).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("where", ["header", "claims"])
def test_nothing_signed_can_be_changed(where: str) -> None:
    fake = FakeIssuer()
    first = fake.token(good()).split(".")
    other = fake.token(good(sub="someone else"), header={"x": 1}).split(".")
    mixed = [other[0], first[1], first[2]] if where == "header" else [first[0], other[1], first[2]]
    assert refused(".".join(mixed), fake).reason is Reason.BAD_SIGNATURE


def test_a_der_encoded_ecdsa_signature_is_bad() -> None:
    fake = FakeIssuer(GENERIC, FakeKey("k", "ES256"))
    private = fake.keys[0].private
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    token = compact(
        {"alg": "ES256", "kid": "k"},
        claims_of("generic"),
        lambda message: private.sign(message, ec.ECDSA(hashes.SHA256())),
    )
    assert refused(token, fake).reason is Reason.BAD_SIGNATURE


def test_keys_that_cannot_be_fetched_are_a_temporary_refusal() -> None:
    fake = FakeIssuer()
    fake.key_set = answering(503)
    refusal = refused(fake.token(good()), fake)
    assert refusal.reason is Reason.KEYS_UNAVAILABLE
    assert refusal.reason.temporary
    assert refusal.public == Reason.KEYS_UNAVAILABLE.sentence


# 5: subject, audience, times

OTHERS = [
    pytest.param("https://other.example", id="another"),
    pytest.param(f"{AUDIENCE}/", id="a slash more"),
    pytest.param(AUDIENCE.upper(), id="upper case"),
    pytest.param(f"{AUDIENCE}.evil.example", id="ours as prefix"),
    pytest.param(f"https://evil.example/{AUDIENCE}", id="ours as suffix"),
    pytest.param(AUDIENCE[:-1], id="a part of ours"),
    pytest.param("*", id="a star"),
    pytest.param("", id="empty"),
    pytest.param([], id="empty list"),
    pytest.param(["https://other.example"], id="a list of another"),
    pytest.param([[AUDIENCE]], id="a list in a list"),
    pytest.param([AUDIENCE, 7], id="ours and a number"),
    pytest.param([AUDIENCE, None], id="ours and null"),
    pytest.param({AUDIENCE: 1}, id="an object"),
    pytest.param(7, id="a number"),
    pytest.param(True, id="a boolean"),
]


@pytest.mark.parametrize("audience", OTHERS)
@pytest.mark.parametrize("provider", SAMPLE)
def test_a_token_for_another_audience_is_refused(provider: str, audience: object) -> None:
    assert judged(provider, aud=audience) is Reason.WRONG_AUDIENCE


def test_aud_may_be_a_list_of_one_and_a_longer_list_only_for_a_generic_issuer() -> None:
    for provider in SAMPLE:
        assert judged(provider, aud=[AUDIENCE]) is None
    assert judged("generic", aud=["account", AUDIENCE]) is None
    for provider in ("github", "gitlab"):
        assert judged(provider, aud=["account", AUDIENCE]) is Reason.WRONG_AUDIENCE
        assert judged(provider, aud=[AUDIENCE, AUDIENCE]) is Reason.WRONG_AUDIENCE


def test_any_of_the_issuers_audiences_is_accepted() -> None:
    fake = FakeIssuer()
    trusted = [issuer(audiences=("first", "second"))]
    assert proven(fake.token(good(aud="second")), fake, trusted).claims


MISSING = [ABSENT, None]


@pytest.mark.parametrize("claim", ["sub", "aud", "exp", "iat"])
@pytest.mark.parametrize("value", MISSING, ids=["absent", "null"])
@pytest.mark.parametrize("provider", SAMPLE)
def test_subject_audience_expiry_and_issue_are_required(
    provider: str, claim: str, value: object
) -> None:
    assert judged(provider, **{claim: value}) is Reason.MISSING_CLAIM


NOT_TIMES: list[object] = ["", str(NOW), True, [NOW], {}, -1, 253402300800, 10**40, 1e300]


@pytest.mark.parametrize(
    ("claim", "value", "reason"),
    [
        ("sub", "", Reason.MISSING_CLAIM),
        ("sub", 7, Reason.MALFORMED_TOKEN),
        ("sub", True, Reason.MALFORMED_TOKEN),
        ("sub", ["a"], Reason.MALFORMED_TOKEN),
        ("sub", {"a": 1}, Reason.MALFORMED_TOKEN),
        *[
            (claim, value, Reason.MALFORMED_TOKEN)
            for claim in ("exp", "iat", "nbf")
            for value in NOT_TIMES
        ],
        ("exp", False, Reason.MALFORMED_TOKEN),
        ("nbf", None, Reason.MALFORMED_TOKEN),
    ],
)
def test_a_claim_of_the_wrong_kind_is_malformed(claim: str, value: object, reason: Reason) -> None:
    assert judged("github", **{claim: value}) is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": NOW + 1}, None),
        ({"exp": NOW}, None),
        ({"exp": NOW - 29}, None),
        ({"exp": NOW - 29.5}, None),
        ({"exp": NOW - 30}, Reason.EXPIRED),
        ({"exp": NOW - 31}, Reason.EXPIRED),
        ({"exp": 0}, Reason.EXPIRED),
        ({"exp": 253402300799}, None),
        ({"iat": NOW + 30}, None),
        ({"iat": NOW + 31}, Reason.NOT_YET_VALID),
        ({"iat": NOW + 86400, "exp": NOW + 90000}, Reason.NOT_YET_VALID),
        ({"iat": NOW - 31 * 86400 - 29}, None),
        ({"iat": NOW - 31 * 86400 - 30}, Reason.EXPIRED),  # a token that is taken once
        ({"iat": 0}, Reason.EXPIRED),
        ({"nbf": NOW + 30}, None),
        ({"nbf": NOW + 30.5}, Reason.NOT_YET_VALID),
        ({"nbf": ABSENT}, None),
        ({"nbf": 0}, None),
        ({"exp": NOW - 31, "nbf": NOW + 31}, Reason.EXPIRED),
    ],
    ids=str,
)
def test_clocks_may_differ_by_thirty_seconds(
    changes: dict[str, Any], reason: Reason | None
) -> None:
    assert judged("github", **changes) is reason


# 6: the profile

REQUIRED = [
    *[("github", claim, Reason.MISSING_CLAIM) for claim in ("repository", "repository_owner")],
    *[("github", claim, Reason.MISSING_CLAIM) for claim in ("repository_id", "event_name")],
    ("github", "repository_owner_id", Reason.MISSING_CLAIM),
    *[("gitlab", claim, Reason.NOT_A_CI_TOKEN) for claim in ("project_id", "pipeline_id")],
    ("gitlab", "job_id", Reason.NOT_A_CI_TOKEN),
]


@pytest.mark.parametrize("value", [ABSENT, None, "", [], ["x"], {}, 1.5], ids=str)
@pytest.mark.parametrize(("provider", "claim", "reason"), REQUIRED)
def test_a_ci_token_must_have_the_claims_of_its_profile(
    provider: str, claim: str, reason: Reason, value: object
) -> None:
    assert judged(provider, **{claim: value}) is reason


def test_an_id_may_be_a_number() -> None:
    assert judged("github", repository_id=412890077) is None


# The order of the checks, and what the caller reads


def test_the_first_error_is_the_one_reported() -> None:
    fake = FakeIssuer()
    wrong_claims = {"iss": "https://x.example", "sub": "", "aud": "x", "exp": 1, "event_name": ""}
    wrong_header = {"alg": "none", "kid": "other"}
    told = {
        "iss": Reason.UNTRUSTED_ISSUER,
        "alg": Reason.UNSUPPORTED_ALGORITHM,
        "kid": Reason.UNKNOWN_KEY,
        "key": Reason.BAD_SIGNATURE,
        "sub": Reason.MISSING_CLAIM,
        "aud": Reason.WRONG_AUDIENCE,
        "exp": Reason.EXPIRED,
        "event_name": Reason.MISSING_CLAIM,
    }
    mended: set[str] = set()
    for what, reason in told.items():
        claims: dict[str, Any] = {k: v for k, v in wrong_claims.items() if k not in mended}
        header = {k: v for k, v in wrong_header.items() if k not in mended}
        key = FakeKey("k1", which=0 if "key" in mended else 1)
        assert refused(fake.token(good(**claims), header=header, key=key), fake).reason is reason
        mended.add(what)


@pytest.mark.parametrize(
    "changes",
    [{"sub": ABSENT}, {"sub": 7}, {"aud": ABSENT}, {"aud": "https://other.example"}],
    ids=str,
)
def test_until_the_audience_is_verified_the_caller_gets_constant_sentences(
    changes: dict[str, Any],
) -> None:
    fake = FakeIssuer()
    refusal = refused(fake.token(good(**changes)), fake)
    assert refusal.public == refusal.reason.sentence
    assert refusal.evidence


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exp": NOW - 90}, "It was valid until 2027-01-15T07:58:30Z, 90 s before now."),
        ({"nbf": NOW + 90}, "Its nbf is 2027-01-15T08:01:30Z, 90 s after now."),
        ({"iat": NOW + 95}, "Its iat is 2027-01-15T08:01:35Z, 95 s after now."),
        ({"iat": NOW + 95, "nbf": NOW + 95}, "Its iat is 2027-01-15T08:01:35Z, 95 s after now."),
        ({"iat": NOW + 95, "nbf": ABSENT}, "Its iat is 2027-01-15T08:01:35Z, 95 s after now."),
        ({"iat": ABSENT}, "Missing: iat."),
        ({"exp": "soon"}, "Its exp is not a time."),
        ({"event_name": "", "repository_id": None}, "Missing: repository_id, event_name."),
    ],
    ids=str,
)
def test_once_the_audience_is_verified_the_caller_gets_details(
    changes: dict[str, Any], told: str
) -> None:
    fake = FakeIssuer()
    refusal = refused(fake.token(good(**changes)), fake)
    assert refusal.public == f"{refusal.reason.sentence} {told}"


CLI = "faas-cli"
WITH_CLIENT = issuer(GENERIC, clients=(CLI,))
EVIDENCE: dict[str, tuple[JwtIssuer, dict[str, Any], dict[str, Any], dict[str, object]]] = {
    "no iss": (issuer(), {}, {"iss": ABSENT}, {"claim": "iss"}),
    "another iss": (issuer(), {}, {"iss": GITLAB}, {"iss": GITLAB}),
    "crit": (issuer(), {"crit": ["exp"]}, {}, {"iss": GITHUB, "crit": True}),
    "alg": (issuer(), {"alg": "HS256"}, {}, {"iss": GITHUB, "alg": "HS256"}),
    "typ": (issuer(), {"typ": "logout+jwt"}, {}, {"iss": GITHUB, "typ": "logout+jwt"}),
    "kid": (issuer(), {"kid": ["k1"]}, {}, {"iss": GITHUB, "kid": "[k1]"}),
    "events": (issuer(), {}, {"events": {}}, {"iss": GITHUB, "events": True}),
    "no sub": (issuer(), {}, {"sub": ""}, {"claim": "sub"}),
    "sub": (issuer(), {}, {"sub": 7}, {"claim": "sub", "got": "7"}),
    "no aud": (WITH_CLIENT, {}, {"aud": ABSENT}, {"claim": "aud", "expected": (AUDIENCE, CLI)}),
    "aud": (WITH_CLIENT, {}, {"aud": ["x"]}, {"got": "[x]", "expected": (AUDIENCE, CLI)}),
    "azp": (
        WITH_CLIENT,
        {},
        {"azp": "lunch-menu"},
        {"iss": GENERIC, "azp": "lunch-menu", "expected": (AUDIENCE, CLI)},
    ),
    "a person's azp": (
        WITH_CLIENT,
        {},
        {"aud": CLI, "azp": AUDIENCE},
        {"iss": GENERIC, "azp": AUDIENCE, "expected": (CLI,)},
    ),
    "a job's token for people": (
        issuer(clients=(CLI,)),
        {},
        {"aud": CLI, "event_name": ABSENT, "repository": ABSENT},
        {
            "iss": GITHUB,
            "aud": CLI,
            "claims": ["repository_owner", "repository_id", "repository_owner_id"],
        },
    ),
    "no iat": (issuer(), {}, {"iat": ABSENT}, {"missing": ["iat"]}),
    "nbf": (issuer(), {}, {"nbf": None}, {"claim": "nbf", "got": "(absent)"}),
    "too late": (issuer(), {}, {"exp": NOW - 90}, {"exp": NOW - 90, "now": NOW}),
    "too early": (issuer(), {}, {"iat": NOW + 95}, {"iat": NOW + 95, "now": NOW}),
    "not before": (issuer(), {}, {"nbf": NOW + 90}, {"nbf": NOW + 90, "now": NOW}),
    "no event": (
        issuer(),
        {},
        {"event_name": ""},
        {"provider": "github", "missing": ["event_name"]},
    ),
}


@pytest.mark.parametrize(("trusted", "header", "changes", "found"), EVIDENCE.values(), ids=EVIDENCE)
def test_the_operator_finds_what_was_wrong_with_a_token_beside_its_refusal(
    trusted: JwtIssuer, header: dict[str, Any], changes: dict[str, Any], found: dict[str, object]
) -> None:
    sample = "keycloak-user" if trusted.iss == GENERIC else "github-push-main"
    fake = FakeIssuer(trusted.iss)
    token = fake.token(good(sample, **{"iss": trusted.iss, **changes}), header=header)
    assert refused(token, fake, [trusted]).evidence == found


def test_the_operator_finds_the_key_that_did_not_sign() -> None:
    fake = FakeIssuer()
    refusal = refused(fake.token(good(), key=FakeKey("k1", which=1)), fake)
    assert refusal.evidence == {"iss": GITHUB, "kid": "k1", "alg": "RS256"}


def test_no_refusal_holds_the_token() -> None:
    fake = FakeIssuer()
    for changes in ({"iss": "x"}, {"aud": "x"}, {"exp": 1}, {"event_name": ""}, {"sub": 7}):
        token = fake.token(good(**changes))
        assert not any(part in str(refused(token, fake)) for part in token.split("."))


# The key under which a token is spent


def spend_key(fake: FakeIssuer, token: str) -> str:
    return proven(token, fake).spend_key


def test_a_token_is_spent_under_its_issuer_and_jti_whatever_else_it_says() -> None:
    github, gitlab = FakeIssuer(GITHUB), FakeIssuer(GITLAB)
    one = spend_key(github, github.token(good(jti="j")))
    assert len(one) == 64
    assert one == spend_key(github, github.token(good(jti="j", sub="other"), header={"x": 1}))
    assert one != spend_key(github, github.token(good(jti="J")))
    assert one != spend_key(gitlab, gitlab.token(good("gitlab-branch-main", jti="j")))
    seven = spend_key(github, github.token(good(jti=7)))
    assert seven == spend_key(github, github.token(good(jti="7")))


def test_issuer_and_jti_of_two_tokens_never_run_together_into_one_key() -> None:
    short, long = FakeIssuer("https://ci.example"), FakeIssuer("https://ci.example/a")
    first = short.token(good(iss=short.iss, jti="/a1"))
    assert spend_key(short, first) != spend_key(long, long.token(good(iss=long.iss, jti="1")))


@pytest.mark.parametrize("jti", [ABSENT, None, "", True, [], {"a": 1}, 1.5], ids=str)
def test_without_a_jti_the_token_itself_is_spent(jti: object) -> None:
    fake = FakeIssuer()
    first = fake.token(good(jti=jti))
    assert spend_key(fake, first) == spend_key(fake, first)
    assert spend_key(fake, first) != spend_key(fake, fake.token(good(jti=jti, sub="other")))


def test_a_second_signature_over_the_same_token_is_no_second_token() -> None:
    fake = FakeIssuer(GENERIC, FakeKey("k", "ES256"))
    claims = claims_of("generic", jti=ABSENT)
    first, second = fake.token(claims), fake.token(claims)
    assert first != second, "ECDSA signs with a fresh number each time"
    assert spend_key(fake, first) == spend_key(fake, second)


# Offline, as `explain` asks


def test_without_a_clock_times_need_only_be_times() -> None:
    trusted = issuer()
    issued, expires = check_claims(trusted, UnverifiedClaims(good(exp=1, iat=NOW * 2)), now=None)
    assert (issued, expires) == (NOW * 2, 1)
    for changes in ({"exp": "soon"}, {"exp": ABSENT}, {"aud": "x"}, {"repository": ""}):
        with pytest.raises(Refusal):
            check_claims(trusted, UnverifiedClaims(good(**changes)), now=None)


def test_the_trusted_issuer_is_found_by_iss() -> None:
    trusted = issuer()
    assert trusted_issuer(UnverifiedClaims(good()), {GITHUB: trusted}) is trusted
    with pytest.raises(Refusal):
        trusted_issuer(UnverifiedClaims(good()), {})


def test_one_ring_verifies_many_tokens() -> None:
    fake = FakeIssuer()

    async def story() -> None:
        ring = KeyRing(fake.connect)
        for number in range(20):
            token = jws.parse(fake.token(good(jti=str(number))))
            signer = await find_signer(token, {GITHUB: issuer()}, ring)
            assert verify(check_signature(token, signer), NOW).claims["jti"] == str(number)
        await ring.aclose()

    asyncio.run(story())
    assert len(fake.requests) == 2
