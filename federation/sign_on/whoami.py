"""
Asks a gateway who its person is there, and what the person may do.

The gateway says so (`GET /federation/v1/whoami`). A broker of an older version does not, and then
the access token says what it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from federation.client import ClientError
from federation.client.http import Sender, server_of
from federation.errors import Refusal
from federation.jose import jws
from federation.jose.strict_json import loads_object
from federation.sign_on.sessions import Session

PATH = "/federation/v1/whoami"
_PROTOCOL = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "policy", "role"})


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer about a caller, in the form that the gateway sends."""

    told: Mapping[str, object]
    by_gateway: bool
    """False if it is the token's own claims, since the gateway does not say more."""


def ask(session: Session, sender: Sender) -> Answer:
    """Ask the gateway of *session* who its person is. Raises: ClientError."""
    headers = {"Authorization": f"Bearer {session.access_token}", "Accept": "application/json"}
    response = sender.send("GET", f"{session.gateway}{PATH}", headers=headers)
    if response.status_code == httpx2.codes.OK:
        try:
            return Answer(loads_object(response.content), by_gateway=True)
        except ValueError:
            pass  # a page of something else
    if response.status_code == httpx2.codes.UNAUTHORIZED:
        raise ClientError(
            f"{session.gateway} does not take your access token: it was revoked, or the gateway"
            " has a new signing key.",
            f"Sign in again: federation login --gateway {session.gateway}",
        )
    if response.status_code in _HAS_NO_SUCH_PAGE:
        return Answer(_own_claims(session.access_token), by_gateway=False)
    raise ClientError(
        f"{server_of(response.url)} answered HTTP {response.status_code} to {PATH}.",
        "Try again in a minute.",
    )


_HAS_NO_SUCH_PAGE = frozenset({200, 403, 404, 405})
"""Answers of other programs, and of older brokers: those refuse each path that they do not know."""


def _own_claims(token: str) -> dict[str, object]:
    try:
        claims = jws.parse(token).claims
    except Refusal:
        return {}
    return {
        "sub": claims.get("sub", ""),
        "issuer": claims.get("iss", ""),
        "fed_issuer": claims.get("fed:iss", ""),
        "roles": claims.get("role", []),
        "policies": claims.get("policy", []),
        "issued": claims.get("iat"),
        "expires": claims.get("exp"),
        "claims": {
            name: value
            for name, value in claims.items()
            if name not in _PROTOCOL and not name.startswith("fed:")
        },
    }
