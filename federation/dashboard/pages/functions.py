"""The page of functions: what runs in the namespaces that the person may see."""

from __future__ import annotations

import asyncio

from starlette.responses import Response

from federation.dashboard.answers import Event, Whoami
from federation.dashboard.broker import MOST_ACCESSES, is_access
from federation.dashboard.connection import BrokerError, NotAllowed, NotThere, SignInAgain
from federation.dashboard.gateway import Function, Place
from federation.dashboard.pages.function import path_of
from federation.dashboard.pages.visit import Pages, Visit, shows

_PAGE = 100
_NAMESPACES = 20
"""Maximum number of namespaces on one page; with more, the person picks one."""
_EVENTS = "200"
_DEPLOYS = frozenset({"Function:Create", "Function:Update"})


@shows("functions")
async def functions(visit: Visit) -> Response:
    """Show the functions of one namespace or of all, filtered by name."""
    namespaces = await _namespaces(visit)
    chosen, wanted = visit.asked("namespace"), visit.asked("name").lower()
    if chosen not in namespaces:
        chosen = ""
    listed, unlisted = [chosen], list[str]()
    if not chosen:
        listed, unlisted = await _listable(visit, namespaces)
    found, troubles = await _functions(visit, listed[:_NAMESPACES])
    matching = [function for function in found if wanted in function.name.lower()]
    return await visit.page(
        "functions.html",
        namespaces=namespaces,
        left_out=len(listed) > _NAMESPACES,
        unlisted=unlisted,
        chosen=chosen,
        wanted=visit.asked("name"),
        functions=Pages.of(matching, visit.number("page", 1, 10_000), _PAGE),
        unfiltered=len(found),
        troubles=troubles,
        deployers=await _deployers(visit),
        reads_audit=await visit.reads_audit(),
        path_of=_path_of,
        done=_deleted(visit),
    )


def _deleted(visit: Visit) -> str:
    """The function that was just deleted, if the person comes from our own form."""
    # A link of another site could otherwise have this page say that any function is being deleted.
    foreign = visit.request.headers.get("sec-fetch-site") in {"cross-site", "same-site"}
    return "" if foreign else visit.asked("done")


def _path_of(function: Function) -> str:
    """The address of a function's page, empty if its names cannot stand in one."""
    try:
        return path_of(Place.of(function.namespace, function.name))
    except NotThere:
        return ""


async def _namespaces(visit: Visit) -> list[str]:
    """The namespaces that the gateway shows, or those that the person's own policies name."""
    try:
        return await visit.gateway.namespaces(visit.token)
    except NotAllowed:
        return _named_namespaces(await visit.broker.whoami(visit.token))


async def _listable(visit: Visit, namespaces: list[str]) -> tuple[list[str], list[str]]:
    """Those of *namespaces* whose functions the person may list, and the others."""
    asked = {name: ("Function:List", f"{name}:*") for name in namespaces[: MOST_ACCESSES - 2]}
    valid = {name: access for name, access in asked.items() if is_access(*access)}
    may = await visit.may(*valid.values())
    listable = [name for name, access in valid.items() if may[access].allowed]
    return listable, [name for name in namespaces if name not in listable]


def _named_namespaces(whoami: Whoami) -> list[str]:
    named = {
        resource.partition(":")[0]
        for statement in whoami.statements
        if statement.effect == "Allow" and statement.applies
        for resource in statement.resources
        if ":" in resource
    }
    return sorted(name for name in named if "*" not in name and "$" not in name)


async def _functions(visit: Visit, namespaces: list[str]) -> tuple[list[Function], list[str]]:
    """The functions of *namespaces*, and a sentence for each that could not be listed."""
    asked = (visit.gateway.functions(visit.token, namespace) for namespace in namespaces)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found: list[Function] = []
    troubles: list[str] = []
    for namespace, answer in zip(namespaces, answers, strict=True):
        if isinstance(answer, SignInAgain):
            raise answer
        if isinstance(answer, BrokerError):
            troubles.append(f"{namespace}: {answer.sentence}")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found += answer
    return sorted(found, key=lambda f: (f.namespace, f.name)), troubles


async def _deployers(visit: Visit) -> dict[str, Event]:
    """The last deployment of each function among the recent events of this replica."""
    if not await visit.reads_audit():
        return {}
    try:
        recent = await visit.broker.audit(
            visit.token, kind="gateway", outcome="granted", limit=_EVENTS
        )
    except BrokerError:
        return {}  # the trail adds a column; without it the page is still right
    return {
        event.resource: event
        for event in reversed(recent.events)
        if event.resource and not _DEPLOYS.isdisjoint(event.actions)
    }
