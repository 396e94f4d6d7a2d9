"""
A client of the broker's API for people, with the access token of the person who asks.

The dashboard has no power of its own: what it shows is what this API answers to that token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from federation.dashboard.answers import (
    AuditPage,
    Decision,
    Decisions,
    Documents,
    Explanation,
    RoleGives,
    Whoami,
    WhoCan,
)
from federation.dashboard.connection import KIB, Connection, not_readable
from federation.policy import permissions

Access = tuple[str, str]
"""Action and resource."""

_API = "/federation/v1"
_ANSWER_BYTES = 32 * 1024 * KIB
"""10,000 Roles take about 10 MiB as documents, and somewhat more in an explanation."""
MOST_ACCESSES = 1000

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Broker:
    """The API for people. Every method raises BrokerError."""

    connection: Connection

    async def whoami(self, token: str) -> Whoami:
        """Return the subject of *token* and the statements of its policies."""
        return await self._get("whoami", token, Whoami)

    async def can_i(self, token: str, accesses: Iterable[Access]) -> dict[Access, Decision]:
        """The decision about each of *accesses*, at most `MOST_ACCESSES`."""
        asked = list(dict.fromkeys(accesses))[:MOST_ACCESSES]
        body = {"access": [{"action": action, "resource": on} for action, on in asked]}
        decisions = (await self._post("can-i", token, Decisions, body)).access
        if [(d.action, d.resource) for d in decisions] != asked:
            raise not_readable()  # an answer about something else must not become a yes
        return dict(zip(asked, decisions, strict=True))

    async def documents(self, token: str) -> Documents:
        """The documents in force."""
        return await self._get("documents", token, Documents)

    async def explain(
        self, token: str, claims: Mapping[str, object], accesses: Sequence[Access] = ()
    ) -> Explanation:
        """Explain what a token with *claims* would be allowed."""
        asked = [{"action": action, "resource": on} for action, on in accesses]
        body: dict[str, object] = {"claims": claims}
        return await self._post(
            "explain", token, Explanation, body | {"access": asked} if asked else body
        )

    async def explain_event(self, token: str, event_id: str) -> Explanation:
        """Explain the token of a recorded event by the Roles of today."""
        return await self._post("explain", token, Explanation, {"event_id": event_id})

    async def who_can(self, token: str, access: Access) -> WhoCan:
        """The Roles that give *access*."""
        return await self._get("who-can", token, WhoCan, action=access[0], resource=access[1])

    async def role_gives(self, token: str, role: str) -> RoleGives:
        """Return what *role* gives, and to whom."""
        return await self._get("who-can", token, RoleGives, role=role)

    async def audit(self, token: str, **query: str) -> AuditPage:
        """Some events of the trail: `limit`, `before`, `outcome`, `kind`, `function`, `shadow_role`."""
        given = {name: value for name, value in query.items() if value}
        return await self._get("audit", token, AuditPage, **given)

    async def _get(self, name: str, token: str, model: type[Model], **query: str) -> Model:
        return await self.connection.json(
            "GET",
            f"{_API}/{name}",
            token,
            reads=model.model_validate,
            query=query or None,
            most_bytes=_ANSWER_BYTES,
        )

    async def _post(self, name: str, token: str, model: type[Model], body: object) -> Model:
        return await self.connection.json(
            "POST",
            f"{_API}/{name}",
            token,
            reads=model.model_validate,
            body=body,
            most_bytes=_ANSWER_BYTES,
        )


def is_access(action: str, resource: str) -> bool:
    """True if a request can ask for this, so that the broker decides about it."""
    try:
        permissions.Access.parse(action, resource)
    except ValueError:
        return False
    return True
