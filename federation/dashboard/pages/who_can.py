"""The page of the Roles that give an access, or of what one Role gives, and to whom."""

from __future__ import annotations

from starlette.responses import Response

from federation.dashboard.answers import RoleGives, WhoCan
from federation.dashboard.connection import NotTaken, NotThere
from federation.dashboard.pages.visit import Visit, shows
from federation.documents.model import ACTIONS
from federation.policy.permissions import Access

_SHOWN = 200


@shows("who-can")
async def who_can(visit: Visit) -> Response:
    """Show who may do an action on a resource, or what a Role gives."""
    action, resource, role = (visit.asked(name) for name in ("action", "resource", "role"))
    can: WhoCan | None = None
    gives: RoleGives | None = None
    trouble = ""
    try:
        if role:
            gives = await visit.broker.role_gives(visit.token, role)
        elif action or resource:
            Access.parse(action, resource or "*")
            can = await visit.broker.who_can(visit.token, (action, resource or "*"))
    except ValueError as error:
        trouble = f"{error}."
    except (NotTaken, NotThere) as error:
        trouble = error.sentence
    return await visit.page(
        "who_can.html",
        400 if trouble else 200,
        actions=sorted(ACTIONS),
        action=action,
        resource=resource,
        role=role,
        can=can,
        gives=gives,
        givers=can.roles[:_SHOWN] if can else [],
        trouble=trouble,
    )
