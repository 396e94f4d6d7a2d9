"""The claims of a subject token that audit events keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from federation.audit.event import Trail
from federation.audit.kept_claims import NO_DECISION, AuditClaims, kept, left_out_by_default
from federation.jose.strict_json import dumps_ascii
from federation.providers.profile import PERSONAL
from federation.providers.table import PROFILES
from tests.harness.broker import URL, InProcess
from tests.harness.builders import GENERIC, GITHUB, GITLAB, issuer, provider_of, sample

VECTORS = Path(__file__).parent / "vectors" / "claims"
SAMPLES = sorted(path.stem for path in VECTORS.glob("*.json"))
PEOPLES = issuer(GITLAB, clients=("dashboard",))


def event_of(broker: InProcess) -> dict[str, Any]:
    (event,) = broker.journal.events
    written: dict[str, Any] = json.loads(dumps_ascii(event.as_json()))
    return written


# -- whose claims


@pytest.mark.parametrize("name", SAMPLES)
def test_a_jobs_event_keeps_what_decides_and_nothing_personal(name: str) -> None:
    claims = sample(name)
    provider = provider_of(name)
    left_out = AuditClaims.CI.left_out(issuer(str(claims["iss"]), provider), claims)
    if not PROFILES[provider].ci:
        assert left_out is None
        return
    assert left_out is not None
    chosen, cut = kept(claims, left_out)
    assert cut == ()
    assert {"iss", "sub", "aud", "exp", "iat"} <= chosen.keys()
    assert not chosen.keys() & (NO_DECISION | PERSONAL | PROFILES[provider].personal)
    assert all(claims[name] == value for name, value in chosen.items())
    assert set(claims) - set(chosen) <= left_out


@pytest.mark.parametrize(
    ("setting", "claims", "keeps"),
    [
        pytest.param(AuditClaims.NONE, {}, None, id="none"),
        pytest.param(AuditClaims.CI, {}, {"user_id"}, id="ci, a job"),
        pytest.param(
            AuditClaims.ALL,
            {},
            {"user_id", "user_email", "user_login", "user_identities"},
            id="all, a job",
        ),
        pytest.param(AuditClaims.CI, {"aud": "dashboard"}, None, id="ci, a person"),
        pytest.param(
            AuditClaims.CI, {"aud": ["another", "dashboard"]}, None, id="ci, a person among others"
        ),
        pytest.param(AuditClaims.ALL, {"aud": "dashboard"}, {"user_email"}, id="all, a person"),
    ],
)
def test_the_setting_says_whose(
    setting: AuditClaims, claims: dict[str, object], keeps: set[str] | None
) -> None:
    given = sample("gitlab-self-managed", **claims)
    left_out = setting.left_out(PEOPLES, given)
    if left_out is None or keeps is None:
        assert (left_out, keeps) == (None, None)
        return
    chosen, _ = kept(given, left_out)
    told = {"user_id", "user_email", "user_login", "user_identities"} & chosen.keys()
    assert keeps <= told
    assert setting is AuditClaims.ALL or told == keeps
    assert not NO_DECISION & chosen.keys()


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_no_rule_of_the_broker_needs_a_claim_that_is_left_out(name: str) -> None:
    profile = PROFILES[name]
    demanded = {claim for demand in profile.demands for claim in demand.claims}
    read = {*profile.required, *demanded, *profile.owner.ids, *profile.owner.code_ids}
    if profile.ci:
        assert not left_out_by_default(name) & read
    assert profile.personal <= profile.scalars | profile.lists | profile.objects


# -- in an exchange


def test_a_grant_and_a_refusal_by_roles_keep_the_claims() -> None:
    for changes, status in (({}, 200), ({"ref": "refs/heads/other"}, 400)):
        broker = InProcess()
        claims = broker.claims(**changes)
        assert broker.exchange(broker.issuer("github").token(claims)).status_code == status
        event = event_of(broker)
        left_out = NO_DECISION | {"actor"}
        assert event["claims"] == {n: v for n, v in claims.items() if n not in left_out}
        assert "claims_cut" not in event


def test_a_token_that_was_refused_for_its_time_keeps_them_too() -> None:
    broker = InProcess()
    token = broker.job(exp=1, iat=0, nbf=0)
    assert broker.exchange(token).json()["reason"] == "expired"
    assert event_of(broker)["claims"]["exp"] == 1


@pytest.mark.parametrize(
    "changes", [{"aud": "https://another.example.com"}, {"iss": "https://another.example.com"}]
)
def test_nothing_is_kept_of_a_token_that_is_not_for_us(changes: dict[str, Any]) -> None:
    broker = InProcess()
    broker.exchange(broker.job(**changes))
    assert broker.journal.events == []


def test_nothing_is_kept_of_a_token_that_nobody_signed() -> None:
    broker = InProcess()
    head, _, signature = broker.job().rpartition(".")
    broker.exchange(f"{head}.{signature[::-1]}")
    assert broker.journal.events == []


@pytest.mark.parametrize(("setting", "keeps"), [("none", False), ("ci", False), ("all", True)])
def test_a_persons_claims_are_kept_if_the_operator_says_so(setting: str, keeps: bool) -> None:
    broker = InProcess(audit_claims=setting)
    broker.exchange(broker.job("keycloak-user", azp=URL))
    event = event_of(broker)
    assert ("claims" in event) == keeps
    assert ("dana@example.com" in json.dumps(event)) == keeps
    assert "0b8f3a52d6c94c7f" not in json.dumps(event), "a nonce is for one sign-in alone"


def test_an_access_token_that_is_traded_leaves_no_claims() -> None:
    broker = InProcess()
    token = broker.access_token()
    broker.journal.events.clear()
    broker.exchange(
        token,
        scope="function",
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
    )
    assert "claims" not in event_of(broker)


# -- bounds


def test_claims_that_are_too_large_are_left_out_whole_and_named() -> None:
    claims = {
        "big": "x" * 6000,
        "bigger": ["y" * 100] * 70,
        "sub": "s",
        "iss": GITHUB,
        "small": {"a": 1},
    }
    chosen, cut = kept(claims, frozenset())
    assert chosen == {n: claims[n] for n in ("big", "sub", "iss", "small")}
    assert cut == ("bigger",)


@pytest.mark.parametrize("text", ["x", "é", "\U0001d4b3", "\n", '"', "\u2028"])
def test_an_event_never_keeps_more_than_8_kib_of_claims(text: str) -> None:
    for count, length in ((1, 16_000), (40, 400), (1000, 10), (2700, 1)):
        claims: dict[str, object] = {f"{text}{n}": text * length for n in range(count)}
        claims |= {"iss": "i", "sub": "s", "aud": "a"}
        chosen, cut = kept(claims, frozenset())
        assert len(dumps_ascii(chosen)) <= 8 * 1024
        assert len(dumps_ascii(cut)) <= 1024
        assert {"iss", "sub", "aud"} <= chosen.keys()
        assert cut or chosen == claims
        assert all(claims[name] == value for name, value in chosen.items())


def test_a_large_subject_does_not_keep_the_others_out() -> None:
    chosen, cut = kept({"sub": "s" * 9000, "iss": "i", "ref": "main"}, frozenset())
    assert (chosen, cut) == ({"iss": "i", "ref": "main"}, ("sub",))


TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJpIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "claims",
    [
        {"a": TOKEN},
        {"a": f"before {TOKEN} after"},
        {"a": {"b": [1, {"c": TOKEN}]}},
        {"a": {TOKEN: 1}},
        {"a": TOKEN, "pad": "é" * 4000},
        {TOKEN: "a"},
    ],
    ids=["whole", "within", "nested", "a member", "too large besides", "a name"],
)
def test_a_token_in_a_claim_is_replaced_and_the_claim_is_named(claims: dict[str, object]) -> None:
    trail = Trail("r", "POST", "/oauth/token", 1.0, claims={"iss": "i", **claims})
    event = trail.event(200)
    assert TOKEN[:40] not in json.dumps(event.as_json())
    assert event.claims_cut
    assert event.claims
    assert event.claims["iss"] == "i"


def test_text_that_only_resembles_a_token_stays() -> None:
    claims = {"a": "eyJ", "b": "monkey-ewok", "repository": "octo/eyJet"}
    assert kept(claims, frozenset()) == (claims, ())


def test_numbers_beyond_64_bits_and_odd_values_are_kept() -> None:
    claims: dict[str, object] = {"a": 10**30, "b": None, "c": [], "d": {"": [True, 1.5]}}
    assert kept(claims, frozenset()) == (claims, ())


def test_the_page_on_the_trail_names_every_personal_claim() -> None:
    page = (Path(__file__).parents[1] / "docs" / "audit.md").read_text("utf-8")
    named = PERSONAL | NO_DECISION
    for profile in PROFILES.values():
        named |= profile.personal
    assert [claim for claim in sorted(named) if f"`{claim}`" not in page] == []


def test_a_generic_issuer_is_not_taken_for_a_ci_system() -> None:
    assert AuditClaims.CI.left_out(issuer(GENERIC), sample("keycloak-user")) is None
