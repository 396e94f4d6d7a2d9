"""
CustomResourceDefinitions of the three kinds, made from the models of `documents.schema`.

The API server refuses what a single object shows to be wrong. It is at most as strict as the
models are, so whatever the broker takes in list form can be applied. It estimates the cost of the
rules in `crd_rules` from the maxima of what they read, so every string, list and map has one.

A field that the API server does not know would be dropped without a word, and so would null. With
it perhaps a condition. So both are kept, for a rule or for the broker to find and to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from federation.documents import field_types, schema
from federation.documents.kubernetes import crd_rules as rules
from federation.documents.kubernetes import list_form
from federation.documents.kubernetes.verdicts import (
    CODE_CHARS,
    FIELD_CHARS,
    PROBLEM_CHARS,
    PROBLEMS,
)
from federation.jose.jwk import PRIVATE_MEMBERS

_SHORT_NAMES: Mapping[str, str] = {"JwtIssuer": "jwti", "Policy": "iampol", "Role": "iamrole"}

Schema = dict[str, Any]
_KEEP = "x-kubernetes-preserve-unknown-fields"


def crds() -> list[Schema]:
    """Return the three CustomResourceDefinitions."""
    definitions = schema.schema()["$defs"]
    return [
        _crd("JwtIssuer", _issuer(definitions), _ISSUER_COLUMNS),
        _crd("Policy", _policy(definitions), _POLICY_COLUMNS),
        _crd("Role", _role(definitions), _ROLE_COLUMNS),
    ]


def text() -> str:
    """Return the definitions as `deploy/crds.yaml` holds them."""
    return _HEAD + list_form.text(crds(), width=100)


_HEAD = """\
# Made by `federation crds`; do not edit. Apply it with
# kubectl apply --server-side --field-manager=federation-crds -f deploy/crds.yaml
"""


# The three kinds


def _issuer(definitions: Schema) -> Schema:
    spec = _structural(definitions["IssuerSpec"], definitions)
    fields = spec["properties"]
    for name in ("iss", "issInternal", "jwksUri"):
        fields[name] = rules.url_field(fields[name], query=name == "jwksUri")
    fields["tokenExpiry"] = rules.duration_field(fields["tokenExpiry"])
    fields["caBundle"][rules.RULES] = [rules.NO_PRIVATE_PEM]
    fields["jwks"] |= {_KEEP: True}
    fields["jwks"]["properties"]["keys"]["items"] = _pinned_key(definitions)
    return spec | {_KEEP: True, rules.RULES: [*rules.AUDIENCES, *rules.PINNED, *rules.providers()]}


def _pinned_key(definitions: Schema) -> Schema:
    key = _structural(definitions["PinnedKey"], definitions)
    # `oth` is a list, and so it is refused by its type. A rule sees only fields with a type.
    private = {name: _text(field_types.VALUE_CHARS) for name in sorted(PRIVATE_MEMBERS)}
    return key | {
        "properties": key["properties"] | private,
        _KEEP: True,
        rules.RULES: [rules.NO_PRIVATE_MEMBERS],
    }


def _policy(definitions: Schema) -> Schema:
    spec = _structural(definitions["PolicySpec"], definitions)
    listed = spec["properties"]["statement"]
    statement = listed["items"]
    statement["properties"]["condition"] = _condition(statement["properties"]["condition"])
    statement |= {_KEEP: True, rules.RULES: [rules.WHOLE_CLUSTER]}
    # Refuses a second statement with the same sid. Two managers may each apply statements.
    listed |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["sid"]}
    return spec | {_KEEP: True}


def _role(definitions: Schema) -> Schema:
    spec = _structural(definitions["RoleSpec"], definitions)
    fields = spec["properties"]
    fields["principal"] = _keys(fields["principal"])
    fields["condition"] = _condition(fields["condition"])
    fields["tokenExpiry"] = rules.duration_field(fields["tokenExpiry"])
    return spec | {_KEEP: True, rules.RULES: [rules.CONDITIONS]}


# From JSON Schema to the structural schema of an API server


def _structural(written: Schema, definitions: Schema) -> Schema:
    """Return *written* in list form, without what a structural schema may not have."""
    if "$ref" in written:
        named = definitions[written["$ref"].rpartition("/")[2]]
        written = named | {key: value for key, value in written.items() if key != "$ref"}
    made = {key: value for key, value in written.items() if key in _CARRIED}
    if "enum" in written:
        made["type"] = "string"
    if isinstance(made.get("type"), list):
        made["type"] = "string"
    if "properties" in written:
        made["properties"] = {
            name: _structural(inner, definitions) for name, inner in written["properties"].items()
        }
        for name in written["properties"].keys() - set(written.get("required", ())):
            made["properties"][name]["nullable"] = True
    if "patternProperties" in written:
        (values,) = written["patternProperties"].values()
        listed = _structural(_list_form(values), definitions)
        made["additionalProperties"] = listed | {"nullable": True}
    if "items" in written:
        made["items"] = _structural(written["items"], definitions)
    return made


_CARRIED = frozenset(
    {
        *("description", "type", "enum", "pattern", "required"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    }
)


def _list_form(values: Schema) -> Schema:
    """Return the schema of the list, of a schema that takes a single value too."""
    (listed,) = [choice for choice in values["oneOf"] if choice["type"] == "array"]
    return {"description": "Any one of these values.", **listed}


def _condition(block: Schema) -> Schema:
    """
    Return a condition as a map of operators, so that an unknown one is refused.

    As a field that the API server does not know it would be dropped, or kept unseen by any rule.
    """
    longest = max(block["properties"].values(), key=lambda keys: _value(keys)["maxLength"])
    return {
        "description": block["description"],
        "type": "object",
        "minProperties": 1,
        "maxProperties": len(schema.OPERATORS),
        "additionalProperties": _keys(longest) | {"nullable": True},
        "nullable": True,
        rules.RULES: [rules.KNOWN_OPERATORS, rules.NO_NULLS],
    }


def _value(keys: Schema) -> Schema:
    value: Schema = keys["additionalProperties"]["items"]
    return value


def _keys(keys: Schema) -> Schema:
    return keys | {rules.RULES: [rules.NAMED_CLAIMS, rules.NO_NULLS]}


# Around the spec


def _crd(kind: str, spec: Schema, columns: tuple[Schema, ...]) -> Schema:
    plural = schema.PLURALS[kind]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{schema.GROUP}",
            "labels": {"app.kubernetes.io/name": "federation"},
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": schema.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [_SHORT_NAMES[kind]],
                "categories": ["openfaas-iam"],
            },
            "versions": [
                {
                    "name": schema.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [*columns, _AGE, _MESSAGE],
                    "schema": {"openAPIV3Schema": _root(kind, spec)},
                }
            ],
        },
    }


def _root(kind: str, spec: Schema) -> Schema:
    return {
        "description": f"{schema.MODELS[kind].__doc__}",
        "type": "object",
        "required": ["spec"],
        _KEEP: True,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _STATUS,
        },
    }


def _text(most: int, **more: object) -> Schema:
    return {"type": "string", "maxLength": most, **more}


_GENERATION: Schema = {"type": "integer", "format": "int64", "minimum": 0}
_CONDITION: Schema = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": _text(316, minLength=1),
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": _GENERATION,
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": _text(1024, minLength=1),
        "message": _text(32768),
    },
}
_PROBLEM: Schema = {
    "type": "object",
    "required": ["code", "severity", "message"],
    "properties": {
        "code": _text(CODE_CHARS, minLength=1, description="`docs/lint.md` explains it."),
        "severity": {"type": "string", "enum": ["error", "warning"]},
        "field": _text(FIELD_CHARS, description="The place in the spec."),
        "message": _text(PROBLEM_CHARS),
        "hint": _text(PROBLEM_CHARS, description="What to write instead."),
    },
}
_STATUS: Schema = {
    "description": "What became of the object. Only the broker writes it.",
    "type": "object",
    "properties": {
        "observedGeneration": _GENERATION
        | {"description": "The generation of the object that the rest of the status is about."},
        "conditions": {
            "type": "array",
            "maxItems": 16,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": _CONDITION,
        },
        "problems": {
            "description": "Errors and warnings, as `federation check` reports them.",
            "type": "array",
            "maxItems": PROBLEMS,
            "x-kubernetes-list-type": "atomic",
            "items": _PROBLEM,
        },
    },
}


def _column(name: str, path: str, **more: object) -> Schema:
    return {"name": name, "type": "string", "jsonPath": path, **more}


_OF_READY = '.status.conditions[?(@.type=="Ready")]'
_READY = _column("Ready", f"{_OF_READY}.status")
_REASON = _column("Reason", f"{_OF_READY}.reason")
_AGE = _column("Age", ".metadata.creationTimestamp") | {"type": "date"}
_MESSAGE = _column("Message", f"{_OF_READY}.message", priority=1)
_ISSUER_COLUMNS = (
    _READY,
    _REASON,
    _column("Issuer", ".spec.iss"),
    _column("Provider", ".spec.provider", priority=1),
    _column("Audiences", ".spec.aud", priority=1),
    _column("Expiry", ".spec.tokenExpiry", priority=1),
)
# A column shows the first of what it finds.
_POLICY_COLUMNS = (
    _READY,
    _REASON,
    _column("First Allow", '.spec.statement[?(@.effect=="Allow")].sid'),
    _column("First Deny", '.spec.statement[?(@.effect=="Deny")].sid'),
)
_ROLE_COLUMNS = (
    _READY,
    _REASON,
    _column("Policies", ".spec.policy"),
    _column("Effect", ".spec.effect"),
    _column("Expiry", ".spec.tokenExpiry", priority=1),
)
