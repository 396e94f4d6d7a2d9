"""What is written within one turn leaves as one piece, and nothing waits for longer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from federation.server.joining import JoiningTransport


class Sent(asyncio.Transport):
    """A transport that remembers the pieces it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

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
    story: Callable[[JoiningTransport], None], turns: int = 1, below: Sent | None = None
) -> tuple[list[bytes], bool]:
    """What was sent, and whether the connection is closed, when *story* and *turns* turns of the loop are over."""

    async def told() -> tuple[list[bytes], bool]:
        sent = below or Sent()
        story(JoiningTransport(sent, asyncio.get_running_loop()))
        for _ in range(turns):
            await asyncio.sleep(0)
        return list(sent.pieces), sent.closed

    return asyncio.run(told())


def test_a_head_and_its_body_leave_as_one_piece_at_the_end_of_the_turn() -> None:
    def story(transport: JoiningTransport) -> None:
        transport.write(b"head ")
        transport.write(b"body")

    assert after(story)[0] == [b"head body"]
    assert after(story, turns=0)[0] == []


def test_a_head_waits_for_no_body() -> None:
    assert after(lambda transport: transport.write(b"head"))[0] == [b"head"]


def test_much_leaves_at_once_so_that_the_transport_can_say_enough() -> None:
    def story(transport: JoiningTransport) -> None:
        for _ in range(3):
            transport.write(b"x" * 10_000)

    assert [len(piece) for piece in after(story, turns=0)[0]] == [20_000]
    assert [len(piece) for piece in after(story)[0]] == [20_000, 10_000]


def test_what_was_written_is_sent_before_the_connection_closes() -> None:
    def story(transport: JoiningTransport) -> None:
        transport.write(b"last words")
        transport.close()

    assert after(story) == ([b"last words"], True)


def test_nothing_is_written_to_a_connection_that_was_lost_or_given_up() -> None:
    below = Sent()

    def lost(transport: JoiningTransport) -> None:
        transport.write(b"to nobody")
        below.close()

    def given_up(transport: JoiningTransport) -> None:
        transport.write(b"to nobody")
        transport.abort()

    assert after(lost, below=below) == ([], True)
    assert after(given_up) == ([], True)
