"""Writes of one event loop turn leave in one piece at its end, and a client must read them in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from federation.server.write_coalescing import CoalescingTransport

pytestmark = pytest.mark.alone


class Sent(asyncio.Transport):
    """A transport that records what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "nothing is written to a closed connection"
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def after(
    story: Callable[[CoalescingTransport], None], turns: int = 1, below: Sent | None = None
) -> tuple[list[bytes], bool]:
    """The pieces sent after *story* and *turns* turns of the loop; True if it is closed by then."""

    async def run() -> tuple[list[bytes], bool]:
        sent = below or Sent()
        story(CoalescingTransport(sent, asyncio.get_running_loop(), 60))
        for _ in range(turns):
            await asyncio.sleep(0)
        return list(sent.pieces), sent.closed

    return asyncio.run(run())


def test_a_head_and_its_body_are_sent_in_one_piece_at_the_end_of_the_turn() -> None:
    def story(transport: CoalescingTransport) -> None:
        transport.write(b"head ")
        transport.write(b"body")

    assert after(story)[0] == [b"head body"]
    assert after(story, turns=0)[0] == []


def test_a_head_without_a_body_is_sent_at_the_end_of_the_turn() -> None:
    assert after(lambda transport: transport.write(b"head"))[0] == [b"head"]


def test_a_full_buffer_is_sent_at_once_so_that_back_pressure_works() -> None:
    def story(transport: CoalescingTransport) -> None:
        for _ in range(3):
            transport.write(b"x" * 10_000)

    assert [len(piece) for piece in after(story, turns=0)[0]] == [20_000]
    assert [len(piece) for piece in after(story)[0]] == [20_000, 10_000]


def test_closing_sends_what_was_written_first() -> None:
    def story(transport: CoalescingTransport) -> None:
        transport.write(b"last words")
        transport.close()

    assert after(story) == ([b"last words"], True)


def test_nothing_is_written_to_a_lost_or_aborted_connection() -> None:
    below = Sent()

    def lost(transport: CoalescingTransport) -> None:
        transport.write(b"to nobody")
        below.close()

    def aborted(transport: CoalescingTransport) -> None:
        transport.write(b"to nobody")
        transport.abort()

    assert after(lost, below=below) == ([], True)
    assert after(aborted) == ([], True)


class Read(Sent):
    """A transport whose other end has read all but *unsent* bytes at each look."""

    def __init__(self, *unsent: int) -> None:
        super().__init__()
        self.looks = list(unsent)

    def get_write_buffer_size(self) -> int:
        return self.looks.pop(0) if self.looks else 0


def cut_off(*unsent: int, written: int = 1000) -> bool:
    """Whether a connection is aborted of which so much is unsent after its write, and at each look."""

    async def run() -> bool:
        sent = Read(*unsent)
        transport = CoalescingTransport(sent, asyncio.get_running_loop(), send_seconds=0.04)
        transport.write(b"x" * written)
        for _ in range(40):
            await asyncio.sleep(0.005)
        return sent.closed

    return asyncio.run(run())


def test_what_leaves_within_the_time_may_leave_late() -> None:
    assert not cut_off(1000, 1000, 1000, 1000, 0)
    assert not cut_off(1000, 900, 500, 10, 0)


def test_a_connection_is_aborted_if_something_is_left_after_the_time() -> None:
    assert cut_off(1000, 1000, 1000, 1000, 1000)
    assert cut_off(1000, 4, 3, 2, 1), "a byte now and then is not enough"


def test_nothing_is_looked_at_once_all_has_left() -> None:
    assert not cut_off(0, 1000, 1000, 1000, 1000)
    assert not cut_off(1000, 0, 1000, 1000, 1000, 1000)


def test_a_slow_reader_is_served_as_long_as_what_was_awaited_leaves() -> None:
    """There is always something unsent, but never for the whole time the same."""

    async def run() -> bool:
        sent = Sent()
        transport = CoalescingTransport(sent, asyncio.get_running_loop(), send_seconds=0.04)
        sent.unsent = 1000
        for _ in range(60):  # several times the time, judged by bytes
            transport.write(b"x" * 1000)
            await asyncio.sleep(0.005)
        return sent.closed

    assert not asyncio.run(run())
