"""One replica at a time writes, by what each sees of the Lease and its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from federation.sources.kubernetes.lease import (
    DURATION_SECONDS,
    GIVE_UP_SECONDS,
    Act,
    Election,
    Lease,
    Sighting,
    act,
    changed,
    pause_seconds,
    read_lease,
)
from tests.harness import virtual_time
from tests.harness.kube_writes import LEASE, WritesApi, refusal

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
THEIRS = Lease("1", "other")


# Decisions


@pytest.mark.parametrize(
    ("lease", "waited", "expected"),
    [
        (None, 0.0, Act.MAKE),
        (Lease("1"), 0.0, Act.TAKE),
        (Lease("1", "me"), 0.0, Act.RENEW),
        (THEIRS, 14.9, Act.WAIT),
        (THEIRS, 15.0, Act.TAKE),
        (Lease("1", "other", duration_seconds=30), 29.0, Act.WAIT),
    ],
)
def test_what_a_replica_does(lease: Lease | None, waited: float, expected: Act) -> None:
    assert act(Sighting(lease, 100.0), "me", 100.0 + waited) is expected


def test_only_a_change_that_it_saw_itself_starts_the_wait_anew() -> None:
    seen = Sighting(THEIRS, 100.0).then(THEIRS, 110.0)
    assert act(seen, "me", 115.0) is Act.TAKE
    renewed = seen.then(Lease("2", "other"), 114.0)
    assert act(renewed, "me", 128.0) is Act.WAIT


def test_the_times_in_a_lease_decide_nothing() -> None:
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 15}
    times = [{"renewTime": time} for time in ("1970-01-01T00:00:00Z", "2970-01-01T00:00:00Z")]
    raw = [{"metadata": {"resourceVersion": "1"}, "spec": {**spec, **each}} for each in times]
    assert read_lease(raw[0]) == read_lease(raw[1]) == THEIRS


def test_a_replica_looks_again_when_the_lease_may_be_taken() -> None:
    assert pause_seconds(Sighting(THEIRS, 100.0), 101.0) == 5.0
    assert pause_seconds(Sighting(THEIRS, 100.0), 113.0) == 2.0


@pytest.mark.parametrize(
    "spec",
    [
        None,
        [],
        {"holderIdentity": 1, "leaseDurationSeconds": "x", "leaseTransitions": -1},
        {"leaseDurationSeconds": True},
        {"leaseDurationSeconds": 1},
    ],
)
def test_a_lease_with_anything_in_it_can_be_read(spec: object) -> None:
    assert read_lease({"metadata": {"resourceVersion": "1"}, "spec": spec}) == Lease("1")


def test_nobody_leads_for_years() -> None:
    raw: dict[str, Any] = {"metadata": {"resourceVersion": "1"}, "spec": {}}
    raw["spec"] = {"holderIdentity": "other", "leaseDurationSeconds": 10**9}
    assert read_lease(raw).duration_seconds == 60


def test_taking_counts_and_renewing_does_not() -> None:
    taken = changed(Lease("9", "other", transitions=3), "me", NOON)
    assert taken == {
        "metadata": {"resourceVersion": "9"},
        "spec": {
            "holderIdentity": "me",
            "acquireTime": "2026-01-01T12:00:00.000000Z",
            "renewTime": "2026-01-01T12:00:00.000000Z",
            "leaseDurationSeconds": 15,
            "leaseTransitions": 4,
        },
    }
    renewed = changed(Lease("10", "me", transitions=4), "me", NOON)
    assert renewed["spec"].keys() == {"renewTime", "leaseDurationSeconds"}


def test_a_leader_gives_up_before_another_can_take_over() -> None:
    longest_write = 5.0
    assert GIVE_UP_SECONDS + longest_write <= DURATION_SECONDS


# Elections


def play(story: Callable[[WritesApi], Awaitable[None]]) -> None:
    async def told() -> None:
        await story(WritesApi())

    virtual_time.run(told())


class Candidate:
    """A replica that takes part until it `dies`, or is asked to `leave`."""

    def __init__(self, api: WritesApi, name: str, skew: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self._connection = api.connection()
        self.election = Election(self._connection, name, clock=lambda: loop.time() + skew)
        self._running = asyncio.create_task(self.election.run())

    def leads(self) -> bool:
        return self.election.leading

    async def die(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._connection.aclose()

    async def leave(self) -> None:
        self._running.cancel()
        await self.election.release()
        await self.die()


def test_one_of_two_leads_and_renews_every_five_seconds() -> None:
    async def story(api: WritesApi) -> None:
        first, second = Candidate(api, "first"), Candidate(api, "second")
        await asyncio.sleep(1)
        assert first.leads() != second.leads()
        before = len([each for each in api.asked if each[1] == "PATCH"])
        for _ in range(600):
            await asyncio.sleep(0.1)
            assert first.leads() != second.leads()
        renewals = len([each for each in api.asked if each[1] == "PATCH"]) - before
        assert 11 <= renewals <= 13
        await first.die()
        await second.die()

    play(story)


@pytest.mark.parametrize("skew", [-1e6, 0.0, 1e6])
def test_a_leader_that_dies_is_replaced_within_25_seconds_whatever_its_clock(skew: float) -> None:
    async def story(api: WritesApi) -> None:
        first = Candidate(api, "first", skew)
        await asyncio.sleep(1)
        second = Candidate(api, "second")
        await asyncio.sleep(18)
        assert first.leads()
        assert not second.leads()
        await first.die()
        died = virtual_time.now()
        await asyncio.wait_for(second.election.until_leading(), 25)
        assert virtual_time.now() - died >= DURATION_SECONDS - 5
        assert api.lease is not None
        assert api.lease["spec"]["leaseTransitions"] == 2
        await second.die()

    play(story)


def test_a_leader_that_leaves_is_replaced_at_the_next_look() -> None:
    async def story(api: WritesApi) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        second = Candidate(api, "second")
        await asyncio.sleep(1)
        await first.leave()
        assert not first.leads()
        assert api.lease is not None
        assert api.lease["spec"]["holderIdentity"] is None
        await asyncio.wait_for(second.election.until_leading(), 5.5)
        await second.die()

    play(story)


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_leader_that_cannot_renew_stops_writing_after_ten_seconds(status: int) -> None:
    async def story(api: WritesApi) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        api.fault = lambda _method, _path: refusal(status, Retry_After="60")
        await asyncio.sleep(3)
        assert first.leads()
        await asyncio.sleep(GIVE_UP_SECONDS)
        assert not first.leads()
        api.fault = lambda _method, _path: None
        await asyncio.wait_for(first.election.until_leading(), 6)
        await first.die()

    play(story)


def test_a_leader_whose_lease_was_taken_stops_at_once() -> None:
    async def story(api: WritesApi) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        api.keep({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 15}})
        await asyncio.sleep(5.1)
        assert not first.leads()
        await first.die()

    play(story)


def test_a_lease_that_somebody_removed_is_made_again() -> None:
    async def story(api: WritesApi) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        api.remove_lease()
        await asyncio.sleep(6)
        assert first.leads()
        assert api.lease is not None
        await first.die()

    play(story)


def test_a_renewal_whose_answer_was_lost_does_not_cost_the_lease() -> None:
    async def story(api: WritesApi) -> None:
        first = Candidate(api, "first")
        await asyncio.sleep(1)
        lease = api.lease
        assert lease is not None
        api.keep({"spec": lease["spec"]})  # it was renewed, and nobody told the leader
        await asyncio.sleep(5.5)
        assert first.leads()
        assert api.lease is not None
        assert api.lease["spec"]["leaseTransitions"] == 1
        await first.die()

    play(story)


def test_nobody_knocks_all_the_time_where_a_right_is_missing() -> None:
    async def story(api: WritesApi) -> None:
        api.fault = lambda _method, path: refusal(403) if path == LEASE else None
        candidate = Candidate(api, "first")
        await asyncio.sleep(60)
        assert not candidate.leads()
        assert len(api.asked) < 25
        await candidate.die()

    play(story)
