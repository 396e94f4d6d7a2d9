"""
Build claims and model objects for tests, from the mappings that a document would hold.

`good()` and `issuer()` return a valid value, and take changes: a test changes the one thing that
it is about.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from federation.claims import Claims
from federation.documents.catalog import Catalog
from federation.documents.model import (
    ACTION_SETS,
    Effect,
    JwtIssuer,
    Policy,
    Role,
    Statement,
)
from federation.documents.resources import Resource
from federation.policy.conditions import ALIASES, Condition, Operator
from federation.providers.table import PROFILES, Profile, known_provider

Document = Mapping[str, Any]

GITHUB: Final = "https://token.actions.githubusercontent.com"
GITLAB: Final = "https://gitlab.com"
GENERIC: Final = "https://idp.example.com/realms/people"
AUDIENCE: Final = "https://gateway.example.com"
NOW: Final = 1_800_000_000.0


class _Absent:
    """Its text is the same in every process, because tests are named by it."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final[object] = _Absent()
"""A change to this value removes the claim."""

_VECTORS = Path(__file__).parents[1] / "vectors" / "claims"


def sample(name: str, **changes: object) -> Claims:
    """The claims in `vectors/claims/NAME.json`, with *changes*."""
    claims: dict[str, object] = json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))
    return Claims({k: v for k, v in (claims | changes).items() if v is not ABSENT})


def provider_of(name: str) -> str:
    """The provider whose sample token *name* is: samples are called after their provider."""
    return max((p for p in PROFILES if name.startswith(p)), key=len, default="generic")


def owner_pins(profile: Profile) -> tuple[str, ...]:
    """The claims of which one value fixes the owner of the code."""
    owner = profile.owner
    return (*owner.ids, *owner.code_ids, *owner.names, *owner.paths, *owner.composed)


def good(name: str = "github-push-main", now: float = NOW, /, **changes: Any) -> Claims:
    """The claims of `sample`, moved in time to be issued a minute before *now*, with *changes*."""
    claims = sample(name)
    moved = now - 60 - _number(claims["iat"])
    times = {t: _number(claims[t]) + moved for t in ("iat", "nbf", "exp") if t in claims}
    changed = {**claims, **times, **changes}
    return Claims({claim: value for claim, value in changed.items() if value is not ABSENT})


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def values(written: object) -> tuple[str, ...]:
    """The values of a condition key: a document may write a list or one scalar."""
    several = written if isinstance(written, list) else [written]
    return tuple(json.dumps(v) if isinstance(v, bool | int) else str(v) for v in several)


def operator(written: str) -> Operator:
    """The operator with this name or alias."""
    return ALIASES.get(written) or Operator(written)


def conditions(block: Document) -> tuple[Condition, ...]:
    """The conditions of a `condition` block."""
    return tuple(
        Condition(operator(name), key, values(written))
        for name, keys in block.items()
        for key, written in keys.items()
    )


def role(name: str = "deployer", **spec: Any) -> Role:
    """The Role with this *spec*, in which `minutes` stands for a `tokenExpiry`."""
    principal = {"principal": spec["principal"]} if "principal" in spec else {}
    return Role(
        name=name,
        policies=tuple(spec.get("policy", ["deploy"])),
        conditions=conditions(principal) + conditions(spec.get("condition", {})),
        token_expiry=timedelta(minutes=spec["minutes"]) if "minutes" in spec else None,
    )


def pinned(name: str = "deployer", iss: str = GITHUB, **claims: object) -> Role:
    """A Role with `StringEqual` on the issuer and on each of *claims*."""
    exact = {"iss": iss, **claims}
    block = {"StringEqual": {f"jwt:{claim}": value for claim, value in exact.items()}}
    return role(name, condition=block)


def policy(name: str, *statements: Document) -> Policy:
    """The Policy with these *statements*."""
    return Policy(name, tuple(_statement(number, s) for number, s in enumerate(statements)))


def _statement(number: int, statement: Document) -> Statement:
    return Statement(
        sid=statement.get("sid", f"s{number}"),
        effect=Effect(statement.get("effect", "Allow")),
        actions=frozenset().union(*(ACTION_SETS[action] for action in statement["action"])),
        resources=tuple(Resource(resource) for resource in statement["resource"]),
        conditions=conditions(statement.get("condition", {})),
    )


def issuer(iss: str = GITHUB, provider: str | None = None, **changes: Any) -> JwtIssuer:
    """A configured issuer with the defaults that parsing fills in, and *changes*."""
    known = provider or known_provider(iss) or "generic"
    default = JwtIssuer(
        name=f"issuer-{iss}",
        iss=iss,
        audiences=(AUDIENCE,),
        provider=known,
        token_expiry=timedelta(minutes=15),
        single_use=PROFILES[known].single_use,
    )
    return replace(default, **changes)


def catalog(
    *roles: Role,
    policies: Iterable[Policy] = (),
    issuers: Iterable[JwtIssuer] = (issuer(GITHUB), issuer(GITLAB), issuer(GENERIC)),
) -> Catalog:
    """The catalog of these documents."""
    return Catalog(
        issuers={each.iss: each for each in issuers},
        roles=roles,
        policies={each.name: each for each in policies},
    )
