"""Work beside the requests: what ends though it should go on is logged and told."""

from __future__ import annotations

import asyncio
import json

from federation.background import Background
from tests.harness.broker import logged


async def ending() -> None:
    """Return at once."""


async def failing() -> None:
    """Raise."""
    raise RuntimeError("hunter2")


async def lasting() -> None:
    """Go on until it is cancelled."""
    await asyncio.Event().wait()


async def told(background: Background) -> list[str]:
    await asyncio.sleep(0.05)
    problems = list(background.problems)
    await background.aclose()
    return problems


def test_work_that_goes_on_and_work_that_may_end_are_no_problem() -> None:
    async def story() -> list[str]:
        background = Background()
        background.start("lasting", lasting())
        background.start("once", ending(), ends=True)
        return await told(background)

    with logged() as log:
        assert asyncio.run(story()) == []
    assert log.getvalue() == ""


def test_work_that_fails_or_ends_is_told_by_its_name_and_logged_once() -> None:
    async def story() -> list[str]:
        background = Background("federation.test")
        background.start("one", failing(), ends=True)
        background.start("two", ending())
        return await told(background)

    with logged() as log:
        one, two = asyncio.run(story())
    assert one == (
        "background task one: ended with RuntimeError; restart the process, and see its log"
    )
    assert two.startswith("background task two: ended with no error; ")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["task"] for line in lines] == ["one", "two"]
    assert "hunter2" in lines[0]["exception"], "the operator's log has the whole error"
    assert "hunter2" not in one


def test_a_shutdown_is_no_failure_and_waits_for_every_task() -> None:
    async def story() -> list[bool]:
        background = Background()
        tasks = [background.start(str(number), lasting()) for number in range(3)]
        await asyncio.sleep(0)
        await background.aclose()
        assert background.problems == []
        return [task.done() for task in tasks]

    assert asyncio.run(story()) == [True] * 3
