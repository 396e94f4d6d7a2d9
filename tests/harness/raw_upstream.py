"""
A gateway that answers each function with the bytes that a test wrote, and keeps its connections.

Every connection serves one request after the other, so what is wrong with one answer could reach
the next caller. `/function/honest.dev?<text>` is answered with that text.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, auto

from tests.harness.raw_server import serving

_RESET = struct.pack("ii", 1, 0)
PAUSE_SECONDS = 0.05
_HONEST = re.compile(rb"[A-Z]+ /function/honest\.dev\?(\S*) ")
_FUNCTION = re.compile(rb"[A-Z]+ /(?:async-)?function/([a-z0-9-]+)\.")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


class End(Enum):
    """The end of the connection after an answer: kept, closed or reset."""

    KEPT = auto()
    CLOSED = auto()
    RESET = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes of one answer, those that follow unasked a moment later, and the end."""

    text: bytes
    unasked: bytes = b""
    end: End = End.KEPT


class RawUpstream:
    """Answers by the function's name, on any number of connections."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = {name.encode("ascii"): answer for name, answer in answers.items()}
        self.requests: list[bytes] = []
        """The heads that arrived."""
        self.connections = 0

    def serving(self, listener: socket.socket) -> AbstractAsyncContextManager[None]:
        """Serve on *listener* inside the `with` block."""
        return serving(self._serve, listener)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        end = End.KEPT
        while end is End.KEPT:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            await _read_body(head, reader)
            answer = self._answer(head)
            end = answer.end
            writer.write(answer.text)
            await writer.drain()
            if answer.unasked:
                await asyncio.sleep(PAUSE_SECONDS)
                writer.write(answer.unasked)
                await writer.drain()
        if end is End.RESET:
            await asyncio.sleep(PAUSE_SECONDS)
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def _answer(self, head: bytes) -> Answer:
        if honest := _HONEST.match(head):
            text = honest[1]
            return Answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        function = _FUNCTION.match(head)
        return self._answers[function[1] if function else b""]


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> None:
    if length := _LENGTH.search(head):
        await reader.readexactly(int(length[1]))
    elif b"\r\ntransfer-encoding: chunked" in head.lower():
        await reader.readuntil(b"0\r\n\r\n")
