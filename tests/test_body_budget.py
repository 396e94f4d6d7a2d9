"""The budget of bodies: callers share it, wait for room in turn, and leave it free behind them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from federation.gateway.body_budget import SMALL_BYTES, BodyBudget
from federation.gateway.refusals import NoRoom
from tests.harness.gateway import Listening, listening

pytestmark = pytest.mark.alone

MIB = 1024 * 1024


async def hold(budget: BodyBudget, size: int, until: asyncio.Event) -> None:
    async with budget.room(size, object()):
        await until.wait()


async def failing(budget: BodyBudget) -> None:
    async with budget.room(10 * MIB, 1):
        _ = 1 / 0


async def taken(budget: BodyBudget, size: int) -> bool:
    """True if there is room for *size* before the budget's own time is over."""
    try:
        async with budget.room(size, object()):
            return True
    except NoRoom:
        return False


def test_bodies_that_fit_together_do_not_wait() -> None:
    async def story() -> None:
        budget = BodyBudget(10 * MIB, wait_seconds=0.05)
        async with budget.room(4 * MIB, 1), budget.room(6 * MIB, 2):
            assert not await taken(budget, SMALL_BYTES + 1)
        assert await taken(budget, 10 * MIB)

    asyncio.run(story())


def test_small_bodies_need_no_room() -> None:
    async def story() -> None:
        budget = BodyBudget(MIB, wait_seconds=0.05)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(budget.room(MIB, 1))
            for _ in range(100):
                await stack.enter_async_context(budget.room(SMALL_BYTES, 1))

    asyncio.run(story())


def test_a_caller_waits_for_room_and_gets_it_in_turn() -> None:
    async def story() -> list[int]:
        budget, served = BodyBudget(10 * MIB, wait_seconds=5), list[int]()

        async def caller(number: int, size: int) -> None:
            async with budget.room(size, number):
                served.append(number)
                await asyncio.sleep(0.01)

        # The third would fit beside the first, but the second came before it.
        sizes = [6 * MIB, 10 * MIB, MIB, 9 * MIB]
        await asyncio.gather(*(caller(number, size) for number, size in enumerate(sizes)))
        return served

    assert asyncio.run(story()) == [0, 1, 2, 3]


@pytest.mark.parametrize("end", ["fails", "cancelled-inside", "cancelled-waiting", "late"])
def test_the_room_is_free_again_however_a_request_ends(end: str) -> None:
    async def story() -> None:
        budget = BodyBudget(10 * MIB, wait_seconds=0.05 if end == "late" else 5)
        done = asyncio.Event()
        first = asyncio.create_task(hold(budget, 10 * MIB, done))
        await asyncio.sleep(0)
        if end == "fails":
            done.set()
            await first
            with pytest.raises(ZeroDivisionError):
                await failing(budget)
        elif end == "cancelled-inside":
            first.cancel()
        else:
            second = asyncio.create_task(hold(budget, 5 * MIB, done))
            await asyncio.sleep(0.1)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            done.set()
        await asyncio.gather(first, return_exceptions=True)
        async with asyncio.timeout(1):
            assert await taken(budget, 10 * MIB)

    asyncio.run(story())


def test_one_caller_has_and_waits_for_half_of_the_room_at_most() -> None:
    """Otherwise one job could fill the queue, and everybody else would come after it."""

    async def story() -> None:
        budget, done = BodyBudget(10 * MIB, wait_seconds=5), asyncio.Event()
        inside: list[str] = []

        async def caller(name: str, size: int) -> None:
            async with budget.room(size, name):
                inside.append(name)
                await done.wait()

        greedy = [asyncio.create_task(caller("greedy", 2 * MIB)) for _ in range(20)]
        await asyncio.sleep(0)
        assert sum(task.done() for task in greedy) == 18, "the others are refused at once"
        others = [asyncio.create_task(caller(name, 3 * MIB)) for name in "ab"]
        await asyncio.sleep(0)
        assert inside == ["greedy", "greedy", "a", "b"], "the greedy caller delays no other"
        done.set()
        refused = await asyncio.gather(*greedy, return_exceptions=True)
        assert [type(error) for error in refused].count(NoRoom) == 18
        await asyncio.gather(*others)
        # One body is taken whatever its size, and the caller may come again.
        async with budget.room(10 * MIB, "greedy"):
            pass

    asyncio.run(story())


@pytest.mark.parametrize(("size", "outside"), [(SMALL_BYTES, False), (SMALL_BYTES + 1, True)])
def test_large_bodies_are_parsed_outside_the_event_loop(size: int, outside: bool) -> None:
    async def story() -> bool:
        reader = await BodyBudget(MIB).parse(bytes(size), lambda _: threading.current_thread())
        return reader is not threading.current_thread()

    assert asyncio.run(story()) is outside


def test_large_bodies_are_parsed_one_after_the_other() -> None:
    working, most = 0, 0

    def read(_: bytes) -> None:
        nonlocal working, most
        working += 1
        most = max(most, working)
        time.sleep(0.02)
        working -= 1

    async def story() -> None:
        budget = BodyBudget(MIB)
        await asyncio.gather(*(budget.parse(bytes(SMALL_BYTES + 1), read) for _ in range(5)))

    asyncio.run(story())
    assert most == 1


def test_what_a_body_is_refused_for_is_raised_from_the_thread() -> None:
    def read(_: bytes) -> None:
        raise NoRoom

    with pytest.raises(NoRoom):
        asyncio.run(BodyBudget(MIB).parse(bytes(SMALL_BYTES + 1), read))


# -- through the broker


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with listening(tmp_path_factory.mktemp("secrets"), body_budget=16) as front:
        yield front


def put(front: Listening, token: str, text: str, framing: str = "") -> tuple[bytes, bytes]:
    """A deployment with *text* as a value: head, and body."""
    deployment: dict[str, Any] = {"service": "figlet", "image": "i:2", "namespace": "dev"}
    body = json.dumps({**deployment, "envProcess": text}).encode()
    head = (
        f"PUT /system/functions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nConnection: close\r\n"
        f"{framing or f'Content-Length: {len(body)}'}\r\n\r\n"
    )
    return head.encode(), body


def tokens(front: Listening) -> tuple[str, str]:
    """The tokens of two callers who may do everything."""
    token = front.grant(("*", "*"))
    return token, front.signed({**front.said(), "policy": ["p"], "sub": "fed:another"})


def connect(front: Listening) -> socket.socket:
    return socket.create_connection(("127.0.0.1", front.port), timeout=15)


def status(connection: socket.socket) -> bytes:
    return connection.recv(65536)[9:12]


@pytest.mark.parametrize("framing", ["", "Transfer-Encoding: chunked"])
def test_a_body_waits_until_another_one_has_left_room(front: Listening, framing: str) -> None:
    token, another = tokens(front)
    head, body = put(front, token, "x" * 9 * MIB)
    with connect(front) as first, connect(front) as second, connect(front) as small:
        first.sendall(head + body[:-1])
        time.sleep(0.3)
        other_head, other = put(front, another, "y" * 9 * MIB, framing)
        chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(other), other)
        sender = threading.Thread(
            target=second.sendall, args=(other_head + (chunked if framing else other),)
        )
        sender.start()
        # A small one passes meanwhile.
        small.sendall(b"".join(put(front, token, "z")))
        assert status(small) == b"202"
        second.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.recv(1)
        first.sendall(body[-1:])
        second.settimeout(15)
        assert (status(first), status(second)) == (b"202", b"202")
        sender.join()


@pytest.mark.parametrize("own", [True, False], ids=["its-own-bodies", "bodies-of-others"])
def test_a_caller_that_finds_no_room_is_told_to_try_again(front: Listening, own: bool) -> None:
    token, another = tokens(front)
    head, body = put(front, token, "x" * 9 * MIB)
    other_head, _ = put(front, token if own else another, "x" * 9 * MIB)
    with connect(front) as first, connect(front) as second:
        first.sendall(head + body[:-1])
        time.sleep(0.3)
        second.sendall(other_head)
        answer = second.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in answer
        first.sendall(body[-1:])
        assert status(first) == b"202"
