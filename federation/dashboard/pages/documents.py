"""The documents in force: JwtIssuers, Policies and Roles, those with problems first."""

from __future__ import annotations

import json
from urllib.parse import quote

from starlette.responses import Response

from federation.dashboard.answers import Document
from federation.dashboard.connection import NotThere
from federation.dashboard.pages.visit import Pages, Visit, shows

KINDS = ("JwtIssuer", "Policy", "Role")
_PAGE = 100


@shows("documents")
async def documents(visit: Visit) -> Response:
    """Show every document, and what keeps newer ones from being in force."""
    answer = await visit.broker.documents(visit.token)
    kind, wanted = visit.asked("kind"), visit.asked("name").lower()
    matching = [
        document
        for document in answer.documents
        if kind in {"", document.kind} and wanted in document.name.lower()
    ]
    matching.sort(key=lambda d: (_gravity(d), d.kind, d.name))
    return await visit.page(
        "documents.html",
        degraded=answer.degraded,
        documents=Pages.of(matching, visit.number("page", 1, 10_000), _PAGE),
        every=len(answer.documents),
        with_problems=sum(bool(d.problems) for d in answer.documents),
        kinds=KINDS,
        kind=kind if kind in KINDS else "",
        wanted=visit.asked("name"),
        path_of=_path_of,
    )


@shows("documents")
async def document(visit: Visit) -> Response:
    """Show one document with its problems, as it is in force."""
    kind, name = visit.request.path_params["kind"], visit.request.path_params["name"]
    answer = await visit.broker.documents(visit.token)
    for each in answer.documents:
        if (each.kind, each.name) == (kind, name):
            spec = json.dumps(each.spec, indent=2, ensure_ascii=False)
            return await visit.page("document.html", document=each, spec=spec)
    raise NotThere("No document of this kind and name is in force.")


def _gravity(document: Document) -> int:
    """0 for a document with errors, 1 with warnings, 2 without problems."""
    severities = {problem.severity for problem in document.problems}
    return 0 if "error" in severities else 1 if severities else 2


def _path_of(document: Document) -> str:
    """The address of a document's page."""
    return f"/documents/{quote(document.kind, safe='')}/{quote(document.name, safe='')}"
