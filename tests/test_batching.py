"""Concurrent callers share one blocking operation, and each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from federation import batching
from federation.batching import Batcher

pytestmark = pytest.mark.alone


class Recorded:
    """Work that remembers its batches; each item's answer is the item, doubled."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(items))
        assert self.may_end.wait(5)
        if -1 in items:
            raise OSError("no room")
        return [2 * item for item in items]


def told(story: Callable[[Recorded, Batcher[int, int]], Awaitable[None]]) -> list[list[int]]:
    """Run *story* with a batcher, and return the batches."""

    async def telling() -> None:
        batcher = Batcher(work, "test")
        await story(work, batcher)
        await batcher.aclose()

    work = Recorded()
    asyncio.run(asyncio.wait_for(telling(), 10))
    return work.batches


def test_items_of_one_turn_are_one_batch_and_each_gets_its_answer() -> None:
    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        answers = await asyncio.gather(*(batcher.submit(number) for number in range(5)))
        assert answers == [0, 2, 4, 6, 8]

    assert told(story) == [[0, 1, 2, 3, 4]]


def test_items_that_arrive_during_a_batch_are_the_next_batch() -> None:
    async def story(work: Recorded, batcher: Batcher[int, int]) -> None:
        work.may_end.clear()
        first = asyncio.create_task(batcher.submit(1))
        while not work.batches:  # noqa: ASYNC110  a thread tells, and not the loop
            await asyncio.sleep(0.001)
        later = [asyncio.create_task(batcher.submit(number)) for number in (2, 3)]
        await asyncio.sleep(0.02)
        assert work.batches == [[1]]
        work.may_end.set()
        assert [await first, *[await task for task in later]] == [2, 4, 6]

    assert told(story) == [[1], [2, 3]]


def test_a_loop_that_is_busy_gathers_what_its_turns_submit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On a busy machine a sleep takes longer than asked, so the busy loop gets time.
    monkeypatch.setattr(batching, "_GATHER_SECONDS", 5)

    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        async def request(number: int) -> None:
            for _ in range(number):
                time.sleep(0.0001)  # noqa: ASYNC251  work of the loop's own
                await asyncio.sleep(0)
            await batcher.submit(number)

        await asyncio.gather(*(request(number) for number in range(5)))

    assert told(story) == [[0, 1, 2, 3, 4]]


def test_a_loop_that_stays_busy_delays_no_batch_for_long() -> None:
    async def story(work: Recorded, batcher: Batcher[int, int]) -> None:
        working = asyncio.create_task(_keep_busy())
        began = time.monotonic()
        assert await batcher.submit(4) == 8
        assert time.monotonic() - began < 2
        working.cancel()

    told(story)


def test_a_caller_that_is_alone_for_long_does_not_wait_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "_GATHER_SECONDS", 20)

    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        for number in range(batching._ALONE):
            await batcher.submit(number)
        busy = asyncio.create_task(_keep_busy())
        for number in range(3):
            assert await batcher.submit(number) == 2 * number
        busy.cancel()

    assert len(told(story)) == batching._ALONE + 3


def test_a_caller_that_is_alone_no_more_waits_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "_GATHER_SECONDS", 5)

    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        async def later(number: int) -> None:
            for _ in range(number):
                time.sleep(0.0001)  # noqa: ASYNC251  work of the loop's own
                await asyncio.sleep(0)
            await batcher.submit(number)

        for number in range(batching._ALONE):
            await batcher.submit(number)
        await asyncio.gather(*(batcher.submit(number) for number in (7, 8, 9)))
        await asyncio.gather(*(later(number) for number in range(3)))

    assert told(story)[batching._ALONE :] == [[7], [8, 9], [0, 1, 2]]


async def _keep_busy() -> None:
    while True:
        time.sleep(0.0005)  # noqa: ASYNC251  work of the loop's own
        await asyncio.sleep(0)


def test_a_failure_reaches_every_caller_of_its_batch_and_none_of_the_next() -> None:
    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        failed = await asyncio.gather(
            *(batcher.submit(number) for number in (1, -1)), return_exceptions=True
        )
        assert [str(failure) for failure in failed] == ["no room", "no room"]
        assert await batcher.submit(3) == 6

    assert told(story) == [[1, -1], [3]]


def test_a_caller_that_gives_up_changes_nothing_for_the_others() -> None:
    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        gone, stays = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == 4
        with pytest.raises(asyncio.CancelledError):
            await gone

    assert told(story) == [[1, 2]]


def test_closing_waits_for_everything_that_was_submitted() -> None:
    async def story(_work: Recorded, batcher: Batcher[int, int]) -> None:
        tasks = [asyncio.create_task(batcher.submit(number)) for number in range(3)]
        await asyncio.sleep(0)
        await batcher.aclose()
        assert [task.done() for task in tasks] == [True] * 3
        assert [task.result() for task in tasks] == [0, 2, 4]

    assert told(story) == [[0, 1, 2]]
