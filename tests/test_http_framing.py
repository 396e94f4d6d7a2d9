"""Generated requests, cut anywhere and pipelined, reach the application whole and in order."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from federation.server.http_limits import http_config


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its bytes, and what the application must see of it."""

    raw: bytes
    path: str
    body: bytes


class FakeTransport(asyncio.Transport):
    """A transport that can be paused, and takes every answer."""

    def __init__(self) -> None:
        super().__init__()
        self.paused = self.closed = False
        self.written = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
BODIES = st.lists(
    st.sampled_from(
        [b"\r\n\r\n", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n", b"\n", b"abc", b"0"]
    ),
    max_size=6,
).map(b"".join)


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    body, path = draw(BODIES), f"/{draw(st.integers(0, 99))}"
    framing = draw(st.sampled_from(["none", "length", "chunked"]))
    lines = b"Host: x\r\n" + draw(st.sampled_from([b"", UPGRADE, b"X: y\r\n"]))
    if framing == "none":
        body, sent = b"", b"\r\n"
    elif framing == "length":
        sent = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    else:
        size = draw(st.integers(1, 20))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        trailer = draw(st.sampled_from([b"", b"Authorization: x\r\n"]))
        sent = b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n%b\r\n" % (chunks, trailer)
    return Asked(b"POST %b HTTP/1.1\r\n%b%b" % (path.encode(), lines, sent), path, body)


async def served(sent: list[bytes]) -> tuple[list[tuple[str, bytes]], int, bytes]:
    """What an application sees of *sent*, the most requests that ever waited, and the answers."""
    seen: list[tuple[str, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert not {b"upgrade", b"authorization"} & {name for name, _ in scope["headers"]}
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        seen.append((scope["path"], body))
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = http_config(app)
    config.lifespan = "off"
    config.load()
    made: dict[str, Any] = {"server_state": uvicorn.Server(config).server_state, "app_state": {}}
    protocol: Any = config.http_protocol_class
    connection = protocol(config=config, **made)
    transport, waited = FakeTransport(), 0
    connection.connection_made(transport)
    for piece in sent:
        for _ in range(1000):
            if not transport.paused:
                break
            await asyncio.sleep(0)
        connection.data_received(piece)
        waited = max(waited, len(connection.pipeline))
    for _ in range(1000):
        waited = max(waited, len(connection.pipeline))
        await asyncio.sleep(0)
    transport.closed = True
    connection.connection_lost(None)
    return seen, waited, bytes(transport.written)


@settings(max_examples=60, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=12), st.data())
def test_requests_are_seen_whole_and_in_order_however_they_are_cut(
    asked: list[Asked], data: st.DataObject
) -> None:
    raw = b"".join(each.raw for each in asked)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=12)))
    sent = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]
    seen, waited, answers = asyncio.run(served(sent))
    assert seen == [(each.path, each.body) for each in asked]
    assert answers.count(b"HTTP/1.1 204 ") == answers.count(b"HTTP/1.1 ") == len(asked)
    assert waited <= 4
