"""The page that shows how replicas become ready, until they are or some minutes have passed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from markupsafe import Markup
from starlette.responses import Response

from federation.dashboard.gateway import Function, Place
from federation.dashboard.pages.function import path_of, place_of
from federation.dashboard.pages.streaming import MOST_SECONDS, growing, stamp
from federation.dashboard.pages.visit import Visit, shows

_LOOK_SECONDS = 2.0


@shows("functions")
async def scaling(visit: Visit) -> Response:
    """Show a line for each change of the number of ready replicas."""
    place = place_of(visit.request)
    found = await visit.gateway.function(visit.token, place)
    page = await visit.page(
        "scaling.html", function=found, base=path_of(place), minutes=int(MOST_SECONDS // 60)
    )
    return growing(visit, page, _progress(visit, place, found))


async def _progress(visit: Visit, place: Place, function: Function) -> AsyncIterator[Markup]:
    told = None
    while True:
        now = function.available, function.replicas
        if now != told:
            yield _line(visit, function)
            told = now
        if not function.scaling:
            yield Markup('<p class="log-end" role="status">{}</p>').format(_done(function))
            return
        await asyncio.sleep(_LOOK_SECONDS)
        function = await visit.gateway.function(visit.token, place)


def _line(visit: Visit, function: Function) -> Markup:
    return Markup(
        '<p>{}{} of {} ready <progress max="{}" value="{}" aria-hidden="true"></progress></p>'
    ).format(
        stamp(visit.now),
        function.available,
        function.replicas,
        max(function.replicas, 1),
        min(function.available, function.replicas),
    )


def _done(function: Function) -> str:
    return "The function is stopped." if not function.replicas else "All replicas are ready."
