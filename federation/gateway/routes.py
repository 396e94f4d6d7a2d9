"""
The table of OpenFaaS API routes: maps a request to an action on a resource, and rewrites it.

A request that is not in the table is refused, and so is one that two programs could read
differently. Path, query and body are then written anew from what was read, so the upstream
receives exactly what was authorized and can read it in one way only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from types import MappingProxyType
from typing import ClassVar
from urllib.parse import quote_plus

from federation.gateway import bodies, values
from federation.gateway.bodies import Body
from federation.gateway.headers import Headers, check_body_headers
from federation.gateway.paths import FUNCTION_PATHS, check_function_path, plain, split_name
from federation.gateway.query import read_query
from federation.gateway.refusals import Ambiguous, Malformed, NotMapped, TooLarge
from federation.gateway.values import Reader
from federation.policy.permissions import Access

BODY_BYTES = 10 * 1024 * 1024
"""The largest JSON body that is read."""

_QUERY_BYTES = 16 * 1024


class Kind(StrEnum):
    """The ways to authorize and forward a call. Metrics name them so."""

    SYSTEM = "system"
    """The body is written anew, and the response passes as it comes."""
    NAMESPACES = "namespaces"
    """As SYSTEM, but `narrow` decides, and removes hidden namespaces from the response."""
    LOGS = "logs"
    """As SYSTEM, but the response may last for as long as the caller listens."""
    HEALTH = "health"
    """Public."""
    FUNCTION = "function"
    """Bodies stream both ways; the function's own path and query are kept."""
    ASYNC_FUNCTION = "async_function"
    """As FUNCTION, but the upstream responds before the function has run."""

    streams: bool
    """True if the request's body is for a function and is not read here."""

    def __init__(self, label: str) -> None:
        self.streams = label in {"function", "async_function"}


class On(Enum):
    """The scope of a route's resource."""

    NOTHING = auto()
    CLUSTER = auto()
    """`*`."""
    NAMESPACE = auto()
    """`<namespace>:*`. Secrets have it too, so that a grant on a function opens no secret."""
    ONE = auto()
    """`<namespace>:<name>`."""


_NAMESPACE: Mapping[str, Reader] = MappingProxyType({"namespace": values.namespace})
_LOGS: Mapping[str, Reader] = MappingProxyType(
    {
        "name": values.name,
        "namespace": values.namespace,
        "follow": values.truth,
        "tail": values.lines,
        "since": values.moment,
        "instance": values.name,
    }
)


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, and the action that they need."""

    method: str
    path: str
    """The last segment may be `{name}`, `{namespace}` or, for a function, `{function}`."""
    action: str | None
    """None for `Kind.HEALTH` alone."""
    on: On
    query: Mapping[str, Reader] = field(default_factory=dict)
    """The query parameters that are allowed."""
    body: Body | None = None
    namespace_sent: bool = False
    """True if the upstream gets the namespace in the query. A body that can hold it always does.
    For some calls one upstream reads the query and another the body, so they get both."""
    kind: Kind = Kind.SYSTEM

    @property
    def of_namespace(self) -> bool:
        """True if the object of the call is itself a namespace."""
        return self.path.startswith("/system/namespace/")


_ANY = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# fmt: off
TABLE: tuple[Route, ...] = (
    # -- functions
    Route("GET",    "/system/functions",             "Function:List",    On.NAMESPACE, _NAMESPACE, None,              True),
    Route("POST",   "/system/functions",             "Function:Create",  On.ONE,       _NAMESPACE, bodies.DEPLOYMENT),
    Route("PUT",    "/system/functions",             "Function:Update",  On.ONE,       _NAMESPACE, bodies.DEPLOYMENT),
    Route("DELETE", "/system/functions",             "Function:Delete",  On.ONE,       _NAMESPACE, bodies.DELETION,   True),
    Route("GET",    "/system/function/{name}",       "Function:Get",     On.ONE,       {**_NAMESPACE, "usage": values.flag}, None, True),
    Route("POST",   "/system/scale-function/{name}", "Function:Scale",   On.ONE,       _NAMESPACE, bodies.SCALING,    True),
    Route("GET",    "/system/logs",                  "Function:Logs",    On.ONE,       _LOGS,      None,              True, Kind.LOGS),
    # -- secrets
    Route("GET",    "/system/secrets",               "Secret:List",      On.NAMESPACE, _NAMESPACE, None,              True),
    Route("POST",   "/system/secrets",               "Secret:Create",    On.NAMESPACE, _NAMESPACE, bodies.SECRET),
    Route("PUT",    "/system/secrets",               "Secret:Update",    On.NAMESPACE, _NAMESPACE, bodies.SECRET),
    Route("DELETE", "/system/secrets",               "Secret:Delete",    On.NAMESPACE, _NAMESPACE, bodies.SECRET_NAME, True),
    # -- namespaces
    Route("GET",    "/system/namespaces",            "Namespace:List",   On.CLUSTER,   kind=Kind.NAMESPACES),
    Route("GET",    "/system/namespace/{namespace}", "Namespace:Get",    On.NAMESPACE),
    Route("PUT",    "/system/namespace/{namespace}", "Namespace:Update", On.NAMESPACE, body=bodies.NAMESPACE),
    Route("DELETE", "/system/namespace/{namespace}", "Namespace:Delete", On.NAMESPACE, body=bodies.NAMESPACE),
    Route("POST",   "/system/namespace/",            "Namespace:Create", On.NAMESPACE, body=bodies.NAMESPACE),
    # -- the rest
    Route("GET",    "/system/info",                  "System:Info",      On.CLUSTER),
    Route("GET",    "/healthz",                      None,               On.NOTHING,   kind=Kind.HEALTH),
    Route("HEAD",   "/healthz",                      None,               On.NOTHING,   kind=Kind.HEALTH),
    # -- calling functions; more path may follow
    *(Route(method, "/function/{function}",          "Function:Invoke",  On.ONE,       kind=Kind.FUNCTION) for method in _ANY),
    Route("POST",   "/async-function/{function}",    "Function:Invoke",  On.ONE,       kind=Kind.ASYNC_FUNCTION),
)
# fmt: on

# By the bytes of the request line: such a path is plain, whatever else is.
_EXACT = {
    (route.method, route.path.encode("ascii")): route for route in TABLE if "{" not in route.path
}
_BELOW = {
    (route.method, route.path.partition("{")[0]): route for route in TABLE if "{" in route.path
}
_NOT_MAPPED = "This method and path are not offered here."


@dataclass(frozen=True, slots=True)
class Match:
    """A request whose method, path, query and body headers passed. Its body is still unread."""

    route: Route
    name: str = ""
    namespace: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    function_path: str = ""
    """The path below a function's name, as it came."""
    function_query: bytes = b""
    """A function's own query, as it came."""


@dataclass(frozen=True, slots=True)
class Call:
    """The access that a request asks for, and the one form in which it is forwarded."""

    kind: Kind
    access: Access
    method: str
    path: str
    query: bytes
    body: bytes | None = field(repr=False)
    """None if there is none, and if it streams."""

    @property
    def target(self) -> bytes:
        """Path and query as the request line has them."""
        return self.path.encode("ascii") + (b"?" + self.query if self.query else b"")


@dataclass(frozen=True, slots=True)
class HealthCall:
    """The upstream's health check. It is public, so there is no access to ask for."""

    kind: ClassVar[Kind] = Kind.HEALTH
    method: ClassVar[str] = "GET"  # the upstream answers HEAD with 405
    path: ClassVar[str] = "/healthz"
    query: ClassVar[bytes] = b""
    target: ClassVar[bytes] = b"/healthz"
    body: ClassVar[None] = None


def match(
    method: str, raw_path: bytes, raw_query: bytes, headers: Headers, body_bytes: int = BODY_BYTES
) -> Match:
    """
    The route of a request, with the names from path and query.

    The headers must announce a body that the route takes; `read` then reads it.
    Raises: NotMapped, Ambiguous, Malformed, TooLarge.
    """
    if len(raw_query) > _QUERY_BYTES:
        raise TooLarge(f"The query is longer than {_QUERY_BYTES} bytes.")
    if raw_path.startswith(FUNCTION_PATHS):
        matched = _match_function(method, raw_path, raw_query)
    else:
        matched = _match_api(method, raw_path, raw_query)
    check_headers(matched.route, headers, body_bytes)
    return matched


def check_headers(route: Route, headers: Headers, body_bytes: int = BODY_BYTES) -> None:
    """
    Make sure that *headers* announce a body that *route* takes.

    Raises: Ambiguous, Malformed, TooLarge.
    """
    check_body_headers(
        headers, json=route.body is not None, streams=route.kind.streams, most_bytes=body_bytes
    )


def read(
    matched: Match, body: bytes, *, default_namespace: str, body_bytes: int = BODY_BYTES
) -> Call | HealthCall:
    """
    The call that *matched* asks for. *body* is the whole body if the route reads it, else empty.

    Raises: Ambiguous, Malformed, TooLarge.
    """
    route = matched.route
    if route.kind.streams:
        return _function_call(matched, default_namespace)
    given = _read_body(route, body, body_bytes)
    if route.action is None:
        return HealthCall()
    named = given.get(route.body.name) if route.body else None
    if route.of_namespace:
        namespace = name = _agreed("namespace", (matched.namespace, named))
    else:
        namespaces = matched.namespace, matched.query.get("namespace"), given.get("namespace")
        namespace = _agreed("namespace", namespaces) or default_namespace
        name = _agreed("name", (matched.name, matched.query.get("name"), named))
    if not name and (route.body or route.on is On.ONE):
        raise Malformed("The request does not name what it is about.")
    query = dict(matched.query)
    query.pop("namespace", None)
    if route.namespace_sent:
        query["namespace"] = namespace
    new_body = None
    if route.body:
        # `write` drops a member that the schema lacks: a namespace has no namespace.
        new_body = route.body.write({**given, route.body.name: name, "namespace": namespace})
    return Call(
        kind=route.kind,
        access=_access(route.action, route.on, namespace, name),
        method=route.method,
        path=route.path.format(name=name, namespace=namespace),
        query="&".join([f"{key}={quote_plus(query[key])}" for key in sorted(query)]).encode(
            "ascii"
        ),
        body=new_body,
    )


def _match_api(method: str, raw_path: bytes, raw_query: bytes) -> Match:
    route = _EXACT.get((method, raw_path))
    if route is not None:
        return Match(route, query=read_query(raw_query, route.query))
    above, _, last = plain(raw_path).rpartition("/")
    route = _BELOW.get((method, above + "/"))
    if route is None or not last:
        raise NotMapped(_NOT_MAPPED)
    query = read_query(raw_query, route.query)
    named = "The name in the path"
    if route.of_namespace:
        return Match(route, namespace=values.read(named, values.namespace, last), query=query)
    return Match(route, name=values.read(named, values.name, last), query=query)


def _agreed(what: str, places: Iterable[object]) -> str:
    """The one value in *places*, `""` if none has one."""
    given = {str(place) for place in places if place}
    if len(given) > 1:
        raise Ambiguous(f"The {what} is given in several places, and they differ.")
    return given.pop() if given else ""


def _read_body(route: Route, body: bytes, body_bytes: int) -> dict[str, object]:
    if route.body is None:
        if body:
            raise Malformed("This call takes no body.")
        return {}
    if len(body) > body_bytes:
        raise TooLarge(f"The body is larger than {body_bytes} bytes.")
    return route.body.read(body)


def _access(action: str, on: On, namespace: str, name: str) -> Access:
    if on is On.CLUSTER:
        return Access(action, "*", "*")
    return Access(action, namespace, name if on is On.ONE else "*")


# -- functions: the broker checks the name, everything below it is the function's own

_FUNCTION_QUERY = re.compile(rb"[!\"$-~]*")


def _match_function(method: str, raw_path: bytes, raw_query: bytes) -> Match:
    _, first, segment, *below = raw_path.split(b"/", 3)
    route = _BELOW.get((method, f"/{first.decode('ascii')}/"))
    if route is None or not segment:
        raise NotMapped(_NOT_MAPPED)
    function_path = b"/" + below[0] if below else b""
    check_function_path(function_path)
    if not _FUNCTION_QUERY.fullmatch(raw_query):
        raise Ambiguous("The query holds characters that must be percent-encoded.")
    function = plain(b"/" + segment)[1:]
    what = "The function's name or namespace in the path"
    name, namespace = values.read(what, split_name, function)
    return Match(
        route,
        name,
        namespace,
        function_path=function_path.decode("ascii"),
        function_query=raw_query,
    )


def _function_call(matched: Match, default_namespace: str) -> Call:
    route, namespace = matched.route, matched.namespace or default_namespace
    function = f"{matched.name}.{namespace}"
    return Call(
        kind=route.kind,
        access=Access("Function:Invoke", namespace, matched.name),
        method=route.method,
        path=route.path.format(function=function) + matched.function_path,
        query=matched.function_query,
        body=None,
    )
