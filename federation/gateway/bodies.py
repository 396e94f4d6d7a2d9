"""
The schemas of the JSON bodies of the OpenFaaS API: reads a body strictly and writes it anew.

A Go upstream ignores the case of member names, and the last of two equal members wins. Here a
member must have its exact name and occur once. The upstream receives only what was read, so it
cannot find a member that the broker overlooked. Other bodies raise Malformed or TooLarge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from federation.gateway import values
from federation.gateway.refusals import Malformed, TooLarge, quoted
from federation.gateway.values import Reader
from federation.jose.strict_json import loads_object

# Honest bodies hold long strings, not many values. Parsed JSON that is all brackets and commas
# takes many times the memory of its text, so these are counted before anything is parsed.
_COUNTED_FROM_BYTES = 16 * 1024
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_MOST_VALUES = 10_000


@dataclass(frozen=True, slots=True)
class Body:
    """The schema of one kind of body."""

    members: Mapping[str, Reader]
    name: str
    """The member with the name of the object. The path or the query may hold it instead."""
    required: frozenset[str] = frozenset()
    """The other members that must be present."""

    def read(self, data: bytes) -> dict[str, object]:
        """The members of *data* in the order of the schema; null counts as absent."""
        _check_size(data)
        try:
            given = loads_object(data)
        except ValueError:
            raise Malformed(
                "The body must be one well-formed JSON object without duplicate members."
            ) from None
        if unknown := next((member for member in given if member not in self.members), None):
            raise Malformed(f"The body must not have a member {quoted(unknown)}.")
        read = {
            member: values.read(f'The body member "{member}"', reader, given[member])
            for member, reader in self.members.items()
            if given.get(member) is not None
        }
        if missing := next((member for member in self.required if member not in read), None):
            raise Malformed(f'The body must have a member "{missing}".')
        return read

    def write(self, given: Mapping[str, object]) -> bytes:
        """*given* as compact JSON in the order of the schema, without other members."""
        ordered = {member: given[member] for member in self.members if member in given}
        return json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _check_size(data: bytes) -> None:
    if len(data) < _COUNTED_FROM_BYTES:
        return
    # Most bodies have few of these, also within their strings.
    if sum(map(data.count, (b"{", b"[", b","))) <= _MOST_VALUES:
        return
    outline = _STRINGS.sub(b"", data)
    if sum(map(outline.count, (b"{", b"[", b","))) > _MOST_VALUES:
        raise TooLarge(f"The body holds more than {_MOST_VALUES} values.")


def _namespace(value: object) -> str:
    """A namespace, which may be empty: some clients write every member."""
    return values.namespace(value) if value != "" else ""


DEPLOYMENT = Body(
    members={
        "service": values.name,
        "image": values.image,
        "namespace": _namespace,
        "envProcess": values.text,
        "envVars": values.text_map,
        "constraints": values.texts,
        "secrets": values.names,
        "labels": values.text_map,
        "annotations": values.text_map,
        "limits": values.quantities,
        "requests": values.quantities,
        "readOnlyRootFilesystem": values.boolean,
    },
    name="service",
    required=frozenset({"image"}),
)
DELETION = Body({"functionName": values.name, "namespace": _namespace}, name="functionName")
SCALING = Body(
    {"serviceName": values.name, "replicas": values.count, "namespace": _namespace},
    name="serviceName",
    required=frozenset({"replicas"}),
)
SECRET_NAME = Body({"name": values.name, "namespace": _namespace}, name="name")
SECRET = Body(
    {**SECRET_NAME.members, "value": values.text, "rawValue": values.text},
    name="name",
)
NAMESPACE = Body(
    {"name": values.namespace, "annotations": values.text_map, "labels": values.text_map},
    name="name",
)
