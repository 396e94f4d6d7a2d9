"""
Health endpoints: liveness (`/livez`) and readiness (`/readyz`).

The broker is not ready while it cannot answer exchanges: the journal cannot be written, the store
cannot claim a token, or no issuer has a key that can be used. With bad documents, failed key fetches
of some issuers or signing keys that cannot be read it is degraded but ready, since it keeps using the
last good ones. The same holds while audit segments cannot be sealed, since events are recorded all the
same, while the upstream does not answer, since exchanges do not need it, and after a background task
has failed. While the Kubernetes API is away the last set is in use, so the broker is ready; it is not
before a first set was read.

What is wrong names Roles, values and paths, so it is for the operator: at the metrics port, and for
a connection from loopback that no proxy forwarded. Everybody else learns the status alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import ip_address
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from federation.audit.delivery import Delivery
from federation.audit.journal import FileJournal, Status
from federation.background import Background
from federation.documents.values import loopback
from federation.errors import Refusal
from federation.exchange import Broker
from federation.issuers.key_ring import KeyStatus
from federation.sources.kubernetes.source import Following
from federation.text import counted
from federation.web.discovery import SignIn

_STORE_SECONDS = 1.0
_REMEMBERED_SECONDS = 0.5
_PROBE = "a token that nobody revoked"
_FORWARDED = (
    *(b"forwarded", b"x-forwarded-", b"x-real-ip", b"via", b"x-request-id", b"x-envoy-"),
    *(b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"cf-connecting-ip"),
)
"""The beginnings of headers that only proxies send."""
_SHOWN_PROBLEMS = 20
_STARTING = ("starting: the issuers' keys are being fetched",)


@dataclass(frozen=True, slots=True)
class Report:
    """The problems, in sentences for the operator."""

    unavailable: tuple[str, ...]
    """Problems that keep exchanges from being answered."""
    degraded: tuple[str, ...]
    """Problems that do not."""
    journal: Status | None

    @property
    def status(self) -> str:
        """`ok`, `degraded` or `unavailable`."""
        return "unavailable" if self.unavailable else "degraded" if self.degraded else "ok"


@dataclass(slots=True)
class Health:
    """The health of one process."""

    broker: Broker
    journal: FileJournal | None
    deliveries: Sequence[Delivery] = ()
    following: Callable[[], Following] | None = None
    """The state of following the Kubernetes API, None if documents come from files alone."""
    sign_in: SignIn | None = None
    """The provider where people sign in, if one is published."""
    starting: bool = False
    """True until the issuers' keys were fetched, or could not be, for the first time."""
    signing_problem: str | None = None
    """The reason why signing keys on disk cannot be read. The broker signs with those it has."""
    upstream_problem: str | None = None
    """The upstream's failure to answer, empty if it answers; None without one, or if not asked yet."""
    publish: Callable[[Mapping[str, Any]], None] | None = None
    """Called with the details every few seconds."""
    background: Background = field(default_factory=Background)
    """The work beside the requests, and what of it has failed."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    _store: tuple[float, list[str], list[str]] = (float("-inf"), [], [])
    """When the store was last checked, what was unavailable, and what was degraded."""

    async def report(self) -> Report:
        """Return the problems at this moment."""
        journal = self.journal.status() if self.journal else None
        no_store, weak_store = await self._store_problems()
        following = self.following() if self.following else None
        awaited = self.broker.source.current().awaited
        unavailable = [
            *([f"documents: {awaited}"] if awaited else []),
            *(_STARTING if self.starting and not awaited else []),
            *([f"audit journal: {journal.problem}"] if journal and journal.problem else []),
            *no_store,
            *([] if self.starting or awaited else self._no_keys()),
        ]
        degraded = [
            *(["documents: the last set was not adopted"] if self.broker.source.problems() else []),
            *(_kubernetes_problems(following) if following else []),
            *self._key_problems(),
            *([f"sign-in: {problem}"] if (problem := self.sign_in_problem()) else []),
            *([f"signing keys: {self.signing_problem}"] if self.signing_problem else []),
            *([f"upstream: {self.upstream_problem}"] if self.upstream_problem else []),
            *weak_store,
            *self.background.problems,
            *(_journal_warnings(journal) if journal else []),
            *self._webhook_problems(),
        ]
        return Report(tuple(unavailable), tuple(degraded), journal)

    def details(self, report: Report) -> dict[str, Any]:
        """Everything that an operator may want to know, as JSON."""
        broker, audit = self.broker, report.journal
        following = asdict(self.following()) if self.following else None
        catalog = broker.source.current()
        return {
            "status": report.status,
            "unavailable": report.unavailable,
            "degraded": report.degraded,
            "documents": {
                "issuers": len(catalog.issuers),
                "roles": len(catalog.all_roles),
                "policies": len(catalog.policies),
                "digest": catalog.digest,
                "not_adopted": [
                    str(problem) for problem in broker.source.problems()[:_SHOWN_PROBLEMS]
                ],
            },
            **({"kubernetes": following} if following else {}),
            "issuers": {iss: _key_details(status) for iss, status in broker.keys.status().items()},
            **({"audit": {**asdict(audit), "nearly_full": audit.nearly_full}} if audit else {}),
        }

    def sign_in_problem(self) -> str:
        """Return why people who sign in get no token; empty if they do, or if none may sign in."""
        catalog = self.broker.source.current()
        return "" if self.sign_in is None or catalog.awaited else self.sign_in.problem(catalog)

    async def _store_problems(self) -> tuple[list[str], list[str]]:
        """Return what is unavailable and what is degraded, at most half a second old."""
        async with self._lock:
            # The check costs a claim, and anybody may ask for it as often as they like.
            checked, *found = self._store
            if time.monotonic() - checked > _REMEMBERED_SECONDS:
                found = list(await self._check_store())
                self._store = (time.monotonic(), found[0], found[1])
            return found[0], found[1]

    async def _check_store(self) -> tuple[list[str], list[str]]:
        state = self.broker.state
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                degraded = await state.check()
                await state.revoked(_PROBE)
        except TimeoutError:
            return ["store: no answer within a second"], []
        except Refusal as refusal:
            told = [f"store: {why}" for why in refusal.evidence.values()]
            return told or ["store: no answer"], []
        return [], [f"store: {degraded}"] if degraded else []

    def _webhook_problems(self) -> set[str]:
        """The answers of the webhook that only an operator can mend, such as a 401."""
        return {f"audit webhook: {each.problem}" for each in self.deliveries if each.problem}

    def _no_keys(self) -> Iterator[str]:
        """
        Yield a problem if every issuer was asked for its keys and none has one that can be used.

        Every token is then refused before it is looked at. An update of the broker that cannot reach
        its issuers, because of a proxy or a CA, does not take the place of one that can.
        """
        known = self.broker.keys.status()
        trusted = self.broker.source.current().issuers
        if trusted and all(
            (keys := known.get(iss)) and keys.failure and not keys.keys for iss in trusted
        ):
            yield "keys: no issuer has a key that can be used, so every token is refused"

    def _key_problems(self) -> Iterator[str]:
        known = self.broker.keys.status()
        for iss, issuer in self.broker.source.current().issuers.items():
            if (keys := known.get(iss)) and keys.failure:
                held = "" if keys.keys else "none held; "
                yield f"keys of {issuer.name}: {held}{keys.failure}"


def _key_details(status: KeyStatus) -> dict[str, Any]:
    """Return *status* as `/readyz` shows it. Of the keys that are passed over, the first are named."""
    named = dict(islice(status.unusable.items(), _SHOWN_PROBLEMS))
    return {**asdict(status), "unusable": named, "unusable_keys": len(status.unusable)}


def _kubernetes_problems(following: Following) -> Iterator[str]:
    for each in following.trouble:
        yield f"kubernetes: {each}"
    if following.refusing:
        objects = counted(following.refusing, "object")
        yield f"kubernetes: jobs are refused because of {objects} with errors; see not_in_force"


def _journal_warnings(journal: Status) -> Iterator[str]:
    if journal.nearly_full:
        yield "audit journal: nearly full"
    if journal.sealing_problem:
        yield f"audit journal: segments cannot be sealed: {journal.sealing_problem}"


async def livez(_request: Request) -> Response:
    """200 while the process can respond at all."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 if exchanges can be answered, else 503; with all problems for the operator."""
    health: Health = request.app.state.health
    report = await health.report()
    told = health.details(report) if _is_operator(request.scope) else {"status": report.status}
    return JSONResponse(told, status_code=503 if report.unavailable else 200)


async def healthz(_request: Request) -> Response:
    """200, for `faas-cli ready`."""
    return JSONResponse({"status": "ok"})


def _is_operator(scope: Scope) -> bool:
    """
    True for a connection from loopback, unless a proxy made it for somebody else.

    Some proxies add no header. They pass on the public name in `Host`, as a browser does that was
    led here by DNS, or speak HTTP/1.0.
    """
    if not scope.get("client"):
        return False
    try:
        peer = ip_address(scope["client"][0])
    except ValueError:
        return False
    forwarded = any(name.startswith(_FORWARDED) for name, _ in scope["headers"])
    direct = scope["http_version"] == "1.1" and loopback(_host(scope))
    return peer.is_loopback and direct and not forwarded


def _host(scope: Scope) -> str:
    """The host that the caller asked for, without its port; empty if it cannot be read."""
    host = b"".join(value for name, value in scope["headers"] if name == b"host")
    try:
        return urlsplit(f"//{host.decode('ascii')}").hostname or ""
    except ValueError:
        return ""
