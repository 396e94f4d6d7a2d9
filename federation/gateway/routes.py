"""
What a request asks for: method and path, query and body, as an action on a resource.

One table says it all. A request that is not in the table is refused, and so is one that two
programs could read differently. What is understood is then written afresh, path, query and
body: the upstream receives what was decided about, and can read it in one way only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType

from federation.gateway import bodies, values
from federation.gateway.bodies import Body
from federation.gateway.headers import Headers, check_body_headers
from federation.gateway.paths import check_rest, function_name, plain
from federation.gateway.query import read_query, write_query
from federation.gateway.refusals import Ambiguous, Malformed, NotMapped, TooLarge
from federation.gateway.values import Reader
from federation.policy.permissions import Access

__all__ = ["BODY_BYTES", "TABLE", "Call", "Kind", "Match", "On", "Route", "match", "read"]

BODY_BYTES = 10 * 1024 * 1024
"""The largest JSON body that is read."""

_QUERY_BYTES = 16 * 1024


class Kind(Enum):
    """How a call is carried out, once it is allowed."""

    SYSTEM = auto()
    """Forwarded with a rebuilt body, answered in one piece."""
    NAMESPACES = auto()
    """As SYSTEM; whether it may be asked, and what of the answer is shown, says `narrow`."""
    LOGS = auto()
    """As SYSTEM; the answer may go on for as long as the caller listens."""
    HEALTH = auto()
    """Anybody may ask."""
    FUNCTION = auto()
    """Bodies stream both ways; the caller's own query and path below the name are kept."""
    ASYNC_FUNCTION = auto()
    """As FUNCTION; the upstream answers before the function has run."""

    @property
    def streams(self) -> bool:
        """Whether the request's body belongs to a function and is not read here."""
        return self is Kind.FUNCTION or self is Kind.ASYNC_FUNCTION


class On(Enum):
    """Where a route's resource stands."""

    NOTHING = auto()
    CLUSTER = auto()
    """`*`."""
    NAMESPACE = auto()
    """`<namespace>:*`. Also for secrets, so that a grant on a function opens no secret."""
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
    """A method and a path, and what they stand for."""

    method: str
    path: str
    """Its last segment may be `{name}`, `{namespace}` or, for a function, `{function}`."""
    action: str | None
    on: On
    query: Mapping[str, Reader] = field(default_factory=dict)
    """The parameters that it may have."""
    body: Body | None = None
    namespace_sent: bool = False
    """Whether the namespace is sent on in the query. It always is in the body, if there is one
    that has it; for some calls one upstream reads the one, another the other."""
    kind: Kind = Kind.SYSTEM

    @property
    def of_namespace(self) -> bool:
        """Whether what it names is itself a namespace."""
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

_EXACT = {(route.method, route.path): route for route in TABLE if "{" not in route.path}
_BELOW = {
    (route.method, route.path.partition("{")[0]): route for route in TABLE if "{" in route.path
}
_FUNCTION_ROADS = (b"/function/", b"/async-function/")
_NOT_MAPPED = "This method and path are not offered here."


@dataclass(frozen=True, slots=True)
class Match:
    """A request whose method, path and query are in the table. Its body is still unread."""

    route: Route
    name: str = ""
    namespace: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    rest: str = ""
    """The path below a function's name, as it came."""
    raw_query: bytes = b""
    """A function's own query, as it came."""

    @property
    def reads_body(self) -> bool:
        """Whether `read` needs the whole body. If not, it streams or must not be there."""
        return self.route.body is not None


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for, and the one form in which it is sent on."""

    kind: Kind
    access: Access | None
    """None for `Kind.HEALTH` alone."""
    method: str
    path: str
    query: bytes
    body: bytes | None = field(repr=False)
    """None where there is none, and where it streams."""

    @property
    def target(self) -> bytes:
        """Path and query as the request line has them."""
        return self.path.encode("ascii") + (b"?" + self.query if self.query else b"")


def match(method: str, raw_path: bytes, raw_query: bytes) -> Match:
    """
    The route that *method* and *raw_path* stand for, with what the query says.

    Raises: NotMapped, Ambiguous, Malformed, TooLarge.
    """
    if len(raw_query) > _QUERY_BYTES:
        raise TooLarge(f"The query is longer than {_QUERY_BYTES} bytes.")
    if raw_path.startswith(_FUNCTION_ROADS):
        return _function_match(method, raw_path, raw_query)
    path = plain(raw_path)
    route = _EXACT.get((method, path))
    if route is not None:
        return Match(route, query=read_query(raw_query, route.query))
    above, _, last = path.rpartition("/")
    route = _BELOW.get((method, above + "/"))
    if route is None or not last:
        raise NotMapped(_NOT_MAPPED)
    query = read_query(raw_query, route.query)
    if route.of_namespace:
        return Match(route, namespace=_in_path(values.namespace, last), query=query)
    return Match(route, name=_in_path(values.name, last), query=query)


def read(
    matched: Match,
    headers: Headers,
    body: bytes | None,
    *,
    default_namespace: str,
    body_bytes: int = BODY_BYTES,
) -> Call:
    """
    What *matched* asks for, with *body*, the whole of it where the route reads one.

    Raises: Ambiguous, Malformed, TooLarge.
    """
    route = matched.route
    check_body_headers(
        headers, json=matched.reads_body, streams=route.kind.streams, most_bytes=body_bytes
    )
    if route.kind.streams:
        return _function_call(matched, default_namespace)
    given = _read_body(route, body or b"", body_bytes)
    named = route.body.name if route.body else ""
    names = matched.name, matched.query.get("name"), given.get(named)
    if route.of_namespace:
        namespace = name = _agreed("namespace", (matched.namespace, given.get(named)))
    else:
        namespaces = matched.namespace, matched.query.get("namespace"), given.get("namespace")
        namespace = _agreed("namespace", namespaces) or default_namespace
        name = _agreed("name", names)
    if not name and (route.body or route.on is On.ONE):
        raise Malformed("The request does not name what it is about.")
    return Call(
        kind=route.kind,
        access=_access(route, namespace, name),
        method="GET" if route.kind is Kind.HEALTH else route.method,
        path=route.path.format(name=name, namespace=namespace),
        query=_query(route, matched.query, namespace),
        body=_body(route, given, namespace, name),
    )


def _in_path(reader: Reader, segment: str) -> str:
    try:
        return str(reader(segment))
    except ValueError as error:
        raise Malformed(f"The name in the path {error}.") from None


def _agreed(what: str, places: Iterable[object]) -> str:
    """The one value that stands in any of *places*; `""` where none has one."""
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


def _access(route: Route, namespace: str, name: str) -> Access | None:
    if route.action is None:
        return None
    match route.on:
        case On.ONE:
            return Access(route.action, namespace, name)
        case On.NAMESPACE:
            return Access(route.action, namespace, "*")
        case _:
            return Access(route.action, "*", "*")


def _query(route: Route, given: Mapping[str, str], namespace: str) -> bytes:
    kept = {parameter: value for parameter, value in given.items() if parameter != "namespace"}
    return write_query(kept | ({"namespace": namespace} if route.namespace_sent else {}))


def _body(route: Route, given: Mapping[str, object], namespace: str, name: str) -> bytes | None:
    if route.body is None:
        return None
    # `write` leaves out what this kind of body has not: a namespace has no namespace.
    return route.body.write({**given, route.body.name: name, "namespace": namespace})


# -- functions: the name is ours, everything below it is the function's

_FUNCTION_QUERY = re.compile(rb"[!\"$-~]*")


def _function_match(method: str, raw_path: bytes, raw_query: bytes) -> Match:
    _, road, segment, *below = raw_path.split(b"/", 3)
    route = _BELOW.get((method, f"/{road.decode('ascii')}/"))
    if route is None or not segment:
        raise NotMapped(_NOT_MAPPED)
    rest = b"/" + below[0] if below else b""
    check_rest(rest)
    if not _FUNCTION_QUERY.fullmatch(raw_query):
        raise Ambiguous("The query holds characters that must be percent-encoded.")
    name, namespace = _function_in_path(plain(b"/" + segment)[1:])
    return Match(route, name, namespace, rest=rest.decode("ascii"), raw_query=raw_query)


def _function_in_path(segment: str) -> tuple[str, str]:
    try:
        return function_name(segment)
    except ValueError as error:
        raise Malformed(f"The function's name or namespace in the path {error}.") from None


def _function_call(matched: Match, default_namespace: str) -> Call:
    namespace = matched.namespace or default_namespace
    function = f"{matched.name}.{namespace}"
    return Call(
        kind=matched.route.kind,
        access=_access(matched.route, namespace, matched.name),
        method=matched.route.method,
        path=matched.route.path.format(function=function) + matched.rest,
        query=matched.raw_query,
        body=None,
    )
