"""Streams through a real broker: bounded memory, no delay, and a clean end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
import pytest

from tests.harness.broker import local_issuer, started
from tests.harness.gateway import Fronted, fronted, sample

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
FOLLOW = "/system/logs?follow=true&name=figlet&namespace=dev"
Told = TypeVar("Told")


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("broker"), "--upstream-connections", "2000") as up:
        up.reset()
        # Let the broker allocate now what it allocates once.
        httpx2.get(f"{up.broker.url}/function/figlet.dev?bytes={8 * MIB}").raise_for_status()
        yield up


@pytest.fixture(scope="module")
def token(front: Fronted) -> str:
    return front.token()


@dataclass
class Memory:
    """The memory of the broker's process, and its growth since this object was made."""

    pid: int

    def __post_init__(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # reset the peak
        self.before = self.held("VmRSS")

    def held(self, what: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(what)

    @property
    def growth(self) -> int:
        """The peak since then, less the memory at the beginning."""
        return self.held("VmHWM") - self.before


@contextmanager
def grows_at_most(front: Fronted, mebibytes: int, doing: str) -> Iterator[None]:
    """Assert that the broker's memory grows no more inside the `with` block; print the figure."""
    memory = Memory(front.broker.process.pid)
    yield
    print(f"{doing}: {memory.growth / MIB:.1f} MiB more than {memory.before / MIB:.0f} MiB")  # noqa: T201  with -s
    assert memory.growth <= mebibytes * MIB


def run(story: Callable[[], Awaitable[Told]]) -> Told:
    async def bounded() -> Told:
        async with asyncio.timeout(60):
            return await story()

    return asyncio.run(bounded())


async def eventually(true: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait until it becomes true. False if it does not in time."""
    for _ in range(int(10 * seconds)):
        if await asyncio.to_thread(true):
            return True
        await asyncio.sleep(0.1)
    return False


async def follow(front: Fronted, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Follow a log, and read the head of the answer."""
    url = httpx2.URL(front.broker.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(
        f"GET {FOLLOW} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return reader, writer


@pytest.mark.alone
def test_200_followed_logs_are_live_and_cost_little(front: Fronted, token: str) -> None:
    async def story() -> float:
        streams = await asyncio.gather(*(follow(front, token) for _ in range(200)))
        await asyncio.gather(*(reader.readuntil(b"deployed figlet") for reader, _ in streams))
        assert front.state()["following"] == 200
        began = time.monotonic()
        line = asyncio.to_thread(front.directly, "POST", "/function/figlet.dev/live")
        heard = (reader.readuntil(b"figlet.dev/live") for reader, _ in streams)
        await asyncio.gather(line, *heard)
        took = time.monotonic() - began
        for _, writer in streams:
            writer.close()
        assert await eventually(lambda: front.state()["following"] == 0), "all ended upstream too"
        return took

    with grows_at_most(front, 32, "200 followed logs"):
        took = run(story)
    print(f"a line reached all 200 within {1000 * took:.0f} ms")  # noqa: T201  with -s
    assert took < 2


@pytest.mark.alone
def test_a_line_arrives_within_half_a_second_of_being_written(front: Fronted, token: str) -> None:
    async def story() -> list[float]:
        reader, writer = await follow(front, token)
        took = []
        for number in range(5):
            began = time.monotonic()
            await asyncio.to_thread(front.directly, "POST", f"/function/figlet.dev/line-{number}")
            await reader.readuntil(f'line-{number}"'.encode())
            took.append(time.monotonic() - began)
        writer.close()
        return took

    assert max(run(story)) < 0.5


def test_a_follower_that_disconnects_is_disconnected_from_the_upstream(
    front: Fronted, token: str
) -> None:
    async def story() -> None:
        assert await eventually(lambda: front.state()["following"] == 0)
        _, writer = await follow(front, token)
        assert await eventually(lambda: front.state()["following"] == 1)
        writer.transport.abort()
        assert await eventually(lambda: front.state()["following"] == 0, 3)

    run(story)


def test_100_mib_from_a_function_pass_in_bounded_memory(front: Fronted) -> None:
    count = 0
    with grows_at_most(front, 8, "100 MiB answered"):
        url = f"{front.broker.url}/function/figlet.dev?bytes={100 * MIB}"
        with httpx2.stream("GET", url, timeout=60) as answer:
            for piece in answer.iter_raw():
                count += len(piece)
    assert count == 100 * MIB


@pytest.mark.parametrize("sized", [True, False], ids=["with its length", "chunked"])
def test_100_mib_to_a_function_pass_in_bounded_memory(front: Fronted, *, sized: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(MIB)

    headers = {"content-length": str(100 * MIB)} if sized else {}
    with grows_at_most(front, 8, "100 MiB sent"):
        answer = httpx2.post(
            f"{front.broker.url}/function/figlet.dev?bytes=0",
            content=pieces(),
            headers=headers,
            timeout=60,
        )
    assert answer.headers["x-received-bytes"] == str(100 * MIB)


@pytest.mark.alone
def test_a_client_that_does_not_read_blocks_no_others_and_fills_no_memory(front: Fronted) -> None:
    with grows_at_most(front, 16, "20 readers that do not read"), ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(front.broker.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            target = f"/function/figlet.dev?bytes={100 * MIB}"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(2)
        began = time.monotonic()
        httpx2.get(f"{front.broker.url}/healthz", timeout=10).raise_for_status()
        assert time.monotonic() - began < 1


def test_answers_that_nobody_reads_free_the_upstream_after_the_time(tmp_path: Path) -> None:
    flags = ("--upstream-connections", "8", "--upstream-timeout", "1", "--send-timeout", "2s")
    with fronted(tmp_path, *flags) as front, ExitStack() as stack:
        front.reset()
        url = f"{front.broker.url}/function/figlet.dev"
        for _ in range(8):
            connection = stack.enter_context(front.broker.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            target = f"/function/figlet.dev?bytes={1000 * MIB}"
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.5)
        assert httpx2.get(url, timeout=20).status_code == 504, "none is free"
        deadline = time.monotonic() + 8
        while httpx2.get(url, timeout=20).status_code != 200:
            assert time.monotonic() < deadline, "they are held"


class TestSettings:
    def test_an_upstream_that_does_not_begin_to_answer_is_504_after_the_timeout(
        self, tmp_path: Path
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, local_issuer() as issuer:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            flags = ("--upstream", url, "--upstream-timeout", "1")
            with started(tmp_path, issuer, *flags) as broker:
                headers = {"authorization": f"Bearer {broker.access_token()}"}
                for target in ("/system/functions?namespace=dev", FOLLOW, "/function/figlet.dev"):
                    began = time.monotonic()
                    answer = httpx2.get(f"{broker.url}{target}", headers=headers, timeout=20)
                    assert answer.status_code == 504, target
                    assert 0.9 < time.monotonic() - began < 3

    def test_an_upstream_that_is_down_is_502_at_once(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone, local_issuer() as issuer:
            url = f"http://127.0.0.1:{gone.getsockname()[1]}"
            gone.close()
            with started(tmp_path, issuer, "--upstream", url) as broker:
                answer = httpx2.get(f"{broker.url}/healthz", timeout=20)
        assert answer.status_code == 502

    def test_connections_to_the_upstream_are_limited(self, tmp_path: Path) -> None:
        flags = ("--upstream-connections", "8", "--upstream-timeout", "1")  # one for logs
        with fronted(tmp_path, *flags) as front:
            front.reset()
            token = front.token()

            async def story() -> None:
                _, followed = await follow(front, token)
                asked, ready = f"{front.broker.url}{FOLLOW}", f"{front.broker.url}/healthz"
                headers = {"authorization": f"Bearer {token}"}
                async with httpx2.AsyncClient(timeout=20) as client:
                    answer = await client.get(asked, headers=headers)
                    assert answer.status_code == 504, "none is free"
                    assert (await client.get(ready)).status_code == 200, "the API has its own"
                    followed.close()
                    assert await eventually(lambda: front.state()["following"] == 0)
                (await follow(front, token))[1].close()

            run(story)

    def test_an_upstream_that_dies_in_its_answer_breaks_the_answer_to_the_client(
        self, tmp_path: Path
    ) -> None:
        with ExitStack() as stack:
            issuer = stack.enter_context(local_issuer())
            behind = stack.enter_context(ExitStack())
            url = behind.enter_context(sample())
            broker = stack.enter_context(started(tmp_path, issuer, "--upstream", url))
            httpx2.post(f"{url}/test/reset").raise_for_status()
            target = f"{broker.url}/function/figlet.dev?bytes={10_000 * MIB}"
            with httpx2.stream("GET", target, timeout=20) as answer:
                pieces = answer.iter_raw()
                next(pieces)
                behind.close()
                with pytest.raises(httpx2.RemoteProtocolError):
                    for _ in pieces:
                        pass
