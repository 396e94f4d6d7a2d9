"""
Converts checked documents into the frozen types of `documents.model`.

Rules that look at two fields of one document are checked here, on the values as they were loaded,
so that they are reported together with the errors of single fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TypeAlias

from federation.documents import schema
from federation.documents.codes import Code
from federation.documents.load import Fields, Items, Place, Value
from federation.documents.messages import Complaint
from federation.documents.model import (
    ACTION_SETS,
    Effect,
    JwtIssuer,
    Origin,
    Policy,
    Resource,
    Role,
    Statement,
)
from federation.documents.values import duration, url_fault
from federation.policy.conditions import Condition, Operator
from federation.providers.table import PROFILES, Provider, known_provider
from federation.text import quoted

_DEFAULT_EXPIRY = timedelta(minutes=15)

AnyDocument: TypeAlias = JwtIssuer | Policy | Role
Places: TypeAlias = dict[Place, Place]
"""One copy of each place. Documents have the same few places in great numbers."""


def document(written: schema.Document, root: Fields, origin: Origin, places: Places) -> AnyDocument:
    """Return the document that *written* holds, loaded as *root*."""
    name, spec = written.metadata.name, root["spec"]
    assert isinstance(spec, Fields)  # noqa: S101  the model has checked it
    match written:
        case schema.JwtIssuer():
            return _issuer(name, written.spec, origin)
        case schema.Role():
            return _role(name, written.spec, spec, origin, places)
        case schema.Policy():
            return _policy(name, written.spec, spec, origin)


def _issuer(name: str, spec: schema.IssuerSpec, origin: Origin) -> JwtIssuer:
    provider = Provider(spec.provider or known_provider(spec.iss) or Provider.GENERIC)
    use = spec.subject_token_use
    return JwtIssuer(
        name=name,
        iss=spec.iss,
        audiences=tuple(spec.aud),
        provider=provider,
        token_expiry=_expiry(spec.token_expiry) or _DEFAULT_EXPIRY,
        single_use=PROFILES[provider].single_use if use is None else use == "once",
        internal_url=spec.iss_internal,
        jwks_uri=spec.jwks_uri,
        jwks={"keys": [key.members() for key in spec.jwks.keys]} if spec.jwks else None,
        ca_bundle=spec.ca_bundle,
        origin=origin,
    )


def _role(
    name: str, spec: schema.RoleSpec, written: Fields, origin: Origin, places: Places
) -> Role:
    conditions: list[Condition] = []
    where: list[Place] = []
    for key, listed in (spec.principal or {}).items():
        conditions.append(Condition(Operator.PRINCIPAL, key, tuple(listed)))
        where.append(_one(places, ("spec", "principal", key)))
    for operator, key, values in _block(spec.condition, written.get("condition")):
        conditions.append(Condition(schema.OPERATORS[operator], key, values))
        where.append(_one(places, ("spec", "condition", operator, key)))
    return Role(
        name=name,
        policies=tuple(spec.policy),
        conditions=tuple(conditions),
        token_expiry=_expiry(spec.token_expiry),
        places=tuple(where),
        origin=origin,
    )


def _policy(name: str, spec: schema.PolicySpec, written: Fields, origin: Origin) -> Policy:
    items = written["statement"]
    assert isinstance(items, Items)  # noqa: S101  the model has checked it
    return Policy(name, tuple(map(_statement, spec.statement, items)), origin)


def _statement(statement: schema.Statement, written: Value) -> Statement:
    block = written.get("condition") if isinstance(written, Fields) else None
    return Statement(
        sid=statement.sid,
        effect=Effect(statement.effect),
        actions=frozenset().union(*(ACTION_SETS[action] for action in statement.action)),
        resources=tuple(map(Resource, statement.resource)),
        conditions=tuple(
            Condition(schema.OPERATORS[operator], key, values)
            for operator, key, values in _block(statement.condition, block)
        ),
    )


def _block(
    block: schema.Written | None, written: Value | None
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield operator, key and values in the order in which they were written."""
    if block is None or not isinstance(written, Fields):
        return
    for operator in written:
        keys: Mapping[str, list[str]] = getattr(block, operator.replace(":", "_"))
        for key, values in keys.items():
            yield operator, key, tuple(values)


def _expiry(written: str | None) -> timedelta | None:
    return None if written is None else duration(written)


def broken(kind: str, name: str, root: Fields, origin: Origin) -> AnyDocument:
    """
    Return as much of a document with errors as others may refer to.

    It goes into no catalog. It is there so that a Role is not blamed for the errors of the
    document that it names.
    """
    if kind == "Role":
        return Role(name, (), (), origin=origin)
    if kind == "Policy":
        return Policy(name, (), origin)
    spec = root["spec"]
    iss = _iss(spec)
    audiences = spec.get("aud") if isinstance(spec, Fields) else None
    return JwtIssuer(
        name=name,
        iss=iss,
        audiences=tuple(_texts(audiences)),
        provider=_provider(spec) or known_provider(iss) or Provider.GENERIC,
        token_expiry=_DEFAULT_EXPIRY,
        single_use=True,
        origin=origin,
    )


def _iss(spec: Value) -> str:
    """Return the `iss` of an issuer, empty if it is not valid."""
    iss = spec.get("iss") if isinstance(spec, Fields) else None
    return iss if isinstance(iss, str) and url_fault(iss) is None else ""


def _provider(spec: Value) -> Provider | None:
    """Return the provider that an issuer names, None if it names none that exists."""
    provider = spec.get("provider") if isinstance(spec, Fields) else None
    return Provider(provider) if isinstance(provider, str) and provider in set(Provider) else None


def _texts(items: Value | None) -> Iterable[str]:
    return (item for item in items if isinstance(item, str)) if isinstance(items, Items) else ()


# Rules of two fields


def contradictions(kind: str, root: Fields) -> Iterator[Complaint]:
    """Yield what single fields of the document do not show."""
    spec = root.get("spec")
    if not isinstance(spec, Fields) or not spec:
        return
    match kind:
        case "JwtIssuer":
            yield from _provider_contradicts(spec)
            yield from _keys_contradict(spec)
            yield from _same_kid(spec)
        case "Policy":
            yield from _same_sid(spec)
        case "Role":
            yield from _without_conditions(spec)


def _provider_contradicts(spec: Fields) -> Iterator[Complaint]:
    iss, written = _iss(spec), _provider(spec)
    known = known_provider(iss)
    # With `generic`, the claims that tell a CI job's token from a person's would not be required.
    if known is not None and written is not None and written is not known:
        yield Complaint(
            ("spec", "provider"),
            Code.PROVIDER_CONTRADICTS,
            f"{written} would switch off the checks for tokens of {quoted(iss)}",
            f"write {known.value}, or leave provider out",
        )


def _keys_contradict(spec: Fields) -> Iterator[Complaint]:
    for name in ("jwksUri", "issInternal"):
        if "jwks" in spec and name in spec:
            yield Complaint(
                ("spec", name),
                Code.KEYS_CONTRADICT,
                f"keys are pinned with jwks, so nothing is ever fetched from {name}",
                f"remove jwks or {name}",
            )


def _same_kid(spec: Fields) -> Iterator[Complaint]:
    jwks = spec.get("jwks")
    keys = jwks.get("keys") if isinstance(jwks, Fields) else None
    if not isinstance(keys, Items):
        return
    kids = [key["kid"] for key in keys if isinstance(key, Fields) and "kid" in key]
    texts = [kid for kid in kids if isinstance(kid, str)]
    if len(texts) != len(set(texts)):
        place = ("spec", "jwks", "keys")
        yield Complaint(place, Code.BAD_KEY_MATERIAL, "two keys have the same kid")


def _same_sid(spec: Fields) -> Iterator[Complaint]:
    statements = spec.get("statement")
    first: dict[str, int] = {}
    for index, statement in enumerate(statements if isinstance(statements, Items) else ()):
        sid = statement.get("sid") if isinstance(statement, Fields) else None
        if not isinstance(statement, Fields) or not isinstance(sid, str) or not sid:
            continue
        if sid in first:
            message = f"{quoted(sid)} is the sid at line {first[sid]} already"
            yield Complaint(("spec", "statement", index, "sid"), Code.SID_TAKEN, message)
        first.setdefault(sid, statement.lines["sid"])


def _without_conditions(spec: Fields) -> Iterator[Complaint]:
    fields = spec.keys() & set(schema.RoleSpec.names())
    if fields and not fields & {"principal", "condition"}:
        yield Complaint(
            ("spec",),
            Code.ROLE_WITHOUT_CONDITIONS,
            "has neither principal nor condition, so nothing says whom it is for",
            "write a condition that names the issuer and the owner",
        )


# Lines


def lines(root: Fields, places: Places) -> Mapping[Place, int]:
    """Return the line of the name and of every place in the spec, pinned keys aside."""
    found: dict[Place, int] = {("spec",): root.lines["spec"]}
    _note_lines(root["spec"], ("spec",), found, places)
    metadata = root.get("metadata")
    if isinstance(metadata, Fields) and "name" in metadata:
        found[_one(places, ("metadata", "name"))] = metadata.lines["name"]
    return found


def _note_lines(value: Value, place: Place, found: dict[Place, int], places: Places) -> None:
    # The loader bounds nesting, so this recursion is bounded too.
    if isinstance(value, Items):
        steps: Iterable[tuple[str | int, int, Value]]
        steps = zip(range(len(value)), value.lines, value, strict=True)
    elif isinstance(value, Fields) and place != ("spec", "jwks"):
        steps = zip(value, value.lines.values(), value.values(), strict=True)
    else:
        return
    for step, line, inner in steps:
        here = _one(places, (*place, step))
        found[here] = line
        if not isinstance(inner, str):
            _note_lines(inner, here, found, places)


def _one(places: Places, place: Place) -> Place:
    return places.setdefault(place, place)
