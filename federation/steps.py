"""
Requests that are at work at the same time take each step of a road together.

A step's code is fetched into the processor's caches once for all of them. Walked request by
request, the whole road has to be fetched for each: its code is larger than those caches.
"""

from __future__ import annotations

from collections.abc import Generator
from types import coroutine

__all__ = ["in_step"]


@coroutine
def in_step() -> Generator[None, None, None]:
    """
    Every other request that is at work has come to an `in_step` of its own, or waits.

    What was true before need not be true any more: a road takes its snapshots first.
    """
    yield  # to the event loop, which goes on with this request in its next turn
