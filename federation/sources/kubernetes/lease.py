"""
The choice of the one replica that writes, by a Lease (`coordination.k8s.io/v1`).

The holder renews the Lease every 5 s, and stops writing if it could not renew for 10 s. Another
replica takes the Lease when it saw no change of it for 15 s, measured by its own monotonic clock:
the times that stand in a Lease come from another machine's clock and are only for people. Each
change names the version that it changes, so that of two replicas one succeeds.

The API server checks the right to `create` by name only where the request says the name, as
server-side apply does. The Lease is therefore made by such a request, which holds no holder: made
twice, it changes nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from typing import Any

import structlog

from federation.sources.kubernetes.backoff import backoff_seconds
from federation.sources.kubernetes.connection import Connection, Trouble
from federation.sources.kubernetes.fields import mapping, text
from federation.text import printable

NAME = "federation"
DURATION_SECONDS = 15
RENEW_SECONDS = 5.0
GIVE_UP_SECONDS = 10.0
"""The leader stops writing when its last renewal was sent so long ago."""

_API = "coordination.k8s.io/v1"
_LONGEST_DURATION_SECONDS = 60
_REQUEST_SECONDS = 4.0
_RETRY_SECONDS = 1.0
_RELEASE_SECONDS = 2.0
_MICRO_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class Act(Enum):
    """A step of a replica towards the Lease."""

    MAKE = auto()
    TAKE = auto()
    RENEW = auto()
    WAIT = auto()


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as the API server has it."""

    version: str
    """Its `resourceVersion`. It changes with every change."""
    holder: str = ""
    duration_seconds: int = DURATION_SECONDS
    transitions: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease, and since when it is known to be as it is."""

    lease: Lease | None
    """None if there is none."""
    since: float
    """On this process's monotonic clock."""

    def then(self, lease: Lease | None, now: float) -> Sighting:
        """The Sighting after *lease* was seen at *now*."""
        return self if lease == self.lease else Sighting(lease, now)

    def expires_at(self) -> float:
        """Return the time at which the holder must have given up, if nothing changes."""
        return self.since + (self.lease.duration_seconds if self.lease else 0)


def read_lease(raw: Mapping[str, Any]) -> Lease:
    """Return the Lease that the API server sent as *raw*. Anything may stand in its fields."""
    metadata, spec = mapping(raw.get("metadata")), mapping(raw.get("spec"))
    duration = _count(spec.get("leaseDurationSeconds"), DURATION_SECONDS)
    return Lease(
        version=text(metadata, "resourceVersion"),
        holder=text(spec, "holderIdentity"),
        # A shorter one, or one of years, is not ours, and would make two leaders or none.
        duration_seconds=min(max(duration, DURATION_SECONDS), _LONGEST_DURATION_SECONDS),
        transitions=_count(spec.get("leaseTransitions"), 0),
    )


def act(seen: Sighting, identity: str, now: float) -> Act:
    """Return the step of the replica *identity* at *now*, when it just saw *seen*."""
    if seen.lease is None:
        return Act.MAKE
    if seen.lease.holder == identity:
        return Act.RENEW
    if not seen.lease.holder or now >= seen.expires_at():
        return Act.TAKE
    return Act.WAIT


def pause_seconds(seen: Sighting, now: float) -> float:
    """Return how long a replica that waits may leave the Lease alone, and still take it in time."""
    return max(0.1, min(RENEW_SECONDS, seen.expires_at() - now))


def changed(lease: Lease, identity: str, now: datetime) -> dict[str, Any]:
    """The merge patch by which *identity* takes or renews *lease*, if nobody changed it."""
    moment = now.strftime(_MICRO_TIME)
    spec: dict[str, Any] = {"renewTime": moment, "leaseDurationSeconds": DURATION_SECONDS}
    if lease.holder != identity:
        spec |= {
            "holderIdentity": identity,
            "acquireTime": moment,
            "leaseTransitions": lease.transitions + 1,
        }
    return {"metadata": {"resourceVersion": lease.version}, "spec": spec}


def released(lease: Lease) -> dict[str, Any]:
    """The merge patch by which the holder gives *lease* up, if nobody changed it."""
    return {"metadata": {"resourceVersion": lease.version}, "spec": {"holderIdentity": None}}


class Election:
    """
    Takes part in the choice of the leader as *identity*, which no other process may have.

    `leading` is decided by the clock each time that it is asked: a process that was stopped for a
    while is no leader when it goes on.
    """

    def __init__(
        self,
        connection: Connection,
        identity: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.identity = identity
        self._connection = connection
        self._clock = clock
        self._wall_clock = wall_clock
        self._leases = f"/apis/{_API}/namespaces/{connection.namespace}/leases/{NAME}"
        self._seen = Sighting(None, clock())
        self._held: Lease | None = None
        """The Lease as we left it, while nothing is known to have changed it."""
        self._until = clock()
        """When this process stops being the leader, unless it renews."""
        self._elected = asyncio.Event()
        self._leads = False
        """True if the last line in the log says that this replica leads."""
        self._failures = 0
        self._log = structlog.get_logger("federation.kubernetes")

    def __repr__(self) -> str:
        return f"<Election of {self.identity}, {'leading' if self.leading else 'waiting'}>"

    @property
    def leading(self) -> bool:
        """True if this process may write now."""
        return self._held is not None and self._clock() < self._until

    async def until_leading(self) -> None:
        """Return when this process is the leader."""
        while not self.leading:
            self._elected.clear()
            await self._elected.wait()

    async def run(self) -> None:
        """Take the Lease when it is free, and renew it, until cancelled."""
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            pause = await self._step()

    async def release(self) -> None:
        """Let another replica take the Lease at once, if this one holds it."""
        held = self._held if self.leading else None
        self._lose("this process ends")
        if held:
            with suppress(Trouble, TimeoutError):
                async with asyncio.timeout(_RELEASE_SECONDS):
                    await self._patch(released(held))

    async def _step(self) -> float:
        """Look at the Lease, act, and return how many seconds to wait before the next step."""
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                waits = await (self._renew(self._held) if self._held else self._look())
        except (Trouble, TimeoutError) as error:
            return self._after(error)
        if self._failures:
            self._failures = 0
            self._log.info("the Lease can be read and written again")
        return waits

    async def _look(self) -> float:
        self._seen = self._seen.then(await self._get(), self._clock())
        match act(self._seen, self.identity, self._clock()):
            case Act.MAKE:
                self._seen = self._seen.then(await self._make(), self._clock())
                return 0.0
            case Act.WAIT:
                return pause_seconds(self._seen, self._clock())
        return await self._renew(self._seen.lease or Lease(""))

    async def _renew(self, lease: Lease) -> float:
        """Take or renew *lease*, unless it changed meanwhile."""
        sent = self._clock()
        patch = changed(lease, self.identity, self._wall_clock())
        self._held = read_lease(await self._patch(patch))
        self._until = sent + GIVE_UP_SECONDS
        self._elected.set()
        if not self._leads:
            self._leads = True
            self._log.info("this replica writes statuses now", identity=self.identity)
        return max(RENEW_SECONDS - (self._clock() - sent), 0.1)

    def _after(self, error: Trouble | TimeoutError) -> float:
        """Note that a step failed, and return how many seconds to wait."""
        if isinstance(error, Trouble) and error.status in {404, 409}:
            self._lose("the Lease was changed or removed")
            return random.uniform(0.05, 0.2)  # noqa: S311  it spreads requests
        if not self.leading:
            self._lose("the Lease could not be renewed in time")
        self._failures += 1
        if self._failures == 1:
            self._log.warning(
                "the Lease cannot be read or written; no status is written without it",
                problem=printable(str(error), 400) or "no answer",
            )
        spread = random.random()  # noqa: S311
        wait = backoff_seconds(self._failures, _RETRY_SECONDS, RENEW_SECONDS, spread)
        asked = error.retry_after_seconds if isinstance(error, Trouble) else None
        # However long it is asked to wait, a leader that waits longer is none any more.
        return max(wait, min(asked or 0.0, RENEW_SECONDS))

    def _lose(self, why: str) -> None:
        """Stop being the leader, or trying to be, until the Lease was looked at again."""
        self._held = None
        if self._leads:
            self._leads = False
            self._log.info("this replica writes no statuses any more", reason=why)

    async def _get(self) -> Lease | None:
        try:
            return read_lease(await self._connection.request("GET", self._leases))
        except Trouble as trouble:
            if trouble.status == 404:
                return None
            raise

    async def _make(self) -> Lease:
        body = {
            "apiVersion": _API,
            "kind": "Lease",
            "metadata": {"name": NAME, "namespace": self._connection.namespace},
            "spec": {"leaseDurationSeconds": DURATION_SECONDS},
        }
        return read_lease(
            await self._connection.request(
                "PATCH",
                self._leases,
                # A manager of its own, or applying it again would remove the holder.
                params={"fieldManager": "federation-create", "force": "true"},
                body=body,
                content_type="application/apply-patch+yaml",
            )
        )

    async def _patch(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return await self._connection.request(
            "PATCH",
            self._leases,
            params={"fieldManager": "federation"},
            body=body,
            content_type="application/merge-patch+json",
        )


def _count(value: object, default: int) -> int:
    return value if type(value) is int and value >= 0 else default
