"""
`GET /federation/v1/whoami`: what the caller's own access token says and may do.

It needs no permission and shows nothing but the caller's own: its claims, and the statements of
the policies that it holds, as they count for this token: resources have its values for variables.
"""

from __future__ import annotations

from federation.claims import Claims
from federation.documents.listing import written_actions, written_conditions
from federation.jose.strict_json import dumps
from federation.policy.index import PolicySet
from federation.policy.permissions import applies
from federation.web.api.endpoint import Asked
from federation.web.api.turns import Turns

_PROTOCOL = frozenset({"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "policy", "role"})


async def whoami(turns: Turns, asked: Asked) -> bytes:
    """The caller's token and its statements, as JSON."""
    # A token can hold policies with thousands of statements.
    return await turns.run(asked.person, _told, asked)


def _told(asked: Asked) -> bytes:
    bearer, policies, claims = asked.caller.bearer, asked.caller.policies, asked.claims
    return dumps(
        {
            "sub": claims["sub"],
            "issuer": claims["iss"],
            "fed_issuer": claims.get("fed:iss", ""),
            "roles": list(bearer.roles),
            "policies": list(bearer.policies),
            "policies_missing": list(policies.missing),
            "issued": claims.get("iat", bearer.begins),
            "expires": bearer.expires,
            "claims": _own_words(claims),
            "statements": _statements(policies, claims),
        }
    )


def _own_words(claims: Claims) -> dict[str, object]:
    """The claims that come from the subject token, without those that the protocol needs."""
    return {
        name: value
        for name, value in claims.items()
        if name not in _PROTOCOL and not name.startswith("fed:")
    }


def _statements(policies: PolicySet, claims: Claims) -> list[dict[str, object]]:
    return [
        {
            "policy": policy.name,
            "sid": statement.sid,
            "effect": statement.effect,
            "actions": written_actions(statement.actions),
            "resources": [resource.text for resource in statement.reached(claims)],
            "conditions": written_conditions(statement.conditions),
            "applies": applies(statement, claims),
        }
        for policy in policies
        for statement in policy.statements
    ]
