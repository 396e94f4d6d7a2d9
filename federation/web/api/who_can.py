"""
`GET /federation/v1/who-can`: which Roles give an access, or with `role` what a Role gives.

It is the answer of `federation who-can --format json`, by the documents in force.
"""

from __future__ import annotations

from collections.abc import Mapping

from federation.documents.catalog import Catalog
from federation.jose.strict_json import dumps
from federation.policy.permissions import Access
from federation.policy.who_can import what_can, who_can
from federation.text import quoted
from federation.web.api.endpoint import Asked
from federation.web.api.parameters import query_of
from federation.web.api.turns import Turns
from federation.web.forms import invalid_request

_TEXT_CHARS = 600


class WhoCanAnswer:
    """The endpoint's answer."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def __call__(self, asked: Asked) -> bytes:
        """Answer the question in the query, as JSON. Raises: Refusal with `invalid_request`."""
        given = query_of(asked.query, ("action", "resource", "role"))
        if given.keys() == {"role"}:
            return await self._turns.run(asked.person, _of_role, asked.catalog, given["role"])
        if given.keys() != {"action", "resource"}:
            raise invalid_request("Ask with action and resource, or with role.")
        return await self._turns.run(asked.person, _of_access, asked.catalog, _access(given))


def _access(given: Mapping[str, str]) -> Access:
    action, resource = given["action"], given["resource"]
    try:
        return Access.parse(action, resource)
    except ValueError as error:
        said = str(error) if len(action) + len(resource) <= _TEXT_CHARS else "it is too long"
        raise invalid_request(f"{said}.") from error


def _of_access(catalog: Catalog, access: Access) -> bytes:
    return dumps(who_can(catalog, access).as_json())


def _of_role(catalog: Catalog, name: str) -> bytes:
    try:
        return dumps(what_can(catalog, name).as_json())
    except KeyError as error:
        raise invalid_request(f"No Role is called {quoted(name)}.") from error
