"""The published JSON Schema is current, and agrees with the parser about shape."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from federation.documents.load_yaml import yaml_documents
from federation.documents.model import ACTION_SETS, BROKER_ACTIONS, RoleEffect
from federation.documents.schema import OPERATORS, SPECS, schema, text
from federation.documents.tree import Document, Fields, Items, Sort, Value
from tests.test_documents_load import BAD, EC, ISSUER, POLICY, ROLE, RSA, indented, read, role_text

DOCS = Path(__file__).parent.parent / "docs"
SCHEMA: dict[str, Any] = schema()


def test_the_published_schema_is_current() -> None:
    published = (DOCS / "documents.schema.json").read_text("utf-8")
    assert published == text(), "python -m federation.documents.schema > docs/documents.schema.json"


def fits(value: object, rule: dict[str, Any]) -> bool:
    """True if *value* is valid, by the keywords that our schema uses and no others."""
    return all(_keyword(name, of, value, rule) for name, of in rule.items())


def _keyword(name: str, of: Any, value: object, rule: dict[str, Any]) -> bool:  # noqa: PLR0911, PLR0912  one branch a keyword
    match name:
        case "$ref":
            return fits(value, SCHEMA["$defs"][of.removeprefix("#/$defs/")])
        case "oneOf":
            return sum(fits(value, option) for option in of) == 1
        case "anyOf":
            return any(fits(value, option) for option in of)
        case "not":
            return not fits(value, of)
        case "enum":
            return any(value == one for one in of)
        case "const":
            return bool(value == of)
        case "type":
            return _type(value) in (of if isinstance(of, list) else [of])
        case "pattern":
            return not isinstance(value, str) or re.search(of, value) is not None
        case "minLength":
            return not isinstance(value, str) or len(value) >= of
        case "maxLength":
            return not isinstance(value, str) or len(value) <= of
        case "minItems":
            return not isinstance(value, list) or len(value) >= of
        case "maxItems":
            return not isinstance(value, list) or len(value) <= of
        case "items":
            return not isinstance(value, list) or all(fits(item, of) for item in value)
        case "contains":
            return not isinstance(value, list) or any(fits(item, of) for item in value)
        case "minProperties":
            return not isinstance(value, dict) or len(value) >= of
        case "maxProperties":
            return not isinstance(value, dict) or len(value) <= of
        case "required":
            return not isinstance(value, dict) or all(key in value for key in of)
        case "properties" | "patternProperties":
            return not isinstance(value, dict) or all(
                fits(member, inner)
                for key, member in value.items()
                for inner in _rules_for(key, {name: of})
            )
        case "additionalProperties":
            return not isinstance(value, dict) or all(
                _rules_for(key, rule) or (of is not False and fits(member, of))
                for key, member in value.items()
            )
        case "description" | "title" | "$schema" | "$defs":
            return True
        case _:
            raise AssertionError(f"the test does not know {name}")


def _rules_for(key: str, rule: dict[str, Any]) -> list[dict[str, Any]]:
    named = [of for name, of in rule.get("properties", {}).items() if name == key]
    matched = [of for p, of in rule.get("patternProperties", {}).items() if re.search(p, key)]
    return named + matched


def _type(value: object) -> str:
    return {
        str: "string",
        bool: "boolean",
        int: "integer",
        float: "number",
        list: "array",
        dict: "object",
        type(None): "null",
    }[type(value)]


def plain(value: Value) -> object:
    """*value* as an editor sees it: YAML 1.2 as plain values."""
    if isinstance(value, Items):
        return [plain(item) for item in value]
    if isinstance(value, Fields):
        return {key: plain(member) for key, member in value.items()}
    if isinstance(value, str):
        return value
    readings: dict[Sort, object] = {
        Sort.NULL: None,
        Sort.BOOL: value.text.lower() == "true",
        Sort.INT: 1,
    }
    return readings.get(value.sort, 0.5)


def all_fit(text: str) -> bool:
    found = [d for d in yaml_documents(text.encode()) if isinstance(d, Document)]
    return all(fits(plain(document.root), SCHEMA) for document in found)


CONDITIONS = (
    "jwt:a: x",
    "jwt:a: 1",
    "jwt:a: true",
    "jwt:a: [x, 1, false, '']",
    "'jwt:https://example.com/claim#x': [x]",
    "'jwt:/a/b~1c~0': [x]",
)
GOOD = [
    ISSUER,
    POLICY,
    ROLE,
    ISSUER.replace("iam.openfaas.com/v1", "openfaas.com/v1"),
    *(f"{ISSUER}  {field}\n" for field in (
        "tokenExpiry: 1h30m",
        "tokenExpiry: 1.5h",
        "tokenExpiry: 90000000µs",
        "issInternal: https://idp.internal/",
        "jwksUri: https://idp.internal/keys?x=y",
        "provider: github",
        "subjectTokenUse: many",
        "bearerTokenFile: /var/run/token",
        "clients: [faas-cli]",
        "authorizedParties: [ci-bot]",
        f"jwks: {json.dumps({'keys': [{**RSA, 'kid': None}, {**EC, 'kid': '', 'use': ''}]})}",
        f"jwks: {json.dumps({'keys': [RSA, EC]})}",
    )),
    ISSUER.replace('aud: ["https://gateway.example.com"]', "clients: [faas-cli]"),
    ISSUER.replace("{name: github}", "{name: a, labels: , creationTimestamp: ~, uid: 5}"),
    *(role_text(f"condition: {{StringEqual: {{{one}}}}}\n") for one in CONDITIONS),
    *(role_text(f"principal: {{{one}}}\n") for one in CONDITIONS),
    *(role_text(f"condition: {{'{operator}': {{jwt:a: [x]}}}}\n") for operator in OPERATORS),
    *(f"{ROLE}  effect: {effect}\n" for effect in RoleEffect),
    *(
        POLICY.replace("Function:List", action).replace(
            "dev:*", "*" if action in BROKER_ACTIONS else "dev:*"
        )
        for action in ACTION_SETS
    ),
    *(POLICY.replace("dev:*", resource) for resource in ("*", "dev:env", "team-*:*", "*:*")),
    POLICY.replace("Allow", "Deny") + indented("condition: {StringLike: {jwt:a: b}}", 6),
    json.dumps({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []}),
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD, ids=range(len(GOOD)))
def test_the_schema_accepts_what_the_parser_accepts(text: str) -> None:
    assert not [problem for problem in read(text).problems if problem.severity == "error"]
    assert all_fit(text)


# Errors that no schema can express: they concern several fields or several documents.
BEYOND_SCHEMA = {"D002", "D003", "D009", "D010", "D011", "D017", "D018", "D020", "D022"}
BEYOND_CASES = {"too short", "too long", "far too long", "long pattern"}
SHAPES = [
    (case, text)
    for case, code, text in BAD
    if code not in BEYOND_SCHEMA and case not in BEYOND_CASES
]


@pytest.mark.parametrize("text", [text for _, text in SHAPES], ids=[case for case, _ in SHAPES])
def test_the_schema_refuses_what_the_parser_refuses_for_its_shape(text: str) -> None:
    assert not all_fit(text)


def test_every_field_has_a_description() -> None:
    for kind, spec in SPECS.items():
        reference = SCHEMA["$defs"][kind]["properties"]["spec"]["$ref"]
        fields = SCHEMA["$defs"][reference.removeprefix("#/$defs/")]["properties"]
        assert set(fields) == set(spec.names())
        assert all(fields[name]["description"] for name in spec.names())
