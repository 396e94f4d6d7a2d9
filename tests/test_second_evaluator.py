"""The evaluator agrees with a naive second one over generated documents and claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.resources import Resource
from federation.policy.conditions import compile_pattern, holds
from federation.policy.index import PolicyNames, PolicySets
from federation.policy.permissions import Access, Decision, decide, granted_resources
from federation.policy.roles import admit, evaluate
from federation.tokens.mint import access_claims
from tests.harness import builders, generators, second_evaluator
from tests.harness.generators import PROVIDERS, Plain

randoms = st.randoms(use_true_random=False)
SEEDS = 8
SAMPLES = sorted(path.stem for path in (Path(__file__).parent / "vectors/claims").glob("*.json"))

examples = settings(max_examples=200, deadline=None, derandomize=True, database=None)


@given(randoms)
@examples
def test_a_pattern_matches_the_same_values(rng: Random) -> None:
    for value, pattern in _patterns(rng):
        assert compile_pattern(pattern)(value) == second_evaluator.like(pattern, value), (
            pattern,
            value,
        )


@given(randoms)
@examples
def test_a_condition_block_holds_for_the_same_claims(rng: Random) -> None:
    for _ in _compared_blocks(rng):
        pass


@given(randoms)
@examples
def test_the_same_roles_admit_through_the_index(rng: Random) -> None:
    for _ in _compared_admissions(rng, roles=6, tokens=3):
        pass


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_same_situations_of_each_provider_must_be_named(sample: str) -> None:
    provider, rng = builders.provider_of(sample), _seeded(SAMPLES.index(sample))
    told = Counter[bool]()
    for _ in range(150):
        claims = _another_situation(rng, builders.sample(sample))
        spec = _role_on(rng, claims)
        (evaluation,) = evaluate([builders.role("r", **spec)], provider, Claims(claims))
        expected = second_evaluator.role_admits(spec, provider, claims)
        assert evaluation.admits == expected, (spec, claims)
        told[expected] += 1
    assert told[True]


_SITUATIONS: Mapping[str, Sequence[object]] = {
    "event_name": ("push", "pull_request", "gollum", "schedule"),
    "pipeline_source": ("push", "merge_request_event", "external_pull_request_event"),
    "oidc.circleci.com/ssh-rerun": (True, False, "true"),
    "terraform_run_phase": ("plan", "apply", "test"),
    "rpo_ref": ("refs/heads/main", "refs/pull/3/merge"),
    "runType": ("TRACKED", "PROPOSED", "TASK", "DESTROY", "of next year"),
    "ref_type": ("branch", "tag", "pull-request"),
    "job_type": ("pipeline_job", "debug_job"),
    "scm_pull_request_target_branch": ("main", ""),
    "initiator": ("mia",),
}


def _another_situation(rng: Random, claims: Claims) -> Plain:
    """*claims*, of which the claims about the situation may be others or absent."""
    changed: Plain = dict(claims)
    for claim, values in _SITUATIONS.items():
        if claim in claims or claim in {"scm_pull_request_target_branch", "initiator"}:
            chosen = rng.choice([changed.get(claim), *values, None])
            changed[claim] = chosen
            if chosen is None:
                del changed[claim]
    return changed


def _role_on(rng: Random, claims: Plain) -> Plain:
    """A Role that names some of *claims*, mostly with their values."""
    scalars = [claim for claim, value in claims.items() if second_evaluator.as_text(value)]
    named = rng.sample(scalars, k=min(len(scalars), rng.randint(0, 6)))
    named += [claim for claim in _SITUATIONS if claim in scalars and rng.random() < 0.5]
    block: Plain = {"StringEqual": {"jwt:iss": claims["iss"]}}
    for claim in dict.fromkeys(named):
        operator = rng.choice(["StringEqual", "StringEqual", "StringLike", "StringNotEqual"])
        wanted = "*" if operator == "StringLike" else second_evaluator.as_text(claims[claim])
        key = f"jwt:/{claim}" if "/" not in claim and rng.random() < 0.1 else f"jwt:{claim}"
        block.setdefault(operator, {})[key] = "another" if operator == "StringNotEqual" else wanted
    return {"policy": ["p"], "condition": block}


@given(randoms)
@examples
def test_the_same_decision_is_taken_by_the_same_statement(rng: Random) -> None:
    for _ in _compared_decisions(rng):
        pass


@given(randoms)
@examples
def test_the_same_is_left_of_a_token_that_is_narrowed_or_outlives_its_policies(rng: Random) -> None:
    for _ in _compared_narrowings(rng):
        pass


@given(randoms)
@examples
def test_nothing_granted_is_ever_denied(rng: Random) -> None:
    for _ in _checked_grants(rng):
        pass


def _seeded(number: int) -> Random:
    return Random(number)  # noqa: S311 -- repeatable cases, no secrets


@pytest.mark.e2e
@pytest.mark.parametrize("seed", range(SEEDS))
def test_they_agree_on_a_great_many_cases(seed: int) -> None:
    rng = _seeded(seed)
    seen: dict[str, Counter[bool]] = {
        "pattern": _first(8_000, _pattern_answers(rng)),
        "block": _first(7_000, _repeated(_compared_blocks, rng)),
        "admission": _first(7_000, _repeated(_compared_admissions, rng)),
        "decision": _first(5_000, _repeated(_compared_decisions, rng)),
        "narrowing": _first(4_000, _repeated(_compared_narrowings, rng)),
        "grant": _first(1_000, _repeated(_checked_grants, rng)),
    }
    assert SEEDS * sum(answers.total() for answers in seen.values()) == 256_000
    # If all generated cases had one outcome, the comparison would prove nothing.
    for kind, answers in seen.items():
        assert min(answers[True], answers[False]) > answers.total() / 20, (kind, answers)


def _first(many: int, answers: Iterator[bool]) -> Counter[bool]:
    return Counter(next(answers) for _ in range(many))


def _repeated(cases: Callable[[Random], Iterator[bool]], rng: Random) -> Iterator[bool]:
    while True:
        yield from cases(rng)


def _patterns(rng: Random) -> Iterator[tuple[str, str]]:
    value = generators.word(rng)
    yield value, generators.globbed(rng, value)
    yield value, generators.globbed(rng, generators.word(rng))
    yield generators.word(rng, 4), "".join(rng.choices("ab*?", k=rng.randint(0, 6)))
    yield "".join(rng.choices("ab", k=rng.randint(0, 12))), "".join(rng.choices("ab**?", k=6))


def _pattern_answers(rng: Random) -> Iterator[bool]:
    while True:
        for value, pattern in _patterns(rng):
            matches = compile_pattern(pattern)(value)
            assert matches == second_evaluator.like(pattern, value), (pattern, value)
            yield matches


def _compared_blocks(rng: Random) -> Iterator[bool]:
    claims = generators.claims(rng)
    block = generators.block(rng, claims, most=2)
    held = holds(builders.conditions(block), Claims(claims))
    assert held == second_evaluator.block_holds(block, claims), (block, claims)
    yield held


def _compared_admissions(rng: Random, roles: int = 10, tokens: int = 4) -> Iterator[bool]:
    tokens_claims = [generators.claims(rng) for _ in range(tokens)]
    specs = {f"r{n}": generators.role(rng, rng.choice(tokens_claims)) for n in range(roles)}
    catalog = builders.catalog(*(builders.role(name, **spec) for name, spec in specs.items()))
    for claims in tokens_claims:
        admitted = _admitted(catalog, claims)
        assert admitted == second_evaluator.admitting(specs, PROVIDERS, claims), (specs, claims)
        yield from (name in admitted for name in specs)


def _admitted(catalog: Catalog, claims: Plain) -> list[str]:
    """The names of the Roles that admit, found through the index as for a request."""
    issuer = catalog.issuers[claims["iss"]]
    evaluations = evaluate(catalog.candidates(Claims(claims)), issuer.provider, Claims(claims))
    return [evaluation.role.name for evaluation in evaluations if evaluation.admits]


def _compared_decisions(rng: Random) -> Iterator[bool]:
    claims = generators.claims(rng)
    documents = _documents(rng, claims)
    policies = [builders.policy(name, *written) for name, written in documents.items()]
    for _ in range(3):
        action = rng.choice(second_evaluator.ACTIONS)
        asked = generators.asked(rng, action)
        decision = decide(policies, Access.parse(action, asked), Claims(claims))
        expected = second_evaluator.decide(documents, action, asked, claims)
        assert _plainly(decision) == expected, (documents, action, asked, claims)
        yield decision.allowed


def _documents(rng: Random, claims: Plain, roles: Sequence[str] = ()) -> dict[str, list[Plain]]:
    return {f"p{n}": generators.statements(rng, claims, roles) for n in range(rng.randint(1, 3))}


def _compared_narrowings(rng: Random) -> Iterator[bool]:
    """Narrow a token once or twice, take Policies away, and compare what it may still do."""
    claims = {"sub": "s", **generators.claims(rng)}
    names = [f"r{n}" for n in range(rng.randint(1, 4))]
    documents = _documents(rng, claims, names)
    specs = {name: generators.admitting_role(rng, claims, list(documents)) for name in names}
    snapshot = _catalog(specs, documents)
    admitting = second_evaluator.admitting(specs, PROVIDERS, claims)
    if not admitting:
        return
    asked = rng.sample(admitting, k=rng.randint(0, len(admitting)))
    admission = admit(snapshot, snapshot.issuers[claims["iss"]], Claims(claims), asked)
    expected = second_evaluator.held_after_exchange(specs, documents, admitting, asked)
    _assert_same_names(admission.held, expected)
    minutes = second_evaluator.lifetime(specs, documents, admitting, asked, longest=15)
    assert admission.lifetime == timedelta(minutes=minutes), (specs, documents, asked)
    minted = access_claims(
        Claims(claims), admission, issuer_url=builders.AUDIENCE, now=builders.NOW, jti="j"
    )
    yield from _compared_leftovers(rng, admission.held, expected, minted, documents)

    in_force = {n: written for n, written in documents.items() if rng.random() < 0.9}
    left = {name: spec for name, spec in specs.items() if rng.random() < 0.9}
    yield from _compared_leftovers(rng, admission.held, expected, minted, in_force)
    again = rng.sample(admitting, k=rng.randint(1, len(admitting)))
    giving = second_evaluator.given_by(left, again)
    held = admission.held.narrowed_to(giving, _catalog(left, in_force))
    expected = second_evaluator.narrowed(left, in_force, expected, again)
    _assert_same_names(held, expected)
    yield from _compared_leftovers(rng, held, expected, minted, in_force)


def _assert_same_names(held: PolicyNames, expected: second_evaluator.Held) -> None:
    assert set(held.names) == set(expected.names)
    assert set(held.names) - set(held.deny_only) == set(expected.giving)


def _catalog(specs: Mapping[str, Plain], documents: Mapping[str, list[Plain]]) -> Catalog:
    return builders.catalog(
        *(builders.role(name, **spec) for name, spec in specs.items()),
        policies=[builders.policy(name, *written) for name, written in documents.items()],
    )


def _compared_leftovers(
    rng: Random,
    held: PolicyNames,
    expected: second_evaluator.Held,
    minted: Claims,
    in_force: Mapping[str, list[Plain]],
) -> Iterator[bool]:
    policies = PolicySets().of(_catalog({}, in_force), held)
    ordered = expected._replace(names=list(held.names))
    for _ in range(3):
        action = rng.choice(second_evaluator.ACTIONS)
        asked = generators.asked(rng, action)
        decision = decide(policies, Access.parse(action, asked), minted)
        answer = second_evaluator.decide(in_force, action, asked, minted, ordered)
        assert _plainly(decision) == answer, (in_force, held, action, asked, minted)
        yield decision.allowed


def _plainly(decision: Decision) -> second_evaluator.Decided:
    effect = str(decision.effect) if decision.effect else None
    return decision.allowed, decision.policy, decision.sid, effect


_UNIVERSE = ["*"] + [f"{ns}:{name}" for ns in generators.NAMES for name in [*generators.NAMES, "*"]]


def _checked_grants(rng: Random) -> Iterator[bool]:
    """Compare each grant with every access that it reaches; yield whether there was a grant."""
    claims = generators.claims(rng)
    documents = _documents(rng, claims)
    policies = [builders.policy(name, *written) for name, written in documents.items()]
    granted = granted_resources(policies, "Function:Invoke", Claims(claims))
    reached = [asked for asked in _UNIVERSE if _reached(granted, asked)]
    for asked in reached:
        allowed, *settled = second_evaluator.decide(documents, "Function:Invoke", asked, claims)
        assert allowed, (documents, granted, asked, settled)
    if not _denies(documents):
        # Without a Deny, the list of grants leaves nothing out.
        for asked in _UNIVERSE:
            allowed, *_ = second_evaluator.decide(documents, "Function:Invoke", asked, claims)
            assert allowed == (asked in reached), (documents, granted, asked)
    yield bool(granted)


def _reached(granted: Iterable[Resource], asked: str) -> bool:
    return any(
        second_evaluator.reaches_for("Function:Invoke", resource.text, asked)
        for resource in granted
    )


def _denies(documents: Mapping[str, list[Plain]]) -> bool:
    return any(s["effect"] == "Deny" for statements in documents.values() for s in statements)
