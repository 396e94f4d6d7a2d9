"""
Attempts by somebody who may write some objects in the broker's namespace of Kubernetes.

They may write what they want into their own objects, also what no schema allows. They must not get
more than these objects say, end anybody's Deny, take over an issuer, or make the broker slow.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.kubernetes.unite import Standing
from federation.policy.roles import refused
from tests.harness.broker import InProcess, refusal
from tests.harness.builders import GENERIC, GITHUB, sample
from tests.harness.objects import (
    OWNER,
    Namespace,
    Raw,
    allow,
    deny,
    issuer,
    policy,
    raw,
    role,
)

PUSH = sample("github-push-main")
GET, CREATE = "Function:Get", "Function:Create"
OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z"


def guarded() -> Namespace:
    """A job may do all but create, by two Roles of two authors."""
    return Namespace(
        issuer(created=OLD),
        policy("all", allow("*", "*")),
        policy("wall", deny(CREATE)),
        role("gives", "all"),
        role("denies", "wall"),
    )


def edited(document: Raw, **spec: Any) -> Raw:
    return {**document, "spec": {**document["spec"], **spec}}


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "hostile",
    [
        edited(role("denies", "wall"), surprise=1),
        edited(role("denies", "wall"), policy=[]),
        edited(role("denies", "wall"), policy=["wall", None]),
        edited(role("denies", "wall"), policy=["gone"]),
        edited(role("denies", "wall"), condition={"StringEqual": {"jwt:iss": [GITHUB]}}),
        edited(role("denies", "wall"), condition={}),
        raw("Role", "denies", {}),
        raw("Role", "denies", "x" * 10_000),
        edited(policy("wall", deny(CREATE)), statement=[]),
        edited(policy("wall", deny(CREATE)), statement=[{**deny(CREATE), "action": ["Function:Mak"]}]),
        edited(policy("wall", deny(CREATE)), statement=[{**deny(CREATE), "effect": "deny"}]),
        raw("Policy", "wall", None),
    ],
    ids=lambda hostile: str(hostile["spec"])[:60],
)  # fmt: skip
def test_no_damage_to_an_object_ends_its_deny(hostile: Raw, restarted: bool) -> None:
    space = guarded()
    assert (space.answer(PUSH, GET), space.answer(PUSH, CREATE)) == ("yes", "no")
    space.apply(hostile)
    if restarted:
        space.restart()
    assert space.answer(PUSH, CREATE) in {"no", "policy_missing"}


def test_a_planted_issuer_does_not_come_into_force_when_the_real_one_is_broken() -> None:
    real = issuer("real", created=OLD)
    planted = issuer("planted", created=YOUNG, jwksUri="https://evil.example/keys")
    for spec in ({"iss": 5}, {"aud": None}, {"surprise": 1}, {"iss": GITHUB + "\u200b"}):
        space = Namespace(real, planted)
        space.apply(edited(real, **spec))
        assert space.catalog.issuers == {}
        space.restart()
        assert space.catalog.issuers == {}


def test_a_planted_issuer_that_says_it_is_old_is_not_believed_beside_a_file() -> None:
    files = Namespace(issuer("real")).catalog
    planted = issuer("planted", created="0001-01-01T00:00:00Z", jwksUri="https://evil.example/k")
    space = Namespace(planted, files=files)
    assert space.catalog.issuers == files.issuers


def test_an_object_without_a_time_is_not_the_oldest() -> None:
    planted = issuer("planted")
    del planted["metadata"]["creationTimestamp"]
    assert Namespace(issuer("real"), planted).in_force("JwtIssuer") == ["real"]


def test_a_role_cannot_stop_an_issuer_by_using_a_ci_systems_claim() -> None:
    git = "https://git.example.org"
    space = Namespace(issuer("git", git), policy("all", allow("*", "*")))
    exact = {"jwt:iss": [git], "jwt:project_id": ["1"]}
    space.apply(raw("Role", "hostile", {"policy": ["all"], "condition": {"StringEqual": exact}}))
    assert space.in_force("JwtIssuer") == ["git"]
    assert space.standing("Role", "hostile") is Standing.REFUSED


CHOSEN = policy("chosen", allow(GET, "${jwt:workflow}:*"))


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    "hostile",
    [
        edited(CHOSEN, surprise=1),
        policy("chosen", {**allow(GET, "${jwt:workflow}:*"), "surprise": 1}),
        policy("chosen", {**allow(GET, "${jwt:workflow}:*"), "action": ["Function:Mak"]}),
        policy("chosen", {**allow(GET), "resource": ["${jwt:workflow}:*", None]}),
        policy("chosen", {**allow(GET), "resource": ["${jwt:workflow:*"]}),
        policy("chosen", {**allow(GET), "resource": [None]}),
        policy("chosen", {**allow(GET), "resource": []}),
        policy("chosen", {**allow(GET), "resource": "${jwt:workflow}:*"}),
        policy("chosen", {"sid": "s", "effect": "Allow", "action": [GET]}),
    ],
    ids=lambda hostile: str(hostile["spec"])[:90],
)  # fmt: skip
def test_a_bad_policy_brings_no_role_into_force_that_was_refused_for_it(
    hostile: Raw, restarted: bool
) -> None:
    space = Namespace(issuer(), policy("all", allow("*", "*")), CHOSEN, role("r", "chosen", "all"))
    assert "T006" in space.codes("Role", "r")
    assert space.answer(PUSH, CREATE) == "no_role_admits"
    space.apply(hostile)
    assert space.standing("Policy", "chosen") is Standing.INVALID
    if restarted:
        space.restart()
    assert space.answer(PUSH, CREATE) == "no_role_admits"
    assert "T006" in space.codes("Role", "r")


def test_a_held_role_is_judged_by_the_policies_that_are_left_out() -> None:
    plain = policy("chosen", allow(GET))
    limited = role("r", "chosen", "all", tokenExpiry="5m")
    space = Namespace(issuer(), policy("all", allow("*", "*")), plain, limited)
    assert space.answer(PUSH, CREATE) == "yes"
    space.apply(CHOSEN)
    assert space.answer(PUSH, CREATE) == "policy_missing"
    space.apply(edited(CHOSEN, surprise=1), edited(limited, surprise=1))
    assert space.answer(PUSH, CREATE) == "policy_missing"


def test_a_policy_without_such_a_resource_takes_its_role_no_other_policy() -> None:
    space = Namespace(
        issuer(),
        policy("all", allow("*", "*")),
        policy("some", allow(GET)),
        role("r", "some", "all"),
    )
    space.apply(policy("some", {**allow(GET), "surprise": 1}))
    for _ in range(2):
        assert space.answer(PUSH, CREATE) == "yes"
        space.restart()


def test_a_role_that_waits_for_an_issuer_is_checked_when_the_issuer_comes() -> None:
    everybody = raw("Role", "hostile", {
        "policy": ["all"], "condition": {"StringEqual": {"jwt:iss": [GITHUB]}},
    })  # fmt: skip
    space = Namespace(policy("all", allow("*", "*")), everybody)
    assert space.standing("Role", "hostile") is Standing.PENDING
    space.apply(issuer())
    assert space.standing("Role", "hostile") is Standing.REFUSED
    assert space.answer(PUSH, GET) == "no_role_admits"


def test_the_status_of_an_object_is_not_believed() -> None:
    open_to_all = raw("Role", "hostile", {
        "policy": ["all"], "condition": {"StringEqual": {"jwt:iss": [GITHUB]}},
    })  # fmt: skip
    open_to_all["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    space = Namespace(issuer(), policy("all", allow("*", "*")), open_to_all)
    assert space.answer(PUSH, GET) == "no_role_admits"


@pytest.mark.alone
def test_thousands_of_roles_that_refuse_do_not_make_an_exchange_slow() -> None:
    hostile = [
        raw("Role", f"h{n}", {"policy": 5, "condition": {"StringLike": {"jwt:ref": [f"*x{n}*"]}}})
        for n in range(3000)
    ]
    space = Namespace(issuer(), *hostile)
    assert len(space.catalog.refusing) == 3000
    began = time.process_time()
    assert refused(space.catalog, Claims(PUSH)) is None
    assert time.process_time() - began < 0.1
    everybody = Namespace(issuer(), *(raw("Role", f"h{n}", None) for n in range(3000)))
    began = time.process_time()
    assert refused(everybody.catalog, Claims(PUSH)) is not None
    assert time.process_time() - began < 0.02


def test_a_refusal_tells_a_caller_nothing_of_the_role_that_refuses() -> None:
    broker = InProcess()
    space = Namespace(raw("Role", "secret-name", None), files=broker.source.catalog)
    broker.source.catalog = space.catalog
    answer = broker.exchange()
    assert refusal(answer) == (400, "policy_missing")
    assert "secret-name" not in answer.text


def test_a_token_that_was_minted_before_loses_what_its_broken_policy_gave() -> None:
    space = guarded()
    space.apply(edited(policy("all", allow("*", "*")), surprise=1))
    assert "all" not in space.catalog.policies
    # A policy that is not in force gives an old token nothing, and its Deny stays.
    assert space.catalog.may_deny("all")
    assert space.catalog.may_deny("wall")


def test_words_that_look_the_same_are_other_names() -> None:
    # Cyrillic letters, and a name with a line end: Kubernetes takes neither, and nor does the broker.
    for name in ("r\u043ele", "role\n", "Role"):
        space = Namespace(issuer(), policy("all", allow("*", "*")), role("x", "all"))
        made = role("x", "all")
        made["metadata"]["name"] = name
        space.raws["Role", name] = made
        space.read()
        assert space.in_force() == ["x"]


def test_conditions_on_anothers_owner_admit_nobody_else() -> None:
    space = guarded()
    stranger = sample("github-push-main", repository_owner_id="666", repository_owner="mallory")
    assert OWNER != "666"
    space.apply(edited(role("denies", "wall"), surprise=1))
    space.restart()
    assert space.answer(stranger, GET) == "no_role_admits"
    assert space.answer({"iss": GENERIC, "sub": "s"}, GET) == "untrusted_issuer"
