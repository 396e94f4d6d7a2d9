"""The requests of the status writer to a Kubernetes API server: a Lease, statuses and Events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import ApiObject, Key, Standing, United, Verdict
from federation.documents.parse import Parsed
from federation.sources.kubernetes.access import Access
from federation.sources.kubernetes.connection import Connection
from federation.sources.kubernetes.source import Snapshot
from tests.harness import virtual_time

NAMESPACE = "openfaas"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/federation"
GOOD = Verdict(Standing.ACCEPTED, "It is in force.")
BAD = Verdict(Standing.REFUSED, "It is not in force.")

Object = dict[str, Any]


def an_object(name: str = "deployer", generation: int = 1, **more: Any) -> ApiObject:
    """A Role, as far as its status needs it."""
    facts: dict[str, Any] = {
        "kind": "Role",
        "uid": f"uid-of-{name}",
        "resource_version": "7",
        "created": "2026-01-01T00:00:00Z",
        "parsed": Parsed(),
    }
    return ApiObject(name=name, generation=generation, **(facts | more))


@dataclass
class Watched:
    """The snapshots of a source that sees each status at once, as long as `seeing`."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    seeing: bool = True
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def current(self) -> Snapshot:
        return self.snapshot

    async def changed(self, seen: Snapshot) -> Snapshot:
        while self.snapshot is seen:
            await self._changed.wait()
        return self.snapshot

    def put(self, found: ApiObject, verdict: Verdict = GOOD) -> None:
        """Add or change an object."""
        self.put_all({found.key: (found, verdict)})

    def put_all(self, objects: Mapping[Key, tuple[ApiObject, Verdict]]) -> None:
        """Add or change several objects at once."""
        before = self.snapshot
        self._replace(
            replace(
                before,
                united=United(
                    Catalog(),
                    {**before.united.verdicts, **{key: both[1] for key, both in objects.items()}},
                ),
                objects={**before.objects, **{key: both[0] for key, both in objects.items()}},
            )
        )

    def remove(self, key: Key) -> None:
        """Remove an object."""
        left = {each: found for each, found in self.snapshot.objects.items() if each != key}
        self._replace(replace(self.snapshot, objects=left))

    def set_status(self, key: Key, status: Mapping[str, object]) -> None:
        """Let it see that an object has *status*."""
        self._replace(
            replace(self.snapshot, statuses={**self.snapshot.statuses, key: dict(status)})
        )

    def _replace(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._changed.set()
        self._changed = asyncio.Event()


class WritesApi:
    """An API server with one Lease. *watched* sees the statuses that are written to it."""

    def __init__(self, watched: Watched | None = None) -> None:
        self.watched = watched or Watched()
        self.lease: Object | None = None
        self.statuses: list[tuple[float, str, Object]] = []
        """When each status was written, of which object, and what."""
        self.versions: list[str] = []
        """Of which version each object had to be."""
        self.events: list[Object] = []
        self.asked: list[tuple[float, str, str]] = []
        """When each request came, its method and its path."""
        self.at_once = 0
        self.most_at_once = 0
        self.takes_seconds = 0.0
        self.fault: Callable[[str, str], httpx2.Response | None] = lambda _method, _path: None
        """May answer a request instead, by its method and path."""
        self._version = 100

    def connection(self) -> Connection:
        return Connection(
            "http://kube.test",
            NAMESPACE,
            lambda: Access("http://kube.test", token="token"),
            transport=httpx2.MockTransport(self._handle),
        )

    def writes(self, path: str) -> int:
        """How many requests went to paths that end in *path*."""
        return sum(asked.endswith(path) for _, _, asked in self.asked)

    async def _handle(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.path
        self.asked.append((virtual_time.now(), request.method, path))
        answer = self.fault(request.method, path)
        if answer is not None:
            return answer
        body = json.loads(request.content) if request.content else {}
        if path == LEASE:
            return self._about_lease(request, body)
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(self.takes_seconds)
        finally:
            self.at_once -= 1
        if path.endswith("/status"):
            return self._write_status(request, body)
        self.events.append(body)
        return httpx2.Response(201, json=body)

    def _about_lease(self, request: httpx2.Request, body: Object) -> httpx2.Response:
        if request.method == "GET":
            return self._answer_lease() if self.lease else refusal(404)
        if "apply-patch" in request.headers["Content-Type"]:
            if self.lease is None:
                self.keep({"spec": body["spec"]})
            return self._answer_lease()
        if self.lease is None:
            return refusal(404)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return refusal(409)
        self.keep({"spec": {**self.lease["spec"], **body["spec"]}})
        return self._answer_lease()

    def keep(self, lease: Object) -> None:
        """Replace the Lease."""
        self._version += 1
        self.lease = {**lease, "metadata": {"resourceVersion": str(self._version)}}

    def remove_lease(self) -> None:
        """Delete the Lease."""
        self.lease = None

    def _answer_lease(self) -> httpx2.Response:
        return httpx2.Response(200, json=self.lease)

    def _write_status(self, request: httpx2.Request, body: Object) -> httpx2.Response:
        assert request.url.params["force"] == "true"
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        key = body["kind"], body["metadata"]["name"]
        if key not in self.watched.snapshot.objects:
            return refusal(404)
        self.versions.append(body["metadata"]["resourceVersion"])
        self.statuses.append((virtual_time.now(), key[1], body["status"]))
        if self.watched.seeing:
            self.watched.set_status(key, body["status"])
        return httpx2.Response(200, json=body)


def refusal(status: int, **headers: str) -> httpx2.Response:
    """An answer of the API server that is not 2xx."""
    shown = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json={"kind": "Status", "message": "no"}, headers=shown)
