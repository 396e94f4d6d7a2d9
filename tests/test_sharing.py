"""Workers that share a port have about as many connections, and wait for nobody in vain."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.types import Receive, Scope, Send

from federation.cli.serve import configured
from federation.server.sharing import SharingServer

NOBODY = 1000
Answer = Callable[[], Awaitable[bytes]]
Start = Callable[[int], Awaitable[SharingServer]]
Story = Callable[[Start, Answer], Awaitable[None]]
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n"


async def nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def serving(counts: list[int], story: Story) -> None:
    """*story* with servers that share a port and *counts*, started as it wants them."""

    async def told() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            servers: list[SharingServer] = []
            running: list[asyncio.Task[None]] = []
            held: list[asyncio.StreamWriter] = []
            port = listener.getsockname()[1]

            async def start(place: int) -> SharingServer:
                config = configured(nothing)
                config.lifespan = "off"
                servers.append(server := SharingServer(config, counts, place))
                running.append(asyncio.create_task(server._serve([listener.dup()])))
                await asyncio.sleep(0.05)
                assert server.started
                return server

            async def answer() -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                held.append(writer)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                return await reader.readline()

            try:
                await story(start, answer)
            finally:
                for server in servers:
                    server.should_exit = True
                for writer in held:
                    writer.close()
                    with suppress(OSError):
                        await writer.wait_closed()
                await asyncio.gather(*running)

    asyncio.run(asyncio.wait_for(told(), 20))


def connections(server: SharingServer) -> int:
    return len(server.server_state.connections)


def test_new_connections_go_to_the_worker_that_has_fewer() -> None:
    async def story(start: Start, answer: Answer) -> None:
        first = await start(0)
        await asyncio.gather(*(answer() for _ in range(20)))
        assert connections(first) == 20
        second = await start(1)
        assert {await answer() for _ in range(20)} == {NO_CONTENT}
        assert connections(second) >= 18, "all but what one that is asleep lets pass"
        for _ in range(20):
            assert await answer() == NO_CONTENT
        assert abs(connections(first) - connections(second)) <= 4

    serving([NOBODY, NOBODY], story)


def test_a_worker_that_takes_no_turn_holds_nobody_up() -> None:
    async def story(start: Start, answer: Answer) -> None:
        await start(0)
        for _ in range(20):
            assert await asyncio.wait_for(answer(), 1) == NO_CONTENT

    serving([NOBODY, 0], story)


def test_connections_that_end_count_no_more() -> None:
    counts = [NOBODY, NOBODY]

    async def busy(start: Start, answer: Answer) -> None:
        await start(0)
        await asyncio.gather(*(answer() for _ in range(10)))
        assert counts == [10, NOBODY]

    async def idle(start: Start, _answer: Answer) -> None:
        await start(0)
        await asyncio.sleep(0.3)
        assert counts == [0, NOBODY]

    serving(counts, busy)
    serving(counts, idle)


def test_one_worker_that_ends_leaves_the_port_to_the_others() -> None:
    async def story(start: Start, answer: Answer) -> None:
        first = await start(0)
        await start(1)
        first.should_exit = True
        for _ in range(10):
            assert await asyncio.wait_for(answer(), 0.9) == NO_CONTENT
            await asyncio.sleep(0.05)

    serving([NOBODY, NOBODY], story)
