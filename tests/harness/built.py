"""Model objects and claims for tests, made from the plain mappings that documents are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
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
    Resource,
    Role,
    Statement,
)
from federation.policy.conditions import ALIASES, Condition, Operator
from federation.providers.table import PROFILES, Provider, known_provider

Document = Mapping[str, Any]

GITHUB: Final = "https://token.actions.githubusercontent.com"
GITLAB: Final = "https://gitlab.com"
GENERIC: Final = "https://idp.example.com/realms/people"

ABSENT: Final = object()
"""A change that takes a claim away."""

_VECTORS = Path(__file__).parents[1] / "vectors" / "claims"


def sample(name: str, **changes: object) -> Claims:
    """The claims of a sample token, with *changes*."""
    claims: dict[str, object] = json.loads((_VECTORS / f"{name}.json").read_text("utf-8"))
    return Claims({k: v for k, v in (claims | changes).items() if v is not ABSENT})


def values(written: object) -> tuple[str, ...]:
    """Values as a document may write them: a list, or one bare scalar; digits; true, false."""
    several = written if isinstance(written, list) else [written]
    return tuple(json.dumps(v) if isinstance(v, bool | int) else str(v) for v in several)


def operator(written: str) -> Operator:
    """The operator that a document writes, by its name or its alias."""
    return ALIASES.get(written) or Operator(written)


def conditions(block: Document) -> tuple[Condition, ...]:
    """A condition block as the model holds it."""
    return tuple(
        Condition(operator(name), key, values(written))
        for name, keys in block.items()
        for key, written in keys.items()
    )


def role(name: str = "deployer", **spec: Any) -> Role:
    """The Role with *spec* as a document writes it."""
    principal = {"principal": spec["principal"]} if "principal" in spec else {}
    return Role(
        name=name,
        policies=tuple(spec.get("policy", ["deploy"])),
        conditions=conditions(principal) + conditions(spec.get("condition", {})),
    )


def pinned(name: str = "deployer", iss: str = GITHUB, **claims: object) -> Role:
    """A Role with `StringEqual` on the issuer and on each of *claims*."""
    exact = {"iss": iss, **claims}
    block = {"StringEqual": {f"jwt:{claim}": value for claim, value in exact.items()}}
    return role(name, condition=block)


def policy(name: str, *statements: Document) -> Policy:
    """The Policy with *statements* as a document writes them."""
    return Policy(name, tuple(_statement(number, s) for number, s in enumerate(statements)))


def _statement(number: int, statement: Document) -> Statement:
    return Statement(
        sid=statement.get("sid", f"s{number}"),
        effect=Effect(statement.get("effect", "Allow")),
        actions=frozenset().union(*(ACTION_SETS[action] for action in statement["action"])),
        resources=tuple(Resource(resource) for resource in statement["resource"]),
        conditions=conditions(statement.get("condition", {})),
    )


def issuer(iss: str, provider: Provider | None = None) -> JwtIssuer:
    """A configured issuer, with the defaults that parsing fills in."""
    known = provider or known_provider(iss) or Provider.GENERIC
    return JwtIssuer(
        name=f"issuer-{iss}",
        iss=iss,
        audiences=("https://gateway.example.com",),
        provider=known,
        token_expiry=timedelta(minutes=15),
        single_use=PROFILES[known].single_use,
    )


def catalog(
    *roles: Role,
    policies: Iterable[Policy] = (),
    issuers: Iterable[JwtIssuer] = (issuer(GITHUB), issuer(GITLAB), issuer(GENERIC)),
) -> Catalog:
    """The snapshot that holds these documents."""
    return Catalog(
        issuers={each.iss: each for each in issuers},
        roles=roles,
        policies={each.name: each for each in policies},
    )
