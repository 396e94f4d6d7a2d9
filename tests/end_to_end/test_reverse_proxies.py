"""Behind real reverse proxies no request is lost, and no answer of a function opens a tunnel."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.harness.broker import local_issuer, started
from tests.harness.gateway import Fronted, fronted
from tests.harness.process import in_thread
from tests.harness.raw_server import raw_server
from tests.harness.reverse_proxies import Proxy, go_proxy, nginx

pytestmark = pytest.mark.e2e

PROXIES = pytest.mark.parametrize("proxy", [nginx, go_proxy], ids=["nginx", "Go"])
PROXY_KEEPS, BROKER_KEEPS = 2, 3
CLIENTS, REQUESTS = 100, 10
AROUND = (-0.1, -0.02, 0.0, 0.02, 0.1)
"""How far from a boundary requests are sent, in seconds."""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("broker"), "--keep-alive", f"{BROKER_KEEPS}s") as up:
        up.reset()
        yield up


@PROXIES
def test_1000_posts_around_every_end_of_an_idle_connection_lose_none(
    front: Fronted, proxy: Proxy
) -> None:
    """A proxy sends no POST twice, so one on a connection that closes just then would be lost."""
    boundaries = [kept + aside for kept in (PROXY_KEEPS, BROKER_KEEPS) for aside in AROUND]

    async def client(number: int, url: str) -> Counter[int]:
        answers = Counter[int]()
        async with httpx2.AsyncClient(timeout=20) as http:
            for turn in range(REQUESTS):
                posted = await http.post(f"{url}/function/figlet.dev", content=b"in")
                answers[posted.status_code] += 1
                await asyncio.sleep(boundaries[(number + turn) % len(boundaries)])
        return answers

    async def story(url: str) -> Counter[int]:
        return sum(await asyncio.gather(*(client(n, url) for n in range(CLIENTS))), Counter[int]())

    with proxy(front.broker.url, PROXY_KEEPS) as url:
        assert asyncio.run(story(url)) == {200: CLIENTS * REQUESTS}


def test_nginx_gets_a_whole_answer_over_http_1_0(front: Fronted) -> None:
    with nginx(front.broker.url, PROXY_KEEPS) as url:
        answer = httpx2.get(f"{url}/http-1.0/function/figlet.dev?bytes=300000", timeout=20)
    assert (answer.status_code, len(answer.content)) == (200, 300_000)


@PROXIES
def test_an_upgrade_is_answered_as_if_it_were_none(front: Fronted, proxy: Proxy) -> None:
    upgrades = {
        "h2c": {"Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABkAAQAoAAA"},
        "websocket": {"Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="},
    }
    with proxy(front.broker.url, PROXY_KEEPS) as url:
        for upgrade, headers in upgrades.items():
            answer = httpx2.post(
                f"{url}/function/figlet.dev",
                content=b"in",
                headers={"Upgrade": upgrade, **headers},
                timeout=20,
            )
            assert (answer.status_code, answer.headers["x-received-bytes"]) == (200, "2")


def _say(url: str, *pieces: bytes) -> bytes:
    """The proxy's answer to *pieces*, read until it closes the connection or sends nothing for 2 s."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port or 80), timeout=2) as connection:
        heard = bytearray()
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.3)
            while chunk := connection.recv(65536):
                heard += chunk
        except OSError:
            pass
        return bytes(heard)


@PROXIES
@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "unasked"])
def test_a_function_that_switches_protocols_opens_no_tunnel(
    tmp_path: Path, proxy: Proxy, *, asked: bool
) -> None:
    """Inside a tunnel, a caller would reach the broker past everything that the proxy adds."""

    async def switch(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await writer.drain()
        await asyncio.sleep(2)

    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n" if asked else b""
    call = b"GET /function/figlet.dev HTTP/1.1\r\nHost: x\r\n" + upgrade + b"\r\n"
    inside = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with ExitStack() as stack:
        upstream, _ = stack.enter_context(in_thread(lambda: raw_server(switch)))
        issuer = stack.enter_context(local_issuer())
        broker = stack.enter_context(started(tmp_path, issuer, "--upstream", upstream))
        heard = _say(stack.enter_context(proxy(broker.url, PROXY_KEEPS)), call, inside)
    assert heard.startswith(b"HTTP/1.1 502 ")
    assert b"101 Switching" not in heard
    # What follows is a request of its own, which the proxy has read and passed on as one.
    assert b'"documents"' not in heard
