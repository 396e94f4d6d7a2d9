"""
Write coalescing: what is written in one turn of the event loop leaves in one system call.

uvicorn writes the head of an answer and its body one after the other. Sent apart, they cost two
system calls here and wake the client twice, which is 9 % of an exchange's processor time.

What was written must also leave in time: a client that does not read its answer is cut off.
"""

from __future__ import annotations

import asyncio
from typing import Any

_BUFFER_BYTES = 16 * 1024
"""More is written at once, so that the transport can apply its back-pressure."""
_LOOKS = 4
"""Number of times within the time limit that the transport is asked how much it has sent."""


class CoalescingTransport:
    """
    *transport*, with the writes of one turn of *loop* joined.

    The connection is aborted if what waits in the transport is not sent within *send_seconds*,
    even if a part of it is. The transport holds 64 KiB or a little more, so an honest client, however
    slow, is not cut off.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, send_seconds: float
    ) -> None:
        self.is_closing = transport.is_closing  # asked several times for each request
        self._transport = transport
        self._loop = loop
        self._buffer = bytearray()
        self._look_seconds = send_seconds / _LOOKS
        self._looking = False
        self._written = 0
        """The bytes that the transport was ever given."""
        self._awaited = 0
        """So many of them must have left at the latest look."""
        self._looks = 0
        """The looks since then."""

    def write(self, data: bytes) -> None:
        """Send *data* at the end of this turn."""
        if not self._buffer:
            self._loop.call_soon(self._flush)
        self._buffer += data
        if len(self._buffer) > _BUFFER_BYTES:
            self._flush()

    def close(self) -> None:
        """Close the connection once everything written is sent."""
        self._flush()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that have not left yet."""
        return len(self._buffer) + self._transport.get_write_buffer_size()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        if not data or self.is_closing():
            return
        self._transport.write(data)
        self._written += len(data)
        if not self._looking and self._transport.get_write_buffer_size():
            self._looking = True
            self._await_all()

    def _await_all(self) -> None:
        self._awaited, self._looks = self._written, 0
        self._loop.call_later(self._look_seconds, self._look)

    def _look(self) -> None:
        """Abort the connection if what was awaited has not left after the last look."""
        unsent = self._transport.get_write_buffer_size()
        self._looks += 1
        if not unsent:
            self._looking = False
        elif self._written - unsent >= self._awaited:
            self._await_all()
        elif self._looks < _LOOKS:
            self._loop.call_later(self._look_seconds, self._look)
        else:
            self._transport.abort()
