"""Replace the documents of a running broker: by bad ones, slowly, or atomically; kill its workers then."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from faults.outcome import Outcome, Run, until
from faults.processes import Broker, running
from faults.trail import broken_promises, not_granted
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load, exchange

_LIVE_SECONDS = 2.0


async def documents_bad(run: Run) -> Outcome:
    """
    The documents are replaced by sets with errors.

    The last good set serves every exchange, `/readyz` shows the problem, and the next good
    documents are live within two seconds.
    """
    outcome, slowest = Outcome(), 0.0
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents())
        place = broker.documents / "all.yaml"
        good, load = place.read_text(), Load([broker.port], issuer.token)
        async with running(broker):
            for name, bad in _bad(good).items():
                async with load.running():
                    before = len(load.sent)
                    place.write_text(bad)
                    noticed = await until(lambda: _not_adopted(broker), 5)
                    await asyncio.sleep(0.5)
                wrong = [] if noticed else ["/readyz does not tell"]
                wrong += not_granted(load.sent[before:])
                seconds = await _live(
                    broker,
                    issuer,
                    lambda: place.write_text(issuer.documents(branches=("main", "feature/login"))),
                )
                slowest = max(slowest, seconds or 99.0)
                wrong += _too_late(seconds)
                place.write_text(good)
                wrong += [] if await until(lambda: _closed(broker, issuer), 5) else ["not undone"]
                outcome.tried(f"{name}: {why}" for why in wrong[:1])
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"good ones live within {slowest:.1f} s")
    return outcome


async def documents_half_written(run: Run) -> Outcome:
    """
    A file of documents is written slowly, in place.

    While it is half written, every job is still admitted by the old set, and no job is admitted
    that neither set admits. The whole file is live within two seconds.
    """
    outcome, slowest = Outcome(), 0.0
    async with CiIssuer().serving() as issuer:
        broker = Broker(run.folder, issuer.documents())
        place = broker.documents / "all.yaml"
        old, new = place.read_text(), issuer.documents(branches=("main", "feature/login"))
        load = Load([broker.port], issuer.token)
        async with running(broker):
            for number in range(run.of(3, 15)):
                before = len(load.sent)
                async with load.running():
                    middle = len(new) * (number + 1) // run.of(4, 16)
                    place.write_text(new[:middle])
                    await asyncio.sleep(1.5)
                    seconds = await _live(broker, issuer, lambda: place.write_text(new))
                slowest = max(slowest, seconds or 99.0)
                wrong = not_granted(load.sent[before:]) + _too_late(seconds)
                place.write_text(old)
                wrong += [] if await until(lambda: _closed(broker, issuer), 5) else ["not undone"]
                outcome.tried(wrong[:1])
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"the whole live within {slowest:.1f} s")
    return outcome


async def documents_swapped(run: Run) -> Outcome:
    """
    A mounted ConfigMap changes: one symlink is swapped for another, atomically.

    No exchange is refused meanwhile, and the new set is live within two seconds.
    """
    outcome, slowest = Outcome(), 0.0
    async with CiIssuer().serving() as issuer:
        mount = _ConfigMap(run.folder / "mounted")
        old, new = issuer.documents(), issuer.documents(branches=("main", "feature/login"))
        mount.swap(old)
        broker = Broker(run.folder / "broker", mount.place)
        load = Load([broker.port], issuer.token)
        async with running(broker):
            for _ in range(run.of(4, 20)):
                before = len(load.sent)
                async with load.running():
                    seconds = await _live(broker, issuer, lambda: mount.swap(new))
                    mount.swap(old)
                    closed = await until(lambda: _closed(broker, issuer), 5)
                slowest = max(slowest, seconds or 99.0)
                wrong = not_granted(load.sent[before:]) + _too_late(seconds) + _too_late(closed)
                outcome.tried(wrong[:1])
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(f"live within {slowest:.1f} s")
    return outcome


async def documents_bad_workers_killed(run: Run) -> Outcome:
    """
    Workers are killed while the documents have errors: one of two, or both.

    Each is replaced, and serves the set that was adopted last: what that set took away stays
    refused, and what it gives is granted.
    """
    outcome, slowest = Outcome(), 0.0
    async with CiIssuer().serving() as issuer:
        broad = issuer.documents(branches=("main", "feature/login"))
        flags = ("--workers", "2", "--metrics-port", "0")
        broker = Broker(run.folder, broad, *flags)
        place = broker.documents / "all.yaml"
        async with running(broker):
            ready = await until(lambda: _all_say(broker, "ok"), 20)
            before = await _digests(broker)
            place.write_text(issuer.documents())
            changed = await until(lambda: _all_have_another(broker, before), 20)
            place.write_text("kind: Role\n")
            noticed = await until(lambda: _all_say(broker, "degraded"), 20)
            outcome.judge([] if ready and changed and noticed else ["the sets were not read"])
            for number in range(run.of(4, 20)):
                victims = broker.workers()[: 1 + number % 2]
                for pid in victims:
                    os.kill(pid, signal.SIGKILL)
                seconds = await until(lambda gone=set(victims): _back(broker, gone), 30)  # type: ignore[misc]
                slowest = max(slowest, seconds or 99.0)
                outcome.tried(await _wrong_set(broker, issuer) if seconds else ["not replaced"])
        outcome.judge(broker.unexpected_errors())
    outcome.saw(f"all workers back within {slowest:.1f} s")
    return outcome


async def _back(broker: Broker, gone: set[int]) -> bool:
    workers = set(broker.workers())
    return len(workers) == 2 and not workers & gone and await _all_say(broker, "degraded")


async def _all_say(broker: Broker, status: str) -> bool:
    return all(each["status"] == status for each in await _reports(broker))


async def _all_have_another(broker: Broker, digests: set[str]) -> bool:
    """True if no worker has one of the sets with these *digests* any more."""
    return not digests & await _digests(broker)


async def _digests(broker: Broker) -> set[str]:
    """The digests of the sets that the workers serve."""
    return {each["documents"]["digest"] for each in await _reports(broker)}


async def _reports(broker: Broker) -> list[dict[str, Any]]:
    """What each worker says of itself at the metrics port."""
    url = f"http://127.0.0.1:{broker.metrics_port}/readyz"
    async with httpx2.AsyncClient(timeout=10) as client:
        return list((await client.get(url)).json()["workers"].values())


async def _wrong_set(broker: Broker, issuer: CiIssuer) -> list[str]:
    """Several exchanges, so that each worker has some, of which the outcome is not right."""
    wrong = []
    for _ in range(6):
        sent = await exchange(broker.port, issuer.token())
        if sent.status != 200:
            wrong.append(f"a job of the last set got {sent.answer}")
        if not await _closed(broker, issuer):
            wrong.append("a job that the last set does not admit was admitted")
    return wrong[:1]


class _ConfigMap:
    """A directory as the kubelet mounts it: `all.yaml` → `..data/all.yaml` → a dated directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._number = 0
        place.mkdir()
        (place / "all.yaml").symlink_to("..data/all.yaml")

    def swap(self, text: str) -> None:
        """Replace its content by *text*, atomically."""
        self._number += 1
        dated = self.place / f"..2030_{self._number}"
        dated.mkdir()
        (dated / "all.yaml").write_text(text, "utf-8")
        draft = self.place / "..data_tmp"
        draft.symlink_to(dated.name)
        draft.replace(self.place / "..data")


def _bad(good: str) -> Mapping[str, str]:
    return {
        "not YAML": good + "\n---\n{[",
        "an unknown field": good.replace('"spec"', '"spce"', 1),
        "a missing policy": good.replace('"policy": ["deploy"]', '"policy": ["gone"]'),
        "a role for anybody": good.replace('"jwt:repository_owner_id": ["13420041"],', "")
        .replace('"jwt:repository_id": ["412890077"],', "")
        .replace('"StringEqual"', '"StringNope"'),
        "nothing": "",
        "not text": "\x00\x01",
    }


async def _live(broker: Broker, issuer: CiIssuer, change: Callable[[], object]) -> float | None:
    """Make the *change*, and return after how many seconds the other branch is admitted."""
    change()

    async def admitted() -> bool:
        return (await exchange(broker.port, issuer.token(job="feature"))).status == 200

    return await until(admitted, 6)


async def _closed(broker: Broker, issuer: CiIssuer) -> bool:
    """True if the other branch is not admitted."""
    sent = await exchange(broker.port, issuer.token(job="feature"))
    return sent.reason == "no_role_admits"


async def _not_adopted(broker: Broker) -> bool:
    _, body = await asyncio.to_thread(broker.get, "/readyz")
    said = json.loads(body)
    return said["status"] == "degraded" and bool(said["documents"]["not_adopted"])


def _too_late(seconds: float | None) -> list[str]:
    if seconds is None:
        return ["the change is not live"]
    return [f"live after {seconds:.1f} s"] if seconds > _LIVE_SECONDS else []
