"""Reading objects of the Kubernetes API: whatever JSON is there, it is read and never raises."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.documents.kubernetes.unite import Standing, read_object
from federation.documents.model import JwtIssuer, Policy, Role
from federation.policy.conditions import Condition, Operator
from tests.harness.builders import GITHUB
from tests.harness.objects import Namespace, Raw, allow, issuer, policy, raw, role


def test_an_object_says_who_it_is_and_which_version() -> None:
    obj = read_object(role("r", "give"))
    assert obj.key == ("Role", "r")
    assert (obj.uid, obj.generation, obj.resource_version) == ("uid-of-r", 1, "7")
    assert obj.created == "2026-01-01T00:00:00Z"
    assert isinstance(obj.document, Role)
    assert obj.readable is None
    assert obj.document.conditions == (
        Condition(Operator.STRING_EQUAL, "jwt:iss", (GITHUB,)),
        Condition(Operator.STRING_EQUAL, "jwt:repository_owner_id", ("13420041",)),
    )


@pytest.mark.parametrize(
    ("made", "kind"),
    [(issuer(), JwtIssuer), (policy("p", allow()), Policy)],
    ids=["issuer", "policy"],
)
def test_each_kind_is_read(made: Raw, kind: type) -> None:
    assert isinstance(read_object(made).document, kind)


def test_status_and_what_the_api_server_keeps_in_metadata_say_nothing() -> None:
    made = role("r", "give")
    made["status"] = {"x": [None] * 10}
    made["metadata"] |= {"labels": {"a": 5}, "annotations": "text", "ofTomorrow": {}}
    assert read_object(made).parsed == read_object(role("r", "give")).parsed


def test_a_problem_names_the_object_and_no_file() -> None:
    made = role("r", "give", surprise=1)
    (problem,) = read_object(made).parsed.problems
    assert str(problem).startswith("kubernetes: error[D005] Role/r: surprise: is not a field here")
    twice = [allow(), allow()]
    (problem,) = read_object(policy("p", *twice)).parsed.problems
    assert str(problem) == (
        'kubernetes: error[D018] Policy/p: statement[1].sid: "s" is the sid of another statement '
        "already"
    )


def test_numbers_and_booleans_read_as_in_files() -> None:
    made = raw("Role", "r", {
        "policy": ["p"],
        "principal": {"jwt:repository_id": 412890077, "jwt:ref_protected": True},
        "condition": {"StringEqual": {"jwt:iss": [GITHUB], "jwt:actor": ["no", "007", "null"]}},
    })  # fmt: skip
    document = read_object(made).document
    assert isinstance(document, Role)
    assert {c.key: c.values for c in document.conditions} == {
        "jwt:repository_id": ("412890077",),
        "jwt:ref_protected": ("true",),
        "jwt:iss": (GITHUB,),
        "jwt:actor": ("no", "007", "null"),
    }


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


HOSTILE: Mapping[str, object] = {
    "nothing": None,
    "a number": 5,
    "deep": nested(5000),
    "deep maps": json.loads('{"a":' * 300 + "1" + "}" * 300),
    "a surrogate": {"policy": ["\ud800"]},
    "a surrogate in a key": {"\udfff": 1},
    "a long key": {"k" * 5000: 1},
    "a long number": {"policy": 10**5000},
    "not a number": {"policy": [float("nan"), float("inf")]},
    "many fields": {f"f{n}": n for n in range(20_000)},
    "many values": {"policy": [5] * 300_000},
    "many conditions": {"condition": {"StringEqual": {f"jwt:{n}": 1.5 for n in range(50_000)}}},
    "many statements": {"statement": [{}] * 20_000},
    "not of JSON": {"policy": {1, 2}},
}


@pytest.mark.parametrize("kind", ["JwtIssuer", "Policy", "Role"])
@pytest.mark.parametrize("spec", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_spec_is_an_object_with_errors(kind: str, spec: object) -> None:
    began = time.process_time()
    obj = read_object(raw(kind, "x", spec))
    assert obj.key == (kind, "x")
    assert obj.document is None
    assert 1 <= len(obj.parsed.problems) <= 1001
    assert time.process_time() - began < 5
    space = Namespace(raw(kind, "x", spec))
    assert space.standing(kind, "x") is Standing.INVALID


@pytest.mark.parametrize(
    "made",
    [{}, {"kind": "Role"}, {"kind": ["Role"]}, {"metadata": "r", "kind": "Role"},
     {"metadata": {"name": 5}, "kind": "Role"}, {"metadata": {"name": "n" * 5000}, "kind": "Pod"},
     {"kind": "List", "apiVersion": "v1", "items": []}, {"metadata": {"generation": True}}],
    ids=str,
)  # fmt: skip
def test_what_is_no_document_is_an_object_with_errors(made: Raw) -> None:
    obj = read_object(made)
    assert obj.document is None
    assert obj.parsed.problems
    assert obj.generation == 0
    assert len(obj.name) < 254


words = st.sampled_from(
    ["Role", "Policy", "JwtIssuer", "spec", "metadata", "name", "kind", "apiVersion", "policy",
     "condition", "principal", "statement", "effect", "Allow", "StringEqual", "jwt:iss", GITHUB,
     "iam.openfaas.com/v1", "jwks", "keys", "iss", "aud", "tokenExpiry", "5m", "", "jwt:/~"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=3), inner),
    max_leaves=30,
)
objects = st.fixed_dictionaries(
    {},
    optional={
        "apiVersion": st.just("iam.openfaas.com/v1") | scalars,
        "kind": st.sampled_from(["JwtIssuer", "Policy", "Role"]) | scalars,
        "metadata": st.just({"name": "x"}) | values,
        "spec": st.dictionaries(words, values) | values,
        "other": values,
    },
)


@given(objects)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_json_is_read_and_united(made: Raw) -> None:
    obj = read_object(made)
    assert (obj.document is None) == any(p.severity == "error" for p in obj.parsed.problems)
    raw_again = {"kind": obj.kind, "metadata": {"name": obj.name}, **made}
    if isinstance(raw_again["kind"], str) and isinstance(raw_again["metadata"], dict):
        Namespace(issuer(), {**raw_again, "metadata": {**raw_again["metadata"], "name": "x"}})
