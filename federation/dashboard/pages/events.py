"""
Recent events of the audit trail, and why one of them was refused.

The trail is that of the replica which answers, and the page says so. An event is explained by the
Roles that are in force now, with the function that decides an exchange.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.responses import Response

from federation.dashboard.answers import AuditPage, Event, Explanation
from federation.dashboard.connection import NotTaken, NotThere
from federation.dashboard.pages.visit import READ_AUDIT, READ_DOCUMENTS, Visit, shows

OUTCOMES: Mapping[str, str] = {"all": "All", "granted": "Granted", "refused": "Refused"}
KINDS: Mapping[str, str] = {
    "all": "All",
    "exchange": "Token exchanges",
    "gateway": "Gateway requests",
    "other": "Other",
}
_PAGE = 50
_SEARCH_PAGES = 5
_SEARCH_LIMIT = "200"
_EVENT_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_CURSOR = re.compile(r"[\x21-\x7e]{1,300}")


@shows("events")
async def events(visit: Visit) -> Response:
    """Show the newest events, filtered, and the way to older ones."""
    outcome, kind = _one_of(visit, "outcome", OUTCOMES), _one_of(visit, "kind", KINDS)
    function, shadow_role = visit.asked("function"), visit.asked("shadow_role")
    filters = {"outcome": outcome, "kind": kind, "function": function, "shadow_role": shadow_role}
    before = _cursor(visit, "before")
    page, trouble = AuditPage(events=[]), ""
    try:
        page = await visit.broker.audit(
            visit.token,
            limit=str(_PAGE),
            before=before,
            **filters,
        )
    except NotTaken as error:
        trouble = error.sentence  # most often, the function was not written as it must be
    return await visit.page(
        "events.html",
        page=page,
        trouble=trouble,
        outcomes=OUTCOMES,
        kinds=KINDS,
        filters=filters,
        filtered=any(value not in {"", "all"} for value in filters.values()),
        before=before,
        older=f"/events?{urlencode({**filters, 'before': page.next})}" if page.next else "",
        newest=f"/events?{urlencode(filters)}",
        hint=f"?{urlencode({'at': before})}" if before else "",
    )


@shows("events")
async def event(visit: Visit) -> Response:
    """Show one event and, where it holds claims, what each Role says about them."""
    event_id = str(visit.request.path_params["event_id"])
    if not _EVENT_ID.fullmatch(event_id):
        raise NotThere("No event has this id.")
    explanation, trouble = await _explanation(visit, event_id)
    found = explanation.event if explanation else None
    found = found or await _find(visit, event_id)
    return await visit.page(
        "event.html",
        event=found,
        explanation=explanation,
        trouble=trouble if found.is_exchange else "",
        reads_documents=(await visit.may())[READ_DOCUMENTS].allowed,
        who_can=_who_can(found),
    )


async def _explanation(visit: Visit, event_id: str) -> tuple[Explanation | None, str]:
    """Return the explanation of the event's token, or the reason why there is none."""
    may = await visit.may()
    if not (may[READ_DOCUMENTS].allowed and may[READ_AUDIT].allowed):
        return None, ""
    try:
        return await visit.broker.explain_event(visit.token, event_id), ""
    except NotTaken as error:  # it is no exchange, or it keeps no claims
        return None, error.sentence


async def _find(visit: Visit, event_id: str) -> Event:
    """The event, from where the list had it or from the newest ones. Raises: NotThere."""
    before = _cursor(visit, "at")
    for _ in range(_SEARCH_PAGES):
        page = await visit.broker.audit(visit.token, limit=_SEARCH_LIMIT, before=before)
        for each in page.events:
            if each.event_id == event_id:
                return each
        if not page.next:
            break
        before = page.next
    raise NotThere(
        "This event is not among the recent ones of this replica.",
        "Another replica may have recorded it, or it is too old. Look for it in the webhook's log.",
    )


def _who_can(event: Event) -> str:
    """The page that says which Roles give what a refused gateway request asked for."""
    if event.is_exchange or not event.actions:
        return ""
    resource = event.resource or (f"{event.namespace}:*" if event.namespace else "*")
    return f"/who-can?{urlencode({'action': event.actions[0], 'resource': resource})}"


def _one_of(visit: Visit, name: str, known: Mapping[str, str]) -> str:
    given = visit.asked(name)
    return given if given in known else "all"


def _cursor(visit: Visit, name: str) -> str:
    """Return the broker's cursor where older events begin; empty for the newest."""
    given = visit.asked(name)
    return given if _CURSOR.fullmatch(given) else ""
