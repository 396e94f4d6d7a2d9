"""
Tokens of the broker that would be of no use, or say something that is not so.

A token of more than 16 KiB is taken nowhere: its bearer could not even revoke it. Claims of a
sign-in or a delegation are about the subject token and would be wrong in the broker's own.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.claims import NOT_COPIED, Claims, is_copied
from federation.jose.jws import MAX_TOKEN_BYTES
from federation.policy.roles import Admission
from federation.tokens import mint
from tests.harness import documents
from tests.harness.broker import BrokenStore, InProcess, catalog_of, refusal, said
from tests.harness.builders import GITHUB, issuer

MANY = [f"policy-with-a-name-of-forty-characters-{n:03}" for n in range(400)]
CALLED = [f"dev:function-with-a-name-of-some-length-{n:03}" for n in range(400)]
"""Each list is larger than a token."""


@pytest.fixture
def broker() -> InProcess:
    return with_large_policies(InProcess())


def with_large_policies(broker: InProcess) -> InProcess:
    calling = documents.policy("call", {"action": ["Function:Invoke"], "resource": CALLED})
    small = documents.policy("small", {"action": ["Function:Get"], "resource": ["dev:*"]})
    policies = [documents.policy(name, {"action": ["*"], "resource": ["x:y"]}) for name in MANY]
    roles = {"everything": MANY, "hundred": MANY[:100], "caller": ["call"], "modest": ["small"]}
    broker.source.catalog = catalog_of(
        documents.as_text(
            documents.issuer("github", GITHUB),
            *(calling, small, *policies),
            *(role(name, given) for name, given in roles.items()),
        )
    )
    return broker


def role(name: str, policies: list[str]) -> dict[str, object]:
    pinned = {"jwt:iss": [GITHUB], "jwt:repository_owner_id": ["13420041"]}
    return documents.document(
        "Role", name, {"policy": policies, "condition": {"StringEqual": pinned}}
    )


def test_an_access_token_that_is_too_large_is_refused_and_spends_nothing(broker: InProcess) -> None:
    job = broker.job()
    answer = broker.exchange(job)
    assert refusal(answer) == (400, "token_too_large")
    told = answer.json()["error_description"]
    assert told.startswith("The token to be issued would have ")
    assert "Its largest claim is policy." in told
    event = broker.journal.events[-1]
    assert event.reason == "token_too_large"
    assert event.evidence["largest_claim"] == "policy"
    token = broker.access_token(job, role="modest")
    assert len(token) <= MAX_TOKEN_BYTES


def test_the_size_is_checked_before_the_token_is_spent() -> None:
    # Spending it and giving it back would be two writes for nothing, and the second may fail.
    broker = with_large_policies(InProcess(state=BrokenStore))
    assert refusal(broker.exchange()) == (400, "token_too_large")
    assert refusal(broker.exchange(role="modest")) == (503, "state_unavailable")


def test_a_function_token_that_is_too_large_is_refused_and_spends_nothing(
    broker: InProcess,
) -> None:
    job = broker.job()
    answer = broker.exchange(job, scope="function", role="caller")
    assert refusal(answer) == (400, "token_too_large")
    assert "Its largest claim is function." in answer.json()["error_description"]
    assert broker.exchange(job, scope="function", audience=CALLED[0]).status_code == 200


def test_a_function_token_for_an_access_token_is_bounded_too(broker: InProcess) -> None:
    own = broker.access_token(role="caller")
    assert refusal(broker.exchange(own, scope="function")) == (400, "token_too_large")
    assert broker.exchange(own, scope="function", audience=CALLED[0]).status_code == 200


def test_the_sentence_names_the_claim_of_the_job_that_takes_the_room(broker: InProcess) -> None:
    job = broker.github.token({**broker.claims(), "note": "x" * 9_000})
    answer = broker.exchange(job, role="hundred")
    assert refusal(answer) == (400, "token_too_large")
    assert "Its largest claim is note." in answer.json()["error_description"]
    assert broker.exchange(job, role="modest").status_code == 200


@pytest.mark.parametrize(
    "claim",
    [
        *("nonce", "at_hash", "c_hash", "s_hash", "auth_time", "azp", "sid", "acr", "amr"),
        *("scope", "client_id", "cnf", "act", "may_act"),
    ],
)
def test_what_a_sign_in_or_a_delegation_says_is_not_said_of_our_token(claim: str) -> None:
    broker = InProcess()
    claims = broker.claims()
    # A token whose `azp` is another client is not taken at all.
    value = claims["aud"] if claim == "azp" else {"sub": "admin"}
    job = broker.github.token({**claims, claim: value})
    assert claim not in said(broker.access_token(job))


@given(
    st.dictionaries(
        st.sampled_from([*sorted(NOT_COPIED), "fed:iss", "fed:x", "fed", "afed:", "ref", "team"])
        | st.text(max_size=6),
        st.text(max_size=3),
    )
)
def test_no_claim_of_a_subject_token_passes_for_one_of_ours(given: dict[str, object]) -> None:
    claims = Claims({**given, "iss": "i", "sub": "s"})
    admission = Admission.of(issuer(GITHUB), [])
    made = mint.access_claims(claims, admission, issuer_url="https://b", now=1, jti="j")
    copied = {name: value for name, value in claims.items() if is_copied(name)}
    own = {"fed:iss": "i"} | ({"fed:jti": given["jti"]} if given.get("jti") else {})
    assert {name: made[name] for name in made if is_copied(name)} == copied
    assert {name: made[name] for name in made if name.startswith("fed:")} == own
    assert made["iss"] == made["aud"] == "https://b"
    assert made["sub"] == "fed:s"
