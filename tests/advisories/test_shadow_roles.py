"""
Attacks on shadow Roles: to be admitted by one, and to learn that there is one.

A shadow Role never gives anything, whatever a caller asks for, and no answer depends on one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from federation.documents.assemble import assemble
from federation.documents.catalog import Catalog
from federation.documents.parse import parse
from tests.harness.broker import ACCESS_TOKEN, DOCUMENTS, InProcess, catalog_of, refusal, said
from tests.harness.builders import GENERIC, GITHUB

NAME = "only-in-the-shadow"
ROLE = f"""
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: everything}}
spec:
  statement:
    - {{sid: all, effect: Allow, action: ["*"], resource: ["*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: {NAME}}}
spec:
  effect: Shadow
  policy: [everything]
  tokenExpiry: 1m
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: {NAME}-people}}
spec:
  effect: Shadow
  policy: [everything]
  principal: {{jwt:sub: [mallory]}}
  condition:
    StringEqual:
      jwt:iss: ["{GENERIC}"]
"""

FUNCTIONS = {"scope": "function"}
REQUESTS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "admitted by another Role too": ("github-push-main", {}, {}),
    "admitted by it alone": ("github-push-main", {"ref": "refs/heads/feature"}, {}),
    "asks for it": ("github-push-main", {}, {"role": NAME}),
    "asks for it and another": ("github-push-main", {}, {"role": [NAME, "octo-deployer"]}),
    "asks for it, admitted by it alone": (
        "github-push-main",
        {"ref": "refs/heads/feature"},
        {"role": NAME},
    ),
    "asks for a name like it": ("github-push-main", {}, {"role": NAME.upper()}),
    "asks for no such Role": ("github-push-main", {}, {"role": "none"}),
    "asks for functions": ("github-push-main", {}, FUNCTIONS),
    "asks for a function that only it would give": (
        "github-push-main",
        {},
        {**FUNCTIONS, "audience": "prod:other"},
    ),
    "asks for functions, admitted by it alone": (
        "github-push-main",
        {"ref": "refs/heads/feature"},
        FUNCTIONS,
    ),
    "an outsider's event": ("github-push-main", {"event_name": "pull_request_target"}, {}),
    "a stranger": (
        "github-push-main",
        {"repository_owner_id": "666", "repository_owner": "mallory", "sub": "repo:mallory/x:ref"},
        {"role": NAME},
    ),
    "a person": ("keycloak-user", {"sub": "mallory"}, {}),
    "a person who asks for it": ("keycloak-user", {"sub": "mallory"}, {"role": f"{NAME}-people"}),
}


def answers(
    catalog: Catalog, sample: str, claims: dict[str, Any], form: dict[str, Any]
) -> tuple[object, ...]:
    """All of an answer that a caller can compare, the token's claims among it."""
    broker = InProcess()
    broker.source.catalog = catalog
    answer = broker.exchange(broker.job(sample, **claims), **form)
    assert NAME not in answer.text.lower()
    assert not any(NAME in value for value in answer.headers.values())
    body = answer.json()
    of_this_request = {"x-request-id", "content-length"}
    headers = {n: value for n, value in answer.headers.items() if n not in of_this_request}
    body.pop("request_id", None)
    minted = dict(said(body.pop("access_token"))) if answer.status_code == 200 else {}
    for of_this_token in ("jti", "fed:jti"):
        minted.pop(of_this_token, None)
    return answer.status_code, headers, body, minted


@pytest.mark.parametrize("case", REQUESTS)
def test_no_answer_depends_on_a_shadow_role(case: str) -> None:
    sample, claims, form = REQUESTS[case]
    if sample == "keycloak-user":
        claims = {**claims, "iss": GENERIC}
    with_it = answers(catalog_of(DOCUMENTS + ROLE), sample, claims, form)
    assert with_it == answers(catalog_of(DOCUMENTS), sample, claims, form)


def test_to_ask_for_it_is_answered_as_to_ask_for_a_role_that_is_not_there() -> None:
    broker = InProcess(DOCUMENTS + ROLE)
    told = {refusal(broker.exchange(role=name)) for name in (NAME, "none")}
    assert told == {(400, "role_not_admitted")}


def test_a_token_from_before_gets_nothing_by_a_role_that_became_one() -> None:
    """Its policies last until it expires, as those of a deleted Role do; the Role gives no more."""
    admits = (DOCUMENTS + ROLE).replace("effect: Shadow", "effect: Admit")
    broker = InProcess(admits)
    token = broker.access_token(role=NAME)
    broker.source.catalog = catalog_of(DOCUMENTS + ROLE)
    traded = broker.exchange(token, subject_token_type=ACCESS_TOKEN, scope="function", role=NAME)
    assert refusal(traded) == (400, "invalid_scope")
    assert broker.exchange(broker.job(ref="refs/heads/feature")).status_code == 400


SLIPS: Mapping[str, str] = {
    "another case of the key": "Effect: Shadow",
    "another case of the value": "effect: shadow",
    "white space in the value": 'effect: "Shadow "',
    "a letter that looks like one": "effect: Ѕhadow",  # noqa: RUF001  on purpose
    "null": "effect: null",
    "nothing": "effect:",
    "an empty text": 'effect: ""',
    "a list": "effect: [Shadow]",
    "twice": "effect: Shadow\n  effect: Admit",
    "a word of Policies": "effect: Allow",
    "in a block of its own": "effect: {Shadow: true}",
}


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_never_makes_it_one_that_admits(case: str) -> None:
    """A set with such a slip is not adopted at all."""
    text = DOCUMENTS + ROLE.replace("effect: Shadow", SLIPS[case])
    assert assemble([parse("documents.yaml", text.encode())]).catalog is None


@pytest.mark.parametrize(
    "place", ["metadata: {effect: Shadow, name", "effect: Shadow\nmetadata: {name"]
)
def test_it_is_not_looked_for_in_another_place_and_passed_over(place: str) -> None:
    text = ROLE.replace("  effect: Shadow\n", "").replace("metadata: {name", place)
    assert assemble([parse("documents.yaml", (DOCUMENTS + text).encode())]).catalog is None


def test_the_deny_of_a_shadow_role_takes_nothing_from_anybody() -> None:
    """Whoever may write one could else deny everything to tokens that others admit."""
    broker = InProcess(DOCUMENTS + ROLE.replace("effect: Allow", "effect: Deny"))
    claims = said(broker.access_token())
    assert "everything" not in claims["policy"]  # type: ignore[operator]
    assert claims["exp"] == said(InProcess().access_token())["exp"]


def test_thousands_of_them_for_one_repository_cost_an_event_its_bounded_fields() -> None:
    broker = InProcess(DOCUMENTS + ROLE)
    role = broker.source.catalog.shadow_roles[0]
    many = tuple(replace(role, name=f"{n:04}-{'x' * 240}") for n in range(1000))
    broker.source.catalog = replace(broker.source.catalog, shadow_roles=many, before=None)
    broker.access_token()
    (event,) = broker.journal.events
    assert sum(map(len, event.shadow_roles)) <= 1024
    assert event.shadow_policies == ("everything",)
