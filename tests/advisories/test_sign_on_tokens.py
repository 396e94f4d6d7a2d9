"""
Tokens of identity providers that are no proof of who sends them, or are meant for somebody else.

The claims are those of a Keycloak realm in which people, programs and other clients have tokens
signed by the same keys. Each test changes a token that is accepted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from federation.documents.model import JwtIssuer
from federation.errors import Reason, Refusal
from tests.harness.broker import InProcess, refusal
from tests.harness.builders import (
    ABSENT,
    AUDIENCE,
    GENERIC,
    GITHUB,
    GITLAB,
    good,
    issuer,
    provider_of,
)
from tests.harness.issuer import FakeIssuer, FakeKey
from tests.harness.verification import proven, refused

CLI = "faas-cli"
LOGOUT: dict[str, object] = {"http://schemas.openid.net/event/backchannel-logout": {}}
WORKLOADS = issuer(GENERIC, audiences=("openfaas",))
PEOPLE = issuer(GENERIC, audiences=(), clients=(CLI, "dashboard"))
BOTH = issuer(GENERIC, audiences=("openfaas",), clients=(CLI,))
OPENFAAS = {"aud": ["openfaas", "account"], "typ": "Bearer"}


def judged(
    trusted: JwtIssuer, header: dict[str, Any] | None = None, /, **changes: Any
) -> Refusal | None:
    """The refusal of a token of Keycloak with *changes*, None if it is accepted."""
    sample = {GITHUB: "github-push-main", GITLAB: "gitlab-branch-main"}
    claims = good(sample.get(trusted.iss, "keycloak-user"), **{"iss": trusted.iss, **changes})
    fake = FakeIssuer(trusted.iss)
    try:
        proven(fake.token(claims, header=header), fake, [trusted])
    except Refusal as refusal:
        return refusal
    return None


def reason(
    trusted: JwtIssuer, header: dict[str, Any] | None = None, /, **changes: Any
) -> Reason | None:
    found = judged(trusted, header, **changes)
    return found.reason if found else None


# What an issuer signs for other purposes


def test_a_logout_token_is_not_exchanged() -> None:
    broker = InProcess()
    claims = broker.claims("keycloak-user", events=LOGOUT, typ="Logout")
    for header in ({"typ": "logout+jwt"}, {"typ": "JWT"}):
        answer = broker.exchange(broker.idp.token(claims, header=header))
        assert refusal(answer) == (400, "wrong_token_type")


@pytest.mark.parametrize(
    "typ",
    ["logout+jwt", "LOGOUT+JWT", "dpop+jwt", "secevent+jwt", "application/logout+jwt", "JWE",
     "application/application/jwt", "text/jwt", "jwt ", "at+jwt;x", "", 7, ["JWT"], True],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("trusted", [WORKLOADS, PEOPLE, issuer(GITHUB)], ids=lambda i: i.provider)
def test_no_other_type_is_exchanged_and_no_key_is_fetched_for_it(
    typ: object, trusted: JwtIssuer
) -> None:
    fake = FakeIssuer(trusted.iss)
    with pytest.raises(Refusal) as caught:
        proven(fake.token(good(iss=trusted.iss), header={"typ": typ}), fake, [trusted])
    assert caught.value.reason is Reason.WRONG_TOKEN_TYPE
    assert fake.requests == []


@pytest.mark.parametrize("typ", [None, "JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_types_of_identity_and_access_tokens_are_taken_in_every_spelling(
    typ: str | None,
) -> None:
    assert reason(WORKLOADS, {"typ": typ}, azp=ABSENT, **OPENFAAS) is None


@pytest.mark.parametrize("events", [LOGOUT, {}, None, "", 0, False])
def test_a_token_with_events_is_refused_whatever_they_are(events: object) -> None:
    for trusted in (PEOPLE, WORKLOADS):
        aud = CLI if trusted is PEOPLE else "openfaas"
        assert reason(trusted, aud=aud, azp=ABSENT, events=events) is Reason.WRONG_TOKEN_TYPE


# Tokens of other clients


def test_the_access_token_of_another_client_of_the_realm_is_refused() -> None:
    # Keycloak adds a client to `aud` once the user has a role on it.
    found = judged(WORKLOADS, azp="lunch-menu", **OPENFAAS)
    assert found
    assert found.reason is Reason.WRONG_PARTY
    assert found.public == f"{Reason.WRONG_PARTY.sentence} Its azp is lunch-menu."
    assert "expected" in found.evidence


@pytest.mark.parametrize(
    "azp", ["lunch-menu", "OPENFAAS", "openfaas ", "", 7, True, [], ["openfaas"]]
)
def test_without_authorized_parties_azp_must_be_an_audience_or_a_client(azp: object) -> None:
    assert reason(WORKLOADS, azp=azp, **OPENFAAS) is Reason.WRONG_PARTY
    assert reason(BOTH, azp=azp, **OPENFAAS) is Reason.WRONG_PARTY
    for good_one in ("openfaas", "account", None, ABSENT):
        assert reason(WORKLOADS, azp=good_one, **OPENFAAS) is None
    assert reason(WORKLOADS, azp=CLI, **OPENFAAS) is Reason.WRONG_PARTY
    assert reason(BOTH, azp=CLI, **OPENFAAS) is None


def test_with_authorized_parties_azp_must_be_one_of_these() -> None:
    trusted = replace(BOTH, authorized_parties=("ci-bot", "cron"))
    for azp in ("ci-bot", "cron", None, ABSENT):
        assert reason(trusted, azp=azp, **OPENFAAS) is None
    for azp in ("openfaas", "account", CLI, "ci-bo", "", ["ci-bot"], 1):
        found = judged(trusted, azp=azp, **OPENFAAS)
        assert found
        assert found.reason is Reason.WRONG_PARTY
        assert "cron" not in found.public


def test_the_azp_of_a_provider_that_names_no_client_by_it_is_not_compared() -> None:
    accounts = with_profile(WORKLOADS, azp_is_client=False)
    assert reason(accounts, azp="104892101", **OPENFAAS) is None
    listed = with_profile(replace(accounts, authorized_parties=("7",)), azp_is_client=False)
    assert reason(listed, azp="104892101", **OPENFAAS) is Reason.WRONG_PARTY
    # A person's token is for a client, whoever else has an `azp` there.
    people = with_profile(PEOPLE, azp_is_client=False)
    assert reason(people, aud=CLI, azp="104892101") is Reason.WRONG_PARTY


def with_profile(trusted: JwtIssuer, **changes: Any) -> JwtIssuer:
    """*trusted*, of a provider with *changes* to its profile."""
    changed = replace(trusted)
    object.__setattr__(changed, "profile", replace(trusted.profile, **changes))
    return changed


# People


def test_a_persons_id_token_is_accepted_for_each_client() -> None:
    for client in (CLI, "dashboard"):
        for azp in (client, ABSENT, None):
            assert reason(PEOPLE, aud=client, azp=azp) is None
            assert reason(PEOPLE, aud=[client, "account"], azp=azp) is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aud": AUDIENCE}, Reason.WRONG_AUDIENCE),
        ({"aud": "faas"}, Reason.WRONG_AUDIENCE),
        ({"aud": ["account"]}, Reason.WRONG_AUDIENCE),
        ({"azp": "lunch-menu"}, Reason.WRONG_PARTY),
        ({"azp": "dashboard"}, Reason.WRONG_PARTY),
        ({"azp": "account", "aud": [CLI, "account"]}, Reason.WRONG_PARTY),
        ({"azp": [CLI]}, Reason.WRONG_PARTY),
        ({"exp": 1}, Reason.EXPIRED),
        ({"sub": ABSENT}, Reason.MISSING_CLAIM),
    ],
    ids=str,
)
def test_a_persons_token_for_something_else_is_refused(
    changes: dict[str, Any], expected: Reason
) -> None:
    assert reason(PEOPLE, **{"aud": CLI, "azp": CLI} | changes) is expected


def test_an_access_token_does_not_pass_for_an_id_token() -> None:
    assert reason(PEOPLE, {"typ": "at+jwt"}, aud=CLI, azp=CLI) is Reason.WRONG_TOKEN_TYPE
    keycloak = with_profile(PEOPLE, id_token_typ="ID")
    assert reason(keycloak, aud=CLI, azp=CLI) is None
    for typ in ("Bearer", "Refresh", "Logout", "id", ABSENT, None, ["ID"]):
        assert reason(keycloak, aud=CLI, azp=CLI, typ=typ) is Reason.WRONG_TOKEN_TYPE
    found = judged(keycloak, aud=CLI, azp=CLI, typ="Bearer")
    assert found
    assert found.public == f"{Reason.WRONG_TOKEN_TYPE.sentence} Its typ is Bearer."
    workloads = with_profile(WORKLOADS, id_token_typ="ID")
    assert reason(workloads, azp=ABSENT, **OPENFAAS) is None, "a workload sends access tokens"


def test_a_token_for_a_client_and_an_audience_is_held_to_be_a_persons() -> None:
    audiences = [CLI, "openfaas"]
    assert reason(BOTH, aud=audiences, azp=CLI) is None
    assert reason(BOTH, aud=audiences, azp="openfaas") is Reason.WRONG_PARTY
    assert reason(BOTH, {"typ": "at+jwt"}, aud=audiences, azp=CLI) is Reason.WRONG_TOKEN_TYPE


# A job can ask for any audience


@pytest.mark.parametrize("iss", [GITHUB, GITLAB])
def test_a_job_that_asks_for_a_clients_audience_does_not_pass_for_a_person(iss: str) -> None:
    trusted = issuer(iss, clients=(CLI,))
    assert reason(trusted) is None, "for the audience of jobs"
    found = judged(trusted, aud=CLI)
    assert found
    assert found.reason is Reason.WRONG_TOKEN_TYPE
    assert found.public.endswith(" It is a job's, and its audience is for people.")
    required = trusted.profile.required
    for left in required:
        for value in ("1", None, ""):
            others = dict.fromkeys(set(required) - {left}, ABSENT)
            changes: dict[str, Any] = {**others, left: value}
            assert reason(trusted, aud=CLI, **changes) is Reason.WRONG_TOKEN_TYPE
    assert reason(trusted, aud=CLI, **dict.fromkeys(required, ABSENT)) is None


@pytest.mark.parametrize("name", ["kubernetes-service-account", "aws-role"])
def test_nor_does_one_whose_own_claims_are_further_in(name: str) -> None:
    claims = good(name)
    trusted = issuer(str(claims["iss"]), provider=provider_of(name), clients=(CLI,))
    fake = FakeIssuer(trusted.iss, FakeKey(alg=min(trusted.profile.algorithms)))
    workload = proven(fake.token({**claims, "aud": AUDIENCE}), fake, [trusted])
    assert workload.claims["sub"] == claims["sub"]
    found = refused(fake.token({**claims, "aud": CLI}), fake, [trusted])
    assert found.reason is Reason.WRONG_TOKEN_TYPE


def test_a_persons_token_does_not_pass_for_a_jobs() -> None:
    trusted = issuer(GITLAB, clients=(CLI,))
    login = good("gitlab-user-login", iss=GITLAB)
    fake = FakeIssuer(GITLAB)
    for aud, expected in ((CLI, None), (AUDIENCE, Reason.NOT_A_CI_TOKEN)):
        try:
            proven(fake.token({**login, "aud": aud}), fake, [trusted])
            found = None
        except Refusal as refusal:
            found = refusal.reason
        assert found is expected


def test_the_provider_of_these_tokens_is_generic() -> None:
    assert {WORKLOADS.provider, PEOPLE.provider} == {"generic"}
