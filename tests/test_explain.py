"""The evaluation behind `federation explain`; tests/test_cli.py has the command."""

from __future__ import annotations

from federation.claims import Claims
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
