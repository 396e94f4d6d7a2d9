"""The facts about a Role: which conditions narrow, where they stand, and which provider it means."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from federation.documents.rules.role_facts import PlacedCondition, RoleFacts, yaml
from federation.policy.conditions import Condition, Operator
from federation.providers.table import PROFILES
from tests.harness.builders import GENERIC, GITHUB, GITLAB, issuer, operator, role

SELF_MANAGED = "https://gitlab.example.org"
EQUAL, LIKE = "StringEqual", "StringLike"


def placed(written: str, claim: str, *values: str) -> PlacedCondition:
    """A condition on a token of GitHub, at its place in a document."""
    condition = Condition(operator(written), f"jwt:{claim}", values)
    return PlacedCondition.of(condition, ("spec", "condition", written), PROFILES["github"])


def facts(*issuers: str, **spec: Any) -> RoleFacts:
    """The facts about a Role with this *spec*, where these issuers are configured."""
    made = role(**spec)
    places = tuple(_place(condition) for condition in made.conditions)
    configured = {iss: issuer(iss, "gitlab" if iss == SELF_MANAGED else None) for iss in issuers}
    return RoleFacts.of(replace(made, places=places), configured)


def _place(condition: Condition) -> tuple[str, ...]:
    principal = condition.operator is Operator.PRINCIPAL
    block = ("principal",) if principal else ("condition", condition.operator.value)
    return ("spec", *block, condition.key)


NARROWS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "one value": (EQUAL, "environment", ("production",)),
    "a star that stands for itself": (EQUAL, "environment", ("*",)),
    "a beginning": (LIKE, "environment", ("prod*",)),
    "one of two booleans": (EQUAL, "ref_protected", ("true",)),
    "a pattern of one boolean": (LIKE, "ref_protected", ("t*",)),
    "branches": (LIKE, "ref", ("refs/heads/*",)),
    "branches and tags": (LIKE, "ref", ("refs/heads/*", "refs/tags/*")),
    "refs that end in q": (LIKE, "ref", ("refs/*q",)),
    "refs that end in x": (LIKE, "ref", ("refs/*x",)),
    "refs that end in a slash or q": (LIKE, "ref", ("refs/*/", "refs/*q")),
    "refs that end in a slash or x": (LIKE, "ref", ("refs/*/", "refs/*x")),
    "a member of a list": ("ForAnyValue:StringLike", "groups", ("ops-*",)),
}
OPEN: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "all but one value": ("StringNotEqual", "environment", ("production",)),
    "all but a beginning": ("StringNotLike", "environment", ("prod*",)),
    "a star": (LIKE, "environment", ("*",)),
    "anything that is not empty": (LIKE, "environment", ("?*",)),
    "a value or a star": (LIKE, "environment", ("production", "*")),
    "any member of a list": ("ForAnyValue:StringLike", "groups", ("*",)),
    "each boolean": (EQUAL, "ref_protected", ("true", "false")),
    "each boolean by its letter": (LIKE, "ref_protected", ("t*", "f*")),
    "every ref": (LIKE, "ref", ("refs/*",)),
    "each kind of ref": (LIKE, "ref", ("refs/heads/*", "refs/tags/*", "refs/pull/*")),
}


@pytest.mark.parametrize(("written", "claim", "values"), NARROWS.values(), ids=NARROWS)
def test_a_condition_that_keeps_tokens_out_narrows(
    written: str, claim: str, values: tuple[str, ...]
) -> None:
    assert placed(written, claim, *values).narrows


@pytest.mark.parametrize(("written", "claim", "values"), OPEN.values(), ids=OPEN)
def test_a_condition_that_every_token_may_satisfy_does_not_narrow(
    written: str, claim: str, values: tuple[str, ...]
) -> None:
    assert not placed(written, claim, *values).narrows


@pytest.mark.parametrize("written", [operator.value for operator in Operator])
def test_a_condition_is_a_pattern_if_it_is_positive_and_may_hold_wildcards(written: str) -> None:
    expected = written in {LIKE, "ForAnyValue:StringLike"}
    assert placed(written, "ref", "refs/heads/*").pattern is expected


def test_each_value_has_a_place_of_its_own() -> None:
    where = ("spec", "condition", EQUAL)
    two = placed(EQUAL, "ref", "a", "b")
    assert (two.key, two.claim, two.place) == ("jwt:ref", "ref", where)
    assert list(two.placed_values) == [((*where, 0), "a"), ((*where, 1), "b")]


def test_a_fault_of_the_whole_role_is_at_its_conditions_or_else_at_its_principal() -> None:
    by_principal = {"jwt:iss": GITHUB}
    conditions = {EQUAL: {"jwt:ref": "refs/heads/main"}}
    assert facts(GITHUB, principal=by_principal).block == ("spec", "principal")
    for spec in (
        {},
        {"condition": conditions},
        {"principal": by_principal, "condition": conditions},
    ):
        assert facts(GITHUB, **spec).block == ("spec", "condition")


@pytest.mark.parametrize(
    ("configured", "named", "provider"),
    [
        pytest.param([GITHUB], [GITHUB], "github", id="its issuer's"),
        pytest.param([GENERIC], [GENERIC], "generic", id="an issuer of which nothing is known"),
        pytest.param([GENERIC, GITHUB], [GENERIC, GITHUB], "github", id="the one that has one"),
        pytest.param([SELF_MANAGED], [SELF_MANAGED], "gitlab", id="one that a document names"),
        pytest.param([], [GITLAB], "gitlab", id="an issuer that is not configured"),
        pytest.param([SELF_MANAGED], [GITHUB, SELF_MANAGED], "gitlab", id="configured ones first"),
        pytest.param([], [GENERIC, GITLAB], "gitlab", id="the known one of two not configured"),
        pytest.param([GITHUB], [], "generic", id="no issuer"),
    ],
)
def test_a_role_is_read_by_the_rules_of_its_issuers_provider(
    configured: list[str], named: list[str], provider: str
) -> None:
    spec = {"condition": {EQUAL: {"jwt:iss": named}}} if named else {}
    found = facts(*configured, **spec)
    assert found.profile.name == provider
    assert [each.iss for each in found.issuers] == sorted({*named} & {*configured})


def test_the_first_shared_issuer_of_a_role_is_its_shared_one() -> None:
    enterprise = f"{GITHUB}/octo"
    of_both = facts(
        GENERIC, enterprise, GITHUB, condition={EQUAL: {"jwt:iss": [GENERIC, enterprise, GITHUB]}}
    )
    assert of_both.shared is not None
    assert of_both.shared.iss == GITHUB
    assert facts(GENERIC, condition={EQUAL: {"jwt:iss": GENERIC}}).shared is None


BRANCHES = {
    EQUAL: {"jwt:iss": GITHUB, "jwt:ref": "refs/heads/main"},
    LIKE: {"jwt:ref": ["refs/heads/*", "refs/tags/*"], "jwt:environment": "*"},
    "StringEqualIgnoreCase": {"jwt:ref": "REFS/HEADS/MAIN"},
}


def test_the_conditions_are_told_apart_by_what_they_do() -> None:
    found = facts(GITHUB, condition=BRANCHES)
    assert found.narrowed == {"jwt:iss", "jwt:ref"}
    assert [each.key for each in found.patterns] == ["jwt:ref", "jwt:environment"]
    assert {key: each.values for key, each in found.exact.items()} == {
        "jwt:iss": (GITHUB,),
        "jwt:ref": ("refs/heads/main",),
    }
    assert [each.operator.value for each in found.on({"jwt:ref", "jwt:environment"})] == [
        *(EQUAL, LIKE, "StringEqualIgnoreCase"),
    ]


def test_a_claim_holds_a_form_only_if_every_value_of_one_condition_does() -> None:
    found = facts(GITHUB, condition={LIKE: BRANCHES[LIKE]})
    assert found.only("ref", re.compile("^refs/"))
    assert not found.only("ref", re.compile("^refs/heads/"))
    assert not found.only("environment", re.compile("")), "a condition that does not narrow"
    assert not found.only("sub", re.compile("")), "no condition"
    assert facts(GITHUB, condition=BRANCHES).only("ref", re.compile("^refs/heads/"))


def test_of_two_exact_conditions_on_a_claim_the_first_is_meant() -> None:
    found = facts(GITHUB, principal={"jwt:sub": "a"}, condition={EQUAL: {"jwt:sub": "b"}})
    assert found.exact["jwt:sub"].values == ("a",)


def test_a_hint_is_yaml_to_paste() -> None:
    assert yaml(EQUAL, iss=GITHUB, sub='a"b') == (
        f'StringEqual: {{"jwt:iss": ["{GITHUB}"], "jwt:sub": ["a\\"b"]}}'
    )
