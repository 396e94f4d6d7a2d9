"""A rule is left out only for Roles in which it finds nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from federation.documents.model import Role
from federation.documents.rules.lint import RoleLint, role_faults
from federation.policy.conditions import Operator
from federation.providers.table import PROFILES
from tests import test_rules as known
from tests.test_rules import DOUBTED, GITHUB, ISSUERS, KEYCLOAK, REFUSED, SAFE, role

CLIENT = "laptop"
CONFIGURED = {**ISSUERS, KEYCLOAK: replace(ISSUERS[KEYCLOAK], clients=(CLIENT,))} | {
    GITHUB: replace(ISSUERS[GITHUB], clients=(CLIENT,))
}


def claims() -> list[str]:
    """Claims of which a rule says something, and claims of which none does."""
    of_profiles = [
        {*each.shapes, *each.free, *each.verified_by, *each.environment_claims, *each.ref_claims}
        | {claim for names in each.names for claim in (*names.names, *names.ids)}
        | {*each.owner.ids, *each.owner.paths, *each.owner.groups, *each.owner.composed}
        for each in PROFILES.values()
    ]
    return sorted({"sub", "aud", "nothing", "/a/b"}.union(*of_profiles))


ISSUER_VALUES = st.lists(
    st.sampled_from([*CONFIGURED, "https://nobody.example.com"]), min_size=1, max_size=2
)
VALUES = st.lists(
    st.sampled_from(
        [
            *("", "*", "main", "refs/heads/main", "refs/heads/*", "refs/*q", "1", "true", "TRUE"),
            *("acme/app", "acme/*", "acme*", "*/app", "a, b", "1,2", "x y", "a\u200b", "${X}"),
            *("repo:acme/app:ref:refs/heads/main", "repo:acme/app:environment:production"),
            *("repo:acme@1/app@2:ref:refs/heads/main", "repo:acme*", "repo:acme/app:pull_request"),
            *("workflow:deploy", "push", "pull_request", "pull_request*", "REFS/HEADS/main"),
            *("project_path:acme/app:ref_type:branch:ref:main", "ops", "somebody@example.com"),
            *(CLIENT, known.AUDIENCE),
        ]
    ),
    min_size=1,
    max_size=3,
)
BLOCKS = st.dictionaries(
    st.sampled_from([each.value for each in Operator]),
    st.dictionaries(st.sampled_from(claims()).map("jwt:{}".format), VALUES, max_size=3),
    max_size=3,
)


def with_places(made: Role) -> Role:
    return replace(made, places=tuple(map(known._place, made.conditions)))


@given(st.lists(st.tuples(ISSUER_VALUES, BLOCKS), max_size=8), st.integers(1, 8))
def test_the_rules_of_a_form_find_what_all_rules_find(
    drawn: list[tuple[list[str], Mapping[str, Mapping[str, list[str]]]]], batch: int
) -> None:
    lint = RoleLint(CONFIGURED)
    roles = []
    for issuers, block in drawn:
        equal = {"jwt:iss": issuers} | dict(block.get("StringEqual", {}))
        roles.append(with_places(role({**block, "StringEqual": equal})))
    found = [lint.of(roles[start : start + batch]) for start in range(0, len(roles), batch)]
    assert list(chain(*found)) == [role_faults(made, CONFIGURED) for made in roles]


def test_the_rules_of_a_form_find_what_is_known_to_be_wrong() -> None:
    blocks = [block for _, block in (*REFUSED.values(), *DOUBTED.values())]
    roles = [with_places(role(block)) for block in (*blocks, *SAFE.values())]
    assert RoleLint(CONFIGURED).of(roles) == [role_faults(made, CONFIGURED) for made in roles]
