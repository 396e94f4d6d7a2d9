"""
Converts checked documents into the frozen types of `documents.model`.

Rules that look at two fields of one document are checked here, on the values as they were loaded,
so that they are reported together with the errors of single fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias, TypeVar

from federation.documents import field_types, schema
from federation.documents.codes import Code
from federation.documents.messages import Complaint
from federation.documents.model import (
    ACTION_SETS,
    BROKER_ACTIONS,
    Effect,
    JwtIssuer,
    Origin,
    Policy,
    Role,
    RoleEffect,
    Statement,
)
from federation.documents.resources import Resource, is_resource
from federation.documents.tree import Fields, Items, Place, Value
from federation.documents.values import url_fault
from federation.jose.jwk import Key, ambiguous_kids, parse_key
from federation.policy.conditions import PATTERN_CHARS, Condition, Operator
from federation.providers.table import GENERIC, PROFILES, known_provider
from federation.text import quoted

_DEFAULT_EXPIRY = timedelta(minutes=15)

AnyDocument: TypeAlias = JwtIssuer | Policy | Role

_SHARED = 1000
"""At most so many of each kind are shared: the values of some sets have nothing in common."""


@dataclass(slots=True)
class Shared:
    """Values that several documents of a set share, kept once."""

    places: dict[Place, Place] = field(default_factory=dict)
    below: dict[tuple[tuple[Place, int], ...], Mapping[Place, int]] = field(default_factory=dict)
    conditions: dict[tuple[str, str, tuple[str, ...]], Condition] = field(default_factory=dict)
    keys: dict[str, Condition] = field(default_factory=dict)
    """For each key, the first condition on it."""
    policies: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)
    shapes: dict[tuple[Place, ...], tuple[Place, ...]] = field(default_factory=dict)

    def place(self, place: Place) -> Place:
        """Return the one copy of *place*."""
        return self.places.setdefault(place, place)

    def shape(self, places: Iterable[Place]) -> tuple[Place, ...]:
        """Return *places* as one tuple, if possible one that others have."""
        made = tuple(map(self.place, places))
        return _one(self.shapes, made, lambda: made)

    def lines(self, found: Mapping[Place, int]) -> Mapping[Place, int]:
        """Return a mapping that is equal to *found*, if possible one that others have."""
        return _one(self.below, tuple(found.items()), lambda: found)

    def condition(self, operator: Operator, key: str, values: Iterable[str]) -> Condition:
        """Return a condition, if possible one that others have: compiling it takes time."""
        known = (operator.value, key, tuple(values))
        return _one(self.conditions, known, lambda: self._on_key(operator, key, known[2]))

    def _on_key(self, operator: Operator, key: str, values: tuple[str, ...]) -> Condition:
        made = Condition(operator, key, values, self.keys.get(key))
        if len(self.keys) < _SHARED:
            self.keys.setdefault(made.key, made)
        return made

    def named(self, policies: Iterable[str]) -> tuple[str, ...]:
        """Return *policies* as one tuple, if possible one that other Roles have."""
        names = tuple(policies)
        return _one(self.policies, names, lambda: names)


K = TypeVar("K")
V = TypeVar("V")


def _one(kept: dict[K, V], key: K, make: Callable[[], V]) -> V:
    found = kept.get(key)
    if found is None:
        found = make()
        if len(kept) < _SHARED:
            kept[key] = found
    return found


def document(written: schema.Document, root: Fields, origin: Origin, shared: Shared) -> AnyDocument:
    """Return the document that *written* holds, loaded as *root*."""
    name = written.metadata.name
    match written:
        case schema.JwtIssuer():
            return _issuer(name, written.spec, origin)
        case schema.Role():
            return _role(name, written.spec, root["spec"], origin, shared)
        case schema.Policy():
            statements = _member(root["spec"], "statement")
            assert isinstance(statements, Items)  # noqa: S101  the model has checked it
            of_each = zip(written.spec.statement, statements, strict=True)
            return Policy(name, tuple([_statement(*one, shared) for one in of_each]), origin)


def _issuer(name: str, spec: schema.IssuerSpec, origin: Origin) -> JwtIssuer:
    known = spec.provider or known_provider(spec.iss)
    provider, use = known or GENERIC, spec.subject_token_use
    return JwtIssuer(
        name=name,
        iss=spec.iss,
        audiences=tuple(spec.aud or ()),
        provider=provider,
        token_expiry=spec.token_expiry or _DEFAULT_EXPIRY,
        single_use=PROFILES[provider].single_use if use is None else use == "once",
        people_once=use == "once",
        internal_url=spec.iss_internal,
        jwks_uri=spec.jwks_uri,
        jwks={"keys": [key.members() for key in spec.jwks.keys]} if spec.jwks else None,
        ca_bundle=spec.ca_bundle,
        provider_named=known is not None,
        bearer_token_file=spec.bearer_token_file,
        clients=tuple(spec.clients or ()),
        authorized_parties=tuple(spec.authorized_parties or ()),
        origin=origin,
    )


def _role(name: str, spec: schema.RoleSpec, written: Value, origin: Origin, shared: Shared) -> Role:
    conditions: dict[Place, Condition] = {
        ("spec", "principal", key): shared.condition(Operator.PRINCIPAL, key, values)
        for key, values in (spec.principal or {}).items()
    }
    for place, condition in _conditions(spec.condition, written, shared):
        conditions["spec", *place] = condition
    return Role(
        name=name,
        policies=shared.named(spec.policy),
        conditions=tuple(conditions.values()),
        token_expiry=spec.token_expiry,
        shadow=spec.effect == RoleEffect.SHADOW,
        places=shared.shape(conditions),
        origin=origin,
    )


def _statement(statement: schema.Statement, written: Value, shared: Shared) -> Statement:
    return Statement(
        sid=statement.sid,
        effect=Effect(statement.effect),
        actions=frozenset().union(*(ACTION_SETS[action] for action in statement.action)),
        resources=tuple(map(Resource, statement.resource)),
        conditions=tuple(made for _, made in _conditions(statement.condition, written, shared)),
    )


def _conditions(
    block: schema.Written | None, written: Value, shared: Shared
) -> Iterator[tuple[Place, Condition]]:
    """Yield the place and the condition of each key, in the order in which *written* has them."""
    operators = _member(written, "condition")
    for operator in operators if isinstance(operators, Fields) else ():
        keys: Mapping[str, list[str]] = getattr(block, operator.replace(":", "_"))
        for key, values in keys.items():
            made = shared.condition(schema.OPERATORS[operator], key, values)
            yield ("condition", operator, key), made


def _member(value: Value | None, name: str) -> Value | None:
    return value.get(name) if isinstance(value, Fields) else None


def broken(kind: str, name: str, root: Fields, origin: Origin) -> AnyDocument:
    """
    Return as much of a document with errors as others may refer to.

    It goes into no catalog. It is there so that a Role is not blamed for the errors of the
    document that it names, and to tell what the document may take away: a Role has the conditions
    that can be read, and a Policy the effects, of which those that cannot be read count as Deny, and
    the resources that name a claim.
    """
    if kind == "Role":
        conditions = tuple(_readable_conditions(root["spec"]))
        shadow = _member(root["spec"], "effect") == RoleEffect.SHADOW
        return Role(name, (), conditions, shadow=shadow, origin=origin)
    if kind == "Policy":
        effects = tuple(_readable_effects(root["spec"]))
        resources, unread = _readable_resources(root["spec"])
        named = Statement("", Effect.ALLOW, frozenset(), resources)
        return Policy(name, (*effects, named), origin, unread=unread)
    spec = root["spec"]
    iss, audiences = _iss(spec), _member(spec, "aud")
    known = _provider(spec) or known_provider(iss)
    return JwtIssuer(
        name=name,
        iss=iss,
        audiences=tuple(_texts(audiences)),
        provider=known or GENERIC,
        token_expiry=_DEFAULT_EXPIRY,
        single_use=True,
        clients=tuple(_texts(_member(spec, "clients"))),
        provider_named=known is not None or _member(spec, "provider") is not None,
        origin=origin,
    )


def _readable_conditions(spec: Value) -> Iterator[Condition]:
    """
    Yield each condition of a Role that can be read whole. Without the others it is wider.

    A condition with some of its values would be narrower, so the others are left out whole.
    """
    principal = _member(spec, "principal")
    operators = _member(spec, "condition")
    blocks: list[tuple[Operator, Value | None]] = [(Operator.PRINCIPAL, principal)]
    for written, block in operators.items() if isinstance(operators, Fields) else ():
        if operator := schema.OPERATORS.get(written):
            blocks.append((operator, block))
    for operator, keys in blocks:
        for key, values in keys.items() if isinstance(keys, Fields) else ():
            read = field_types.readable_values(operator, key, values)
            if read is not None:
                yield Condition(operator, key, read)


def _readable_effects(spec: Value) -> Iterator[Statement]:
    """Yield a statement that reaches nothing for each one of a Policy, with its effect."""
    for statement in _statements(spec):
        allows = _member(statement, "effect") == Effect.ALLOW
        yield Statement("", Effect.ALLOW if allows else Effect.DENY, frozenset(), ())


def _statements(spec: Value) -> Sequence[Value]:
    statements = _member(spec, "statement")
    listed = statements if isinstance(statements, Items) else ()
    # Without any statement that can be seen, there may have been a Deny.
    return listed or ("",)


def _readable_resources(spec: Value) -> tuple[tuple[Resource, ...], bool]:
    """Return the resources of a Policy that name a claim, and whether some cannot be read."""
    listed = [_member(statement, "resource") for statement in _statements(spec)]
    unread = not all(
        isinstance(one, Items) and one and all(map(_is_resource, one)) for one in listed
    )
    texts = dict.fromkeys(text for one in listed for text in _texts(one) if "$" in text)
    named = [text for text in texts if _is_resource(text)]
    # Each costs time. Where there are more, the others count as unread.
    kept = tuple(map(Resource, named[: field_types.LIST_VALUES]))
    return kept, unread or len(named) > len(kept)


def _is_resource(value: Value) -> bool:
    return isinstance(value, str) and len(value) <= PATTERN_CHARS and is_resource(value)


def _iss(spec: Value) -> str:
    """Return the `iss` of an issuer, empty if it is not valid."""
    iss = _member(spec, "iss")
    return iss if isinstance(iss, str) and url_fault(iss) is None else ""


def _provider(spec: Value) -> str | None:
    """Return the provider that an issuer names, None if it names none that exists."""
    provider = _member(spec, "provider")
    return provider if isinstance(provider, str) and provider in PROFILES else None


def _texts(values: Value | None) -> list[str]:
    listed = values if isinstance(values, Items) else ()
    return [value for value in listed if isinstance(value, str)]


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
            yield from _audiences_contradict(spec)
        case "Policy":
            yield from _same_sid(spec)
            yield from _less_than_the_cluster(spec)
        case "Role":
            yield from _without_conditions(spec)


def _provider_contradicts(spec: Fields) -> Iterator[Complaint]:
    iss, written = _iss(spec), _provider(spec)
    known = known_provider(iss)
    # With `generic`, the claims that tell a CI job's token from a person's would not be required.
    if known is not None and written is not None and written != known:
        yield Complaint(
            ("spec", "provider"),
            Code.PROVIDER_CONTRADICTS,
            f"{written} would switch off the checks for tokens of {quoted(iss)}",
            f"write {known}, or leave provider out",
        )


def _keys_contradict(spec: Fields) -> Iterator[Complaint]:
    for name in ("jwksUri", "issInternal", "bearerTokenFile"):
        if "jwks" in spec and name in spec:
            yield Complaint(
                ("spec", name),
                Code.KEYS_CONTRADICT,
                f"keys are pinned with jwks, so nothing is ever fetched and {name} is never used",
                f"remove jwks or {name}",
            )


def _same_kid(spec: Fields) -> Iterator[Complaint]:
    keys = _member(spec.get("jwks"), "keys")
    usable = [key for jwk in (keys if isinstance(keys, Items) else ()) for key in _key(jwk)]
    for kid in sorted(ambiguous_kids(usable)):
        yield Complaint(
            ("spec", "jwks", "keys"),
            Code.BAD_KEY_MATERIAL,
            f"two different keys for the same algorithm have the kid {quoted(kid)}",
            "remove one, or give them different kids",
        )


def _key(jwk: Value) -> Iterator[Key]:
    """Yield the key in *jwk*. The model has complained already about one that cannot be used."""
    with suppress(ValueError):
        yield parse_key(jwk)


def _audiences_contradict(spec: Fields) -> Iterator[Complaint]:
    clients, audiences = _texts(spec.get("clients")), _texts(spec.get("aud"))
    if "aud" not in spec and "clients" not in spec:
        hint = "write the broker's own URL, or clients where people sign in"
        yield Complaint(("spec", "aud"), Code.MISSING_FIELD, "is required and missing", hint)
    for number, client in enumerate(clients):
        if client in audiences:
            # Such a token would be a person's by one field and a workload's by the other.
            yield Complaint(
                ("spec", "clients", number),
                Code.BAD_VALUE,
                f"{quoted(client)} is in aud too",
                "write it under clients for people's ID tokens, under aud for workloads",
            )
    if "authorizedParties" in spec and "aud" not in spec:
        yield Complaint(
            ("spec", "authorizedParties"),
            Code.BAD_VALUE,
            "has no effect without aud: the azp of a person's ID token must be one of clients",
            "remove it, or write aud",
        )


def _same_sid(spec: Fields) -> Iterator[Complaint]:
    statements = spec.get("statement")
    first: dict[str, int] = {}
    for index, statement in enumerate(statements if isinstance(statements, Items) else ()):
        if not isinstance(statement, Fields):
            continue
        sid = statement.get("sid")
        if not isinstance(sid, str) or not sid:
            continue
        if sid in first:
            at = f" at line {first[sid]}" if first[sid] else " of another statement"
            message = f"{quoted(sid)} is the sid{at} already"
            yield Complaint(("spec", "statement", index, "sid"), Code.SID_TAKEN, message)
        first.setdefault(sid, statement.lines["sid"])


def _less_than_the_cluster(spec: Fields) -> Iterator[Complaint]:
    """
    What the broker knows is about the whole cluster. On less, an Allow would give nothing.

    A Deny would take nothing, and its author would believe that it does.
    """
    statements = spec.get("statement")
    for index, statement in enumerate(statements if isinstance(statements, Items) else ()):
        named = sorted(BROKER_ACTIONS.intersection(_texts(_member(statement, "action"))))
        resources = list(_texts(_member(statement, "resource")))
        if named and resources and not schema.EVERYTHING.intersection(resources):
            yield Complaint(
                ("spec", "statement", index, "resource"),
                Code.NOT_ON_THE_CLUSTER,
                f"{named[0]} is about the whole cluster, so it has no effect on"
                f" {quoted(resources[0])}",
                'write "*" in a statement of its own, or remove the action',
            )


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


def lines_below(root: Fields, shared: Shared) -> Mapping[Place, int]:
    """Return how far below its first line the name and every place in the spec is, keys aside."""
    found: dict[Place, int] = {}
    metadata = root.get("metadata")
    if isinstance(metadata, Fields) and "name" in metadata:
        _note(("metadata", "name"), metadata.lines["name"] - root.line, found, shared)
    _note(("spec",), root.lines["spec"] - root.line, found, shared)
    _note_lines(root["spec"], ("spec",), root.line, found, shared)
    return shared.lines(found)


def _note_lines(
    value: Value, place: Place, first: int, found: dict[Place, int], shared: Shared
) -> None:
    # The loader bounds nesting, so this recursion is bounded too.
    steps: Iterable[tuple[str | int, int, Value]]
    if isinstance(value, Items):
        steps = zip(range(len(value)), value.lines, value, strict=True)
    elif isinstance(value, Fields) and place != ("spec", "jwks"):
        steps = zip(value, value.lines.values(), value.values(), strict=True)
    else:
        return
    for step, line, inner in steps:
        here = (*place, step)
        _note(here, line - first, found, shared)
        if not isinstance(inner, str):
            _note_lines(inner, here, first, found, shared)


def _note(place: Place, below: int, found: dict[Place, int], shared: Shared) -> None:
    if below:
        found[shared.place(place)] = below
