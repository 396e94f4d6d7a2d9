"""
Notice CRDs that are not ours: those of another chart, or of another version of this project.

An API server drops ("prunes") the fields that its CRD does not know, without a word. A Policy read
through such a CRD could have lost its `effect: Deny`. So while a CRD lacks one of our fields, or
the status subresource, nothing is adopted. Every caller that is logged in may read what is asked
for here, so the broker needs no rights on CRDs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from federation.documents.schema import (
    API_VERSION,
    GROUP,
    PLURALS,
    SPECS,
    VERSION,
    Condition,
    Statement,
    Written,
)
from federation.sources.kubernetes.connection import Connection, Trouble
from federation.sources.kubernetes.fields import mapping

REMEDY = (
    "kubectl apply --server-side --force-conflicts --field-manager=federation-crds"
    " -f deploy/crds.yaml"
)

_ITEMS = "[]"


async def crd_problem(connection: Connection) -> str:
    """
    Return why the CRDs of the API server cannot be used; empty if they can.

    Raises: Trouble if the API server does not say.
    """
    try:
        discovery = await connection.request("GET", f"/apis/{API_VERSION}")
        schemas = await connection.request("GET", f"/openapi/v3/apis/{API_VERSION}")
    except Trouble as trouble:
        if trouble.status != 404:
            raise
        return f"the CRDs of {GROUP} are not there; run: {REMEDY}"
    lacking = [*_lacking_resources(discovery), *_pruned(schemas)]
    if not lacking:
        return ""
    more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
    return f"the CRDs are not those of this version: they lack {', '.join(lacking[:3])}{more}; run: {REMEDY}"


def _lacking_resources(discovery: Mapping[str, Any]) -> Iterator[str]:
    resources = discovery.get("resources")
    listed = resources if isinstance(resources, list) else ()
    known = {str(mapping(each).get("name")) for each in listed}
    for plural in PLURALS.values():
        for resource in (plural, f"{plural}/status"):
            if resource not in known:
                yield resource


def _pruned(openapi: Mapping[str, Any]) -> Iterator[str]:
    """Yield each field of ours that the API server would drop, as `Role.spec.policy`."""
    schemas = mapping(mapping(openapi.get("components")).get("schemas"))
    by_kind = {kind: schema for schema in schemas.values() for kind in _kinds(schema)}
    for kind in PLURALS:
        for path in _fields(kind):
            if not _kept(mapping(by_kind.get(kind)), path):
                yield f"{kind}.{'.'.join(path)}".replace(f".{_ITEMS}", _ITEMS)


def _kinds(schema: object) -> Iterator[str]:
    """Yield the kinds of our group that *schema* describes."""
    named = mapping(schema).get("x-kubernetes-group-version-kind")
    for each in named if isinstance(named, list) else ():
        if (mapping(each).get("group"), mapping(each).get("version")) == (GROUP, VERSION):
            yield str(mapping(each).get("kind"))


def _fields(kind: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of each field of a document of *kind*."""
    yield from _names(SPECS[kind], "spec")
    if kind == "Role":
        yield from _names(Condition, "spec", "condition")
    if kind == "Policy":
        yield from _names(Statement, "spec", "statement", _ITEMS)
        yield from _names(Condition, "spec", "statement", _ITEMS, "condition")


def _names(model: type[Written], *place: str) -> Iterator[tuple[str, ...]]:
    yield from ((*place, name) for name in model.names())


def _kept(schema: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Return whether an API server with *schema* keeps the field at *path*."""
    for step in path:
        if step == _ITEMS:
            schema = mapping(schema.get("items"))
            continue
        properties = mapping(schema.get("properties"))
        if step not in properties:
            # A map with any keys, or with what the schema does not know.
            return bool(
                schema.get("additionalProperties")
                or schema.get("x-kubernetes-preserve-unknown-fields")
            )
        schema = mapping(properties[step])
    return True
