"""
Attempts to get rid of something that only takes away: a Deny, or the policy that has it.

A job chooses which Roles it asks for, and often which claims its token has. Whoever edits
documents can rename or remove a policy under tokens that are in use.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import Policy
from federation.documents.resources import Resource
from federation.errors import Reason, Refusal
from federation.exchange.function_token import claims_for_functions
from federation.gateway.narrow import narrow
from federation.jose import jws
from federation.policy.index import PolicyNames, PolicySet, PolicySets
from federation.policy.permissions import Access, decide, granted_resources
from federation.policy.roles import admit
from federation.state.memory import MemoryStore
from federation.tokens import mint
from federation.tokens.signing_keys import SigningKey, SigningKeys
from federation.tokens.verify import Bearer, verify
from tests.harness import builders, documents, generators
from tests.harness.broker import URL, InProcess, catalog_of, refusal, said
from tests.harness.builders import ABSENT, GENERIC, GITHUB, NOW
from tests.harness.clock import Clock
from tests.harness.gateway import Front
from tests.harness.generators import Plain

DEPLOYING = {"action": ["Function:*"], "resource": ["dev:*"]}
WALL = {"sid": "wall", "effect": "Deny", "action": ["Function:*"], "resource": ["dev:vault"]}
LOOKING = {"sid": "look", "action": ["Function:Get"], "resource": ["prod:*"]}
NOT_MAIN = {"condition": {"StringNotEqual": {"jwt:ref": "refs/heads/main"}}}
STAGING = {"condition": {"StringEqual": {"jwt:environment": "staging"}}}
VAULT, APP = "/system/function/vault?namespace=dev", "/system/function/app?namespace=dev"
PROD = "/system/function/app?namespace=prod"


def role(name: str, *policies: str, **spec: object) -> dict[str, object]:
    """A Role that admits every job of one owner."""
    pinned = {"jwt:iss": [GITHUB], "jwt:repository_owner_id": ["13420041"]}
    more = {"policy": list(policies), "condition": {"StringEqual": pinned}, **spec}
    return documents.document("Role", name, more)


def documents_of(*more: dict[str, object], wall: str = "wall") -> str:
    """`deployer` may do everything in `dev`; `everybody` takes the vault from it."""
    return documents.as_text(
        documents.issuer("github", GITHUB, tokenExpiry="30m"),
        documents.policy("deploy", DEPLOYING),
        documents.policy(wall, WALL, LOOKING),
        role("deployer", "deploy"),
        role("everybody", wall, tokenExpiry="10m"),
        *more,
    )


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return in_front(tmp_path, documents_of())


def in_front(folder: Path, text: str) -> Front:
    front = Front(folder)
    front.source.catalog = catalog_of(text)
    return front


def function_token(broker: InProcess, own: str, **changes: Any) -> httpx2.Response:
    return broker.exchange(own, scope="function", **changes)


class TestRoles:
    """A job that names some of its Roles keeps what the others deny."""

    def test_a_deny_stays_if_the_role_that_has_it_is_not_named(self, front: Front) -> None:
        whole = front.access_token()
        narrowed = front.access_token(role="deployer")
        for token in (whole, narrowed):
            assert front.call("GET", VAULT, token).status_code == 403
            assert front.call("GET", APP, token).status_code != 403
        assert said(narrowed)["policy"] == ["deploy", "wall"]
        assert said(narrowed)["role"] == ["deployer"]

    def test_what_is_kept_for_its_deny_gives_nothing(self, front: Front) -> None:
        assert front.call("GET", PROD, front.access_token()).status_code != 403
        for roles in (["deployer"], ["deployer", "deployer"]):
            assert front.call("GET", PROD, front.access_token(role=roles)).status_code == 403

    def test_a_role_that_is_named_gives_all_that_it_has(self, front: Front) -> None:
        token = front.access_token(role="everybody")
        assert said(token)["policy"] == ["wall"]
        assert front.call("GET", PROD, token).status_code != 403
        assert front.call("GET", APP, token).status_code == 403

    def test_a_policy_without_a_deny_is_left_out(self, tmp_path: Path) -> None:
        looking = documents.policy("look", LOOKING)
        front = in_front(tmp_path, documents_of(looking, role("looker", "look")))
        assert said(front.access_token(role="deployer"))["policy"] == ["deploy", "wall"]

    def test_the_limit_on_the_lifetime_stays_with_the_deny(self, front: Front) -> None:
        answer = front.exchange(role="deployer")
        assert answer.json()["expires_in"] == 600

    def test_the_limit_of_a_role_that_only_gives_is_left_out(self, tmp_path: Path) -> None:
        looking = documents.policy("look", LOOKING)
        front = in_front(tmp_path, documents_of(looking, role("looker", "look", tokenExpiry="1m")))
        assert front.exchange(role="deployer").json()["expires_in"] == 600

    def test_a_subject_token_cannot_say_which_policies_only_deny(self, front: Front) -> None:
        forged, forged_too = (
            front.github.token({**front.claims(), "fed:deny_only": claim}) for claim in ([], ["x"])
        )
        token = front.access_token(forged, role="deployer")
        assert said(token)["fed:deny_only"] == ["wall"]
        assert "fed:deny_only" not in said(front.access_token(forged_too))

    def test_a_condition_on_the_roles_of_the_token_is_not_lost(self, tmp_path: Path) -> None:
        on_role = {"condition": {"ForAnyValue:StringEqual": {"jwt:role": "everybody"}}}
        deploy = documents.policy("deploy", DEPLOYING, {**WALL, **on_role})
        text = documents.as_text(
            documents.issuer("github", GITHUB),
            deploy,
            documents.policy("look", LOOKING),
            role("deployer", "deploy"),
            role("everybody", "look"),
        )
        front = in_front(tmp_path, text)
        for token in (front.access_token(), front.access_token(role="deployer")):
            assert front.call("GET", VAULT, token).status_code == 403


class TestRolesOfFunctionTokens:
    """The same, if an access token or a job's token is exchanged for a function token."""

    @pytest.mark.parametrize("narrowed", ["first", "second", "both", "at once"])
    def test_a_deny_stays_whenever_the_role_is_named(self, front: Front, narrowed: str) -> None:
        named = {"role": "deployer"}
        if narrowed == "at once":
            own = front.job()
            answer = function_token(front, own, audience="dev:vault", **named)
        else:
            own = front.access_token(**(named if narrowed in {"first", "both"} else {}))
            later = named if narrowed in {"second", "both"} else {}
            answer = function_token(front, own, audience="dev:vault", **later)
            assert function_token(front, own, audience="dev:app", **later).status_code == 200
        assert refusal(answer) == (400, "invalid_target")

    def test_what_was_kept_for_its_deny_cannot_be_named_back(self, tmp_path: Path) -> None:
        calling = {"sid": "call", "action": ["Function:Invoke"], "resource": ["prod:*"]}
        text = documents_of(documents.policy("calls", calling, WALL), role("caller", "calls"))
        front = in_front(tmp_path, text)
        at_once = function_token(front, front.job(), audience="prod:app", role="deployer")
        assert refusal(at_once) == (400, "invalid_target")
        own = front.access_token(role="deployer")
        assert refusal(function_token(front, own, audience="prod:app")) == (400, "invalid_target")
        back = function_token(front, own, audience="prod:app", role="caller")
        assert refusal(back) == (400, "role_not_admitted")
        # A Role of the token that gets the policy later does not give it either.
        front.source.catalog = catalog_of(
            text.replace('"policy": ["deploy"]', '"policy": ["calls"]')
        )
        again = function_token(front, own, audience="prod:app", role="deployer")
        assert refusal(again) == (400, "invalid_target")

    def test_a_role_that_is_gone_gives_nothing_and_takes_no_deny_along(self, front: Front) -> None:
        own = front.access_token()
        without = documents_of().replace('"name": "deployer"', '"name": "renamed"')
        front.source.catalog = catalog_of(without)
        answer = function_token(front, own, audience="dev:app", role="deployer")
        assert refusal(answer) == (400, "invalid_target")


class TestClaims:
    """A Deny is not avoided by a claim that is absent or has the wrong shape."""

    @pytest.mark.parametrize("condition", [NOT_MAIN, STAGING], ids=["negative", "positive"])
    @pytest.mark.parametrize("claim", [ABSENT, None, "", [], {}, ["refs/heads/main"], 1.5])
    def test_at_the_gateway_and_for_function_tokens(
        self, tmp_path: Path, condition: dict[str, object], claim: object
    ) -> None:
        text = documents.as_text(
            documents.issuer("github", GITHUB),
            documents.policy("deploy", DEPLOYING, {**WALL, **condition}),
            role("deployer", "deploy"),
        )
        front = in_front(tmp_path, text)
        own = front.access_token(front.job(ref=claim, environment=claim))
        assert front.call("GET", VAULT, own).status_code == 403
        assert front.call("GET", APP, own).status_code != 403
        vault = function_token(front, own, audience="dev:vault")
        assert refusal(vault) == (400, "invalid_target")
        assert refusal(function_token(front, own)) == (400, "invalid_scope")

    def test_a_namespace_is_not_shown_by_a_token_without_the_claim(self, tmp_path: Path) -> None:
        hidden = {"sid": "hide", "effect": "Deny", "action": ["*"], "resource": ["prod:*"]}
        front = Front(tmp_path)
        front.sample.namespaces = {"dev": {}, "prod": {}}
        statements: list[Plain] = [{"action": ["*"], "resource": ["*"]}, {**hidden, **NOT_MAIN}]
        names = {
            ref: front.call(
                "GET",
                "/system/namespaces",
                front.bearing(builders.policy("p", *statements), ref=ref),
            ).json()
            for ref in ("refs/heads/main", "")
        }
        assert names == {"refs/heads/main": ["dev", "prod"], "": ["dev"]}


class TestMissingPolicies:
    """A token that names a policy which is not in force allows nothing."""

    RENAMED = documents_of(wall="wall-2")

    def test_renaming_a_policy_does_not_open_live_tokens(self, front: Front) -> None:
        own = front.access_token()
        front.source.catalog = catalog_of(self.RENAMED)
        for target in (VAULT, APP, "/system/namespaces"):
            answer = front.call("GET", target, own)
            assert answer.status_code == 403
            assert "policy wall of this token is not in force" in answer.text

    def test_the_event_says_why_and_what_is_missing(self, front: Front) -> None:
        own = front.access_token()
        front.source.catalog = catalog_of(self.RENAMED)
        front.call("DELETE", "/system/functions", own, json={"functionName": "app"})
        event = front.journal.events[-1]
        assert (event.response_code, event.reason) == (403, Reason.POLICY_MISSING)
        assert event.evidence == {"missing": ["wall"]}
        assert '"missing":["wall"]' in event.custom_message
        assert event.policies == ("deploy", "wall")

    @pytest.mark.parametrize("roles", [None, "deployer", ["deployer", "everybody"]])
    def test_no_function_token_comes_of_it(self, front: Front, roles: object) -> None:
        own = front.access_token()
        front.source.catalog = catalog_of(self.RENAMED)
        for audience in ("dev:vault", "dev:app", None):
            answer = function_token(front, own, audience=audience, role=roles)
            assert refusal(answer) == (400, "policy_missing")
        assert front.journal.events[-1].reason is Reason.POLICY_MISSING

    def test_a_narrowed_token_is_closed_by_the_policy_that_it_keeps_for_its_deny(
        self, front: Front
    ) -> None:
        own = front.access_token(role="deployer")
        front.source.catalog = catalog_of(self.RENAMED)
        assert front.call("GET", APP, own).status_code == 403
        assert refusal(function_token(front, own, audience="dev:app")) == (400, "policy_missing")

    def test_it_works_again_when_the_policy_is_back(self, front: Front) -> None:
        own = front.access_token()
        front.source.catalog = catalog_of(self.RENAMED)
        assert front.call("GET", APP, own).status_code == 403
        front.source.catalog = catalog_of(documents_of())
        assert front.call("GET", APP, own).status_code != 403
        assert front.call("GET", VAULT, own).status_code == 403


class TestNames:
    """No name in a token is passed over because it cannot be read."""

    @pytest.mark.parametrize("claim", ["policy", "role", "fed:deny_only"])
    @pytest.mark.parametrize("names", [None, "deploy", ["deploy", 1], ["deploy", None], {}])
    def test_names_that_are_not_texts_are_refused(
        self, front: Front, claim: str, names: object
    ) -> None:
        token = front.signed({**front.said(), "policy": ["deploy"], claim: names})
        assert front.call("GET", APP, token).status_code == 401
        assert refusal(function_token(front, token)) == (400, "malformed_token")


# Whatever a job leaves out, and whatever happens to documents, a token never allows more.


KEYS = SigningKeys((SigningKey.generate(),))
EVERYTHING = {"sid": "everything", "effect": "Allow", "action": ["*"], "resource": ["*"]}
ACTIONS = ["Function:Get", "Function:Invoke", "Secret:List", "Namespace:List"]
QUESTIONS = [
    Access.parse(action, resource)
    for action in ACTIONS
    for resource in [
        "*",
        *(f"{n}:{name}" for n in ("dev", "team-a", "v") for name in ("fn", "d", "*")),
    ]
]


class Case:
    """Generated documents, a token's claims, and the ways to make less of them."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.claims: Plain = generators.claims(rng) | {"sub": "s", "iss": GENERIC}
        self.names = [f"r{n}" for n in range(rng.randint(1, 3))]
        self.policies = {
            f"p{n}": generators.statements(rng, self.claims, self.names, conditional=0.7)
            for n in range(rng.randint(2, 4))
        }
        # Without a wide grant, a Deny that is lost seldom shows.
        self.policies["p0"].append(EVERYTHING)
        self.roles = {
            name: generators.admitting_role(rng, self.claims, list(self.policies))
            for name in self.names
        }

    def catalog(self, without: Sequence[str] = ()) -> Catalog:
        """The catalog without some policies, as after a rename or in a set with broken ones."""
        kept = {name: s for name, s in self.policies.items() if name not in without}
        return builders.catalog(
            *(builders.role(name, **spec) for name, spec in self.roles.items()),
            policies=[builders.policy(name, *written) for name, written in kept.items()],
        )

    def fewer_claims(self) -> Plain:
        """The claims of a job that leaves some out or has some in another shape."""
        chosen = [c for c in self.claims if c not in {"iss", "sub"} and self.rng.random() < 0.3]
        changed = {c: generators.unreadable(self.rng) for c in chosen if self.rng.random() < 0.5}
        return {c: v for c, v in self.claims.items() if c not in chosen} | changed

    def some(self, names: Sequence[str]) -> list[str]:
        return self.rng.sample(names, k=self.rng.randint(1, len(names)))


def bearer_of(catalog: Catalog, claims: Plain, asked: Sequence[str] = ()) -> Bearer:
    """The bearer of a token that was admitted, minted, signed and verified."""
    admission = admit(catalog, catalog.issuers[GENERIC], Claims(claims), asked)
    minted = mint.access_claims(Claims(claims), admission, issuer_url=URL, now=NOW, jti="j")
    token = jws.parse(mint.sign(minted, KEYS.signs).token)
    store = MemoryStore(Clock(NOW))
    return asyncio.run(verify(token, KEYS, store, issuer_url=URL, now=NOW))


def allowed(policies: PolicySet, claims: Claims) -> set[Access]:
    return {asked for asked in QUESTIONS if decide(policies, asked, claims).allowed}


def of(bearer: Bearer, catalog: Catalog) -> set[Access]:
    """All that the token allows."""
    return allowed(PolicySets().of(catalog, bearer.held), bearer.claims)


def invoked(policies: PolicySet, claims: Claims) -> set[Access]:
    """All that a function token lets its bearer invoke."""
    try:
        function: Any = claims_for_functions(claims, policies, (), NOW)["function"]
    except Refusal:
        return set()
    opened = [Resource(text) for text in function["permissions"]]
    return {
        q
        for q in QUESTIONS
        if q.action == "Function:Invoke" and any(r.covers(q.namespace, q.name) for r in opened)
    }


def attempts(case: Case) -> Iterator[tuple[str, set[Access], set[Access]]]:
    """Pairs of what a token allowed, and of what it allows after an attempt to get more."""
    whole = case.catalog()
    full = bearer_of(whole, case.claims)
    before = of(full, whole)

    narrowed = bearer_of(whole, case.claims, case.some(case.names))
    yield "role", before, of(narrowed, whole)
    poorer = bearer_of(whole, case.fewer_claims())
    yield "claims", before, of(poorer, whole)
    broken = case.catalog(without=case.some(list(case.policies)))
    yield "documents", before, of(full, broken)

    later = case.rng.choice([whole, broken])
    both = bearer_of(whole, case.fewer_claims(), case.some(case.names))
    yield "all three", before, of(both, later)
    # Documents may have changed since, so a Role may give anything now.
    giving = case.some(list(case.policies))
    again = PolicySets().of(later, both.held.narrowed_to(giving, later))
    yield "narrowed twice", of(both, later), allowed(again, both.claims)
    invoking = PolicySets().of(later, both.held)
    yield "function token", of(both, later), invoked(invoking, both.claims)
    yield "narrowed function token", of(both, later), invoked(again, both.claims)


@given(st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
def test_nothing_that_was_refused_is_ever_allowed_by_leaving_something_out(rng: Random) -> None:
    case = Case(rng)
    for attempt, before, after in attempts(case):
        assert after <= before, (attempt, after - before, vars(case))


def test_the_attempts_are_about_tokens_that_allow_and_refuse() -> None:
    # Otherwise the property above would prove nothing.
    allowing: dict[str, int] = {}
    for seed in range(150):
        for attempt, before, after in attempts(Case(Random(seed))):  # noqa: S311 -- repeatable
            useful = 0 < len(before) < len(QUESTIONS) and after != set()
            allowing[attempt] = allowing.get(attempt, 0) + useful
    del allowing["documents"]  # which leaves nothing
    assert min(allowing.values()) >= 5, allowing


@pytest.mark.e2e
@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_allowed_in_a_great_many_cases(seed: int) -> None:
    rng = Random(seed)  # noqa: S311 -- repeatable cases, no secrets
    for _ in range(1_000):
        case = Case(rng)
        for attempt, before, after in attempts(case):
            assert after <= before, (attempt, after - before, vars(case))


def test_a_job_that_asks_for_ever_other_roles_does_not_fill_the_memory() -> None:
    # Each choice of Roles makes a set of policies, and a set may hold thousands of statements.
    def denying(name: str) -> Policy:
        each = [{**WALL, "sid": str(n), "resource": [f"ns{n}:{name}"]} for n in range(100)]
        return builders.policy(name, *each)

    whole = builders.catalog(policies=[denying(f"p{n}") for n in range(10)])
    sets, names = PolicySets(), PolicyNames(tuple(whole.policies))
    for number in range(1, 200):
        giving = [name for n, name in enumerate(names.names) if number >> n & 1]
        assert len(sets.of(whole, names.narrowed_to(giving, whole))) == 10
    kept = sum(len(policy.statements) for known in sets._sets.values() for policy in known)
    assert 0 < kept <= 100_000


@pytest.mark.alone
def test_a_long_list_of_grants_holds_nobody_up() -> None:
    # A job with an access token can ask for the list of its grants as often as it likes.
    allowing = {"action": ["Function:Invoke"], "resource": [f"ns{n}-*:f{n}" for n in range(300)]}
    names = {"action": ["Function:Invoke"], "resource": [f"ns{n}:f{n}" for n in range(300)]}
    denied = [f"x{n}:y{n}*" for n in range(200)] + [f"*z{n}:*y{n}" for n in range(200)]
    denying = {"effect": "Deny", "action": ["Function:Invoke"], "resource": denied}
    policies = PolicySet(
        [builders.policy("p", {**allowing, "sid": "a"}, {**names, "sid": "b"}, denying)]
    )
    granted_resources(policies, "Function:Invoke", Claims({}))
    began = time.process_time()
    assert len(granted_resources(policies, "Function:Invoke", Claims({}))) >= 300
    assert time.process_time() - began < 0.6


@pytest.mark.alone
def test_a_list_of_namespaces_with_nothing_in_them_for_the_caller_holds_nobody_up() -> None:
    grants = {"action": ["Function:*"], "resource": [f"team{n}:f{n}" for n in range(100)]}
    policies = PolicySet([builders.policy("p", grants)])
    listed = json.dumps([f"other{n}" for n in range(200)] + ["team7"]).encode()
    began = time.process_time()
    assert narrow(listed, policies, Claims({})) == b'["team7"]'
    assert time.process_time() - began < 0.3
