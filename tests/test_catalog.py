"""The catalog's index finds all Roles that a token could satisfy, and few others."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import FrozenInstanceError
from random import Random
from typing import Any

import pytest

from federation.claims import Claims
from federation.documents.catalog import Catalog, role_issuers
from federation.documents.model import Role
from federation.errors import Refusal
from federation.policy.conditions import holds
from federation.policy.roles import admit
from tests.harness import generators as generated
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

ON_GITHUB = {"jwt:iss": GITHUB}


def found(snapshot: Catalog, claims: Claims) -> list[str]:
    return [candidate.name for candidate in snapshot.candidates(claims)]


def shaped(principal: object = None, **condition: Any) -> Role:
    """A Role for github.com with these conditions."""
    exact = ON_GITHUB | condition.pop("StringEqual", {})
    spec: dict[str, Any] = {"condition": {"StringEqual": exact, **condition}}
    return role("r", **spec, **({"principal": principal} if principal else {}))


@pytest.mark.parametrize(
    ("admits", "changes"),
    [
        pytest.param(shaped(), {}, id="iss-alone"),
        pytest.param(shaped(StringEqual={"jwt:repository": "octo-org/octo-repo"}), {}, id="exact"),
        pytest.param(
            shaped(StringEqual={"jwt:repository": ["a/b", "octo-org/octo-repo"]}), {}, id="one-of"
        ),
        pytest.param(
            shaped(StringEqual={"jwt:repository_id": 412890077}), {}, id="integer-value"
        ),
        pytest.param(
            shaped(StringEqual={"jwt:repository_id": "7"}), {"repository_id": 7}, id="integer-claim"
        ),
        pytest.param(
            shaped(StringEqual={"jwt:repository_id": True}), {"repository_id": True}, id="boolean"
        ),
        pytest.param(
            shaped({"jwt:sub": ["repo:octo-org/octo-repo:ref:refs/heads/main"]}), {}, id="principal"
        ),
        pytest.param(
            shaped(
                {"jwt:repository": ["octo-org/octo-repo", "x/y"]},
                StringEqual={"jwt:repository": ["octo-org/octo-repo", "z/w"]},
            ),
            {},
            id="principal-and-condition-on-one-key",
        ),
        pytest.param(
            shaped(StringLike={"jwt:repository": ["octo-org/*", "acme/*"]}), {}, id="owner-prefix"
        ),
        pytest.param(
            shaped(StringLike={"jwt:repository": ["octo-org/a*", "octo-org/octo-*"]}),
            {},
            id="one-owner-twice",
        ),
        pytest.param(
            shaped(StringLike={"jwt:repository": ["octo-org/octo-repo"]}), {}, id="no-wildcard"
        ),
        pytest.param(
            shaped(StringLike={"jwt:repository": ["octo-org/*", "*"]}), {}, id="one-value-is-open"
        ),
        pytest.param(shaped(StringLike={"jwt:repository": ["octo-*"]}), {}, id="prefix-no-slash"),
        pytest.param(shaped(StringLike={"jwt:repository": ["*/octo-repo"]}), {}, id="suffix"),
        pytest.param(shaped(StringLike={"jwt:repository": ["octo?org/*"]}), {}, id="mark"),
        pytest.param(shaped(StringLike={"jwt:repository_owner": ["octo-org"]}), {}, id="owner-like"),
        pytest.param(
            shaped(StringEqualIgnoreCase={"jwt:repository": ["OCTO-ORG/Octo-Repo"]}),
            {},
            id="any-case",
        ),
        pytest.param(
            shaped(
                StringEqualIgnoreCase={"jwt:repository": ["OCTO-ORG/Octo-Repo"]},
                StringEqual={"jwt:repository_owner": "octo-org"},
            ),
            {},
            id="any-case-beside-exact",
        ),
        pytest.param(
            shaped(StringLike={"jwt:sub": ["repo:octo-org/octo-repo:*"]}), {}, id="sub-pattern"
        ),
        pytest.param(
            shaped(StringLike={"jwt:workflow_ref": ["octo-org/octo-repo/*"]}), {}, id="workflow"
        ),
        pytest.param(
            shaped(StringLike={"jwt:sub": ["a/*"]}), {"sub": "a/b/c"}, id="sub-with-other-slash"
        ),
        pytest.param(shaped(StringNotEqual={"jwt:repository": ["x/y"]}), {}, id="negative"),
        pytest.param(shaped(StringNotLike={"jwt:repository": ["x/*"]}), {}, id="negative-pattern"),
        pytest.param(
            shaped(**{"ForAnyValue:StringEqual": {"jwt:repository": ["x/y"]}}),
            {"repository": ["x/y"]},
            id="list",
        ),
        pytest.param(
            shaped(StringEqual={"jwt:/repository": "octo-org/octo-repo"}), {}, id="pointer"
        ),
        pytest.param(
            shaped(StringEqual={"jwt:repository": "octo-org/octo-repo", "jwt:ref": "r"}),
            {"ref": "r"},
            id="another-key-too",
        ),
        pytest.param(
            shaped(StringEqual={"jwt:repository_owner": "octo-org"}),
            {"repository_id": ABSENT, "repository": None},
            id="more-telling-claims-absent",
        ),
        pytest.param(
            role("r", condition={"StringEqual": {"jwt:iss": [GITLAB, GITHUB]}}), {}, id="two-issuers"
        ),
        pytest.param(
            role(
                "r",
                principal={"jwt:iss": [GITHUB, "https://nobody.example"]},
                condition={"StringEqual": {"jwt:iss": [GITLAB, GITHUB]}},
            ),
            {},
            id="issuers-twice",
        ),
    ],
)  # fmt: skip
def test_a_role_that_holds_is_a_candidate_once(admits: Role, changes: dict[str, object]) -> None:
    claims = sample("github-push-main", **changes)
    assert holds(admits.conditions, claims)
    assert found(catalog(admits), claims) == ["r"]


def test_no_role_that_holds_is_missed_among_many() -> None:
    rng = Random(7)  # noqa: S311 -- repeatable cases, no secrets
    for _ in range(100):
        tokens = [Claims(generated.claims(rng)) for _ in range(4)]
        roles = [
            role(f"r{number}", **generated.role(rng, dict(rng.choice(tokens))))
            for number in range(20)
        ]
        snapshot = catalog(*roles)
        for claims in tokens:
            candidates = found(snapshot, claims)
            assert len(candidates) == len(set(candidates))
            assert {r.name for r in roles if holds(r.conditions, claims)} <= set(candidates)


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"iss": GITHUB, "repository": "acme/other"}, id="another-repository"),
        pytest.param({"iss": GITLAB, "repository": "acme/app"}, id="another-issuer"),
        pytest.param({"iss": "https://nobody.example", "repository": "acme/app"}, id="unknown"),
        pytest.param({"iss": [GITHUB], "repository": "acme/app"}, id="issuer-is-a-list"),
        pytest.param({"iss": None, "repository": "acme/app"}, id="issuer-is-null"),
        pytest.param({"repository": "acme/app"}, id="no-issuer"),
        pytest.param({"iss": GITHUB}, id="no-repository"),
        pytest.param({"iss": GITHUB, "repository": ["acme/app"]}, id="repository-is-a-list"),
        pytest.param({"iss": GITHUB, "repository": ""}, id="repository-is-empty"),
        pytest.param({}, id="nothing"),
    ],
)
def test_a_strangers_token_has_no_candidates(claims: dict[str, object]) -> None:
    assert found(catalog(pinned("app", repository="acme/app")), Claims(claims)) == []


def test_a_pattern_is_filed_under_its_owner() -> None:
    snapshot = catalog(
        role("acme", condition={"StringEqual": ON_GITHUB, "StringLike": {"jwt:repository": "acme/*"}}),
        role("octo", condition={"StringEqual": ON_GITHUB, "StringLike": {"jwt:repository": "octo/*"}}),
    )  # fmt: skip
    assert found(snapshot, Claims({"iss": GITHUB, "repository": "acme/app"})) == ["acme"]
    assert found(snapshot, Claims({"iss": GITHUB, "repository": "acme-evil/app"})) == []


def test_a_role_without_conditions_is_never_a_candidate() -> None:
    assert found(catalog(role()), sample("github-push-main")) == []


def test_a_role_of_an_issuer_that_is_not_configured_is_never_a_candidate() -> None:
    snapshot = catalog(pinned(repository="octo-org/octo-repo"), issuers=[issuer(GITLAB)])
    assert found(snapshot, sample("github-push-main")) == []


def test_what_an_earlier_catalog_knows_of_a_role_is_not_used_for_another_provider() -> None:
    pinned = shaped(StringLike={"jwt:repository": "octo-org/*"})
    as_github = Catalog(issuers={GITHUB: issuer(GITHUB)}, roles=(pinned,), before=Catalog())
    as_generic = {GITHUB: issuer(GITHUB, provider="generic")}
    later = Catalog(issuers=as_generic, roles=(pinned,), before=as_github)
    assert later == Catalog(issuers=as_generic, roles=(pinned,))
    claims = Claims({"iss": GITHUB, "sub": "x"})  # what files it at GitHub is not in this token
    assert found(as_github, claims) == []
    assert found(later, claims) == ["r"]


def test_after_an_earlier_catalog_a_changed_role_is_found_by_what_it_pins_now() -> None:
    issuers = {GITHUB: issuer(GITHUB)}
    kept = shaped(StringEqual={"jwt:repository_id": "1"})
    changed = shaped(StringEqual={"jwt:repository_id": "2"})
    before = Catalog(issuers, (kept, changed), before=Catalog())
    after = Catalog(issuers, (kept, shaped(StringEqual={"jwt:repository_id": "3"})), before=before)
    for repository_id, roles in (("1", 1), ("2", 0), ("3", 1)):
        claims = Claims({"iss": GITHUB, "repository_id": repository_id})
        assert len(found(after, claims)) == roles


def test_a_catalog_of_files_keeps_nothing_for_a_later_one() -> None:
    issuers = {GITHUB: issuer(GITHUB)}
    roles = tuple(pinned(f"r{n}", repository=f"octo-org/repo-{n}") for n in range(300))
    of_files = bytes_kept(lambda: Catalog(issuers, roles))
    of_objects = bytes_kept(lambda: Catalog(issuers, roles, before=Catalog()))
    assert of_files < of_objects / 2


def bytes_kept(make: Callable[[], Catalog]) -> int:
    tracemalloc.start()
    made = make()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return kept


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param({"StringEqual": {"jwt:iss": GITHUB}}, {GITHUB}, id="one"),
        pytest.param({"StringEquals": {"jwt:iss": [GITHUB, GITLAB]}}, {GITHUB, GITLAB}, id="two"),
        pytest.param(
            {"StringEqual": {"jwt:iss": [GITHUB, GITLAB]}, "StringEquals": {"jwt:iss": GITLAB}},
            {GITLAB},
            id="both-must-hold",
        ),
        pytest.param(
            {"StringEqual": {"jwt:iss": GITHUB}, "StringEquals": {"jwt:iss": GITLAB}},
            set(),
            id="contradiction",
        ),
        pytest.param({"StringLike": {"jwt:iss": GITHUB}}, set(), id="pattern"),
        pytest.param({"StringEqualIgnoreCase": {"jwt:iss": GITHUB}}, set(), id="any-case"),
        pytest.param({"StringNotEqual": {"jwt:iss": GITHUB}}, set(), id="negative"),
        pytest.param({"StringEqual": {"jwt:/iss": GITHUB}}, {GITHUB}, id="pointer"),
        pytest.param({"StringEqual": {"jwt:fed:iss": GITHUB}}, set(), id="another-claim"),
        pytest.param({}, set(), id="none"),
    ],
)
def test_a_roles_issuers_are_those_it_names_exactly(
    block: dict[str, object], expected: set[str]
) -> None:
    assert role_issuers(role(condition=block)) == expected


def neighbours(snapshot: Catalog, claims: Claims) -> set[str]:
    return {neighbour.name for neighbour in snapshot.neighbours(claims)}


def test_the_neighbours_are_the_owners_roles_and_those_of_no_owner() -> None:
    snapshot = catalog(
        pinned("by-owner", repository_owner="octo-org"),
        pinned("by-id", repository_owner_id="13420041"),
        pinned("other-repository", repository="octo-org/other"),
        pinned("any-case", repository="Octo-Org/other"),
        pinned("by-sub", sub="repo:octo-org/other:pull_request"),
        pinned("by-short-sub", sub="repository_owner:octo-org"),
        pinned("nobodys", ref="refs/heads/other"),
        pinned("elsewhere", iss=GITLAB, repository_owner="octo-org"),
        pinned("strangers", repository="octo-org-evil/octo-repo"),
        pinned("strangers-sub", sub="repo:octo-org-evil/octo-repo:pull_request"),
    )
    theirs = {"by-owner", "by-id", "other-repository", "any-case", "by-sub", "nobodys"}
    assert neighbours(snapshot, sample("github-push-main")) == theirs
    # A rename after 15 July 2026 puts the ids into `sub`.
    assert neighbours(snapshot, sample("github-immutable-sub")) == theirs
    assert neighbours(snapshot, sample("github-custom-sub")) == theirs - {"by-sub"} | {
        "by-short-sub"
    }


@pytest.mark.parametrize("iss", [None, [GITHUB], {}, "https://nobody.example", ABSENT])
def test_a_token_of_no_issuer_has_no_neighbours(iss: object) -> None:
    snapshot = catalog(pinned(repository_owner="octo-org"), pinned("nobodys", ref="x"))
    assert neighbours(snapshot, sample("github-push-main", iss=iss)) == set()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param({"effect": "Deny", "action": ["*"], "resource": ["*"]}, True, id="it does"),
        pytest.param({"action": ["*"], "resource": ["*"]}, False, id="it only allows"),
        pytest.param(None, True, id="it is missing, so nobody knows"),
    ],
)
def test_a_policy_may_deny(statement: dict[str, object] | None, expected: bool) -> None:
    snapshot = catalog(policies=[policy("p", statement)] if statement else [])
    assert snapshot.may_deny("p") is expected


def test_a_snapshot_does_not_change() -> None:
    snapshot = catalog(pinned(repository="octo-org/octo-repo"))
    with pytest.raises(FrozenInstanceError):
        setattr(snapshot, "roles", ())  # noqa: B010 -- as an assignment, it is not well typed
    assert catalog(pinned(sub="x")) == catalog(pinned(sub="x"))
    assert catalog() == Catalog(issuers={i.iss: i for i in map(issuer, (GITHUB, GITLAB, GENERIC))})


@pytest.mark.alone
@pytest.mark.e2e
@pytest.mark.parametrize("outcome", ["admitted", "refused"])
def test_a_token_costs_the_same_against_ten_thousand_roles_as_against_ten(outcome: str) -> None:
    small, large = many_roles(10), many_roles(10_000)
    token = sample("github-push-main", repository="octo-org/repo-7")
    if outcome == "refused":
        token = sample(
            "github-push-main", repository="nobody/app", repository_owner="nobody", sub="x"
        )
    assert (len(found(large, token)) == 1) is (outcome == "admitted")
    assert seconds_to_admit(large, token) < 5 * seconds_to_admit(small, token) + 0.0002


@pytest.mark.alone
@pytest.mark.e2e
def test_a_refusal_of_an_owner_with_ten_thousand_roles_stays_cheap() -> None:
    renamed = sample("github-push-main", repository="octo-org/new-name")
    assert seconds_to_admit(many_roles(10_000), renamed) < 0.050


def many_roles(many: int) -> Catalog:
    return catalog(
        *(pinned(f"r{n}", repository=f"octo-org/repo-{n}", ref="refs/heads/main") for n in range(many))
    )  # fmt: skip


def seconds_to_admit(snapshot: Catalog, claims: Claims) -> float:
    times = []
    for _ in range(50):
        started = time.perf_counter()
        with suppress(Refusal):
            admit(snapshot, issuer(GITHUB), claims)
        times.append(time.perf_counter() - started)
    return min(times)
