"""Let the upstream die in the middle of its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping

import httpx2

from faults.outcome import Outcome, Run
from faults.processes import Broker, running
from faults.trail import broken_promises, not_granted
from tests.harness.issuer import CiIssuer
from tests.harness.load import Load
from tests.harness.raw_server import http_answer, raw_server

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
    The upstream dies at each point of its answer, while exchanges go on.

    The caller sees a broken answer or a 502, never one that looks complete. The broker serves
    other requests.
    """
    outcome, seen = Outcome(), dict.fromkeys(_HEADS, "")
    async with CiIssuer().serving() as issuer, raw_server(_answer) as (upstream, _):
        broker = Broker(run.folder, issuer.documents(), "--upstream", upstream)
        load = Load([broker.port], issuer.token)
        async with running(broker), load.running(), httpx2.AsyncClient(timeout=20) as client:
            for _ in range(run.of(5, 50)):
                for name in _HEADS:
                    url = f"http://127.0.0.1:{broker.port}/function/{name}"
                    seen[name] = how = await _judged(client, url)
                    outcome.tried([f"{name}: {how}"] if how.startswith("complete") else [])
            whole = await client.get(f"http://127.0.0.1:{broker.port}/function/whole")
            outcome.judge([] if whole.content == _PIECE else ["a whole answer did not come whole"])
        outcome.judge(not_granted(load.sent))
        outcome.judge(broken_promises(load.sent, broker))
    outcome.saw(", ".join(f"{name}: {how}" for name, how in seen.items()))
    return outcome


async def _judged(client: httpx2.AsyncClient, url: str) -> str:
    """The answer as an ordinary client sees it."""
    try:
        answer = await client.get(url)
    except httpx2.HTTPError:
        return "broken"
    return "502" if answer.status_code == 502 else f"complete, {answer.status_code}"


async def _answer(path: str, writer: asyncio.StreamWriter) -> None:
    """Die at the point that the path names; answer any other path with a whole answer."""
    name = path.rsplit("/", 1)[1].partition(".")[0]
    writer.write(_HEADS.get(name, http_answer(_PIECE)))
    await writer.drain()
    await asyncio.sleep(0.02)
    if name == "reset":
        # With a linger time of 0, the system resets the connection instead of closing it.
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
