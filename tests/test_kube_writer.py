"""The leader writes each difference once, few at a time, whatever goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import httpx2
import pytest

from federation.documents.kubernetes.unite import Standing, Verdict
from federation.sources.kubernetes.status import conditions_of
from federation.sources.kubernetes.writer import StatusWriter, unique_identity
from tests.harness import virtual_time
from tests.harness.broker import logged
from tests.harness.kube_writes import BAD, GOOD, LEASE, Watched, WritesApi, an_object, refusal

WARNED = "statuses cannot be written; trying again"


def play(story: Callable[[WritesApi], Awaitable[None]]) -> None:
    """Run *story* in no time."""

    async def told() -> None:
        await story(WritesApi())

    virtual_time.run(told())


@asynccontextmanager
async def writing(api: WritesApi, identity: str | None = None) -> AsyncIterator[StatusWriter]:
    """Run a writer of what `api.watched` sees, and end it as the server does."""
    writer = StatusWriter(
        api.connection(),
        api.watched.current,
        api.watched.changed,
        identity=identity,
        clock=asyncio.get_running_loop().time,
    )
    running = asyncio.create_task(writer.run())
    try:
        yield writer
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def fill(watched: Watched, count: int, verdict: Verdict = GOOD) -> None:
    found = [an_object(f"role-{number}") for number in range(count)]
    watched.put_all({each.key: (each, verdict) for each in found})


# Differences


def test_a_status_is_written_once_and_then_there_is_silence() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api):
            api.watched.put(an_object())
            await asyncio.sleep(2)
            assert [name for _, name, _ in api.statuses] == ["deployer"]
            before = len(api.asked)
            await asyncio.sleep(60)
            assert {path for _, _, path in api.asked[before:]} == {LEASE}

    play(story)


def test_a_change_is_told_at_once() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api):
            api.watched.put(an_object())
            await asyncio.sleep(10)
            changed = virtual_time.now()
            api.watched.put(an_object(generation=2), BAD)
            await asyncio.sleep(5)
            when, _, status = api.statuses[-1]
            assert when - changed < 1
            assert status["observedGeneration"] == 2
            assert conditions_of(status)["Stalled"]["status"] == "True"

    play(story)


def test_a_new_leader_writes_only_what_differs() -> None:
    async def story(api: WritesApi) -> None:
        fill(api.watched, 5)
        async with writing(api):
            await asyncio.sleep(5)
        assert len(api.statuses) == 5
        api.watched.put(an_object("role-3"), BAD)
        async with writing(api):
            await asyncio.sleep(5)
        assert [name for _, name, _ in api.statuses[5:]] == ["role-3"]

    play(story)


def test_only_the_leader_writes() -> None:
    async def story(api: WritesApi) -> None:
        fill(api.watched, 5)
        async with writing(api, "one") as one, writing(api, "two") as two:
            await asyncio.sleep(30)
            assert one.leading != two.leading
        assert len(api.statuses) == 5

    play(story)


def test_a_leader_that_is_cut_off_from_its_lease_writes_nothing_more() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api) as writer:
            await asyncio.sleep(1)
            api.fault = lambda _method, path: refusal(503) if path == LEASE else None
            await asyncio.sleep(12)
            assert not writer.leading
            api.watched.put(an_object())
            await asyncio.sleep(30)
            assert not api.statuses

    play(story)


def test_writes_that_wait_for_their_turn_are_not_sent_after_the_leader_gave_up() -> None:
    async def story(api: WritesApi) -> None:
        api.takes_seconds = 4.9
        async with writing(api):
            await asyncio.sleep(1)
            renewed = max(when for when, _, path in api.asked if path == LEASE)
            api.fault = lambda _method, path: refusal(503) if path == LEASE else None
            await asyncio.sleep(renewed + 4 - virtual_time.now())
            fill(api.watched, 50)
            await asyncio.sleep(60)
            begun = [when for when, _, path in api.asked if path.endswith("/status")]
            assert len(begun) == 8
            assert max(begun) < renewed + 10

    play(story)


def test_an_object_that_is_gone_is_forgotten() -> None:
    async def story(api: WritesApi) -> None:
        api.watched.seeing = False
        async with writing(api):
            api.watched.put(an_object())
            await asyncio.sleep(1)
            api.watched.remove(an_object().key)
            await asyncio.sleep(100)
            assert len(api.statuses) == 1

    play(story)


# Fights


def test_a_status_that_somebody_broke_is_repaired() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api):
            api.watched.put(an_object())
            await asyncio.sleep(60)
            api.watched.set_status(an_object().key, {"conditions": "theirs"})
            await asyncio.sleep(6)
            assert len(api.statuses) == 2

    play(story)


def test_somebody_who_breaks_it_each_time_costs_few_writes() -> None:
    async def story(api: WritesApi) -> None:
        async def breaks() -> None:
            while True:
                api.watched.set_status(an_object().key, {})
                await asyncio.sleep(1)

        async with writing(api):
            api.watched.put(an_object())
            enemy = asyncio.create_task(breaks())
            await asyncio.sleep(1800)
            assert 7 <= len(api.statuses) <= 10
            enemy.cancel()

    play(story)


def test_an_api_server_that_drops_what_it_is_told_costs_few_writes() -> None:
    async def story(api: WritesApi) -> None:
        api.watched.seeing = False
        async with writing(api):
            api.watched.put(an_object())
            await asyncio.sleep(3600)
            assert len(api.statuses) <= 14

    play(story)


def test_an_object_that_changes_all_the_time_does_not_hold_others_up() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api):
            for generation in range(1, 600):
                verdict = Verdict(Standing.REFUSED, f"No {generation}.")
                api.watched.put(an_object("busy", generation), verdict)
                if generation == 300:
                    api.watched.put(an_object("calm"))
                    put = virtual_time.now()
                await asyncio.sleep(0.1)
            assert sum(name == "busy" for _, name, _ in api.statuses) <= 61
            ((when, _, _),) = [each for each in api.statuses if each[1] == "calm"]
            assert when - put < 2
            assert len(api.events) <= 3

    play(story)


# Limits


def test_thousands_of_changes_are_written_twenty_a_second_and_the_lease_is_renewed() -> None:
    async def story(api: WritesApi) -> None:
        api.takes_seconds = 0.05
        fill(api.watched, 3_000)
        api.watched.seeing = False  # or the test's own copies would take longest
        async with writing(api):
            await asyncio.sleep(120)
            assert 2300 <= len(api.statuses) <= 2450
            assert len({name for _, name, _ in api.statuses}) == len(api.statuses)
            assert api.most_at_once <= 4
            renewals = [when for when, method, path in api.asked if path == LEASE]
            gaps = [later - sooner for sooner, later in pairwise(renewals)]
            assert max(gaps) < 6

    play(story)


def test_an_api_server_that_is_slow_gets_four_requests_at_once() -> None:
    async def story(api: WritesApi) -> None:
        api.takes_seconds = 4.0
        fill(api.watched, 100)
        async with writing(api) as writer:
            for _ in range(60):
                await asyncio.sleep(1)
                assert writer.leading
            assert api.most_at_once == 4

    play(story)


# Trouble


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_trouble_backs_off_and_is_logged_once(status: int) -> None:
    async def story(api: WritesApi) -> None:
        fill(api.watched, 20)
        api.fault = lambda _method, path: refusal(status) if path.endswith("/status") else None
        with logged() as log:
            async with writing(api):
                await asyncio.sleep(300)
                asked = api.writes("/status")
                assert 8 <= asked <= 40
                api.fault = lambda _method, _path: None
                await asyncio.sleep(40)
                assert len(api.statuses) == 20
        assert log.getvalue().count(WARNED) == 1
        assert log.getvalue().count("statuses can be written again") == 1

    play(story)


def test_retry_after_is_honoured() -> None:
    async def story(api: WritesApi) -> None:
        refused_at: list[float] = []

        def fault(_method: str, path: str) -> httpx2.Response | None:
            if path.endswith("/status") and not refused_at:
                refused_at.append(virtual_time.now())
                return refusal(429, Retry_After="20")
            return None

        api.fault = fault
        async with writing(api):
            api.watched.put(an_object())
            await asyncio.sleep(60)
        assert 20 <= api.statuses[0][0] - refused_at[0] <= 22

    play(story)


@pytest.mark.parametrize("status", [404, 413, 422, 500])
def test_an_object_whose_status_is_refused_does_not_hold_others_up(status: int) -> None:
    async def story(api: WritesApi) -> None:
        api.fault = lambda _method, path: refusal(status) if "bad-" in path else None
        bad = [an_object(f"bad-{number}") for number in range(20)]
        api.watched.put_all({each.key: (each, GOOD) for each in bad})
        async with writing(api):
            await asyncio.sleep(30)
            put = virtual_time.now()
            api.watched.put(an_object("good"))
            await asyncio.sleep(570)
            ((when, _, _),) = api.statuses
            assert when - put < 2
            assert sum("bad-" in path for _, _, path in api.asked) < 20 * 9

    play(story)


def test_trouble_with_one_object_does_not_hold_others_up() -> None:
    async def story(api: WritesApi) -> None:
        api.fault = lambda _method, path: refusal(503) if "bad" in path else None
        api.watched.put(an_object("bad"))
        async with writing(api):
            await asyncio.sleep(30)
            api.watched.put(an_object("good"))
            await asyncio.sleep(62)
            assert [name for _, name, _ in api.statuses] == ["good"]

    play(story)


def test_a_status_of_an_older_version_is_not_written() -> None:
    async def story(api: WritesApi) -> None:
        api.fault = lambda _method, path: refusal(409) if path.endswith("/status") else None
        async with writing(api) as writer:
            api.watched.put(an_object())
            await asyncio.sleep(10)
            assert 9 <= api.writes("/status") <= 11
            assert writer.counts.failed == 0
            api.fault = lambda _method, _path: None
            api.watched.put(an_object(generation=2, resource_version="8"))
            await asyncio.sleep(1.1)
            assert [status["observedGeneration"] for _, _, status in api.statuses] == [2]
            assert api.versions == ["8"]

    play(story)


def test_a_silent_api_server_is_left_and_asked_again() -> None:
    async def story(api: WritesApi) -> None:
        fill(api.watched, 20)
        api.takes_seconds = 10_000.0
        async with writing(api) as writer:
            await asyncio.sleep(30)
            assert writer.leading
            assert api.at_once <= 4
            api.takes_seconds = 0.0
            await asyncio.sleep(60)
            assert len(api.statuses) == 20

    play(story)


def test_the_end_lets_another_replica_take_over() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api):
            await asyncio.sleep(1)
        assert api.lease is not None
        assert api.lease["spec"]["holderIdentity"] is None

    play(story)


# Events


def test_an_event_tells_of_a_refusal_once() -> None:
    async def story(api: WritesApi) -> None:
        async with writing(api):
            api.watched.put(an_object(), BAD)
            api.watched.put(an_object("good"))
            await asyncio.sleep(60)
            api.watched.set_status(an_object().key, {})  # repaired, and no news
            await asyncio.sleep(60)
            assert [each["regarding"]["name"] for each in api.events] == ["deployer"]
            api.watched.put(an_object(generation=2), BAD)
            await asyncio.sleep(60)
            assert len(api.events) == 2
            assert len({each["metadata"]["name"] for each in api.events}) == 2

    play(story)


def test_a_new_leader_does_not_tell_again() -> None:
    async def story(api: WritesApi) -> None:
        api.watched.put(an_object(), BAD)
        for _ in range(2):
            async with writing(api):
                await asyncio.sleep(5)
        assert len(api.events) == 1

    play(story)


def test_events_of_many_objects_are_limited() -> None:
    async def story(api: WritesApi) -> None:
        fill(api.watched, 200, BAD)
        async with writing(api) as writer:
            await asyncio.sleep(30)
            assert len(api.statuses) == 200
            assert 25 <= len(api.events) <= 45
            assert writer.counts.events + writer.counts.events_dropped == 200

    play(story)


def test_an_event_that_cannot_be_created_costs_no_status() -> None:
    async def story(api: WritesApi) -> None:
        api.fault = lambda _method, path: refusal(403) if path.endswith("/events") else None
        fill(api.watched, 50, BAD)
        with logged() as log:
            async with writing(api):
                await asyncio.sleep(60)
        assert len(api.statuses) == 50
        assert 1 <= log.getvalue().count("an Event cannot be created") <= 12

    play(story)


def test_every_process_has_an_identity_of_its_own() -> None:
    identities = {unique_identity() for _ in range(100)}
    assert len(identities) == 100
    assert max(map(len, identities)) <= 128
