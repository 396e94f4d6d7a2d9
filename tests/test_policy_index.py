"""The index of a token's policies, and the memory of the sets in use."""

from __future__ import annotations

import pytest

from federation.documents.catalog import Catalog
from federation.documents.model import Policy
from federation.policy import index
from federation.policy.index import PolicyNames, PolicySet, PolicySets
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


def named(*names: str, deny_only: tuple[str, ...] = (), narrowed: bool = False) -> PolicyNames:
    return PolicyNames(names, deny_only, narrowed or bool(deny_only))


def test_policies_that_go_together_are_indexed_once() -> None:
    snapshot, sets = catalog(policies=[policy("one"), policy("two")]), PolicySets()
    known = sets.of(snapshot, named("one", "two"))
    assert sets.of(snapshot, named("one", "two")) is known
    assert sets.of(snapshot, named("two", "one")) == tuple(reversed(known))
    narrowed = sets.of(snapshot, named("one", "two", deny_only=("two",)))
    assert sets.of(snapshot, named("one", "two", deny_only=("two",))) is narrowed
    assert sets.of(snapshot, named("one", "two")) is known


def test_policies_are_indexed_once_although_others_are_used_in_between() -> None:
    snapshot, sets = catalog(policies=[policy("one"), policy("two")]), PolicySets()
    known = sets.of(snapshot, named("one"))
    sets.of(snapshot, named("two"))
    assert sets.of(snapshot, named("one")) is known


def test_a_new_catalog_is_never_answered_with_the_policies_of_an_old_one() -> None:
    before, after = (
        catalog(policies=[reaching("p", resource)]) for resource in ("dev:*", "prod:*")
    )
    sets = PolicySets()
    for _ in range(2):
        assert about(sets.of(before, named("p")), "dev:fn") == ["p"]
        assert about(sets.of(after, named("p")), "dev:fn") == []
    assert sets.of(Catalog(), named("p")) == ()


def test_the_memory_of_sets_is_bounded() -> None:
    assert index._SETS == 1000
    snapshot, sets = catalog(policies=[policy("p")]), PolicySets()
    for number in range(index._SETS + 1):
        assert sets.of(snapshot, named("p", f"gone-{number}")).missing == (f"gone-{number}",)
    assert len(sets._sets) <= index._SETS


# A policy that is missing


def test_one_missing_policy_leaves_a_set_that_grants_nothing() -> None:
    snapshot, sets = catalog(policies=[reaching("p", "*")]), PolicySets()
    everything = sets.of(snapshot, named("p"))
    assert (about(everything, "dev:fn"), everything.missing) == (["p"], ())
    nothing = sets.of(snapshot, named("p", "gone", "lost"))
    assert (tuple(nothing), about(nothing, "dev:fn")) == ((), [])
    assert nothing.missing == ("gone", "lost")
    assert PolicySet([reaching("p", "*")], missing=("gone",)) == ()


def test_a_policy_that_comes_back_counts_again() -> None:
    sets, names = PolicySets(), named("p", "wall")
    both = [reaching("p", "dev:*"), policy("wall")]
    for policies, found in ((both, ["p"]), (both[:1], []), (both, ["p"])):
        assert about(sets.of(catalog(policies=policies), names), "dev:fn") == found


# Narrowing


def both_effects(name: str, **more: object) -> Policy:
    reach = {"action": ["Function:Get"], "resource": ["*"], **more}
    return policy(name, {"sid": "give", **reach}, {"sid": "take", "effect": "Deny", **reach})


def sids(policies: PolicySet) -> list[str]:
    return [f"{p.name}/{s.sid}" for p, s in policies.about("Function:Get", "dev", "fn")]


def test_of_a_policy_that_may_only_deny_the_allow_statements_do_not_count() -> None:
    snapshot, sets = catalog(policies=[both_effects("a"), both_effects("b")]), PolicySets()
    assert sids(sets.of(snapshot, named("a", "b"))) == ["a/give", "a/take", "b/give", "b/take"]
    narrowed = named("a", "b", deny_only=("b",))
    assert sids(sets.of(snapshot, narrowed)) == ["a/give", "a/take", "b/take"]


@pytest.mark.parametrize(
    "key", ["jwt:role", "jwt:policy", "jwt:/role/0", "jwt:/policy/1", "jwt:fed:deny_only"]
)
def test_in_a_narrowed_set_a_condition_on_the_choice_of_roles_takes_and_never_gives(
    key: str,
) -> None:
    on_role = both_effects("p", condition={"ForAnyValue:StringEqual": {key: "deployer"}})
    snapshot, sets = catalog(policies=[on_role]), PolicySets()
    assert sids(sets.of(snapshot, named("p"))) == ["p/give", "p/take"]
    narrowed = sets.of(snapshot, named("p", narrowed=True))
    assert sids(narrowed) == ["p/take"]
    assert not narrowed[0].statements[0].conditions


def test_names_are_narrowed_to_what_gives_and_what_denies() -> None:
    snapshot = catalog(
        policies=[reaching("gives", "*"), reaching("other", "*"), both_effects("wall")]
    )
    whole = named("gives", "other", "wall", "gone")
    narrowed = whole.narrowed_to({"gives", "never-held"}, snapshot)
    assert narrowed == PolicyNames(("gives", "wall", "gone"), ("wall", "gone"), narrowed=True)
    again = narrowed.narrowed_to({"gives", "wall", "gone"}, snapshot)
    assert again == narrowed, "what may only deny never gives again"
    assert narrowed.narrowed_to({}, snapshot).names == ("wall", "gone")


def test_the_sets_that_are_kept_hold_at_most_a_hundred_thousand_resources() -> None:
    sizes = {"half": 50_000, "other": 50_000, "one": 1, "rest": 49_999, "last": 1}
    snapshot = catalog(
        policies=[
            policy(
                name, {"action": ["Function:Get"], "resource": [f"ns:f{n}" for n in range(size)]}
            )
            for name, size in sizes.items()
        ]
    )
    sets = PolicySets()

    def kept(*names: str) -> bool:
        before = [sets.of(snapshot, named(name)) for name in names]
        after = [sets.of(snapshot, named(name)) for name in names]
        return all(one is other for one, other in zip(before, after, strict=True))

    assert kept("half", "other")
    first = sets.of(snapshot, named("half"))
    assert kept("one")  # it has no room any more, so that the others are dropped
    assert sets.of(snapshot, named("half")) is not first
    assert kept("one", "half", "rest")
    rest = sets.of(snapshot, named("rest"))
    assert kept("last")
    assert sets.of(snapshot, named("rest")) is not rest


def test_names_of_policies_are_not_narrowed_unless_that_is_said() -> None:
    assert PolicyNames(("one",)) == PolicyNames(("one",), deny_only=(), narrowed=False)


@pytest.mark.parametrize(("action", "found"), [("Function:Invoke", 1), ("Function:Get", 0)])
def test_only_a_call_of_a_function_is_about_its_name_in_any_case(action: str, found: int) -> None:
    written = policy("p", {"action": ["Function:*"], "resource": ["dev:Vault"]})
    assert len(PolicySet([written]).about(action, "DEV", "vaulT")) == found
    assert len(PolicySet([written]).about(action, "dev", "Vault")) == 1
