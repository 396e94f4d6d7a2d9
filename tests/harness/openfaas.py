"""
A sample upstream: the API of an OpenFaaS gateway, in memory, with several namespaces.

It gives the answers of the real gateway, odd ones included. It also reads requests as a Go server
does, so that a request that slips past the broker has its effect here: names in a JSON body match
in any case, and the last of two equal ones counts; of two equal query parameters the first counts,
and for logs the last.

`python -m tests.harness.openfaas [NUMBER]` serves it on a free port, with so many functions.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import socket
import sys
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

USER, PASSWORD = "admin", "the-upstreams-own"
DEFAULT_NAMESPACE = "openfaas-fn"
_KEPT_REQUESTS = 1000
_KEPT_BODY_BYTES = 64 * 1024
_KEPT_LINES = 1000
_LISTEN_SECONDS = 1.0
_ECHO_BYTES = 1024 * 1024
_PIECE_BYTES = 64 * 1024
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

Members = dict[str, object]
Place = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it arrived, with the first 64 KiB of its body."""

    method: str
    target: bytes
    """Path and query, still encoded."""
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytearray = field(repr=False, default_factory=bytearray)

    @property
    def is_probe(self) -> bool:
        """True if the broker itself asks how the gateway is."""
        return (b"user-agent", b"federation-health-check") in self.headers


@dataclass(slots=True)
class Function:
    """A deployed function: its deployment, its counters and its log."""

    deployment: Members
    replicas: int = 1
    invocations: int = 0
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    lines: deque[tuple[datetime, str]] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    listeners: set[asyncio.Queue[tuple[datetime, str]]] = field(default_factory=set)

    def log(self, text: str) -> None:
        """Add a line to the log, and send it to all who follow the log."""
        line = datetime.now(UTC), text
        self.lines.append(line)
        for listener in self.listeners:
            if not listener.full():
                listener.put_nowait(line)

    def status(self, place: Place, *, usage: bool = False) -> Members:
        """The function as the API shows it."""
        namespace, name = place
        described = {k: v for k, v in self.deployment.items() if k not in {"service", "namespace"}}
        return {
            "name": name,
            "namespace": namespace,
            **described,
            "invocationCount": self.invocations,
            "replicas": self.replicas,
            "availableReplicas": self.replicas,
            "createdAt": _rfc3339(self.created),
            **({"usage": {"cpu": 0.5, "totalMemoryBytes": 4_194_304}} if usage else {}),
        }


class SampleUpstream:
    """An OpenFaaS gateway in memory, for the holder of `USER` and `PASSWORD`."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Members] = {
            name: {"name": name, "annotations": {}, "labels": {"openfaas": "1"}}
            for name in (DEFAULT_NAMESPACE, "dev", "staging")
        }
        self.functions: dict[Place, Function] = {}
        self.secrets: dict[Place, str] = {}
        self.received: deque[Received] = deque(maxlen=_KEPT_REQUESTS)
        self.following = 0
        """The number of open log streams."""

    @property
    def app(self) -> Starlette:
        """The gateway as an ASGI application."""
        app = Starlette(
            routes=[
                Route("/system/functions", self._list, methods=["GET"]),
                Route("/system/functions", self._deploy, methods=["POST"]),
                Route("/system/functions", self._update, methods=["PUT"]),
                Route("/system/functions", self._delete, methods=["DELETE"]),
                Route("/system/function/{name}", self._describe, methods=["GET"]),
                Route("/system/scale-function/{name}", self._scale, methods=["POST"]),
                Route("/system/logs", self._logs, methods=["GET"]),
                Route("/system/secrets", self._list_secrets, methods=["GET"]),
                Route("/system/secrets", self._create_secret, methods=["POST"]),
                Route("/system/secrets", self._update_secret, methods=["PUT"]),
                Route("/system/secrets", self._delete_secret, methods=["DELETE"]),
                Route("/system/namespaces", self._list_namespaces, methods=["GET"]),
                Route("/system/namespace/", self._create_namespace, methods=["POST"]),
                Route("/system/namespace/{name}", self._get_namespace, methods=["GET"]),
                Route("/system/namespace/{name}", self._update_namespace, methods=["PUT"]),
                Route("/system/namespace/{name}", self._delete_namespace, methods=["DELETE"]),
                Route("/system/info", self._info, methods=["GET"]),
                Route("/healthz", self._healthz),
                Route("/function/{function}", self._invoke, methods=_METHODS),
                Route("/function/{function}/{rest:path}", self._invoke, methods=_METHODS),
                Route("/async-function/{function}", self._queue, methods=["POST"]),
                Route("/async-function/{function}/{rest:path}", self._queue, methods=["POST"]),
            ],
            middleware=[Middleware(_BasicAuth, self.received.append)],
            exception_handlers={_Answered: _answer},
        )
        app.router.redirect_slashes = False
        return app

    # -- functions

    async def _list(self, request: Request) -> Response:
        namespace = self._known(_first(request, "namespace"))
        return JSONResponse([f.status(p) for p, f in self.functions.items() if p[0] == namespace])

    async def _deploy(self, request: Request) -> Response:
        members = await _members(request)
        place = self._place(members, "service")
        if place in self.functions:
            raise _Answered(409, f"function {place[1]} already exists")
        self.functions[place] = Function(_shown(members))
        self.functions[place].log(f"deployed {place[1]}")
        return Response(status_code=202)

    async def _update(self, request: Request) -> Response:
        members = await _members(request)
        place = self._place(members, "service")
        function = self._function(place)
        function.deployment = _shown(members)
        function.log(f"updated {place[1]}")
        return Response(status_code=202)

    async def _delete(self, request: Request) -> Response:
        place = self._place(await _members(request), "functionName")
        self._function(place)
        del self.functions[place]
        return Response(status_code=202)

    async def _describe(self, request: Request) -> Response:
        place = self._known(_first(request, "namespace")), request.path_params["name"]
        usage = _first(request, "usage") == "1"
        return JSONResponse(self._function(place).status(place, usage=usage))

    async def _scale(self, request: Request) -> Response:
        members = await _members(request)
        replicas = members.get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            raise _Answered(400, "cannot parse the request")
        # The real gateway raises 0 to 1 on the way.
        self._function(self._place(members, "serviceName")).replicas = max(1, replicas)
        return Response(status_code=202)

    # -- logs

    async def _logs(self, request: Request) -> Response:
        place = self._known(_last(request, "namespace")), _last(request, "name")
        function = self.functions.get(place)
        if function is None:
            raise _Answered(501, f"no logs for {place[1]}")  # the real gateway says 501, not 404
        try:
            tail = int(_last(request, "tail") or -1)
            since = datetime.fromisoformat(_last(request, "since") or "0001-01-01T00:00:00+00:00")
        except ValueError:
            raise _Answered(422, "could not parse the log request") from None
        lines = [(when, text) for when, text in function.lines if when >= since]
        chosen = lines if tail <= 0 else lines[-tail:]
        follow = _last(request, "follow") in {"1", "t", "T", "true", "TRUE", "True"}
        return StreamingResponse(
            self._log_lines(place, function, chosen, request if follow else None),
            media_type="application/x-ndjson",
        )

    async def _log_lines(
        self,
        place: Place,
        function: Function,
        lines: list[tuple[datetime, str]],
        follower: Request | None,
    ) -> AsyncIterator[bytes]:
        if follower is None:
            for line in lines:
                yield _log_line(place, line)
            return
        news: asyncio.Queue[tuple[datetime, str]] = asyncio.Queue(_KEPT_LINES)
        function.listeners.add(news)
        self.following += 1
        try:
            for line in lines:
                yield _log_line(place, line)
            while self.functions.get(place) is function and not await follower.is_disconnected():
                try:
                    line = await asyncio.wait_for(news.get(), _LISTEN_SECONDS)
                except TimeoutError:
                    continue
                yield _log_line(place, line)
        finally:
            self.following -= 1
            function.listeners.discard(news)

    # -- secrets: the namespace is in the body, but for DELETE it is in the query

    async def _list_secrets(self, request: Request) -> Response:
        namespace = self._known(_first(request, "namespace"))
        return JSONResponse(
            [{"name": name, "namespace": ns} for ns, name in self.secrets if ns == namespace]
        )

    async def _create_secret(self, request: Request) -> Response:
        members = await _members(request)
        place = self._place(members, "name")
        if place in self.secrets:
            raise _Answered(409, f"secret {place[1]} already exists")
        self.secrets[place] = _secret_value(members)
        return Response(status_code=202)

    async def _update_secret(self, request: Request) -> Response:
        members = await _members(request)
        place = self._place(members, "name")
        self._secret(place)
        self.secrets[place] = _secret_value(members)
        return Response(status_code=202)

    async def _delete_secret(self, request: Request) -> Response:
        members = await _members(request)
        place = self._known(_first(request, "namespace")), str(members.get("name", ""))
        self._secret(place)
        del self.secrets[place]
        return Response(status_code=202)

    # -- namespaces

    async def _list_namespaces(self, _request: Request) -> Response:
        return JSONResponse(list(self.namespaces))

    async def _get_namespace(self, request: Request) -> Response:
        return JSONResponse(self.namespaces[self._known(request.path_params["name"])])

    async def _create_namespace(self, request: Request) -> Response:
        members = _labelled(await _members(request))
        name = str(members.get("name", ""))
        if not name or name in self.namespaces:
            raise _Answered(409 if name else 400, f"namespace {name} cannot be created")
        self.namespaces[name] = members
        return Response(status_code=201)

    async def _update_namespace(self, request: Request) -> Response:
        name, members = await self._same_namespace(request)
        self.namespaces[name] = members
        return Response(status_code=202)

    async def _delete_namespace(self, request: Request) -> Response:
        name, _ = await self._same_namespace(request)
        del self.namespaces[name]
        self.functions = {p: f for p, f in self.functions.items() if p[0] != name}
        self.secrets = {p: s for p, s in self.secrets.items() if p[0] != name}
        return Response(status_code=202)

    async def _same_namespace(self, request: Request) -> tuple[str, Members]:
        members = _labelled(await _members(request))
        name = self._known(request.path_params["name"])
        if members.get("name") != name:
            raise _Answered(400, "the name in the path and in the body differ")
        return name, members

    # -- the rest

    async def _info(self, _request: Request) -> Response:
        version = {"sha": "0000000", "release": "0.0.0-sample"}
        provider = {"provider": "sample", "version": version, "orchestration": "memory"}
        return JSONResponse(
            {
                "arch": "x86_64",
                "provider": provider,
                "version": {"commit_message": "A sample upstream", **version},
            }
        )

    async def _healthz(self, request: Request) -> Response:
        if request.method != "GET":
            return PlainTextResponse("Method Not Allowed", 405)
        return PlainTextResponse("OK")

    async def _invoke(self, request: Request) -> Response:
        """
        Answer with the first MiB of the request's body, or with `?bytes=` zero bytes.

        The body is read to its end first: most clients read no answer before they have sent it.
        """
        function = self._invoked(request)
        function.invocations += 1
        function.log(f"{request.method} {request.url.path}")
        echo, count = bytearray(), 0
        async for chunk in request.stream():
            count += len(chunk)
            echo += chunk[: _ECHO_BYTES - len(echo)]
        headers = {
            "Content-Type": request.headers.get("content-type", "application/octet-stream"),
            "X-Call-Id": str(uuid.uuid4()),
            "X-Received-Bytes": str(count),
        }
        size = request.query_params.get("bytes", "")
        if re.fullmatch("[0-9]{1,12}", size):
            return StreamingResponse(_zeros(int(size)), headers=headers)
        return Response(bytes(echo), headers=headers)

    async def _queue(self, request: Request) -> Response:
        function = self._invoked(request)
        await request.body()
        function.invocations += 1
        function.log(f"queued {request.url.path}")
        return Response(status_code=202, headers={"X-Call-Id": str(uuid.uuid4())})

    # -- finding things

    def _invoked(self, request: Request) -> Function:
        segment: str = request.path_params["function"]
        name, dot, namespace = segment.rpartition(".")
        place = (namespace, name) if dot else (DEFAULT_NAMESPACE, segment)
        return self._function(place)

    def _place(self, members: Members, member: str) -> Place:
        name = members.get(member.lower(), "")
        if not isinstance(name, str) or not name:
            raise _Answered(400, "the body lacks a name")
        return self._known(str(members.get("namespace", ""))), name

    def _known(self, namespace: str) -> str:
        named = namespace or DEFAULT_NAMESPACE
        if named not in self.namespaces:
            raise _Answered(400, "namespace not valid")
        return named

    def _function(self, place: Place) -> Function:
        if place not in self.functions:
            raise _Answered(404, f"function {place[1]} not found")
        return self.functions[place]

    def _secret(self, place: Place) -> None:
        if place not in self.secrets:
            raise _Answered(404, f"secret {place[1]} not found")


class _Answered(Exception):
    """A request that is answered with an error status and a text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def _answer(_request: Request, error: Exception) -> Response:
    assert isinstance(error, _Answered)
    return PlainTextResponse(error.text, error.status)


class _BasicAuth:
    """
    Middleware that records every request of a caller, and asks for basic auth under `/system`.

    The broker's own questions how the gateway is come at any time, and are not recorded.
    """

    def __init__(self, app: ASGIApp, record: Callable[[Received], None]) -> None:
        self._app = app
        self._expected = b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
        self._record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = _received(scope)
        if not received.is_probe:
            self._record(received)

        async def receive_recorded() -> Message:
            message = await receive()
            room = _KEPT_BODY_BYTES - len(received.body)
            received.body.extend(message.get("body", b"")[:room])
            return message

        given = dict(scope["headers"]).get(b"authorization", b"")
        if scope["path"].startswith("/system") and not hmac.compare_digest(given, self._expected):
            refusal = PlainTextResponse(
                "invalid credentials", 401, {"WWW-Authenticate": 'Basic realm="Restricted"'}
            )
            await refusal(scope, receive_recorded, send)
            return
        await self._app(scope, receive_recorded, send)


def _received(scope: Scope) -> Received:
    query: bytes = scope.get("query_string", b"")
    path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8")
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    return Received(scope["method"], target, tuple(scope["headers"]))


def _first(request: Request, parameter: str) -> str:
    return next(iter(request.query_params.getlist(parameter)), "")


def _last(request: Request, parameter: str) -> str:
    return next(reversed(request.query_params.getlist(parameter)), "")


async def _members(request: Request) -> Members:
    """The body's members as Go finds them: in any case, and the last of two equal names."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise _Answered(400, "cannot parse the request") from None
    if not isinstance(body, dict):
        raise _Answered(400, "cannot parse the request")
    return {member.casefold(): value for member, value in body.items()}


_SHOWN = (
    "image",
    "envProcess",
    "envVars",
    "constraints",
    "secrets",
    "labels",
    "annotations",
    "limits",
    "requests",
    "readOnlyRootFilesystem",
)


def _shown(members: Members) -> Members:
    return {name: members[name.lower()] for name in _SHOWN if name.lower() in members}


def _secret_value(members: Members) -> str:
    return str(members.get("rawvalue") or members.get("value") or "")


def _labelled(members: Members) -> Members:
    labels = members.get("labels")
    if not isinstance(labels, dict) or labels.get("openfaas") not in {"1", "true"}:
        raise _Answered(400, "the namespace must be labelled openfaas=1")
    return {"annotations": {}, **members}


def _log_line(place: Place, line: tuple[datetime, str]) -> bytes:
    namespace, name = place
    when, text = line
    message = {
        "name": name,
        "namespace": namespace,
        "instance": f"{name}-0",
        "timestamp": _rfc3339(when),
        "text": text,
    }
    return json.dumps(message).encode() + b"\n"


def _rfc3339(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


async def _zeros(size: int) -> AsyncIterator[bytes]:
    for start in range(0, size, _PIECE_BYTES):
        yield bytes(min(_PIECE_BYTES, size - start))


def main(functions: int) -> None:
    """Serve a gateway with so many functions in `dev`. `/test/…` is for the tests alone."""
    sample = SampleUpstream()
    for number in range(functions):
        image = f"registry.example.com/function-{number}:1"
        sample.functions["dev", f"function-{number}"] = Function({"image": image})

    async def state(_request: Request) -> Response:
        received = [f"{r.method} {r.target.decode('latin-1')}" for r in sample.received]
        headers = [
            [[name.decode("latin-1"), value.decode("latin-1")] for name, value in r.headers]
            for r in sample.received
        ]
        told = {"following": sample.following, "received": received, "headers": headers}
        return JSONResponse(told)

    async def reset(_request: Request) -> Response:
        sample.received.clear()
        sample.functions = {("dev", "figlet"): Function({"image": "registry.example.com/figlet:0"})}
        sample.functions["dev", "figlet"].log("deployed figlet")
        sample.secrets = {("dev", "s1"): "v0"}
        sample.namespaces.pop("dev2", None)
        return Response()

    app = Starlette(
        routes=[
            Route("/test/state", state),
            Route("/test/reset", reset, methods=["POST"]),
            Mount("/", sample.app),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(json.dumps({"event": "listening", "port": listener.getsockname()[1]}), flush=True)  # noqa: T201
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
