"""The evaluation behind `federation explain`; tests/test_cli.py has the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from federation.claims import Claims
from federation.documents.model import Role
from federation.errors import Reason, Refusal
from federation.policy.explain import Explanation, explain
from federation.policy.permissions import Access
from federation.policy.roles import Admission
from tests.harness.builders import catalog, pinned, policy, sample

MAIN = pinned(repository="octo-org/octo-repo", ref="refs/heads/main")
DEPLOY = policy(
    "deploy",
    {
        "action": ["Function:*"],
        "resource": ["dev:*"],
        "condition": {"StringEqual": {"jwt:minted": "yes"}},
    },
)
ASKED = Access.parse("Function:Create", "dev:fn")


def explained(
    claims: Claims, refusal: Refusal | None = None, *, verified: bool = True
) -> tuple[Explanation, list[Admission]]:
    """The explanation, and the admissions for which an access token was composed."""
    admissions: list[Admission] = []

    def minted(admission: Admission) -> Claims:
        admissions.append(admission)
        return Claims({"minted": "yes"})

    snapshot = catalog(MAIN, policies=[DEPLOY])
    explanation = explain(
        snapshot, claims, [ASKED], refusal=refusal, verified=verified, access_claims=minted
    )
    return explanation, admissions


def test_an_access_is_decided_with_the_claims_of_the_access_token() -> None:
    explanation, admissions = explained(sample("github-push-main"))
    assert explanation.yes
    assert explanation.policies == ("deploy",)
    assert explanation.token == {"valid": True, "reason": None}
    assert [admission.roles for admission in admissions] == [(MAIN,)]


def test_a_token_that_was_refused_is_allowed_nothing_though_a_role_would_admit_it() -> None:
    explanation, admissions = explained(sample("github-push-main"), Refusal(Reason.EXPIRED))
    assert [evaluation.admits for evaluation in explanation.evaluations] == [True]
    assert not explanation.admitted
    assert not explanation.yes
    assert [decision.allowed for decision in explanation.decisions] == [False]
    assert (explanation.policies, admissions) == ((), [])
    assert explanation.token == {"valid": False, "reason": Reason.EXPIRED}


def test_a_token_that_no_role_admits_is_allowed_nothing() -> None:
    explanation, admissions = explained(sample("github-push-main", ref="refs/heads/other"))
    assert not explanation.admitted
    assert [decision.allowed for decision in explanation.decisions] == [False]
    assert admissions == []


def test_claims_that_were_not_verified_have_no_verdict_unless_they_were_refused() -> None:
    explanation, _ = explained(sample("github-push-main"), verified=False)
    assert explanation.yes
    assert explanation.token is None
    refused, _ = explained(
        sample("github-push-main"), Refusal(Reason.WRONG_AUDIENCE), verified=False
    )
    assert refused.token == {"valid": False, "reason": Reason.WRONG_AUDIENCE}


def test_the_explanation_for_programs_has_every_finding_and_decision() -> None:
    explanation, _ = explained(sample("github-push-main", ref="refs/heads/other"))
    finding = {"operator": "StringEqual", "holds": True}
    iss = "https://token.actions.githubusercontent.com"
    repository, main = "octo-org/octo-repo", "refs/heads/main"
    assert explanation.as_json() == {
        "token": {"valid": True, "reason": None},
        "admitted": False,
        "roles": [
            {
                "name": "deployer",
                "admitted": False,
                "conditions": [
                    {**finding, "key": "jwt:iss", "values": [iss], "claim": iss},
                    {
                        **finding,
                        "key": "jwt:repository",
                        "values": [repository],
                        "claim": repository,
                    },
                    {
                        **finding,
                        "key": "jwt:ref",
                        "values": [main],
                        "claim": "refs/heads/other",
                        "holds": False,
                    },
                ],
                "refusal": "role_not_admitted",
            }
        ],
        "policies": [],
        "access": [
            {
                "action": "Function:Create",
                "resource": "dev:fn",
                "allowed": False,
                "policy": None,
                "sid": None,
                "effect": None,
            }
        ],
    }


def test_the_explanation_for_programs_names_the_statement_that_settled_it() -> None:
    explanation, _ = explained(sample("github-push-main"))
    written = explanation.as_json()
    assert written["admitted"] is True
    assert written["policies"] == ["deploy"]
    assert written["access"] == [
        {
            "action": "Function:Create",
            "resource": "dev:fn",
            "allowed": True,
            "policy": "deploy",
            "sid": "s0",
            "effect": "Allow",
        }
    ]
    (role,) = explanation.evaluations
    assert role.admits


def test_a_refused_token_refuses_every_role_with_its_own_reason() -> None:
    explanation, _ = explained(sample("github-push-main"), Refusal(Reason.EXPIRED))
    written = explanation.as_json()
    assert written["admitted"] is False
    roles = written["roles"]
    assert isinstance(roles, list)
    assert [(role["admitted"], role["refusal"]) for role in roles] == [(False, "expired")]


def test_a_token_of_no_configured_issuer_is_allowed_nothing() -> None:
    for iss in ("https://nobody.example", None, 5):
        explanation, admissions = explained(sample("github-push-main", iss=iss))
        assert not explanation.admitted
        assert admissions == []


def test_an_admitted_token_is_a_no_if_one_access_is_refused() -> None:
    def minted(_: Admission) -> Claims:
        return Claims({"minted": "yes"})

    elsewhere = Access.parse("Function:Create", "prod:fn")
    explanation = explain(
        catalog(MAIN, policies=[DEPLOY]),
        sample("github-push-main"),
        [ASKED, elsewhere],
        refusal=None,
        verified=True,
        access_claims=minted,
    )
    assert explanation.admitted
    assert [decision.allowed for decision in explanation.decisions] == [True, False]
    assert not explanation.yes


def explained_for(claims: Claims, *roles: Role, accesses: Sequence[Access] = ()) -> Explanation:
    """The explanation of a verified token for these Roles."""
    return explain(
        catalog(*roles, policies=[DEPLOY]),
        claims,
        accesses,
        refusal=None,
        verified=True,
        access_claims=lambda _: Claims({"minted": "yes"}),
    )


def test_one_role_that_admits_is_enough() -> None:
    other = pinned("other", repository="octo-org/other")
    assert explained_for(sample("github-push-main"), MAIN, other).admitted


def test_a_token_that_is_not_admitted_is_a_no_although_nothing_was_asked() -> None:
    assert explained_for(sample("github-push-main"), MAIN).yes
    assert not explained_for(sample("github-push-main", ref="refs/heads/other"), MAIN).yes


def test_the_situation_of_a_token_is_that_of_its_issuers_provider() -> None:
    explanation = explained_for(sample("github-push-main", event_name="issues"), MAIN)
    assert [e.refusal for e in explanation.evaluations] == [Reason.EVENT_NOT_ALLOWED]
    assert not explanation.admitted


def test_a_role_for_an_issuer_that_is_not_configured_gives_nothing() -> None:
    nobody = "https://nobody.example"
    claims = sample("github-push-main", iss=nobody)
    explanation = explained_for(claims, pinned(iss=nobody, ref="refs/heads/main"), accesses=[ASKED])
    assert explanation.policies == ()
    assert not explanation.yes


def test_a_role_that_refuses_is_told_as_the_exchange_would_tell_it() -> None:
    snapshot = replace(catalog(MAIN, policies=[DEPLOY]), refusing=(pinned("unread"),))
    explanation = explain(
        snapshot,
        sample("github-push-main"),
        [ASKED],
        refusal=None,
        verified=True,
        access_claims=lambda _: Claims({"minted": "yes"}),
    )
    assert explanation.token == {"valid": True, "reason": None}
    assert explanation.refusal is not None
    assert explanation.refusal.reason is Reason.POLICY_MISSING
    assert not explanation.admitted
    assert not explanation.decisions[0].allowed


def test_one_large_claim_is_not_repeated_for_every_role() -> None:
    """10,000 Roles that read a claim of 60 KB would make an answer of 600 MB."""
    large = "x" * 60_000
    roles = [pinned(f"r{number}", repository="o/r", ref="main") for number in range(1000)]
    claims = sample("github-push-main", repository=large)
    explanation = explain(
        catalog(*roles, policies=[DEPLOY]),
        claims,
        [],
        refusal=None,
        verified=True,
        access_claims=lambda _: Claims({}),
    )
    told = explanation.as_json()
    assert len(json.dumps(told)) < 6_000_000
    shown = [
        found["claim"]
        for role in cast("Any", told)["roles"]
        for found in role["conditions"]
        if found["key"] == "jwt:repository"
    ]
    assert shown[0] == large
    assert shown[-1] == "x" * 100 + "..."
    assert {len(claim) for claim in shown} == {60_000, 103}


def test_what_a_variable_became_is_told_beside_each_decision() -> None:
    give = policy(
        "deploy",
        {"action": ["Function:*"], "resource": ["team-${jwt:x}:*", "other-${jwt:x}:*", "dev:*"]},
        {"action": ["Function:*"], "resource": ["team-${jwt:name}:*"]},
        {"effect": "Deny", "action": ["Function:*"], "resource": ["team-${jwt:x}:${jwt:name}"]},
    )
    asked = [Access.parse("Function:Create", text) for text in ("team-65:fn", "dev:fn")]
    found = explain(
        catalog(MAIN, policies=[give]),
        sample("github-push-main"),
        asked,
        refusal=None,
        verified=True,
        access_claims=lambda _: Claims({"x": 65, "name": "A\x1b[2J"}),
    )
    team, dev = cast("list[dict[str, Any]]", found.as_json()["access"])
    assert [(each["sid"], each["resource"], each["became"]) for each in team["variables"]] == [
        ("s0", "team-${jwt:x}:*", "team-65:*"),
        ("s1", "team-${jwt:name}:*", None),
        ("s2", "team-${jwt:x}:${jwt:name}", "team-65:*"),
    ]
    assert team["sid"] == "s2"
    assert team["variables"][2]["claims"] == {"${jwt:x}": "65", "${jwt:name}": "A%1B[2J"}
    assert dev["sid"] == "s0"
    assert [each["sid"] for each in dev["variables"]] == ["s2"]
    refused = explain(
        catalog(MAIN, policies=[give]),
        sample("github-push-main"),
        asked,
        refusal=Refusal(Reason.EXPIRED),
        verified=True,
        access_claims=lambda _: Claims({}),
    )
    assert refused.filled == ((), ())
    assert "variables" not in str(refused.as_json())
