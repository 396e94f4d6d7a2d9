"""
The JSON Schema of documents, for editors: `python -m federation.documents.schema`.

It says what shape documents have, with the words of `documents.shape`. What takes more than one
document or a closer look, such as a name taken twice or a rule of trust, only `check` can say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from federation.documents import shape
from federation.documents.model import ACTION_SETS, Effect
from federation.documents.parse.fields import LIST_VALUES, VALUE_CHARS
from federation.documents.parse.kinds import OPERATORS, PEM_CHARS
from federation.documents.parse.values import DURATION, NAME
from federation.documents.shape import FieldSpec, Form
from federation.policy.conditions import PATTERN_CHARS
from federation.providers.table import Provider

__all__ = ["schema", "text"]

Schema = dict[str, object]


def schema() -> Schema:
    """What a document may look like: one of the three kinds, or a List of them."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Documents of the federation broker",
        "oneOf": [*_references(), {"$ref": "#/$defs/List"}],
        "$defs": {
            **{kind: _document(kind, specs) for kind, specs in shape.KINDS.items()},
            "List": _list(),
            "metadata": _fields(shape.METADATA),
            "statement": _fields(shape.STATEMENT),
            "keys": _keys(),
            "condition": _condition(),
            "values": _values(),
        },
    }


def text() -> str:
    """The schema as `docs/documents.schema.json` holds it."""
    return json.dumps(schema(), indent=2) + "\n"


def _references() -> list[Schema]:
    return [{"$ref": f"#/$defs/{kind}"} for kind in shape.KINDS]


def _document(kind: str, specs: Mapping[str, FieldSpec]) -> Schema:
    document = _fields(shape.DOCUMENT)
    versions = {"enum": [shape.API_VERSION, shape.OLD_API_VERSION]}
    return document | {
        "title": kind,
        "properties": {
            "apiVersion": versions | {"description": shape.DOCUMENT["apiVersion"].about},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/$defs/metadata"},
            "spec": _spec(kind, specs),
        },
    }


def _spec(kind: str, specs: Mapping[str, FieldSpec]) -> Schema:
    spec = _fields(specs)
    if kind == "Role":
        spec["anyOf"] = [{"required": ["principal"]}, {"required": ["condition"]}]
    if kind == "JwtIssuer":
        addresses: list[Schema] = [{"required": ["jwksUri"]}, {"required": ["issInternal"]}]
        spec["not"] = {"required": ["jwks"], "anyOf": addresses}
    return spec


def _list() -> Schema:
    return {
        "title": "List",
        "description": "What `kubectl get -o yaml` writes.",
        "type": "object",
        "properties": {
            "apiVersion": {"const": "v1"},
            "kind": {"const": "List"},
            "metadata": {},
            "items": {"type": "array", "items": {"oneOf": _references()}},
        },
        "required": ["apiVersion", "kind", "items"],
        "additionalProperties": False,
    }


def _fields(specs: Mapping[str, FieldSpec]) -> Schema:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": {
            name: {"description": spec.about, **_form(spec.form)} for name, spec in specs.items()
        },
        "required": [name for name, spec in specs.items() if spec.required],
        "additionalProperties": False,
    }


def _form(form: Form) -> Schema:
    return _FORMS[form]


def _strings(item: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": LIST_VALUES, "items": item}


_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": VALUE_CHARS}

_FORMS: Mapping[Form, Schema] = {
    Form.ANYTHING: {},
    Form.ACTIONS: _strings({"enum": sorted(ACTION_SETS)}),
    Form.CERTIFICATES: {
        "type": "string",
        "pattern": "-----BEGIN CERTIFICATE-----",
        "maxLength": PEM_CHARS,
    },
    Form.CONDITION: {"$ref": "#/$defs/condition"},
    Form.DURATION: {"type": "string", "pattern": f"^{DURATION}$", "maxLength": 64},
    Form.EFFECT: {"enum": [effect.value for effect in Effect]},
    Form.JWKS: {
        "type": "object",
        "properties": {"keys": _strings({"type": "object", "minProperties": 1})},
        "required": ["keys"],
    },
    Form.METADATA: {"$ref": "#/$defs/metadata"},
    Form.NAME: {"type": "string", "pattern": f"^{NAME}$"},
    Form.PRINCIPAL: {"$ref": "#/$defs/keys"},
    Form.PROVIDER: {"enum": [provider.value for provider in Provider]},
    Form.RESOURCES: _strings(
        {
            "type": "string",
            "pattern": r"^(\*|[-a-zA-Z0-9_.*]+:[-a-zA-Z0-9_.*]+)$",
            "maxLength": PATTERN_CHARS,
        }
    ),
    Form.SPEC: {"type": "object"},
    Form.STATEMENTS: _strings({"$ref": "#/$defs/statement"}),
    Form.TEXT: _TEXT,
    Form.TEXT_MAP: {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
    Form.TEXTS: _strings(_TEXT),
    Form.URL: {"type": "string", "pattern": "^https?://[!-~]+$", "maxLength": VALUE_CHARS},
    Form.USE: {"enum": ["once", "many"]},
    Form.WORD: {"type": "string"},
}


def _condition() -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {operator: {"$ref": "#/$defs/keys"} for operator in OPERATORS},
        "additionalProperties": False,
    }


def _keys() -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "patternProperties": {
            "^jwt:([^/]|/([^~]|~[01])*$)": {"$ref": "#/$defs/values"},
        },
        "additionalProperties": False,
    }


def _values() -> Schema:
    single: Schema = {"type": ["string", "integer", "boolean"], "maxLength": VALUE_CHARS}
    return {
        "description": "Any one of these values, or a single one.",
        "oneOf": [single, _strings(single)],
    }


if __name__ == "__main__":
    sys.stdout.write(text())
