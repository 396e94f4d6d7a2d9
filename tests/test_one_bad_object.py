"""
The law of `documents.kubernetes.unite`: whatever object becomes bad, nothing is allowed that was not before.

Sets of documents, tokens and ways to become bad are generated. What the good set allows is also
computed by the naive second evaluator.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import Standing
from federation.errors import Refusal
from federation.policy.index import PolicyNames, PolicySets
from federation.policy.permissions import Access, decide
from federation.policy.roles import Admission, admit
from federation.tokens.mint import access_claims
from tests.harness import generators, second_evaluator
from tests.harness.builders import AUDIENCE, GENERIC, NOW
from tests.harness.objects import Namespace, Raw, allow, deny, issuer, policy, raw

OTHER = "https://b.example"
ISSUERS = (GENERIC, OTHER)
KEYS = ("sub", "groups", "ref", "repository", "n")

examples = settings(max_examples=30, deadline=None, derandomize=True, database=None)
randoms = st.randoms(use_true_random=False)

Answers = Mapping[tuple[object, ...], timedelta]
"""What is allowed: who asks for what, and how long the token lives."""


# Sets of documents


@dataclass
class World:
    """A namespace, the tokens of jobs, and what they ask for."""

    space: Namespace
    tokens: list[dict[str, Any]]
    asked: list[tuple[str, str]]


def world(rng: Random) -> World | None:
    """
    A set of objects, some beside files; None if no Role is in force.

    Each is good. Only where the issuers are of two kinds, Roles on both are among them, which T005
    refuses.
    """
    tokens = [{**generators.claims(rng), "sub": "s", "iss": rng.choice(ISSUERS)} for _ in range(2)]
    names = [f"r{n}" for n in range(rng.randint(1, 4))]
    written = {f"p{n}": _statements(rng, tokens[0], names) for n in range(rng.randint(1, 4))}
    mixed = rng.random() < 0.3
    objects = [
        issuer("a", GENERIC, provider="generic", created="2026-01-02T00:00:00Z"),
        issuer(
            "b",
            OTHER,
            provider="gitlab" if mixed else "generic",
            created="2026-01-01T00:00:00Z",
            tokenExpiry="40m",
        ),
        *(policy(name, *statements) for name, statements in written.items()),
        *(_role(rng, name, rng.choice(tokens), list(written)) for name in names),
    ]
    if rng.random() < 0.3:
        young = "2026-03-01T00:00:00Z"
        objects.append(issuer("y", rng.choice(ISSUERS), created=young, tokenExpiry="9h"))
    space = _all_good(objects, rng, also_refused=mixed)
    actions = rng.choices(second_evaluator.ACTIONS, k=6)
    asked = [(action, generators.asked(rng, action)) for action in actions]
    return World(space, tokens, asked) if space else None


def _statements(rng: Random, near: Mapping[str, Any], roles: Sequence[str]) -> list[Raw]:
    made = generators.statements(rng, dict(near), roles)
    if rng.random() < 0.5:  # a Policy that only gives
        made = [{**statement, "effect": "Allow"} for statement in made]
    if rng.random() < 0.4:
        made.append({**allow("*", "*"), "sid": "all"})
    if rng.random() < 0.2:
        named = {"ForAnyValue:StringEqual": {"jwt:role": [rng.choice(roles)]}}
        made.append(deny("*", "*", condition=named))
    return made


def _role(rng: Random, name: str, near: Mapping[str, Any], policies: Sequence[str]) -> Raw:
    issuers = rng.choice([[near["iss"]], [near["iss"]], list(ISSUERS)])
    spec: dict[str, Any] = {
        "policy": rng.sample(policies, k=rng.randint(1, min(2, len(policies)))),
        "condition": {"StringEqual": {"jwt:iss": issuers, "jwt:sub": ["s"]}},
    }
    if rng.random() < 0.4:
        spec["condition"] |= {"StringNotLike": generators.block(rng, dict(near), most=1).get("StringNotLike", {"jwt:ref": ["x*"]})}  # fmt: skip
    if rng.random() < 0.3:
        spec["principal"] = {"jwt:sub": ["s", "other"]}
    if rng.random() < 0.4:
        spec["tokenExpiry"] = f"{rng.randint(1, 20)}m"
    return raw("Role", name, spec)


def _all_good(objects: list[Raw], rng: Random, *, also_refused: bool) -> Namespace | None:
    """The namespace of those that are accepted. Some issuers and Policies may be in files."""
    for _ in range(4):
        space = Namespace(*objects)
        bad = [
            key
            for key, verdict in space.united.verdicts.items()
            if verdict.standing is not Standing.ACCEPTED
            and key != ("JwtIssuer", "y")
            and not (also_refused and verdict.standing is Standing.REFUSED)
        ]
        if not bad:
            break
        objects = [o for o in objects if (o["kind"], o["metadata"]["name"]) not in bad]
    else:
        return None
    in_files = [o for o in objects if o["kind"] != "Role" and rng.random() < 0.1]
    space = Namespace(
        *(o for o in objects if o not in in_files), files=Namespace(*in_files).catalog
    )
    return space if space.catalog.roles else None


# What is allowed


def allowed(world: World, catalog: Catalog) -> Answers:
    """Everything that the tokens are allowed now, for each choice of Roles."""
    found: dict[tuple[object, ...], timedelta] = {}
    for number, token in enumerate(world.tokens):
        for only in ((), *((role,) for role in _names(world))):
            admission = _admission(catalog, token, only)
            if admission is not None:
                minted = _minted(token, admission)
                for action, resource in _decided(world, catalog, admission.held, minted):
                    found[number, only, action, resource] = admission.lifetime
    return found


def _names(world: World) -> list[str]:
    return sorted(name for kind, name in world.space.raws if kind == "Role")


def _admission(catalog: Catalog, token: Mapping[str, Any], only: Sequence[str]) -> Admission | None:
    known = catalog.issuers.get(token["iss"])
    try:
        return admit(catalog, known, Claims(dict(token)), only) if known else None
    except Refusal:
        return None


def _minted(token: Mapping[str, Any], admission: Admission) -> Claims:
    return access_claims(Claims(dict(token)), admission, issuer_url=AUDIENCE, now=NOW, jti="j")


def _decided(
    world: World, catalog: Catalog, held: PolicyNames, minted: Claims
) -> Iterator[tuple[str, str]]:
    policies = PolicySets().of(catalog, held)
    for action, resource in world.asked:
        if decide(policies, Access.parse(action, resource), minted).allowed:
            yield action, resource


Live = list[tuple[PolicyNames, Claims]]


def living(world: World, catalog: Catalog) -> Live:
    """Access tokens that were minted now."""
    admissions = [(token, _admission(catalog, token, ())) for token in world.tokens]
    return [(made.held, _minted(token, made)) for token, made in admissions if made is not None]


def allowed_alive(world: World, catalog: Catalog, live: Live) -> Answers:
    """What tokens that were minted before are allowed now."""
    return {
        (number, *access): timedelta()
        for number, (held, minted) in enumerate(live)
        for access in _decided(world, catalog, held, minted)
    }


def naively(world: World) -> Answers:
    """What the second evaluator says of the good objects, in which nothing is left out."""
    roles = {n: dict(o["spec"]) for (kind, n), o in world.space.raws.items() if kind == "Role"}
    for spec in roles.values():
        if "tokenExpiry" in spec:
            spec["minutes"] = int(spec["tokenExpiry"].removesuffix("m"))
    raws = world.space.raws.items()
    policies = {n: o["spec"]["statement"] for (kind, n), o in raws if kind == "Policy"}
    providers = {iss: known.provider for iss, known in world.space.catalog.issuers.items()}
    found: dict[tuple[object, ...], timedelta] = {}
    for number, token in enumerate(world.tokens):
        issuer_now = world.space.catalog.issuers.get(token["iss"])
        if issuer_now is None:
            continue
        admitting = second_evaluator.admitting(roles, providers, token)
        for only in ((), *((role,) for role in roles)):
            if not admitting or not set(only) <= set(admitting):
                continue
            held = second_evaluator.held_after_exchange(
                roles, policies, admitting, only or admitting
            )
            longest = int(issuer_now.token_expiry.total_seconds()) // 60
            minutes = second_evaluator.lifetime(roles, policies, admitting, only, longest)
            minted = {
                **token,
                "sub": "fed:s",
                "role": list(only or admitting),
                "policy": list(dict.fromkeys(held.names)),
            }
            for action, resource in world.asked:
                if second_evaluator.decide(policies, action, resource, minted, held)[0]:
                    found[number, only, action, resource] = timedelta(minutes=minutes)
    return found


# Ways to become bad

JUNK: Sequence[object] = (None, 1.5, {}, [], [None], {"x": 1}, [[]], "?")
Way = Callable[[Random, Raw], Raw]


def unreadable(rng: Random, made: Raw) -> Raw:
    """
    *made*, of which one part cannot be read any more, or has an unknown field beside it.

    What can still be read is as it was: no text of a condition or list became another text.
    """
    bad = copy.deepcopy(made)
    around, step = rng.choice(list(_places(bad["spec"])) or [(bad, "spec")])
    choice = rng.random()
    if isinstance(around, dict) and choice < 0.2:
        around["surprise" + str(rng.randint(0, 9))] = rng.choice(JUNK)
    elif isinstance(around, dict) and choice < 0.4:
        del around[step]
    else:
        legible = isinstance(around, list) or str(step).startswith("jwt:")
        around[step] = rng.choice(JUNK[:-1] if legible else JUNK)
    return bad


def anyhow(rng: Random, made: Raw) -> Raw:
    """*made* after some edits of any kind."""
    bad = made
    for _ in range(rng.randint(1, 3)):
        bad = unreadable(rng, bad)
        texts = [p for p in _places(bad["spec"]) if isinstance(p[0][p[1]], str)]
        if texts and rng.random() < 0.5:
            around, step = rng.choice(texts)
            around[step] = rng.choice(["?", "p0", "r0", "*", "dev:*", *ISSUERS, "Allow", "s"])
    return bad


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each member of a list or map in *value*, as what is around it and the step to it."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()  # fmt: skip
    for step, inner in list(steps):
        yield value, step
        yield from _places(inner)


def _became_bad(before: Standing, after: Standing) -> bool:
    return before is Standing.ACCEPTED and after is not Standing.ACCEPTED


def _assert_subset(after: Answers, before: Answers, note: object) -> None:
    for key, lifetime in after.items():
        assert key in before, (key, note)
        assert lifetime <= before[key], (key, note)


def _assert_no_other_issuer(after: Catalog, before: Catalog) -> None:
    for iss, found in after.issuers.items():
        assert before.issuers.get(iss) == found


# The law


def told(rng: Random, way: Way, *, restarts: bool) -> Counter[str]:
    """Make objects of one world bad, one after another, and check each step. Counts what was."""
    counts: Counter[str] = Counter()
    made = world(rng)
    if made is None:
        return counts
    space = made.space
    good, first = allowed(made, space.catalog), dict(space.raws)
    live = living(made, space.catalog)
    before, before_catalog = good, space.catalog
    before_live = allowed_alive(made, space.catalog, live)
    counts["allowed"] += bool(good)
    for key in rng.sample(sorted(first), k=min(3, len(first))):
        was, united = space.standing(*key), space.united
        space.raws[key] = way(rng, first[key])
        space.restart() if restarts else space.read()
        if not restarts:
            afresh = space.afresh(united)
            assert (afresh.catalog, afresh.verdicts, afresh.last_good) == (
                space.catalog, space.united.verdicts, space.united.last_good
            )  # fmt: skip
        if not _became_bad(was, space.standing(*key)):
            # It is as good as before, or another good document, which may allow more. The process
            # must not remember it: Roles that were good beside it would stay in force.
            space.raws[key], space.united = first[key], united
            space.restart() if restarts else space.read()
            continue
        note = (key, space.raws[key], first, made.tokens)
        after = allowed(made, space.catalog)
        after_live = allowed_alive(made, space.catalog, live)
        _assert_subset(after, before, note)
        _assert_subset(after, good, note)
        _assert_subset(after_live, before_live, note)
        _assert_no_other_issuer(space.catalog, before_catalog)
        verdict = space.verdict(*key)
        counts[f"{key[0]} {verdict.standing}"] += 1
        counts["held" if verdict.held else "refuses" if verdict.refuses else "left out"] += 1
        counts["still allowed"] += bool(after)
        counts["less"] += after != before
        before, before_catalog, before_live = after, space.catalog, after_live
    return counts


@given(randoms)
@examples
def test_in_a_process_that_knows_the_last_good_versions(rng: Random) -> None:
    told(rng, unreadable, restarts=False)


@given(randoms)
@examples
def test_in_a_process_that_knows_them_whatever_is_written(rng: Random) -> None:
    told(rng, anyhow, restarts=False)


@given(randoms)
@examples
def test_at_a_cold_start(rng: Random) -> None:
    told(rng, unreadable, restarts=True)


def restarted(rng: Random) -> None:
    """Make up to two objects of one world bad, restart, and compare what is allowed."""
    made = world(rng)
    if made is None:
        return
    for key in rng.sample(sorted(made.space.raws), k=min(2, len(made.space.raws))):
        was = made.space.raws[key]
        made.space.apply(unreadable(rng, was))
        if made.space.standing(*key) is Standing.ACCEPTED:
            made.space.apply(was)
    warm = allowed(made, made.space.catalog)
    made.space.restart()
    _assert_subset(allowed(made, made.space.catalog), warm, made.space.raws)


@given(randoms)
@examples
def test_a_restart_allows_nothing_more(rng: Random) -> None:
    restarted(rng)


@pytest.mark.parametrize("seed", [436, 909, 1866, 2905, 10662])
def test_a_restart_allowed_more_in_these_worlds_once(seed: int) -> None:
    """A Role was left out before the restart, which narrows tokens, and refused after it."""
    restarted(Random(seed))  # noqa: S311  no secret


@pytest.mark.parametrize("restarts", [False, True], ids=["warm", "cold"])
def test_a_bad_issuer_allowed_more_in_this_world_once(restarts: bool) -> None:
    """A Role had lost a Policy, which narrows tokens. Then it lost its issuer too."""
    told(Random(5023), unreadable, restarts=restarts)  # noqa: S311  no secret


@given(randoms)
@examples
def test_a_good_set_allows_what_the_second_evaluator_says(rng: Random) -> None:
    made = world(rng)
    if made is None or made.space.files.policies:
        return
    standings = {key: verdict.standing for key, verdict in made.space.united.verdicts.items()}
    standings.pop(("JwtIssuer", "y"), None)
    if set(standings.values()) == {Standing.ACCEPTED}:
        assert allowed(made, made.space.catalog) == naively(made)


@pytest.mark.parametrize(
    ("way", "restarts", "expected"),
    [
        (unreadable, False, {"held", "left out"}),
        (anyhow, False, {"held", "left out"}),
        (unreadable, True, {"refuses", "left out"}),
    ],
    ids=["warm", "warm, any edit", "cold"],
)
def test_the_generated_sets_show_every_case(way: Way, restarts: bool, expected: set[str]) -> None:
    counts: Counter[str] = Counter()
    for seed in range(100):
        counts += told(Random(seed), way, restarts=restarts)  # noqa: S311  no secret
    for case in {"allowed", "still allowed", "less", *expected}:
        assert counts[case] >= 10, counts
    for kind in ("JwtIssuer", "Policy", "Role"):
        assert counts[f"{kind} Invalid"] >= 10, counts
