"""
Measure one decision over 100 Policies of 20 statements, and a bare look-up in a dict.

The decision is about an access that only the last statement of the last Policy allows. In the
common case each Policy is about a namespace of its own. If statements name namespaces by pattern or
by a claim, or all Policies are about one namespace, the broker has to look at more of them.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.limit import cost
from bench.servers import Place, on_core
from bench.table import Found
from federation.claims import Claims
from federation.documents.model import ACTION_SETS, Effect, Policy, Statement
from federation.documents.resources import Resource
from federation.policy.index import PolicySet
from federation.policy.permissions import Access, decide

POLICIES, STATEMENTS = 100, 20
EVERY = 10
"""Of so many statements, one names its namespace by a pattern."""
CLAIMS = Claims({"owner": POLICIES - 1, "repository": str(STATEMENTS - 1)})


def measured(place: Place) -> Found:
    """Measure decisions in three sets of Policies."""
    with on_core(place.server_core):
        plain, anywhere, by_claim, one = (
            _deciding(policies(name))
            for name in (own_namespace, some_by_pattern, some_by_claim, one_namespace)
        )
        table = {(f"team-{policy}", "Function:Update"): True for policy in range(POLICIES)}
        key = (f"team-{POLICIES - 1}", "Function:Update")
        bare = 1e6 * cost(lambda: table[key]).wall
        each = tuple(policies(own_namespace))
        filing = 1e6 * cost(lambda: _decide(PolicySet(each)), 0.2).wall
    return Found(
        figures={
            "deciding": plain,
            "deciding_anywhere": anywhere,
            "deciding_variables": by_claim,
        },
        details={
            "a bare dict look-up, µs": bare,
            "each Policy of a namespace of its own, µs": plain,
            "the same, in look-ups": plain / bare,
            "one statement in ten by pattern, µs": anywhere,
            "one statement in ten by a claim, µs": by_claim,
            "all 2,000 statements of one namespace, µs": one,
            "a set asked for the first time, µs": filing,
        },
    )


def policies(resource: Callable[[int, int], str]) -> PolicySet:
    """100 Policies whose statements have the resource that *resource* makes of their numbers."""
    return PolicySet(
        Policy(
            f"policy-{policy}",
            tuple(
                Statement(
                    f"s{number}",
                    Effect.ALLOW,
                    ACTION_SETS["Function:Admin"],
                    (Resource(resource(policy, number)),),
                )
                for number in range(STATEMENTS)
            ),
        )
        for policy in range(POLICIES)
    )


def own_namespace(policy: int, number: int) -> str:
    """A function in the Policy's own namespace."""
    return f"team-{policy}:fn-{number}"


def some_by_pattern(policy: int, number: int) -> str:
    """The same, but one statement in ten names its namespace by a pattern."""
    return f"team-{policy}-*:fn-{number}" if number % EVERY == 0 else own_namespace(policy, number)


def some_by_claim(policy: int, number: int) -> str:
    """The same, but one statement in ten, and the one that allows, follow claims of the token."""
    if policy == POLICIES - 1 and number == STATEMENTS - 1:
        return "team-${jwt:owner}:fn-${jwt:repository}"
    by_claim = f"team-${{jwt:owner}}:fn-{number}-{policy}"
    return own_namespace(policy, number) if number % EVERY else by_claim


def one_namespace(policy: int, number: int) -> str:
    """A function in the one namespace of all Policies."""
    last = policy == POLICIES - 1 and number == STATEMENTS - 1
    return own_namespace(policy, number) if last else f"team-{POLICIES - 1}:fn-{policy}-{number}"


def _deciding(asked: PolicySet) -> float:
    """Microseconds for one decision; the statements are indexed already."""
    return 1e6 * cost(lambda: _decide(asked)).wall


def _decide(asked: PolicySet) -> None:
    access = Access("Function:Update", f"team-{POLICIES - 1}", f"fn-{STATEMENTS - 1}")
    if not decide(asked, access, CLAIMS).allowed:
        raise RuntimeError("what a Policy allows was refused")
