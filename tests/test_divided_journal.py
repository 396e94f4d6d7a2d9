"""Events that anybody can cause displace only each other, and stop nobody's request."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from federation.audit.delivery import Delivery
from federation.audit.divided import DividedJournal
from federation.audit.event import Event, Standing
from federation.audit.journal import FileJournal, fdatasync
from federation.audit.read import last
from federation.audit.seals import seal_files
from federation.audit.segments import OUTSIDERS, parts, set_cursor, stored
from federation.audit.webhook import Webhook
from federation.errors import Refusal
from tests.harness.journal_writer import event, examine, recorded, sign
from tests.harness.webhook_receiver import receiving

OWED = 128 * 1024
PART = 16 * 1024


class Both:
    """A divided journal whose halves can be seen, in *folder*."""

    def __init__(
        self, folder: Path, *, deliver: bool = True, sync: Callable[[int], None] = fdatasync
    ) -> None:
        self.folder = folder
        self.lost = 0
        self.owed, self.outsiders = (
            FileJournal(place, size, sign=sign, deliver=deliver, owed=owed, sync=sync)
            for owed, place, size in ((True, folder, OWED), (False, folder / OUTSIDERS, PART))
        )
        self.journal = DividedJournal(self.owed, self.outsiders, self._lose)

    def _lose(self) -> None:
        self.lost += 1

    async def record(self, *events: Event) -> None:
        for each in events:
            await self.journal.record(each)

    async def aclose(self) -> None:
        await self.owed.aclose()
        await self.outsiders.aclose()

    def size_of_outsiders(self) -> int:
        return sum(segment.size for segment in stored(self.outsiders.folder))


def outsider(number: int) -> Event:
    return event(number, standing=Standing.OUTSIDER)


def ids(folder: Path) -> set[str]:
    return {event for part in parts(folder) for event in recorded(part)}


@pytest.mark.parametrize("deliver", [True, False])
def test_a_flood_of_outsiders_displaces_no_event_that_is_owed(
    tmp_path: Path, deliver: bool
) -> None:
    deploy = event(1)
    both = Both(tmp_path, deliver=deliver)

    async def story() -> None:
        await both.record(deploy, *map(outsider, range(800)))  # ten times what they have
        await both.record(grant := event(2))
        assert {deploy.event_id, grant.event_id} <= ids(tmp_path)
        assert both.size_of_outsiders() <= PART
        assert both.lost == 0
        await both.aclose()

    asyncio.run(story())
    assert all(examine(part).whole for part in parts(tmp_path))


def test_the_newest_of_outsiders_are_kept(tmp_path: Path) -> None:
    both, many = Both(tmp_path), [outsider(n) for n in range(300)]

    async def story() -> None:
        await both.record(*many)
        await both.aclose()

    asyncio.run(story())
    kept = recorded(tmp_path / OUTSIDERS)
    assert 10 < len(kept) < 100
    assert kept == [one.event_id for one in many][-len(kept) :]
    assert [each["request_id"] for each in last(tmp_path / OUTSIDERS, 1)] == ["request-299"]


def test_outsiders_find_room_while_the_journal_is_full_of_what_is_owed(tmp_path: Path) -> None:
    both = Both(tmp_path)

    async def story() -> None:
        with suppress(Refusal):
            while True:
                await both.record(event())
        await both.record(one := outsider(1))
        assert one.event_id in ids(tmp_path)
        with pytest.raises(Refusal):
            await both.record(event())
        await both.aclose()

    asyncio.run(story())


def test_an_outsiders_event_that_cannot_be_written_is_lost_and_refuses_nobody(
    tmp_path: Path,
) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    both = Both(tmp_path, sync=broken)

    async def story() -> None:
        await both.record(outsider(1))
        assert both.lost == 1
        both.journal.check()
        with pytest.raises(Refusal):
            await both.record(event())
        with pytest.raises(Refusal):
            both.journal.check()
        await both.aclose()

    asyncio.run(story())


def test_only_what_is_owed_counts_as_undelivered(tmp_path: Path) -> None:
    both = Both(tmp_path)

    async def story() -> None:
        await both.record(event(1), *map(outsider, range(500)))
        status = both.owed.status()
        assert status.undelivered_events == 1
        assert not status.nearly_full
        assert not both.outsiders.status().nearly_full, "nobody can alarm the operator"
        await both.aclose()

    asyncio.run(story())


def test_both_kinds_are_delivered(tmp_path: Path) -> None:
    sent = [event(1), *map(outsider, range(30)), event(2)]
    both = Both(tmp_path)

    async def story(url: str) -> None:
        deliveries = [Delivery(half, Webhook(url)) for half in (both.owed, both.outsiders)]
        running = [asyncio.create_task(delivery.run()) for delivery in deliveries]
        await both.record(*sent)
        for delivery in deliveries:
            delivery.stop()
        await asyncio.wait_for(asyncio.gather(*running), 10)
        await both.aclose()

    with receiving() as receiver:
        asyncio.run(story(receiver.url))
    assert sorted(receiver.event_ids) == sorted(one.event_id for one in sent)


def test_delivery_goes_on_after_events_of_outsiders_were_dropped(tmp_path: Path) -> None:
    both = Both(tmp_path)

    async def story(url: str) -> None:
        delivery = Delivery(both.outsiders, Webhook(url), lambda _least, _most: 0.0)
        await both.record(*map(outsider, range(3)))
        assert delivery._find() is not None, "a batch is being sent"
        gone = stored(tmp_path / OUTSIDERS)[0].path
        await both.record(*map(outsider, range(3, 400)))
        assert not gone.exists()
        delivery._taken(gone, 500)
        assert not gone.with_suffix(".cursor").exists(), "nobody would ever remove it"
        running = asyncio.create_task(delivery.run())
        await both.record(newest := outsider(1000))
        delivery.stop()
        await asyncio.wait_for(running, 10)
        assert receiver.event_ids[-1] == newest.event_id
        await both.aclose()

    with receiving() as receiver:
        asyncio.run(story(receiver.url))
    cursors = list((tmp_path / OUTSIDERS).glob("*.cursor"))
    assert all(path.with_suffix(".jsonl").exists() for path in cursors)


def test_what_a_dead_process_left_of_either_kind_is_delivered_and_sealed(tmp_path: Path) -> None:
    left = Both(tmp_path)
    sent = [event(1), outsider(2)]

    async def killed() -> None:
        await left.record(*sent)
        for journal in (left.owed, left.outsiders):  # as the system releases them
            assert journal._lock
            journal._lock.release()

    async def story(url: str) -> None:
        both = Both(tmp_path)
        deliveries = [Delivery(half, Webhook(url)) for half in (both.owed, both.outsiders)]
        running = [asyncio.create_task(delivery.run()) for delivery in deliveries]
        await asyncio.to_thread(receiver.wait_for, lambda: len(receiver.event_ids) == 2)
        for delivery in deliveries:
            delivery.stop()
        await asyncio.wait_for(asyncio.gather(*running), 10)
        await both.aclose()

    asyncio.run(killed())
    with receiving() as receiver:
        asyncio.run(story(receiver.url))
    assert {one.event_id for one in sent} == set(receiver.event_ids)
    notes = [note for part in parts(tmp_path) for note in examine(part).findings]
    assert {note.message for note in notes} == {
        "was sealed after its process had ended; changes before that cannot be shown"
    }


def test_a_flood_leaves_no_more_seals_than_segments(tmp_path: Path) -> None:
    both = Both(tmp_path)

    async def story() -> None:
        await both.record(event(1))
        both.owed._retire(both.owed._segment.close)  # type: ignore[union-attr]  # it has one
        await asyncio.to_thread(both.owed._try_to_seal, both.owed._seal_own)
        await both.record(*map(outsider, range(1500)))
        assert len(seal_files(tmp_path)) == 1, "an old segment of others, which stays"
        assert len(seal_files(tmp_path / OUTSIDERS)) < 40
        await both.aclose()

    asyncio.run(story())


def test_the_journal_is_for_its_owner_alone_whichever_part_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "audit"
    both = Both(folder)

    async def story() -> None:
        await both.record(outsider(1), event(2))
        await both.aclose()

    asyncio.run(story())
    for place in parts(folder):
        assert place.stat().st_mode & 0o077 == 0


def test_an_owed_segment_that_was_delivered_may_go_and_one_of_outsiders_stays(
    tmp_path: Path,
) -> None:
    both = Both(tmp_path)

    async def story() -> None:
        await both.record(one := outsider(1))
        with suppress(Refusal):
            while True:
                await both.record(event())
        oldest = stored(tmp_path)[0]
        set_cursor(oldest.path, oldest.size)
        await both.record(event(7))
        assert not oldest.path.exists()
        assert one.event_id in ids(tmp_path), "room is made of the own kind"
        await both.aclose()

    asyncio.run(story())
