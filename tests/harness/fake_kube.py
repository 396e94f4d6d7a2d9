"""
A Kubernetes API server for fast tests: lists, watches, discovery, and every way to fail.

It runs on the loop of the test, speaks plain HTTP, and takes no writes. `Cluster` in `kube` is a
real one.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from federation.documents.schema import API_VERSION, PLURALS, SPECS, Condition, Statement, Written
from federation.sources.kubernetes.access import Access
from federation.sources.kubernetes.connection import Connection
from federation.sources.kubernetes.mirror import Pace

NAMESPACE = "openfaas"
QUICK = Pace(watch=20, silence=30, first_pause=0.01, longest_pause=0.05, short_watch=0.0)
"""A pace for tests that cannot wait."""

Object = dict[str, Any]


class Answer(Exception):
    """An answer other than the right one, raised by a fault of a test."""

    def __init__(
        self, status: int, message: str = "no", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.body = {"kind": "Status", "code": status, "message": message}


class FakeKube:
    """The objects of one namespace, and the watches that run."""

    def __init__(self) -> None:
        self.url = ""
        self.token = "token"
        """The token that it takes."""
        self.objects: dict[str, dict[str, Object]] = {plural: {} for plural in PLURALS.values()}
        self.version = 100
        self.oldest = 0
        """The history before this version is gone: 410."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        """The paths and parameters of all requests."""
        self.lists: Counter[str] = Counter()
        self.watches: Counter[str] = Counter()
        self.fault: Callable[[str, Mapping[str, str]], None] = lambda _path, _params: None
        """Called for each request with its path and parameters; may raise an `Answer`."""
        self.silent = False
        """True: requests are taken, and never answered."""
        self.ends_watches = False
        """True: each watch ends in order as soon as it began."""
        self.resources = [*PLURALS.values(), *(f"{plural}/status" for plural in PLURALS.values())]
        self.openapi: Object = {"components": {"schemas": _schemas()}}
        self._history: list[tuple[int, str, str, Object]] = []
        self._grown = asyncio.Condition()
        self._streams: set[asyncio.StreamWriter] = set()

    def connection(self, read_token: Callable[[], str] | None = None) -> Connection:
        """A connection to it."""
        read = read_token or (lambda: self.token)
        return Connection(self.url, NAMESPACE, lambda: Access(self.url, token=read()))

    async def put(self, kind: str, name: str, spec: object = None, **more: Any) -> Object:
        """Create or replace an object. *more* are members beside its spec, such as a status."""
        plural = PLURALS[kind]
        before = self.objects[plural].get(name)
        self.version += 1
        changed = before is None or before["spec"] != spec
        made = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": before["metadata"]["uid"] if before else f"uid-{self.version}",
                "creationTimestamp": f"2026-01-01T00:00:{self.version % 60:02}Z",
                "generation": (before["metadata"]["generation"] if before else 0) + changed,
                "resourceVersion": str(self.version),
            },
            "spec": spec,
            **more,
        }
        self.objects[plural][name] = made
        await self._tell(plural, "MODIFIED" if before else "ADDED", made)
        return made

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object."""
        plural = PLURALS[kind]
        gone = self.objects[plural].pop(name)
        self.version += 1
        metadata = {**gone["metadata"], "resourceVersion": str(self.version)}
        await self._tell(plural, "DELETED", {**gone, "metadata": metadata})

    async def send(self, kind: str, event: Object) -> None:
        """Send *event* to the watches of *kind* as it is."""
        self.version += 1
        await self._tell(PLURALS[kind], str(event["type"]), event["object"])

    def cut(self) -> None:
        """Cut every connection."""
        for stream in tuple(self._streams):
            stream.transport.abort()

    def forget_history(self) -> None:
        """Answer 410 to everybody who wants to go on from a version of now or before."""
        self.version += 1
        self.oldest = self.version

    async def _tell(self, plural: str, what: str, item: Object) -> None:
        self._history.append((self.version, plural, what, item))
        async with self._grown:
            self._grown.notify_all()

    # HTTP

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._streams.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                line, *fields = head.decode().split("\r\n")
                headers = dict(field.lower().split(": ", 1) for field in fields if field)
                await reader.readexactly(int(headers.get("content-length", 0)))
                await self._respond(line, headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._streams.discard(writer)
            writer.close()

    async def _respond(
        self, line: str, headers: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        method, target, _version = line.split(" ")
        url = urlsplit(target)
        params = dict(parse_qsl(url.query))
        self.asked.append((url.path, params))
        if self.silent:
            await asyncio.Event().wait()
        try:
            if headers.get("authorization") != f"bearer {self.token}".lower():
                raise Answer(401, "Unauthorized")
            self.fault(url.path, params)
            if method != "GET":
                raise Answer(404, "nothing is written here")
            if params.get("watch"):
                await self._watch(url.path, params, writer)
            else:
                await _write(writer, 200, self._answer(url.path, params))
        except Answer as answer:
            await _write(writer, answer.status, answer.body, answer.headers)

    def _answer(self, path: str, params: Mapping[str, str]) -> Object:
        if path == f"/apis/{API_VERSION}":
            return {"kind": "APIResourceList", "resources": [{"name": n} for n in self.resources]}
        if path == f"/openapi/v3/apis/{API_VERSION}":
            return self.openapi
        plural = path.rpartition("/")[2]
        if plural not in self.objects:
            raise Answer(404, "not found")
        return self._list(plural, params)

    def _list(self, plural: str, params: Mapping[str, str]) -> Object:
        self.lists[plural] += "continue" not in params
        names = sorted(self.objects[plural])
        start, version = (int(n) for n in params.get("continue", f"0.{self.version}").split("."))
        if version < self.oldest:
            raise Answer(410, "the continue token is too old")
        end = start + int(params["limit"])
        more = {"continue": f"{end}.{version}"} if end < len(names) else {}
        return {
            "metadata": {"resourceVersion": str(version), **more},
            "items": [self.objects[plural][name] for name in names[start:end]],
        }

    async def _watch(
        self, path: str, params: Mapping[str, str], writer: asyncio.StreamWriter
    ) -> None:
        plural = path.rpartition("/")[2]
        self.watches[plural] += 1
        seen = int(params["resourceVersion"])
        if seen < self.oldest:
            raise Answer(410, "too old resource version")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        told = 0
        try:
            seconds = 0 if self.ends_watches else int(params["timeoutSeconds"])
            async with asyncio.timeout(seconds):
                while True:
                    for version, of, what, item in self._history[told:]:
                        if of == plural and version > seen:
                            line = json.dumps({"type": what, "object": item}).encode() + b"\n"
                            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                    told = len(self._history)
                    await writer.drain()
                    async with self._grown:
                        await self._grown.wait_for(lambda: len(self._history) > told)  # noqa: B023
        except TimeoutError:
            writer.write(b"0\r\n\r\n")


async def _write(
    writer: asyncio.StreamWriter,
    status: int,
    body: Object,
    headers: Mapping[str, str] | None = None,
) -> None:
    text = json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(text))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in {**fields, **(headers or {})}.items())
    writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + text)
    await writer.drain()


def _schemas() -> Object:
    """The schemas of our own CRDs, as far as the names of fields go."""
    return {
        f"com.openfaas.iam.v1.{kind}": {
            "x-kubernetes-group-version-kind": [
                {"group": API_VERSION.split("/")[0], "version": "v1", "kind": kind}
            ],
            "properties": {"spec": _fields(SPECS[kind])},
        }
        for kind in PLURALS
    }


def _fields(model: type[Written]) -> Object:
    inner: dict[str, Object] = {
        "condition": {"properties": {name: {} for name in Condition.names()}}
    }
    if "statement" in model.names():
        inner["statement"] = {"items": _fields(Statement)}
    return {"properties": {name: inner.get(name, {}) for name in model.names()}}


@asynccontextmanager
async def fake_kube() -> AsyncIterator[FakeKube]:
    """Run a fake API server inside the block."""
    kube = FakeKube()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(kube.serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    kube.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield kube
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
