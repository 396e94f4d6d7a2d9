"""
The documents of a catalog as their authors wrote them, each with its problems.

A spec is made from what is in force, so it means exactly what the broker decides by: operators
have their own names instead of aliases, sets of actions their widest name, and a default that the
document leaves out may be written. It holds no secret: a JwtIssuer has public keys and paths of
files, and never what a file holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import timedelta

from federation.documents.catalog import Catalog
from federation.documents.convert import AnyDocument
from federation.documents.model import (
    ACTION_SETS,
    JwtIssuer,
    Origin,
    Policy,
    Role,
    RoleEffect,
    Statement,
)
from federation.errors import Problem
from federation.policy.conditions import ALIASES, KEY_PREFIX, Condition, Operator

_WIDE = ("*", *(name for name in ACTION_SETS if name.endswith(":*")))


def listing(catalog: Catalog, problems: Iterable[Problem]) -> Iterator[dict[str, object]]:
    """Yield each document of *catalog* for programs, with those of *problems* that are about it."""
    about: dict[tuple[str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        about[problem.kind, problem.name].append(problem)
    documents: Iterator[AnyDocument]
    for documents in (
        iter(catalog.issuers.values()),
        iter(catalog.policies.values()),
        iter(catalog.all_roles),
    ):
        for document in documents:
            kind = type(document).__name__
            yield {
                "kind": kind,
                "name": document.name,
                "source": _source(document.origin),
                "spec": spec(document),
                "problems": [_problem(each) for each in about.get((kind, document.name), ())],
            }


def spec(document: AnyDocument) -> dict[str, object]:
    """Return the `spec` of *document*."""
    match document:
        case JwtIssuer():
            return _issuer(document)
        case Policy():
            return {"statement": [_statement(each) for each in document.statements]}
        case Role():
            return _role(document)


def written_actions(actions: Collection[str]) -> list[str]:
    """Return the fewest names that stand for exactly *actions*: `*`, `Function:*`, single ones."""
    left, written = set(actions), []
    for name in _WIDE:
        if ACTION_SETS[name] <= left:
            written.append(name)
            left -= ACTION_SETS[name]
    return [*written, *sorted(left)]


def written_conditions(conditions: Iterable[Condition]) -> list[dict[str, object]]:
    """Return *conditions* one by one, as explanations show them."""
    return [
        {"operator": each.operator, "key": each.key, "values": list(each.values)}
        for each in conditions
    ]


def written_duration(length: timedelta) -> str:
    """Return *length* as a Go duration: `1h30m`; 90 seconds are `1m30s`."""
    whole, fraction = divmod(length // timedelta(microseconds=1), 1_000_000)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    exact = f"{seconds}.{fraction:06d}".rstrip("0") if fraction else str(seconds)
    parts = (f"{hours}h", f"{minutes}m", f"{exact}s")
    return "".join(part for part in parts if part[:-1] != "0") or "0s"


def _source(origin: Origin) -> str:
    return f"{origin.path}:{origin.line}" if origin.line else origin.path


def _problem(problem: Problem) -> dict[str, object]:
    return {
        "code": problem.code,
        "severity": problem.severity,
        "field": problem.field,
        "message": problem.message,
        "hint": problem.hint,
    }


def _issuer(issuer: JwtIssuer) -> dict[str, object]:
    use = "once" if issuer.people_once else ""
    if not issuer.single_use and issuer.profile.single_use:
        use = "many"
    fields: dict[str, object] = {
        "iss": issuer.iss,
        "aud": list(issuer.audiences),
        "tokenExpiry": written_duration(issuer.token_expiry),
        "issInternal": issuer.internal_url,
        "provider": issuer.provider if issuer.provider_named else None,
        "jwksUri": issuer.jwks_uri,
        "jwks": issuer.jwks,
        "caBundle": issuer.ca_bundle,
        "subjectTokenUse": use,
        "bearerTokenFile": issuer.bearer_token_file,
        "clients": list(issuer.clients),
        "authorizedParties": list(issuer.authorized_parties),
    }
    return {name: value for name, value in fields.items() if value}


def _role(role: Role) -> dict[str, object]:
    blocks = _blocks(role.conditions)
    principal = blocks.pop(Operator.PRINCIPAL.value, None)
    fields: dict[str, object] = {
        "policy": list(role.policies),
        "principal": principal,
        "condition": blocks,
        "tokenExpiry": role.token_expiry and written_duration(role.token_expiry),
        "effect": RoleEffect.SHADOW if role.shadow else None,
    }
    return {name: value for name, value in fields.items() if value}


def _statement(statement: Statement) -> dict[str, object]:
    fields: dict[str, object] = {
        "sid": statement.sid,
        "effect": statement.effect,
        "action": written_actions(statement.actions),
        "resource": [resource.text for resource in statement.resources],
        "condition": _blocks(statement.conditions),
    }
    return {name: value for name, value in fields.items() if value}


def _blocks(conditions: Iterable[Condition]) -> dict[str, dict[str, list[str]]]:
    """
    Return *conditions* as `{operator: {key: [values]}}`.

    A document can have two conditions on one claim with one operator, written with an alias or a
    pointer. Both must hold, so neither may take the other's place here.
    """
    blocks: dict[str, dict[str, list[str]]] = {}
    for condition in conditions:
        for operator, key in _spellings(condition):
            block = blocks.setdefault(operator, {})
            if key not in block:
                block[key] = list(condition.values)
                break
    return blocks


def _spellings(condition: Condition) -> Iterator[tuple[str, str]]:
    """Yield every way to write the operator and the key of *condition*, the usual one first."""
    aliases = [alias for alias, meant in ALIASES.items() if meant is condition.operator]
    for operator in (condition.operator.value, *aliases):
        for key in dict.fromkeys((condition.key, _pointer(condition.path))):
            yield operator, key


def _pointer(path: Sequence[str]) -> str:
    steps = (step.replace("~", "~0").replace("/", "~1") for step in path)
    return KEY_PREFIX + "".join(f"/{step}" for step in steps)
