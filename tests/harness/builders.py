"""Good claims and good issuers, from which a test changes one thing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from federation.claims import Claims
from federation.documents.model import JwtIssuer
from federation.providers.table import Provider
from tests.harness import built
from tests.harness.built import ABSENT, GITHUB, sample

AUDIENCE: Final = "https://gateway.example.com"
NOW: Final = 1_800_000_000.0

__all__ = ["ABSENT", "AUDIENCE", "NOW", "good", "issuer"]


def good(name: str = "github-push-main", now: float = NOW, /, **changes: Any) -> Claims:
    """The claims of a sample token as if it were issued a minute before *now*, with *changes*."""
    claims = sample(name)
    moved = now - 60 - _number(claims["iat"])
    times = {t: _number(claims[t]) + moved for t in ("iat", "nbf", "exp") if t in claims}
    changed = {**claims, **times, **changes}
    return Claims({claim: value for claim, value in changed.items() if value is not ABSENT})


def issuer(iss: str = GITHUB, provider: Provider | None = None, **changes: Any) -> JwtIssuer:
    """A configured issuer with *changes*."""
    return replace(built.issuer(iss, provider), **changes)


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)
