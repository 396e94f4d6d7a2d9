"""Requests that are at work at the same time take each step together."""

from __future__ import annotations

import asyncio

from federation.steps import in_step


def test_everybody_takes_a_step_before_anybody_takes_the_next() -> None:
    walked: list[str] = []

    async def request(name: str) -> None:
        for step in ("parse", "verify", "sign"):
            walked.append(f"{step} {name}")
            await in_step()

    async def both() -> None:
        await asyncio.gather(request("one"), request("two"))

    asyncio.run(both())
    assert walked == ["parse one", "parse two", "verify one", "verify two", "sign one", "sign two"]
