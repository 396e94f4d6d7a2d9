"""
An upstream that is down or slow costs the broker no memory and no time after it has failed.

The collector keeps away while documents are read. What an error holds until it comes, a caller can
pile up: the request with its body, or the answer.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from threading import Event

import pytest
import uvloop

from federation.gateway.client import ConnectionPool, UpstreamRequest
from federation.gateway.connection import Answer, Connection
from federation.gateway.refusals import UpstreamFailed
from tests.harness.certificates import Authority
from tests.harness.raw_server import serving
from tests.test_gateway_client import connected, saying


def kept() -> list[object]:
    """The requests of `fail`, with their answers and connections, that are still in memory."""
    sent = [r for r in gc.get_objects() if isinstance(r, UpstreamRequest) and r.method == "PUT"]
    return [
        *sent,
        *(found for found in gc.get_objects() if isinstance(found, (Answer, Connection))),
    ]


async def fail(pool: ConnectionPool, body: AsyncIterator[bytes] | bytes | None = None) -> None:
    """Send a request that fails."""
    with pytest.raises(UpstreamFailed):
        await pool.send(UpstreamRequest("PUT", b"/system/functions", [], body))


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no.invalid"])
def test_a_failed_connection_keeps_no_request(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async def story() -> None:
        pool = ConnectionPool(f"http://{host}:{port}", 4, 1)
        await fail(pool, b"a deployment")
        await pool.aclose()

    uvloop.run(story())
    assert kept() == []


@pytest.mark.usefixtures("without_collector")
def test_a_failure_while_the_caller_sends_its_body_keeps_no_answer() -> None:
    """The task that sends the body is cancelled. Its end holds the frame that it was in."""

    async def slow() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(60)

    async def story() -> None:
        async with connected(saying(b"")) as pool:
            await fail(pool, slow())

    uvloop.run(story())
    assert kept() == []


@pytest.mark.usefixtures("without_collector")
def test_a_caller_that_leaves_while_it_is_connected_leaves_no_open_socket() -> None:
    def opened() -> set[int]:
        sockets = (found for found in gc.get_objects() if isinstance(found, socket.socket))
        return {found.fileno() for found in sockets} - {-1}

    async def story(port: int) -> None:
        pool = ConnectionPool(f"http://127.0.0.1:{port}", 4, 1)
        before = opened()
        for passes in range(20):
            request = UpstreamRequest("PUT", b"/system/functions", [], None)
            caller = asyncio.create_task(pool.send(request))
            for _ in range(passes):
                await asyncio.sleep(0)
            caller.cancel()
            await asyncio.wait([caller])
        await asyncio.sleep(0.05)
        assert opened() == before

    with socket.create_server(("127.0.0.1", 0)) as listener:
        uvloop.run(story(listener.getsockname()[1]))


def test_callers_of_a_name_that_dns_does_not_answer_share_one_lookup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would hold a thread, and queue behind those of callers that have long left."""
    answers, looked_up = Event(), 0

    def slow(*_name: object, **_kind: object) -> list[object]:
        nonlocal looked_up
        looked_up += 1
        answers.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    async def story() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", slow)
        pool = ConnectionPool("http://gateway.example", 4, 0.05)
        await asyncio.gather(*(fail(pool) for _ in range(20)))
        assert looked_up == 1
        answers.set()
        await fail(pool)

    asyncio.run(story())
    assert looked_up <= 2


def test_a_name_with_a_dot_at_its_end_is_the_same_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """DNS takes `gateway.openfaas.svc.cluster.local.` as it is, but no certificate has the dot."""
    authority, named, heads = Authority(tmp_path / "ca"), list[str | None](), list[bytes]()
    server = authority.server()
    server.sni_callback = lambda _socket, name, _context: named.append(name)
    client = ssl.create_default_context(cafile=authority.certificate)
    client.check_hostname = False

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

    async def story(listener: socket.socket) -> None:
        address = listener.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_name, **_kind: found)
        async with serving(serve, listener, server):
            pool = ConnectionPool(f"https://gateway.example.:{address[1]}", 4, 1, client)
            response = await pool.send(UpstreamRequest("GET", b"/", [], None))
            await response.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = b"%d" % listener.getsockname()[1]
        asyncio.run(story(listener))
    assert named == ["gateway.example"]
    assert b"host: gateway.example:%b\r\n" % port in heads[0]
