"""The addresses of the dashboard's pages."""

from __future__ import annotations

from starlette.routing import Route

from federation.dashboard.pages import (
    assets,
    documents,
    events,
    function,
    functions,
    invoke,
    logs,
    scaling,
    what_if,
    who_can,
    you,
)

_FUNCTION = "/functions/{namespace}/{name}"


def routes() -> list[Route]:
    """A route for each page and each form."""
    return [
        Route("/", you.you),
        Route("/functions", functions.functions),
        Route(_FUNCTION, function.function),
        Route(f"{_FUNCTION}/scale", function.scale, methods=["POST"]),
        Route(f"{_FUNCTION}/scaling", scaling.scaling),
        Route(f"{_FUNCTION}/delete", function.confirm),
        Route(f"{_FUNCTION}/delete", function.delete, methods=["POST"]),
        Route(f"{_FUNCTION}/invoke", invoke.ask),
        Route(f"{_FUNCTION}/invoke", invoke.invoke, methods=["POST"]),
        Route(f"{_FUNCTION}/logs", logs.logs),
        Route("/events", events.events),
        Route("/events/{event_id}", events.event),
        Route("/documents", documents.documents),
        Route("/documents/{kind}/{name:path}", documents.document),
        Route("/what-if", what_if.ask),
        Route("/what-if", what_if.answer, methods=["POST"]),
        Route("/who-can", who_can.who_can),
        Route("/style.css", assets.style),
        Route("/icon.svg", assets.icon),
    ]
