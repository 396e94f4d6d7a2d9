"""
Rewrites documents in the form that a Kubernetes API server takes.

A file may have the apiVersion `openfaas.com/v1`, a single value where a list is meant, and
integers and booleans as values. An API server takes only what its schema says: lists of strings.
Only documents without errors are rewritten, so nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from federation.documents import schema
from federation.documents.parse import is_rule_test, pages, parse
from federation.documents.tree import Bare, Document, Fields, Items, Sort, Value, sort
from federation.errors import Problem, Severity

Written = Mapping[str, Any]
"""A document as maps, lists and texts."""

_METADATA = ("name", "namespace", "labels", "annotations")
"""The fields of `metadata` that authors write. The API server writes the others."""
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def rewritten(path: str, data: bytes) -> tuple[list[Written], list[Problem]]:
    """Return the documents of a file in list form, or its errors if it has any."""
    errors = [one for one in parse(path, data).problems if one.severity is Severity.ERROR]
    if errors:
        return [], errors
    return list(_documents(path, data)), []


def text(documents: Iterable[Written], *, width: int = 1_000_000) -> str:
    """
    Return *documents* as YAML with lines of about *width* characters.

    kubectl, Helm and Argo CD read YAML 1.1, in which `n` and `y` are booleans. So the members of
    those names of a key are quoted, as names too.
    """
    return yaml.dump_all(
        documents,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=width,
        explicit_start=True,
    )


def _documents(path: str, data: bytes) -> Iterator[Written]:
    for page in pages(path, data):
        if is_rule_test(page):
            continue  # no API server has this kind
        assert isinstance(page, Document)  # noqa: S101  the file has no error
        root = page.root
        assert isinstance(root, Fields)  # noqa: S101
        yield {
            "apiVersion": schema.API_VERSION,
            "kind": root["kind"],
            "metadata": dict(_metadata(root["metadata"])),
            "spec": {name: _field(name, value) for name, value in _fields(root["spec"]).items()},
        }


def _metadata(metadata: Value) -> Iterator[tuple[str, Any]]:
    for name, value in _fields(metadata).items():
        if name not in _METADATA or isinstance(value, Bare):  # labels may be null
            continue
        if isinstance(value, Fields):
            yield name, {key: one for key, one in value.items() if key != _LAST_APPLIED}
        else:
            yield name, value


def _field(name: str, value: Value) -> Any:
    match name:
        case "condition":
            return {operator: _keys(keys) for operator, keys in _fields(value).items()}
        case "principal":
            return _keys(value)
        case "statement":
            return [
                {inner: _field(inner, one) for inner, one in _fields(statement).items()}
                for statement in _items(value)
            ]
        case "jwks":
            return {"keys": [_key(key) for key in _items(_fields(value)["keys"])]}
    return value


def _keys(keys: Value) -> dict[str, list[str]]:
    """Return the keys of an operator or a principal, each with a list of texts."""
    return {
        key: [_text(one) for one in (value if isinstance(value, Items) else [value])]
        for key, value in _fields(keys).items()
    }


def _text(value: Value) -> str:
    if isinstance(value, Bare):
        return value.text.lower() if value.sort is Sort.BOOL else value.text
    assert isinstance(value, str)  # noqa: S101
    return value


def _key(key: Value) -> dict[str, Any]:
    """Return the members of a pinned key that the broker reads."""
    known = schema.PinnedKey.names()
    return {
        name: value
        for name, value in _fields(key).items()
        if name in known and value != "" and not isinstance(value, Bare)
    }


def _fields(value: object) -> Fields:
    assert isinstance(value, Fields)  # noqa: S101  the document has no error
    return value


def _items(value: Value) -> Items:
    assert isinstance(value, Items)  # noqa: S101  the document has no error
    return value


class _Dumper(yaml.SafeDumper):
    """Quotes each text that some reader of YAML could take for another type."""

    def ignore_aliases(self, _data: object) -> bool:
        """Write what stands in several places several times, since kubectl takes few aliases."""
        return True

    def write_text(self, data: str) -> yaml.ScalarNode:
        """Write long texts of several lines as they are read."""
        style = "|" if "\n" in data else None if sort(data or "~") is Sort.TEXT else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)

    def write_map(self, data: Mapping[str, Any]) -> yaml.MappingNode:
        """Write a map in its order."""
        return self.represent_mapping("tag:yaml.org,2002:map", data)

    def write_list(self, data: list[Any]) -> yaml.SequenceNode:
        """Write a list."""
        return self.represent_sequence("tag:yaml.org,2002:seq", data)


_Dumper.add_representer(str, _Dumper.write_text)
_Dumper.add_representer(Fields, _Dumper.write_map)
_Dumper.add_representer(Items, _Dumper.write_list)
