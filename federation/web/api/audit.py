"""
`GET /federation/v1/audit`: the trail of this replica, the newest event first, a page at a time.

It has the events of all workers of this replica, those of outsiders too. Other replicas have trails
of their own; a webhook receives the events of all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from federation.audit.pages import Cursor, page
from federation.audit.read import StoredEvent
from federation.audit.recorded import EXCHANGE_PATH, may_name_shadow_role
from federation.jose.strict_json import dumps
from federation.web.api.endpoint import Asked
from federation.web.api.parameters import query_of
from federation.web.api.turns import Turns
from federation.web.forms import invalid_request

_BROKERS_PATHS = ("/oauth/", "/federation/", "/.well-known/")
_KNOWN = ("limit", "before", "outcome", "kind", "function", "shadow_role")
_OUTCOMES = ("all", "granted", "refused")
_KINDS = ("all", "exchange", "gateway", "other")
_LIMIT, _MOST = 50, 200
_NUMBER = re.compile(r"[1-9][0-9]{0,2}")
_FUNCTION = re.compile(r"[-A-Za-z0-9_.]{1,253}:[-A-Za-z0-9_.]{1,253}")
_NOTE = "This replica's trail; other replicas have their own."

Wanted = Callable[[StoredEvent], bool]


class AuditAnswer:
    """The endpoint's answer, from the journal in *folder* of the replica *host*."""

    def __init__(self, folder: Path, host: str, turns: Turns) -> None:
        self._folder = folder
        self._host = host
        self._turns = turns

    async def __call__(self, asked: Asked) -> bytes:
        """Answer a page of events, as JSON. Raises: Refusal with `invalid_request`."""
        given = query_of(asked.query, _KNOWN)
        limit = _limit(given.get("limit", str(_LIMIT)))
        wanted = _wanted(given)
        cursor = self._cursor(given.get("before"))
        return await self._turns.run(asked.person, self._page, cursor, limit, wanted)

    def _page(self, cursor: Cursor, limit: int, wanted: Wanted) -> bytes:
        found = page(self._folder, cursor, limit, wanted)
        members = {"events": found.events, "next": found.next, "replica": self._host}
        return dumps(members | {"note": _NOTE})

    def _cursor(self, text: str | None) -> Cursor:
        trail = hashlib.sha256(self._host.encode()).hexdigest()[:12]
        if text is None:
            return Cursor(trail)
        try:
            return Cursor.of(text, trail)
        except ValueError as error:
            raise invalid_request(
                "before is no cursor of this replica's trail. Ask again without it."
            ) from error


def _limit(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > _MOST:
        raise invalid_request(f"limit must be a number from 1 to {_MOST}.")
    return int(text)


def _wanted(given: Mapping[str, str]) -> Wanted:
    """Return the test of an event by the filters in the query."""
    outcome = _one_of("outcome", given, _OUTCOMES)
    kind = _one_of("kind", given, _KINDS)
    function, shadow_role = given.get("function", ""), given.get("shadow_role", "")
    if function and not _FUNCTION.fullmatch(function):
        raise invalid_request("function must be <namespace>:<function>.")

    def wanted(event: StoredEvent) -> bool:
        return (
            (outcome == "all" or (outcome == "granted") == _granted(event))
            and kind in {"all", _kind(event)}
            # Calls of functions have no regard to case, and no two functions differ by it alone.
            and (not function or str(event.get("resource")).lower() == function.lower())
            and (not shadow_role or may_name_shadow_role(event, shadow_role))
        )

    return wanted


def _one_of(name: str, given: Mapping[str, str], known: tuple[str, ...]) -> str:
    value = given.get(name, known[0])
    if value not in known:
        raise invalid_request(f"{name} must be one of {', '.join(known)}.")
    return value


def _granted(event: StoredEvent) -> bool:
    status = event.get("response_code")
    return isinstance(status, int) and status < 400 and not event.get("reason")


def _kind(event: StoredEvent) -> str:
    path = str(event.get("path"))
    if path == EXCHANGE_PATH:
        return "exchange"
    return "other" if path.startswith(_BROKERS_PATHS) else "gateway"
