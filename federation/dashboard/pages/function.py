"""The page of one function: its facts, and what the person may do with it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from federation.dashboard.answers import Decision, Event
from federation.dashboard.connection import BrokerError, NotTaken
from federation.dashboard.gateway import Place
from federation.dashboard.pages.visit import Visit, does, given, shows
from federation.web.forms import Form

_ACTIONS = ("Function:Logs", "Function:Invoke", "Function:Scale", "Function:Delete")
_DEPLOYS = frozenset({"Function:Create", "Function:Update"})
_MOST_REPLICAS = 1000


def place_of(request: Request) -> Place:
    """The function that a page's address names. Raises: NotThere."""
    return Place.of(request.path_params["namespace"], request.path_params["name"])


def path_of(place: Place) -> str:
    """The address of a function's page. Its names have passed `Place.of`."""
    return f"/functions/{place.namespace}/{place.name}"


async def permissions(visit: Visit, place: Place) -> dict[str, Decision]:
    """The decision about each action on *place*, under `logs`, `invoke`, `scale` and `delete`."""
    asked = {action: (action, place.resource) for action in _ACTIONS}
    may = await visit.may(*asked.values())
    return {action.partition(":")[2].lower(): may[access] for action, access in asked.items()}


@shows("functions")
async def function(visit: Visit) -> Response:
    """Show a function."""
    place = place_of(visit.request)
    found = await visit.gateway.function(visit.token, place)
    return await visit.page(
        "function.html",
        function=found,
        base=path_of(place),
        may=await permissions(visit, place),
        deployed=await _last_deployment(visit, place),
        reads_audit=await visit.reads_audit(),
        most_replicas=_MOST_REPLICAS,
    )


@does("functions")
async def scale(visit: Visit, form: Form) -> Response:
    """Ask for the number of replicas that the form has, and show how they become ready."""
    place = place_of(visit.request)
    written = given(form, "replicas").strip()
    if not written.isdecimal() or not written.isascii() or int(written[:6]) > _MOST_REPLICAS:
        raise NotTaken(
            f"The number of replicas must be a whole number from 0 to {_MOST_REPLICAS}.",
            "Go back and write another number.",
        )
    await visit.gateway.scale(visit.token, place, int(written))
    return visit.go(f"{path_of(place)}/scaling")


@shows("functions")
async def confirm(visit: Visit) -> Response:
    """Ask once more before a function is deleted."""
    place = place_of(visit.request)
    found = await visit.gateway.function(visit.token, place)
    may = await permissions(visit, place)
    return await visit.page("delete.html", function=found, base=path_of(place), may=may)


@does("functions")
async def delete(visit: Visit, _form: Form) -> Response:
    """Delete a function, and go back to the others of its namespace."""
    place = place_of(visit.request)
    await visit.gateway.delete(visit.token, place)
    return visit.go("/functions", namespace=place.namespace, done=place.name)


async def _last_deployment(visit: Visit, place: Place) -> Event | None:
    if not await visit.reads_audit():
        return None
    try:
        recent = await visit.broker.audit(
            visit.token, kind="gateway", outcome="granted", function=place.resource, limit="50"
        )
    except BrokerError:
        return None
    return next((e for e in recent.events if not _DEPLOYS.isdisjoint(e.actions)), None)
