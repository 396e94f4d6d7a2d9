"""
`POST /federation/v1/explain`: what claims would be allowed by the documents in force, and why.

The claims are in the body, or they are those that a recorded event keeps. The answer is that of
`federation explain --format json`, made by the same function. Where the claims are not admitted, it
has the Role that would admit them, for a person to read and to write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from federation.audit.pages import find
from federation.claims import UnverifiedClaims
from federation.documents.catalog import Catalog
from federation.documents.model import READ_AUDIT
from federation.explained import claims_kept, explain_claims, notes_on
from federation.jose.strict_json import dumps
from federation.policy.explain import Explanation
from federation.policy.permissions import Access
from federation.policy.role_for import role_for
from federation.web.api.endpoint import Asked
from federation.web.api.parameters import accesses_in, check_members
from federation.web.api.turns import Turns
from federation.web.forms import invalid_request

_EVENT_ID = re.compile(r"[0-9a-f]{32}")


class ExplainAnswer:
    """The endpoint's answer. Events are looked for in the journal in *folder*."""

    def __init__(self, folder: Path, clock: Callable[[], float], turns: Turns) -> None:
        self._folder = folder
        self._clock = clock
        self._turns = turns

    async def __call__(self, asked: Asked) -> bytes:
        """Answer one explanation, as JSON. Raises: Refusal with `invalid_request`, Denied."""
        check_members(asked.body, ("claims", "event_id", "access"), "The body")
        accesses = accesses_in(asked.body) if "access" in asked.body else ()
        match dict(asked.body):
            case {"claims": dict(claims), **rest} if "event_id" not in rest:
                return await self._turns.run(
                    asked.person, self._by_claims, asked.catalog, claims, accesses
                )
            case {"event_id": str(event_id), **rest} if "claims" not in rest:
                asked.need(READ_AUDIT)
                return await self._turns.run(
                    asked.person, self._by_event, asked.catalog, event_id, accesses
                )
            case _:
                raise invalid_request(
                    "The body must have either the object claims or the string event_id."
                )

    def _by_claims(
        self, catalog: Catalog, claims: Mapping[str, object], accesses: Sequence[Access]
    ) -> bytes:
        return dumps(self._explained(catalog, claims, accesses)[1])

    def _by_event(self, catalog: Catalog, event_id: str, accesses: Sequence[Access]) -> bytes:
        event = find(self._folder, event_id) if _EVENT_ID.fullmatch(event_id) else None
        if event is None:
            raise invalid_request(
                "This replica's trail has no such event among its newest ones. Another replica may"
                " have it; else send its claims."
            )
        try:
            claims = claims_kept(event)
        except ValueError as error:
            raise invalid_request(str(error)) from error
        explanation, members = self._explained(catalog, claims, accesses)
        told = {name: value for name, value in event.items() if name != "claims"}
        notes = list(notes_on(event, explanation, catalog))
        return dumps(members | {"event": told, "notes": notes})

    def _explained(
        self, catalog: Catalog, claims: Mapping[str, object], accesses: Sequence[Access]
    ) -> tuple[Explanation, dict[str, object]]:
        unverified = UnverifiedClaims(claims)
        explanation = explain_claims(catalog, unverified, accesses, now=self._clock())
        members = {**explanation.as_json(), "claims": claims}
        if not explanation.admitted:
            issuer = catalog.issuers.get(str(claims.get("iss")))
            role, notes = role_for(unverified, issuer)
            members |= {"rule": role.yaml if role else None, "rule_notes": list(notes)}
        return explanation, members
