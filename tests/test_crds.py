"""The CustomResourceDefinitions are current, bounded, and made from the models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.documents.codes import Code
from federation.documents.kubernetes.crds import crds, text
from federation.documents.schema import PLURALS, SPECS, Statement
from federation.documents.tree import Sort, sort

ROOT = Path(__file__).parents[1]
KINDS: dict[str, dict[str, Any]] = {made["spec"]["names"]["kind"]: made for made in crds()}


def spec_of(kind: str) -> dict[str, Any]:
    (version,) = KINDS[kind]["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def schemas(rule: dict[str, Any], place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """A schema and all that are in it, each with its place."""
    yield place, rule
    for name, inner in rule.get("properties", {}).items():
        yield from schemas(inner, f"{place}.{name}")
    for name in ("items", "additionalProperties"):
        if name in rule:
            yield from schemas(rule[name], f"{place}.{name}")


EVERY = [each for kind in KINDS for each in schemas(spec_of(kind), kind)]


def test_the_published_definitions_are_current() -> None:
    published = (ROOT / "deploy" / "crds.yaml").read_text("utf-8")
    assert published == text(), "run: federation crds >deploy/crds.yaml"


def test_no_text_is_one_that_other_readers_of_yaml_take_for_something_else() -> None:
    # kubectl reads YAML 1.1, in which `n`, the modulus of an RSA key, is a boolean.
    plain = [
        node.value
        for root in yaml.compose_all(text(), yaml.SafeLoader)
        for node in scalars(root)
        if node.style is None and node.tag == "tag:yaml.org,2002:str"
    ]
    assert [each for each in plain if sort(each) is not Sort.TEXT] == []


def scalars(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    """Every scalar of a composed document, keys and values."""
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from scalars(item)
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            for each in pair:
                yield from scalars(each)


def test_the_command_prints_them() -> None:
    words = [sys.executable, "-m", "federation", "crds"]
    printed = subprocess.run(words, capture_output=True, check=True, timeout=60).stdout  # noqa: S603  ours
    assert printed.decode() == text()


@pytest.mark.parametrize("kind", SPECS)
def test_they_have_every_field_of_the_models(kind: str) -> None:
    assert list(spec_of(kind)["properties"]) == list(SPECS[kind].names())


def test_a_statement_has_every_field_of_its_model() -> None:
    statement = spec_of("Policy")["properties"]["statement"]["items"]
    assert list(statement["properties"]) == list(Statement.names())


def test_the_kinds_are_those_of_the_models() -> None:
    assert PLURALS.keys() == KINDS.keys() == SPECS.keys()


@pytest.mark.parametrize(("place", "rule"), EVERY, ids=[place for place, _ in EVERY])
def test_everything_has_a_maximum(place: str, rule: dict[str, Any]) -> None:
    match rule["type"]:
        case "string":
            assert "maxLength" in rule or "enum" in rule, place
        case "array":
            assert "maxItems" in rule, place
        case "object":
            assert "maxProperties" in rule or "properties" in rule, place


def test_each_rule_begins_its_message_with_a_code() -> None:
    messages = [
        one["message"] for _, rule in EVERY for one in rule.get("x-kubernetes-validations", [])
    ]
    assert len(messages) > 20
    assert {message.partition(": ")[0] for message in messages} <= set(Code)


@pytest.mark.parametrize(
    "place", ["JwtIssuer", "Policy", "Policy.statement.items", "Role", "JwtIssuer.jwks"]
)
def test_a_field_that_is_unknown_is_kept_for_the_broker_to_find(place: str) -> None:
    assert dict(EVERY)[place]["x-kubernetes-preserve-unknown-fields"] is True
