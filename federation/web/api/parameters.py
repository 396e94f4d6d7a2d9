"""
Reads what a request of the API asks for: a JSON body, or the parameters of a query.

Both are read strictly and are bounded, so that no two programs can read one request differently.
A body that is no `application/json` is refused: a browser lets a page of another origin send
forms and plain text without asking, but not JSON.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from starlette.types import Receive, Scope

from federation.jose.strict_json import loads_object
from federation.policy.permissions import Access
from federation.text import quoted
from federation.web.forms import header, invalid_request, parsed, whole_body

_JSON = "application/json"
_NAME = re.compile(r"[A-Za-z_-]{1,40}")
MOST_ACCESSES = 1000


async def json_body(scope: Scope, receive: Receive) -> Mapping[str, object]:
    """The JSON object in the body of a request. Raises: Refusal with `invalid_request`."""
    media_type = header(scope, b"content-type").partition(";")[0].strip().lower()
    if media_type != _JSON:
        raise invalid_request(f"The body must be JSON: Content-Type {_JSON}.")
    body = await whole_body(scope, receive)
    try:
        return loads_object(body)
    except ValueError as error:
        raise invalid_request("The body is not a well-formed JSON object.") from error


def no_query(scope: Scope) -> None:
    """Make sure that a request has no parameters in its URL. Raises: Refusal."""
    if scope["query_string"]:
        raise invalid_request("This path takes no parameters.")


def query_of(query: bytes, known: Collection[str]) -> Mapping[str, str]:
    """
    The parameters in a *query*, each at most once, none but the *known* ones.

    Raises: Refusal with `invalid_request`.
    """
    given = parsed(query, "The parameters in the URL are not well-formed.")
    for name, values in given.items():
        shown = name if _NAME.fullmatch(name) else "a parameter"
        if name not in known:
            raise invalid_request(f"{shown} is not known here; known: {', '.join(sorted(known))}.")
        if len(values) > 1:
            raise invalid_request(f"{shown} must not be given twice.")
    return {name: values[0] for name, values in given.items() if values[0]}


def check_members(value: Mapping[str, object], known: Collection[str], where: str) -> None:
    """Make sure that the object *value* has no other members. Raises: Refusal."""
    for name in value:
        if name not in known:
            raise invalid_request(f"{where} has no member {quoted(name)}.")


def accesses_in(body: Mapping[str, object]) -> Sequence[Access]:
    """
    The accesses in the member `access` of *body*, 1 to 1,000.

    Raises: Refusal with `invalid_request`.
    """
    written = body.get("access")
    if not isinstance(written, list) or not 1 <= len(written) <= MOST_ACCESSES:
        raise invalid_request(f"access must be a list of 1 to {MOST_ACCESSES} objects.")
    return [_access(each, f"access[{number}]") for number, each in enumerate(written)]


def _access(written: object, where: str) -> Access:
    match written:
        case {"action": str(action), "resource": str(resource), **others}:
            check_members({str(name): value for name, value in others.items()}, (), where)
        case _:
            raise invalid_request(f"{where} must have the strings action and resource.")
    try:
        return Access.parse(action, resource)
    except ValueError as error:
        said = str(error) if len(action) + len(resource) <= 600 else "it is too long"
        raise invalid_request(f"{where}: {said}.") from error
