"""An upstream that dies in the middle of its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import httpx2

from faults.ci import CiIssuer, documents
from faults.load import Load
from faults.outcome import Outcome, Run
from faults.processes import Broker
from faults.trail import broken_laws

__all__ = ["upstream_dying"]

_PIECE = b"x" * 1000
_HEADS: Mapping[str, bytes] = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + _PIECE,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + _PIECE + b"\r\n",
    "in-a-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + _PIECE,
    "reset": b"HTTP/1.1 200 OK\r\n\r\n" + _PIECE,
    "in-the-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "silent": b"",
}


async def upstream_dying(run: Run) -> Outcome:
    """
    The upstream dies at all points of its answer, while others go on.

    The caller sees a broken answer or a 502, never one that looks complete; the broker serves on.
    """
    outcome, seen = Outcome(), dict.fromkeys(_HEADS, "")
    async with CiIssuer().serving() as issuer, _dying_upstream() as port:
        broker = Broker(run.folder, documents(issuer), "--upstream", f"http://127.0.0.1:{port}")
        load = Load([broker.port], issuer.token)
        async with broker.running(), load.running(), httpx2.AsyncClient(timeout=20) as client:
            for _ in range(run.of(5, 50)):
                for name in _HEADS:
                    url = f"http://127.0.0.1:{broker.port}/function/{name}"
                    seen[name] = how = await _judged(client, url)
                    outcome.tried([f"{name}: {how}"] if how.startswith("complete") else [])
            whole = await client.get(f"http://127.0.0.1:{broker.port}/function/whole")
            outcome.judge([] if whole.content == _PIECE else ["a whole answer did not come whole"])
        outcome.judge(
            f"an exchange got {sent.status} {sent.reason}{sent.broken}"
            for sent in load.sent
            if sent.status != 200
        )
        outcome.judge(broken_laws(load.sent, broker.state))
    outcome.saw(", ".join(f"{name}: {how}" for name, how in seen.items()))
    return outcome


async def _judged(client: httpx2.AsyncClient, url: str) -> str:
    """What an ordinary client makes of the answer."""
    try:
        answer = await client.get(url)
    except httpx2.HTTPError:
        return "broken"
    return "502" if answer.status_code == 502 else f"complete, {answer.status_code}"


@asynccontextmanager
async def _dying_upstream() -> AsyncIterator[int]:
    """The port of an upstream that closes after what its path says, or resets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode("ascii")
            name = path.rsplit("/", 1)[1].partition(".")[0]
            whole = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n" + _PIECE
            writer.write(_HEADS.get(name, whole))
            await writer.drain()
            await asyncio.sleep(0.02)
            if name == "reset":
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
