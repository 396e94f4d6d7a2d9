"""The index of a token's policies, and the memory of the sets in use."""

from __future__ import annotations

from federation.documents.catalog import Catalog
from federation.documents.model import Policy
from federation.policy import index
from federation.policy.index import PolicySet, PolicySets
from tests.harness.builders import catalog, policy


def reaching(name: str, *resources: str) -> Policy:
    return policy(name, {"action": ["Function:Get"], "resource": list(resources)})


def about(policies: PolicySet, resource: str, action: str = "Function:Get") -> list[str]:
    namespace, _, name = resource.partition(":")
    return [policy.name for policy, _ in policies.about(action, namespace, name)]


def test_only_statements_that_reach_the_access_are_found_and_their_order_is_kept() -> None:
    policies = PolicySet(
        [
            reaching("pattern", "te*:fn"),
            reaching("other", "prod:*"),
            reaching("exact", "team-a:fn"),
            reaching("everything", "*"),
            reaching("name-pattern", "team-a:f*"),
            reaching("inner-star", "team-*-eu:fn"),
        ]
    )
    assert about(policies, "team-a:fn") == ["pattern", "exact", "everything", "name-pattern"]
    assert about(policies, "team-a-eu:fn") == ["pattern", "everything", "inner-star"]
    assert about(policies, "team-a:fn", "Function:Delete") == []


def test_a_statement_that_reaches_an_access_twice_is_found_once() -> None:
    assert about(PolicySet([reaching("p", "dev:fn", "dev:*", "*")]), "dev:fn") == ["p"]


def test_policies_that_go_together_are_indexed_once() -> None:
    snapshot, sets = catalog(policies=[policy("one"), policy("two")]), PolicySets()
    known = sets.of(snapshot, ("one", "two"))
    assert sets.of(snapshot, ("one", "two")) is known
    assert sets.of(snapshot, ("two", "one")) == tuple(reversed(known))


def test_policies_are_indexed_once_although_others_are_used_in_between() -> None:
    snapshot, sets = catalog(policies=[policy("one"), policy("two")]), PolicySets()
    known = sets.of(snapshot, ("one",))
    sets.of(snapshot, ("two",))
    assert sets.of(snapshot, ("one",)) is known


def test_a_new_catalog_is_never_answered_with_the_policies_of_an_old_one() -> None:
    before, after = (
        catalog(policies=[reaching("p", resource)]) for resource in ("dev:*", "prod:*")
    )
    sets = PolicySets()
    for _ in range(2):
        assert about(sets.of(before, ("p",)), "dev:fn") == ["p"]
        assert about(sets.of(after, ("p",)), "dev:fn") == []
    assert sets.of(Catalog(), ("p",)) == ()


def test_the_memory_of_sets_is_bounded() -> None:
    assert index._SETS == 1000
    snapshot, sets = catalog(policies=[policy("p")]), PolicySets()
    for number in range(index._SETS + 1):
        assert sets.of(snapshot, ("p", f"gone-{number}")) == (policy("p"),)
    assert len(sets._sets) <= index._SETS
