"""Admission: the Roles that admit a token, and what a refusal reveals about the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import Role
from federation.errors import Reason, Refusal
from federation.policy.conditions import Operator
from federation.policy.index import PolicyNames
from federation.policy.roles import Admission, admit, evaluate
from tests.harness.builders import (
    ABSENT,
    GENERIC,
    GITHUB,
    GITLAB,
    catalog,
    issuer,
    pinned,
    policy,
    role,
    sample,
)
from tests.harness.second_evaluator import OUTSIDERS

MAIN = "refs/heads/main"
PUSH = sample("github-push-main")
SUBJECT = "repo:octo-org/octo-repo:ref:refs/heads/main"


def admitted(snapshot: Catalog, claims: Claims, only: Sequence[str] = ()) -> Admission:
    return admit(snapshot, snapshot.issuers[str(claims["iss"])], claims, only)


def refused(snapshot: Catalog, claims: Claims, only: Sequence[str] = ()) -> Refusal:
    with pytest.raises(Refusal) as caught:
        admitted(snapshot, claims, only)
    return caught.value


def names(admission: Admission) -> list[str]:
    return [each.name for each in admission.roles]


# Admission


def test_every_role_that_admits_takes_part_and_their_policies_are_united() -> None:
    block = {"StringEqual": {"jwt:iss": GITHUB, "jwt:repository": "octo-org/octo-repo"}}
    snapshot = catalog(
        role("b", policy=["deploy", "logs"], condition=block),
        role("a", policy=["logs", "secrets"], condition=block),
        role("c", policy=["root"], condition={**block, "StringLike": {"jwt:ref": "refs/tags/*"}}),
    )
    admission = admitted(snapshot, PUSH)
    assert names(admission) == ["a", "b"]
    assert admission.policies == ("logs", "secrets", "deploy")
    assert admission.issuer == issuer(GITHUB)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, True, id="both"),
        pytest.param({"ref": "refs/heads/other"}, False, id="principal-alone"),
        pytest.param({"sub": "repo:octo-org/other:pull_request"}, False, id="condition-alone"),
        pytest.param({"sub": ABSENT}, False, id="no-subject"),
    ],
)
def test_principal_and_condition_must_both_hold(changes: dict[str, object], expected: bool) -> None:
    snapshot = catalog(
        role(
            principal={"jwt:sub": [SUBJECT, "repo:octo-org/another:pull_request"]},
            condition={"StringEqual": {"jwt:iss": GITHUB, "jwt:ref": MAIN}},
        )
    )
    claims = sample("github-push-main", **changes)
    if expected:
        assert names(admitted(snapshot, claims)) == ["deployer"]
    else:
        assert refused(snapshot, claims).reason is Reason.NO_ROLE_ADMITS


def test_the_same_claims_from_another_issuer_are_not_admitted() -> None:
    snapshot = catalog(pinned(sub=SUBJECT))
    assert names(admitted(snapshot, PUSH)) == ["deployer"]
    assert refused(snapshot, sample("github-push-main", iss=GENERIC)).reason is (
        Reason.NO_ROLE_ADMITS
    )


def test_a_role_without_conditions_admits_nobody() -> None:
    (evaluation,) = evaluate([role()], "generic", PUSH)
    assert not evaluation.holds
    assert not evaluation.admits
    assert evaluation.refusal is Reason.ROLE_NOT_ADMITTED
    assert refused(catalog(role()), PUSH, only=["deployer"]).reason is Reason.ROLE_NOT_ADMITTED


def test_only_the_requested_roles_take_part() -> None:
    snapshot = catalog(*(pinned(name, repository="octo-org/octo-repo") for name in "abc"))
    assert names(admitted(snapshot, PUSH)) == ["a", "b", "c"]
    assert names(admitted(snapshot, PUSH, only=["c", "a", "c"])) == ["a", "c"]


@pytest.mark.parametrize(
    "asked", [["other"], ["deployer", "other"], ["nowhere"], [""], ["Deployer"]]
)
def test_one_requested_role_that_does_not_admit_refuses_the_request(asked: list[str]) -> None:
    snapshot = catalog(
        pinned(repository="octo-org/octo-repo"), pinned("other", repository="octo-org/other")
    )
    refusal = refused(snapshot, PUSH, asked)
    assert refusal.reason is Reason.ROLE_NOT_ADMITTED
    assert refusal.evidence["roles_asked"] == sorted(set(asked) - {"deployer"})


def test_an_evaluation_has_every_finding_with_the_principal_first() -> None:
    either = role(
        principal={"jwt:sub": "someone"},
        condition={
            "StringEquals": {"jwt:iss": GITHUB},
            "StringNotLike": {"jwt:ref": "refs/tags/*"},
        },
    )
    (evaluation,) = evaluate([either], "github", PUSH)
    assert [(f.condition.operator, f.condition.key, f.holds) for f in evaluation.findings] == [
        (Operator.PRINCIPAL, "jwt:sub", False),
        (Operator.STRING_EQUAL, "jwt:iss", True),
        (Operator.STRING_NOT_LIKE, "jwt:ref", True),
    ]
    assert [finding.claim for finding in evaluation.failed] == [SUBJECT]


def test_roles_are_evaluated_in_the_order_of_their_names() -> None:
    evaluations = evaluate([pinned(name) for name in "cab"], "github", PUSH)
    assert [evaluation.role.name for evaluation in evaluations] == ["a", "b", "c"]


# Demands of the token's situation


def on_event(**condition: object) -> Catalog:
    exact = {"jwt:iss": GITHUB, "jwt:repository": "octo-org/octo-repo", "jwt:ref": MAIN}
    more: Any = condition.pop("StringEqual", {})
    return catalog(role(condition={"StringEqual": exact | more, **condition}))


@pytest.mark.parametrize("event", OUTSIDERS)
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        pytest.param({}, False, id="unnamed"),
        pytest.param({"StringNotEqual": {"jwt:event_name": "push"}}, False, id="negative"),
        pytest.param({"StringNotLike": {"jwt:event_name": "push*"}}, False, id="negative-pattern"),
        pytest.param({"StringEqual": {"jwt:event_name": OUTSIDERS}}, True, id="named"),
        pytest.param({"StringLike": {"jwt:event_name": "*"}}, True, id="named-by-a-pattern"),
        pytest.param(
            {"StringEqualIgnoreCase": {"jwt:event_name": [e.upper() for e in OUTSIDERS]}},
            True,
            id="named-in-any-case",
        ),
        pytest.param(
            {"StringEqual": {"jwt:/event_name": OUTSIDERS}}, True, id="named-by-its-pointer"
        ),
    ],
)
def test_an_event_of_outsiders_admits_only_roles_that_name_the_event(
    event: str, condition: dict[str, object], expected: bool
) -> None:
    claims = sample("github-push-main", event_name=event)
    if expected:
        assert names(admitted(on_event(**condition), claims)) == ["deployer"]
        return
    refusal = refused(on_event(**condition), claims)
    assert refusal.reason is Reason.EVENT_NOT_ALLOWED
    assert "jwt:event_name" in refusal.public


def test_naming_the_event_does_not_admit_another() -> None:
    snapshot = on_event(StringEqual={"jwt:event_name": "push"})
    refusal = refused(snapshot, sample("github-push-main", event_name="pull_request_target"))
    assert refusal.reason is Reason.NO_ROLE_ADMITS


def test_a_principal_names_its_key_too() -> None:
    snapshot = catalog(
        role(
            principal={"jwt:event_name": ["issues"]},
            condition={"StringEqual": {"jwt:iss": GITHUB, "jwt:repository_owner": "octo-org"}},
        )
    )
    assert names(admitted(snapshot, sample("github-push-main", event_name="issues")))


def test_the_sample_of_pull_request_target_is_refused_by_a_role_on_its_ref() -> None:
    refusal = refused(on_event(), sample("github-pull-request-target"))
    assert refusal.reason is Reason.EVENT_NOT_ALLOWED


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        pytest.param({}, Reason.EVENT_NOT_ALLOWED, id="neither"),
        pytest.param(
            {"jwt:pipeline_source": "merge_request_event"}, Reason.EVENT_NOT_ALLOWED, id="source"
        ),
        pytest.param(
            {"jwt:job_project_id": "61204418"}, Reason.EVENT_NOT_ALLOWED, id="running-project"
        ),
        pytest.param(
            {"jwt:pipeline_source": "merge_request_event", "jwt:job_project_id": "61204418"},
            None,
            id="both",
        ),
        pytest.param(
            {
                "jwt:pipeline_source": "merge_request_event",
                "jwt:job_project_path": "octo-group/app",
            },
            None,
            id="both-by-path",
        ),
        pytest.param(
            {"jwt:pipeline_source": "push", "jwt:job_project_id": "61204418"},
            Reason.NO_ROLE_ADMITS,
            id="another-source",
        ),
    ],
)
def test_a_forks_merge_request_admits_only_roles_that_name_source_and_running_project(
    more: dict[str, object], reason: Reason | None
) -> None:
    fork = sample("gitlab-fork-merge-request")
    exact = {"jwt:iss": GITLAB, "jwt:namespace_id": "86120955", **more}
    snapshot = catalog(role(condition={"StringEqual": exact}))
    if reason is None:
        assert names(admitted(snapshot, fork)) == ["deployer"]
    else:
        assert refused(snapshot, fork).reason is reason


def test_two_unmet_demands_give_two_sentences() -> None:
    snapshot = catalog(pinned(iss=GITLAB, namespace_id="86120955"))
    public = refused(snapshot, sample("gitlab-fork-merge-request")).public
    assert "may admit it. The code comes from a fork" in public


def test_an_event_claim_of_an_unexpected_type_is_refused_without_a_crash() -> None:
    claims = sample("github-push-main", event_name=["pull_request_target"])
    assert refused(on_event(), claims).reason is Reason.EVENT_NOT_ALLOWED
    snapshot = on_event(StringEqual={"jwt:event_name": "push"})
    assert refused(snapshot, claims).reason is Reason.NO_ROLE_ADMITS


# What a refusal reveals

SECRETS = ("deployer", "refs/heads/release", "production", "octo-org/octo-repo", "13420041", "jwt:")


def guarded(**exact: object) -> Catalog:
    """One Role of which callers must not read any expected value."""
    return catalog(
        role(
            condition={
                "StringEqual": {
                    "jwt:iss": GITHUB,
                    "jwt:repository": "octo-org/octo-repo",
                    "jwt:repository_owner_id": "13420041",
                    "jwt:environment": "production",
                    **exact,
                },
                "StringLike": {"jwt:ref": "refs/heads/release/*"},
                "StringNotEqual": {"jwt:actor": "mallory"},
            }
        )
    )


STRANGERS: dict[str, dict[str, Any]] = {
    "another-owner": {
        "repository": "evil/app",
        "repository_owner": "evil",
        "repository_owner_id": "999",
        "repository_id": "998",
        "sub": "repo:evil/app:ref:refs/heads/main",
    },
    "same-names-another-owner-id": {"repository_owner_id": "999", "repository_id": "998"},
    "owner-id-absent": {"repository_owner_id": ABSENT},
    "another-owner-with-our-id-in-its-repository-id": {
        "repository": "evil/app",
        "repository_owner": "evil",
        "repository_owner_id": "999",
        "repository_id": "13420041",
    },
    "our-id-but-another-owner": {"repository": "evil/app", "repository_owner": "evil"},
    "our-names-inside-other-claims": {
        "repository": "evil/app",
        "repository_owner_id": "999",
        "workflow": "octo-org/octo-repo",
        "environment": "production",
        "ref": "refs/heads/release/1",
    },
}


@pytest.mark.parametrize("who", STRANGERS)
@pytest.mark.parametrize("name", ["github-push-main", "github-environment-production"])
def test_a_stranger_reads_only_its_own_subject(who: str, name: str) -> None:
    claims = sample(name, **STRANGERS[who])
    refusal = refused(guarded(), claims)
    assert refusal.reason is Reason.NO_ROLE_ADMITS
    assert refusal.public == f"No policies found for subject: {claims['sub']}."


@pytest.mark.parametrize("who", STRANGERS)
def test_a_stranger_cannot_find_out_whether_a_requested_role_exists(who: str) -> None:
    claims = sample("github-push-main", **STRANGERS[who])
    there = refused(guarded(), claims, only=["deployer"])
    not_there = refused(guarded(), claims, only=["nowhere"])
    assert there.reason is not_there.reason is Reason.ROLE_NOT_ADMITTED
    assert there.public == not_there.public == Reason.ROLE_NOT_ADMITTED.sentence


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="another-ref"),
        pytest.param({"repository": "octo-org/new-name"}, id="renamed"),
        pytest.param(
            {
                "repository": "octo-org/new-name",
                "sub": "repo:octo-org@13420041/new-name@412890077:ref:refs/heads/main",
            },
            id="renamed-with-ids-in-sub",
        ),
        pytest.param({"repository": "octo-org/other", "repository_id": "5"}, id="another-of-ours"),
    ],
)
@pytest.mark.parametrize("only", [[], ["deployer"]], ids=["any", "asked"])
def test_the_owner_reads_which_keys_failed_with_its_own_values_only(
    changes: dict[str, object], only: list[str]
) -> None:
    claims = sample("github-push-main", actor="mallory", **changes)
    public = refused(guarded(), claims, only).public
    assert "Role deployer came close" in public
    assert "jwt:ref (the token has refs/heads/main)" in public
    assert "jwt:environment (the token has (absent): it is there only if" in public
    assert "release" not in public
    assert "production" not in public
    if changes:
        assert f"jwt:repository (the token has {claims['repository']})" in public
        assert "octo-org/octo-repo" not in public.partition("Role deployer")[2]


def test_expected_values_of_every_kind_are_only_in_the_evidence() -> None:
    hidden = "hidden-value"
    snapshot = catalog(
        role(
            principal={"jwt:workflow": hidden},
            condition={
                "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_owner": "octo-org", "jwt:a": hidden},
                "StringEqualIgnoreCase": {"jwt:b": hidden},
                "StringLike": {"jwt:c": hidden + "*"},
                "StringNotLike": {"jwt:d": hidden},
                "ForAnyValue:StringEqual": {"jwt:groups": hidden},
                "ForAnyValue:StringLike": {"jwt:/e/f": hidden},
            },
        )
    )  # fmt: skip
    refusal = refused(snapshot, PUSH)
    assert "Role deployer came close" in refusal.public
    assert hidden not in refusal.public
    assert hidden in str(refusal.evidence)


def test_the_evidence_has_expected_and_got_for_every_caller() -> None:
    refusal = refused(guarded(), sample("github-push-main", **STRANGERS["another-owner"]))
    assert refusal.evidence["subject"] == "repo:evil/app:ref:refs/heads/main"
    asked = refused(
        guarded(), sample("github-push-main", **STRANGERS["another-owner"]), only=["deployer"]
    )
    assert "refs/heads/release/*" in str(asked.evidence)
    assert "'got': 'refs/heads/main'" in str(asked.evidence)
    assert all(secret not in asked.public for secret in SECRETS)


def test_the_whole_evidence_of_a_refusal() -> None:
    values = [f"refs/heads/{number}" for number in range(11)]
    snapshot = catalog(
        role(
            "wrong-ref",
            condition={
                "StringEqual": {"jwt:iss": GITHUB, "jwt:repository_owner": "octo-org"},
                "StringLike": {"jwt:ref": values},
                "StringNotEqual": {"jwt:actor": "octocat"},
            },
        ),
        pinned("on-issues", repository_owner="octo-org"),
    )
    claims = sample("github-push-main", event_name="issues")
    refusal = refused(snapshot, claims)
    sentence = (
        "Outsiders can cause this event, so only Roles that name jwt:event_name may admit it."
    )
    assert refusal.reason is Reason.EVENT_NOT_ALLOWED
    assert refusal.evidence == {
        "subject": SUBJECT,
        "roles_asked": [],
        "roles_considered": 2,
        "nearest": [
            {
                "role": "on-issues",
                "refusal": "event_not_allowed",
                "unmet": [sentence],
                "failed": [],
            },
            {
                "role": "wrong-ref",
                "refusal": "role_not_admitted",
                "unmet": [sentence],
                "failed": [
                    {
                        "operator": "StringLike",
                        "key": "jwt:ref",
                        "expected": values[:10],
                        "got": MAIN,
                    },
                    {
                        "operator": "StringNotEqual",
                        "key": "jwt:actor",
                        "expected": ["octocat"],
                        "got": "octocat",
                    },
                ],
            },
        ],
    }
    assert refusal.public == (
        "The event that started this job can be caused by outsiders, and no Role names it. "
        f"Role on-issues would admit it, but: {sentence} "
        "Role wrong-ref came close, but these do not match: "
        "jwt:ref (the token has refs/heads/main), jwt:actor (the token has octocat)."
    )


def test_evidence_names_the_roles_that_were_asked_for_and_no_more_than_three_roles() -> None:
    roles = [pinned(f"r{n}", repository="octo-org/octo-repo", ref="x") for n in range(5)]
    asked = ["r0", "r1", "r2", "r3", "nowhere"]
    refusal = refused(catalog(*roles), PUSH, only=asked)
    assert refusal.evidence["roles_asked"] == sorted(asked)
    assert refusal.evidence["roles_considered"] == 4
    nearest = refusal.evidence["nearest"]
    assert isinstance(nearest, list)
    assert [each["role"] for each in nearest] == ["r0", "r1", "r2"]


def test_a_refusal_evaluates_at_most_200_roles_of_the_callers_owner() -> None:
    roles = [pinned(f"r{n}", repository=f"octo-org/{n}") for n in range(201)]
    assert refused(catalog(*roles[:200]), PUSH).evidence["roles_considered"] == 200
    assert refused(catalog(*roles), PUSH).evidence["roles_considered"] == 200


def test_a_role_that_one_claim_fits_is_considered_whatever_owner_it_pins() -> None:
    snapshot = catalog(pinned(sub="custom", repository_owner="another"))
    refusal = refused(snapshot, sample("github-push-main", sub="custom"))
    assert refusal.evidence["roles_considered"] == 1
    assert refusal.public == "No policies found for subject: custom."


def test_a_role_whose_conditions_hold_is_nearer_than_one_without_conditions() -> None:
    snapshot = catalog(role("a"), pinned("b", repository_owner="octo-org"))
    claims = sample("github-push-main", event_name="issues")
    nearest = refused(snapshot, claims, only=["a", "b"]).evidence["nearest"]
    assert isinstance(nearest, list)
    assert [each["role"] for each in nearest] == ["b", "a"]


def test_an_evaluation_that_admits_has_no_refusal_and_shows_no_claim() -> None:
    (evaluation,) = evaluate([pinned(sub=SUBJECT)], "github", sample("github-push-main"))
    assert evaluation.admits
    assert evaluation.refusal is None
    assert "412890077" not in repr(evaluation)


def test_at_most_eight_keys_of_a_role_are_named() -> None:
    wrong = {f"c{n}": "x" for n in range(9)}
    public = refused(catalog(pinned(repository_owner="octo-org", **wrong)), PUSH).public
    assert [f"jwt:c{n}" in public for n in range(9)] == [True] * 8 + [False]


def test_a_token_of_another_issuer_reads_nothing_about_a_role_that_is_not_for_it() -> None:
    # On another GitLab, somebody else may create a group with the owner's name.
    claims = sample("gitlab-self-managed", iss=GENERIC, repository_owner="octo-org")
    for snapshot in (
        catalog(pinned(repository_owner="octo-org", ref="refs/heads/release")),
        catalog(pinned(iss="https://another.example", ref="refs/heads/release"),
                issuers=[issuer(GENERIC), issuer("https://another.example")]),
    ):  # fmt: skip
        public = refused(snapshot, claims, only=["deployer"]).public
        assert public == Reason.ROLE_NOT_ADMITTED.sentence
        public = refused(snapshot, claims).public
        assert public == f"No policies found for subject: {claims['sub']}."


def test_a_role_without_a_pin_is_shown_only_if_its_issuer_is_not_shared() -> None:
    open_role = pinned(iss=GENERIC, email="me@example.com")
    public = refused(catalog(open_role), sample("keycloak-user", iss=GENERIC, email="you@x")).public
    assert "jwt:email (the token has you@x)" in public
    public = refused(catalog(pinned(ref="refs/heads/release")), PUSH).public
    assert public == f"No policies found for subject: {SUBJECT}."


def test_a_sub_that_begins_like_the_owners_is_a_strangers() -> None:
    snapshot = catalog(pinned(sub="repository_owner:octo-org", environment="production"))
    evil = "repository_owner:octo-org-evil:repository_visibility:private"
    public = refused(snapshot, sample("github-custom-sub", sub=evil), only=["deployer"]).public
    assert public == Reason.ROLE_NOT_ADMITTED.sentence
    ours = refused(snapshot, sample("github-custom-sub")).public
    assert "Role deployer came close" in ours


def test_a_refused_event_shows_a_stranger_no_role() -> None:
    snapshot = on_event()
    evil = sample("github-pull-request-target", **STRANGERS["another-owner"])
    refusal = refused(snapshot, evil)
    assert refusal.reason is Reason.NO_ROLE_ADMITS
    assert "deployer" not in refusal.public


def test_at_most_three_roles_are_shown_the_closest_first() -> None:
    far = [pinned(f"far-{n}", repository="octo-org/x", ref="x", actor="x") for n in range(5)]
    near = pinned("zz-near", repository="octo-org/octo-repo", ref="x")
    public = refused(catalog(*far, near), PUSH).public
    assert re.findall(r"Role (\S+) came close", public) == ["zz-near", "far-0", "far-1"]


@pytest.mark.parametrize(
    "value",
    [
        *("a\nb", "a\r\n::add-mask::x", "\x1b[2J", 'say "no"', "back\\slash", "é", "\u202e", "\ud800"),
        *("x" * 16_384, ["\n", '"'], {"\n": 1}, 1.5),
    ],
    ids=ascii,
)  # fmt: skip
def test_nothing_in_a_token_can_break_out_of_the_sentence(value: object) -> None:
    claims = sample("github-push-main", sub=value, ref=value, environment=value)
    for only in ([], ["deployer"]):
        refusal = refused(guarded(), claims, only)
        assert re.fullmatch(r"[\x20\x21\x23-\x5b\x5d-\x7e]{1,4000}", refusal.public)


def test_a_claim_that_a_job_must_ask_for_is_told_with_its_condition() -> None:
    public = refused(guarded(), PUSH).public
    assert (
        "jwt:environment (the token has (absent): it is there only if the job names an "
        "environment)" in public
    )
    assert (
        "jwt:ref (the token has refs/heads/main)"
        in refused(catalog(pinned(repository_owner_id="13420041", ref="refs/heads/x")), PUSH).public
    )


def test_nothing_in_a_document_can_break_out_of_the_sentence() -> None:
    odd: Role = pinned(repository_owner="octo-org", **{'a"\\é\n': "x"})
    public = refused(catalog(odd), PUSH).public
    assert "jwt:a%22%5C%C3%A9%0A (the token has (absent))" in public


@pytest.mark.parametrize("sub", [ABSENT, None, ""])
def test_a_refusal_says_that_the_subject_is_absent(sub: object) -> None:
    public = refused(guarded(), sample("github-push-main", sub=sub, repository_owner_id="1")).public
    assert public.startswith("No policies found for subject: (")


def _minutes(role: Role, minutes: int | None) -> Role:
    return replace(role, token_expiry=None if minutes is None else timedelta(minutes=minutes))


def _of_three(only: Sequence[str] = (), giver: int | None = None) -> Admission:
    """The admission by three Roles: one gives, one has a Deny too, one only gives something else."""
    exact = {"StringEqual": {"jwt:iss": GITHUB, "jwt:repository_owner_id": "13420041"}}
    allow = {"action": ["Function:Get"], "resource": ["dev:*"]}
    snapshot = catalog(
        _minutes(role("giver", policy=["give"], condition=exact), giver),
        _minutes(role("other", policy=["more"], condition=exact), 2),
        _minutes(role("walled", policy=["more", "wall"], condition=exact), 5),
        policies=[
            policy("give", allow),
            policy("more", allow),
            policy("wall", {**allow, "effect": "Deny"}),
        ],
    )
    return admit(snapshot, issuer(GITHUB), PUSH, only)


def test_a_role_that_was_not_asked_for_stays_only_for_its_deny() -> None:
    narrowed = _of_three(["giver"])
    assert names(narrowed) == ["giver"]
    assert [role.name for role in narrowed.denying] == ["walled"]
    assert narrowed.policies == ("give", "wall")
    assert narrowed.held.deny_only == ("wall",)
    whole = _of_three(["giver", "other", "walled"])
    assert whole == _of_three()
    assert not whole.held.narrowed
    assert whole.denying == ()
    assert _of_three(["giver", "walled"]).denying == ()


@pytest.mark.parametrize(
    ("only", "giver", "minutes"),
    [((), None, 2), (["giver"], None, 5), (["giver"], 3, 3), (["giver"], 60, 5)],
)
def test_a_token_lives_no_longer_than_any_role_that_takes_part_lets_it(
    only: Sequence[str], giver: int | None, minutes: int
) -> None:
    assert _of_three(only, giver).lifetime == timedelta(minutes=minutes)


def test_without_a_limit_of_a_role_the_issuers_lifetime_holds() -> None:
    for minutes in (None, 60):
        alone = _minutes(pinned(repository_owner_id="13420041"), minutes)
        admission = admit(catalog(alone), issuer(GITHUB), PUSH)
        assert admission.lifetime == issuer(GITHUB).token_expiry


def test_a_claim_that_is_there_is_shown_and_not_explained() -> None:
    claims = sample("github-push-main", environment="staging")
    assert "jwt:environment (the token has staging)" in refused(guarded(), claims).public


# Roles that refuse


ALLOW = {"action": ["Function:Get"], "resource": ["dev:*"]}
OWN = pinned(repository_owner_id="13420041")


def _with_refusing(*refusing: Role) -> Catalog:
    return replace(catalog(OWN, policies=[policy("deploy", ALLOW)]), refusing=refusing)


@pytest.mark.parametrize(
    ("refusing", "refuses"),
    [
        (role("r"), True),
        (pinned("r", ref=MAIN), True),
        (pinned("r", ref="refs/heads/other"), False),
        (role("r", condition={"StringEqual": {"jwt:ref": MAIN}}), True),
        (role("r", condition={"StringEqual": {"jwt:ref": "refs/heads/other"}}), False),
        (pinned("r", iss=GITLAB), False),
        (pinned("r", iss="https://nobody.example"), False),
    ],
    ids=["everybody", "its own", "another ref", "a ref of any issuer", "another ref of any issuer",
         "another issuer", "an issuer not in force"],
)  # fmt: skip
def test_a_refusing_role_refuses_whom_it_would_admit(refusing: Role, refuses: bool) -> None:
    snapshot = _with_refusing(refusing)
    if not refuses:
        assert names(admitted(snapshot, PUSH)) == ["deployer"]
        return
    for only in ((), ["deployer"]):
        refusal = refused(snapshot, PUSH, only)
        assert refusal.reason is Reason.POLICY_MISSING
        assert refusal.evidence == {"refusing": ("r",)}
        assert "deployer" not in refusal.public


def test_a_refusing_role_need_not_name_the_event_that_outsiders_cause() -> None:
    # To admit it, a Role must name it. To refuse fewer for that reason would open what is closed.
    of_outsiders = sample("github-push-main", event_name="issues")
    assert refused(_with_refusing(OWN), of_outsiders).reason is Reason.POLICY_MISSING


def test_a_refusal_names_few_of_many_refusing_roles() -> None:
    refusal = refused(_with_refusing(*(role(f"r{n}") for n in range(50))), PUSH)
    assert len(refusal.evidence["refusing"]) == 10  # type: ignore[arg-type]  # a tuple


@pytest.mark.parametrize("only", [(), ["deployer"]])
def test_while_the_catalog_is_incomplete_tokens_are_narrowed(only: Sequence[str]) -> None:
    whole = _with_refusing()
    assert not admitted(whole, PUSH, only).held.narrowed
    admission = admitted(replace(whole, incomplete=True), PUSH, only)
    assert admission.held == PolicyNames(("deploy",), (), narrowed=True)
    assert admission.roles == (OWN,)
