"""The page about the person: who they are, what they may do, and until when."""

from __future__ import annotations

from itertools import groupby

from starlette.responses import Response

from federation.dashboard.pages.visit import Visit, shows


@shows("you")
async def you(visit: Visit) -> Response:
    """Show who signed in, the Roles and policies, each statement in words, and the claims."""
    whoami = await visit.broker.whoami(visit.token)
    ordered = sorted(whoami.statements, key=lambda statement: statement.policy)
    return await visit.page(
        "you.html",
        whoami=whoami,
        policies=[
            (policy, list(statements))
            for policy, statements in groupby(ordered, key=lambda s: s.policy)
        ],
        claims=sorted(visit.session.claims.items()),
        session_ends=visit.session.expires,
    )
