"""Owner pins: the conditions that fix an owner, and the tokens that are that owner's."""

from __future__ import annotations

from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.model import Role
from federation.documents.rules.owners import (
    OWNER_KEYS,
    fixed_owner,
    literal_prefix,
    only_wildcards,
    owner_pins,
    owners_of,
    same_owner,
)
from federation.policy.conditions import Condition, Operator
from federation.providers.table import PROFILES, Profile
from tests.harness.builders import ABSENT, GENERIC, GITHUB, GITLAB, operator, pinned, role, sample

EQUAL, LIKE = "StringEqual", "StringLike"


@pytest.mark.parametrize(
    ("written", "claim", "value", "expected"),
    [
        pytest.param(EQUAL, "repository_owner", "acme", "acme", id="owner"),
        pytest.param(LIKE, "repository_owner", "acme", "acme", id="owner-pattern-without-stars"),
        pytest.param(EQUAL, "repository_owner", "ac*", "ac*", id="owner-literal-star"),
        pytest.param(LIKE, "repository_owner", "acme*", None, id="owner-star"),
        pytest.param(LIKE, "repository_owner", "acm?", None, id="owner-mark"),
        pytest.param(LIKE, "repository_owner", "*", None, id="owner-only-star"),
        pytest.param(EQUAL, "repository_owner_id", "1", "1", id="owner-id"),
        pytest.param(LIKE, "repository_owner_id", "1*", None, id="owner-id-star"),
        pytest.param(EQUAL, "repository_id", "1", "1", id="repository-id"),
        pytest.param(LIKE, "project_id", "1?", None, id="project-id-mark"),
        pytest.param(EQUAL, "namespace_id", "1", "1", id="namespace-id"),
        pytest.param(EQUAL, "repository", "acme/app", "acme/", id="repository"),
        pytest.param(LIKE, "repository", "acme/*", "acme/", id="repository-of-owner"),
        pytest.param(LIKE, "repository", "acme/a*b?", "acme/", id="repository-further-in"),
        pytest.param(LIKE, "repository", "acme*", None, id="no-slash"),
        pytest.param(LIKE, "repository", "acme?app", None, id="a-mark-may-be-the-slash"),
        pytest.param(LIKE, "repository", "*/app", None, id="any-owner"),
        pytest.param(LIKE, "repository", "/*", None, id="no-owner"),
        pytest.param("StringEqualIgnoreCase", "repository", "Acme/*", "Acme/", id="literal-star"),
        pytest.param(EQUAL, "project_path", "acme/sub/app", "acme/", id="project"),
        pytest.param(EQUAL, "namespace_path", "acme", "acme/", id="namespace"),
        pytest.param(EQUAL, "namespace_path", "ac*e", "ac*e/", id="namespace-literal-star"),
        pytest.param(LIKE, "namespace_path", "acme", "acme/", id="namespace-without-stars"),
        pytest.param(LIKE, "namespace_path", "acme*", None, id="namespace-star"),
        pytest.param(LIKE, "namespace_path", "acme/*", "acme/", id="namespace-below"),
        pytest.param(EQUAL, "sub", "repo:acme/app:ref:refs/heads/main", "repo:acme/", id="sub"),
        pytest.param(LIKE, "sub", "repo:acme/*", "repo:acme/", id="sub-star"),
        pytest.param(EQUAL, "sub", "repo:acme@1/app@2:pull_request", "repo:acme@1/", id="sub-ids"),
        pytest.param(LIKE, "sub", "repo:acme*", None, id="sub-owner-star"),
        pytest.param(LIKE, "sub", "repo:*/app:*", None, id="sub-any-owner"),
        pytest.param(LIKE, "sub", "*:repo:acme/app", None, id="sub-star-before"),
        pytest.param(LIKE, "sub", "repo:acm?/app", None, id="sub-mark-in-owner"),
        pytest.param(EQUAL, "sub", "repo:acme", None, id="sub-without-repository"),
        pytest.param(EQUAL, "sub", "xrepo:acme/app", None, id="sub-component-that-ends-like-one"),
        pytest.param(EQUAL, "sub", "xrepository_owner:acme", None, id="sub-owner-that-ends-like-one"),
        pytest.param(EQUAL, "environment", "repo:acme/app", None, id="a-sub-in-another-claim"),
        pytest.param(
            EQUAL, "sub", "project_path:acme/sub/app:ref_type:tag:ref:v", "project_path:acme/",
            id="sub-project",
        ),
        pytest.param(EQUAL, "sub", "project_path:acme/app", "project_path:acme/", id="sub-alone"),
        pytest.param(
            EQUAL, "sub", "repository_owner:acme", "repository_owner:acme:", id="sub-owner-at-the-end"
        ),
        pytest.param(
            LIKE, "sub", "repository_owner:acme", "repository_owner:acme:", id="sub-owner-at-the-end-like"
        ),
        pytest.param(
            EQUAL, "sub", "repository_owner:acme:x:y", "repository_owner:acme:", id="sub-owner"
        ),
        pytest.param(LIKE, "sub", "repository_owner:acme*", None, id="sub-owner-open"),
        pytest.param(LIKE, "sub", "repository_owner:acme:*", "repository_owner:acme:", id="sub-closed"),
        pytest.param(EQUAL, "sub", "repository_id:12", "repository_id:12:", id="sub-id-at-the-end"),
        pytest.param(LIKE, "sub", "project_id:12*", None, id="sub-id-open"),
        pytest.param(EQUAL, "sub", "job_project_id:12", None, id="another-claims-name"),
        pytest.param(EQUAL, "sub", "workflow:acme/app", None, id="a-display-name"),
        pytest.param(EQUAL, "sub", "environment:prod:repo:acme/app", "environment:prod:repo:acme/", id="later"),
        pytest.param(EQUAL, "sub", "12345", None, id="a-persons-number"),
        pytest.param(EQUAL, "job_workflow_ref", "acme/app/w.yml@main", None, id="the-callee"),
        pytest.param(EQUAL, "ref", "acme/app", None, id="not-an-owner"),
        pytest.param(EQUAL, "repository_owner", "", "", id="empty-owner"),
    ],
)  # fmt: skip
def test_the_owner_that_a_value_fixes(
    written: str, claim: str, value: str, expected: str | None
) -> None:
    made = Condition(operator(written), f"jwt:{claim}", (value,))
    provider = "gitlab" if "project" in claim + value or "namespace" in claim else "github"
    assert fixed_owner(PROFILES[provider], made, value) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("acme/*", "acme/"), ("a?b*", "a"), ("*", ""), ("?", ""), ("", ""), ("acme/app", "acme/app")],
)
def test_the_literal_part_ends_at_the_first_wildcard(pattern: str, expected: str) -> None:
    assert literal_prefix(pattern) == expected


def test_only_a_pattern_can_be_only_wildcards() -> None:
    like, equal = (Condition(op, "jwt:x", ()) for op in (Operator.STRING_LIKE, Operator.PRINCIPAL))
    assert only_wildcards(like, "*?**")
    assert not only_wildcards(like, "*a*")
    assert not only_wildcards(equal, "*")


def pins_of(**condition: object) -> list[str]:
    return [pin.key for pin in owner_pins(role(condition=condition), PROFILES["github"])]


@pytest.mark.parametrize("claim", ["repository_owner", "repository", "sub"])
@pytest.mark.parametrize("written", ["StringNotEqual", "StringNotLike", "ForAnyValue:StringEqual"])
def test_negative_and_list_conditions_pin_no_owner(claim: str, written: str) -> None:
    assert pins_of(**{written: {f"jwt:{claim}": "repo:acme/app"}}) == []


def test_one_value_without_an_owner_unpins_the_whole_condition() -> None:
    assert pins_of(StringLike={"jwt:repository": ["acme/*", "*"]}) == []
    assert pins_of(StringEqual={"jwt:repository_owner": ["acme", ""]}) == []
    assert pins_of(StringLike={"jwt:repository": ["acme/*", "octo/*"]}) == ["jwt:repository"]


def test_a_condition_without_values_pins_no_owner() -> None:
    bare = Condition(Operator.STRING_EQUAL, "jwt:repository_owner", ())
    assert owner_pins(Role("r", ("p",), (bare,)), PROFILES["github"]) == ()
    assert not same_owner(
        Role("r", ("p",), (bare,)), PROFILES["github"], Claims({"repository_owner": "acme"})
    )


def test_a_principal_pins_as_a_condition_does() -> None:
    on_sub = role(principal={"jwt:sub": ["repo:acme/app:pull_request"]})
    assert [pin.operator for pin in owner_pins(on_sub, PROFILES["github"])] == [Operator.PRINCIPAL]


def test_a_pointer_to_the_claim_pins_as_its_name_does() -> None:
    assert pins_of(StringEqual={"jwt:/repository_owner": "acme"}) == ["jwt:repository_owner"]


OURS = sample("github-push-main")
GITLAB_OURS = sample("gitlab-branch-main")
OWNER_ID, REPOSITORY_ID = "13420041", "412890077"


def github(**changes: object) -> Claims:
    return sample("github-push-main", **changes)


def renamed() -> Claims:
    return github(
        repository="octo-org/new-name",
        sub="repo:octo-org/new-name:ref:refs/heads/main",
    )


def other_owner_same_names() -> Claims:
    return github(repository_owner_id="999", repository_id="998")


def stranger() -> Claims:
    return github(
        repository="octo-org-evil/octo-repo",
        repository_owner="octo-org-evil",
        repository_owner_id="999",
        repository_id="998",
        sub="repo:octo-org-evil/octo-repo:ref:refs/heads/main",
    )


ROLES = {
    "owner": pinned(repository_owner="octo-org"),
    "owner-id": pinned(repository_owner_id=OWNER_ID),
    "owner-id-as-integer": pinned(repository_owner_id=int(OWNER_ID)),
    "owner-and-id": pinned(repository_owner="octo-org", repository_owner_id=OWNER_ID),
    "repository": pinned(repository="octo-org/octo-repo"),
    "repository-and-owner-id": pinned(
        repository="octo-org/octo-repo", repository_owner_id=OWNER_ID
    ),
    "both-ids": pinned(repository_id=REPOSITORY_ID, repository_owner_id=OWNER_ID),
    "repository-and-its-id": pinned(
        repository="octo-org/octo-repo", repository_id=REPOSITORY_ID
    ),
    "sub": pinned(sub="repo:octo-org/octo-repo:ref:refs/heads/main"),
    "any-case": role(
        condition={
            "StringEqual": {"jwt:iss": GITHUB},
            "StringEqualIgnoreCase": {"jwt:repository": "Octo-Org/Octo-Repo"},
        }
    ),
    "sub-in-any-case": role(
        condition={
            "StringEqual": {"jwt:iss": GITHUB},
            "StringEqualIgnoreCase": {"jwt:sub": "repo:Octo-Org/Octo-Repo:pull_request"},
        }
    ),
    "pattern": role(
        condition={"StringEqual": {"jwt:iss": GITHUB}, "StringLike": {"jwt:repository": "octo-org/*"}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROLES)
def test_the_pinned_owner_is_recognised_whatever_else_fails(name: str) -> None:
    wrong = {"ref": "refs/heads/other", "event_name": "pull_request", "workflow": "other"}
    assert same_owner(ROLES[name], PROFILES["github"], github(**wrong))


@pytest.mark.parametrize("name", ROLES)
def test_a_renamed_repository_is_still_the_owners(name: str) -> None:
    assert same_owner(ROLES[name], PROFILES["github"], renamed())


@pytest.mark.parametrize("name", ROLES)
def test_a_rename_that_put_the_ids_into_sub_changes_no_owner(name: str) -> None:
    with_ids = f"repo:octo-org@{OWNER_ID}/new-name@{REPOSITORY_ID}:ref:refs/heads/main"
    assert same_owner(
        ROLES[name], PROFILES["github"], github(repository="octo-org/new-name", sub=with_ids)
    )


@pytest.mark.parametrize("name", ROLES)
def test_a_stranger_is_never_the_owner(name: str) -> None:
    assert not same_owner(ROLES[name], PROFILES["github"], stranger())


@pytest.mark.parametrize("name", [name for name in ROLES if "owner-id" in name or "both" in name])
def test_the_owners_names_with_another_owner_id_are_not_the_owner(name: str) -> None:
    assert not same_owner(ROLES[name], PROFILES["github"], other_owner_same_names())


@pytest.mark.parametrize("name", ["owner-and-id", "repository-and-owner-id"])
@pytest.mark.parametrize("owner_id", [ABSENT, None, "", [OWNER_ID], {}])
def test_an_owner_that_cannot_be_read_is_not_the_owner(name: str, owner_id: object) -> None:
    assert not same_owner(ROLES[name], PROFILES["github"], github(repository_owner_id=owner_id))


@pytest.mark.parametrize(
    ("pin", "changes"),
    [
        ({"repository": "Octo-Org/App"}, {}),
        ({"repository": "octo-org/app"}, {"repository": "OCTO-ORG/app"}),
        ({"sub": "repo:OCTO-ORG/app:pull_request"}, {}),
        ({"sub": "repo:octo-org/app:pull_request"}, {"sub": "repo:Octo-Org/x:pull_request"}),
    ],
)
def test_an_owner_in_another_case_is_the_owner_whom_a_refusal_may_tell_so(
    pin: dict[str, Any], changes: dict[str, object]
) -> None:
    assert same_owner(pinned(**pin), PROFILES["github"], github(**changes))


def test_an_owner_in_another_script_is_not_the_owner() -> None:
    assert not same_owner(
        pinned(repository="k/app"), PROFILES["github"], github(repository="\u212a/app")
    )


def test_an_id_in_another_case_is_somebody_elses() -> None:
    pin = pinned(iss=GENERIC, sub="Abc1")
    assert same_owner(pin, PROFILES["generic"], Claims({"sub": "Abc1"}))
    assert not same_owner(pin, PROFILES["generic"], Claims({"sub": "abc1"}))


def test_a_repository_id_recognises_only_its_own_repository() -> None:
    by_id = pinned(repository_id=REPOSITORY_ID)
    assert same_owner(by_id, PROFILES["github"], renamed())
    assert not same_owner(by_id, PROFILES["github"], github(repository_id="998"))


@pytest.mark.parametrize(
    ("claim", "value", "owners"),
    [
        ("repository", "Acme/app", {"acme/"}),
        ("repository", "/app", set()),
        ("repository", ["acme/app"], set()),
        ("sub", "repo:acme@1/app@2:pull_request", {"repo:acme@1/", "repo:acme/"}),
        ("sub", "nobody", set()),
        ("repository", "repo:acme@1/app", {"repo:acme@1/"}),  # only a `sub` has two forms
    ],
    ids=lambda given: str(sorted(given) if isinstance(given, set) else given),
)
def test_the_owners_of_a_claim_are_those_that_a_pin_on_it_may_fix(
    claim: str, value: object, owners: set[str]
) -> None:
    assert owners_of(PROFILES["github"], f"jwt:{claim}", Claims({claim: value})) == owners


def test_these_keys_of_github_fix_an_owner() -> None:
    ids, names = {"jwt:repository_owner_id", "jwt:repository_id"}, {"jwt:repository_owner"}
    assert OWNER_KEYS["github"].all == {*ids, *names, "jwt:repository", "jwt:sub"}


def test_a_role_without_a_pin_has_no_owner() -> None:
    assert not same_owner(pinned(ref="refs/heads/main"), PROFILES["github"], OURS)
    assert not same_owner(role(), PROFILES["github"], OURS)


def of_sub(sub: str) -> Profile:
    """The profile whose tokens have such a `sub`."""
    return PROFILES["gitlab" if sub.startswith("project") else "github"]


@pytest.mark.parametrize(
    ("pin", "sub"),
    [
        ("repository_owner:acme", "repository_owner:acme-evil:repository_visibility:private"),
        ("repository_owner:acme", "repository_owner:acme-evil"),
        ("repository_owner_id:12", "repository_owner_id:123:x:y"),
        ("repository_id:12", "repository_id:123"),
        ("project_id:12", "project_id:123:ref:main"),
        ("repo:acme/app:pull_request", "repo:acme-evil/app:pull_request"),
        ("repo:acme/app:pull_request", "repo:acme-evil@1/app@2:pull_request"),
        ("repo:acme/app:pull_request", "repo:acme@x/app@2:pull_request"),
        ("repo:acme/app:pull_request", "repo:acme@/app@2:pull_request"),
        ("repo:acme/app:pull_request", "repo:@1/app@2:pull_request"),
        ("repo:acme/app:pull_request", "xrepo:acme/app:pull_request"),
        ("repo:acme/app:pull_request", "xrepo:acme@1/app@2:pull_request"),
        ("repo:acme/app:pull_request", "repo:evil:repo:acme@1/app@2:pull_request"),
        ("repo:acme@1/app@2:pull_request", "repo:acme/app:pull_request"),
        ("repo:acme/app:pull_request", "environment:repo:acme/app"),
        ("repo:acme@1/app@2:pull_request", "repo:acme@12/app@2:pull_request"),
        ("project_path:acme/app", "project_path:acme-evil/app"),
    ],
)
@pytest.mark.parametrize("written", ["StringEqual", "StringLike", "StringEqualIgnoreCase"])
def test_a_sub_that_shares_only_its_beginning_is_a_strangers(
    written: str, pin: str, sub: str
) -> None:
    on_sub, profile = role(condition={written: {"jwt:sub": pin}}), of_sub(pin)
    assert owner_pins(on_sub, profile)
    assert not same_owner(on_sub, profile, github(sub=sub))


@pytest.mark.parametrize(
    ("pin", "sub"),
    [
        ("repository_owner:acme", "repository_owner:acme"),
        ("repository_owner:acme", "repository_owner:acme:repository_visibility:private"),
        ("repository_owner:acme:repository_visibility:private", "repository_owner:acme"),
        ("project_path:acme/app", "project_path:acme/other:ref_type:tag:ref:v1"),
        ("repo:acme@1/app@2:pull_request", "repo:acme@1/new@3:environment:prod"),
        ("repo:acme/app:pull_request", "repo:acme@1/new@2:pull_request"),
    ],
)
def test_a_sub_of_the_same_owner_is_recognised(pin: str, sub: str) -> None:
    assert same_owner(pinned(sub=pin), of_sub(pin), github(sub=sub))


@pytest.mark.parametrize(
    ("pin", "changes", "expected"),
    [
        ({"namespace_path": "octo-group"}, {}, True),
        ({"namespace_path": "octo-group/sub"}, {}, True),
        ({"namespace_path": "octo-group"}, {"namespace_path": "octo-group/sub"}, True),
        ({"namespace_path": "octo-group"}, {"namespace_path": "octo-group-evil"}, False),
        ({"project_path": "octo-group/app"}, {"project_path": "octo-group/sub/other"}, True),
        ({"project_path": "octo-group/app"}, {"project_path": "octo-group-evil/app"}, False),
        ({"namespace_id": "84410237", "project_path": "octo-group/app"}, {}, True),
        (
            {"namespace_id": "84410237", "project_path": "octo-group/app"},
            {"namespace_id": "1"},
            False,
        ),
        ({"project_id": "61204418", "namespace_id": "84410237"}, {"project_id": "1"}, True),
    ],
)
def test_groups_are_owners_too(
    pin: dict[str, Any], changes: dict[str, object], expected: bool
) -> None:
    assert (
        same_owner(
            pinned(iss=GITLAB, **pin), PROFILES["gitlab"], sample("gitlab-branch-main", **changes)
        )
        is expected
    )


def test_a_fork_does_not_come_from_the_parents_owner() -> None:
    parents = pinned(iss=GITLAB, project_path="octo-group/app")
    assert not same_owner(parents, PROFILES["gitlab"], sample("gitlab-fork-merge-request"))
