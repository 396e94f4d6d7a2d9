"""
A server that stops without dropping what was sent to it.

To close a listening socket resets the connections that wait in its queue, and those that are
just on their way into it. So nobody new begins to connect first, those who have begun are
waited for, and the queue is emptied. To close an idle connection loses the request that is just
on its way, so idle connections are kept for a moment, in which whatever comes is answered as
the last of its connection.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
import sys
from contextlib import suppress

import uvicorn

__all__ = ["DrainingServer", "let_nobody_begin"]

_BEGUN_SECONDS = 0.25
"""How long those who have begun to connect have: a long way there and back."""


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with another end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Nothing new is taken, and what was taken is answered."""
        listeners = sockets or []
        self._announce_end(listeners)
        await asyncio.sleep(_BEGUN_SECONDS)
        # A second descriptor keeps the queue alive once nobody else takes from it.
        queues = [listener.dup() for listener in listeners]
        await self._take_no_more(listeners)
        for listener in listeners:
            listener.close()
        for queue in queues:
            await self._empty(queue)
        await super().shutdown(sockets)

    def _announce_end(self, listeners: list[socket.socket]) -> None:
        for listener in listeners:
            let_nobody_begin(listener)

    async def _take_no_more(self, listeners: list[socket.socket]) -> None:
        for server in self.servers:
            server.close()

    async def _empty(self, queue: socket.socket) -> None:
        queue.setblocking(False)
        while True:
            try:
                connection, _ = queue.accept()
            except OSError:  # none is left, which is what BlockingIOError says
                queue.close()  # before anything else: what comes now would be reset
                return
            await self._join(connection)

    async def _join(self, connection: socket.socket) -> None:
        """*connection*, just accepted, is one of the server's."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )  # type: ignore[call-arg]  # as the base does


def let_nobody_begin(listener: socket.socket) -> None:
    """
    No connection to *listener* begins any more; those that have begun still come.

    It holds for every process that has this socket. A client hears nothing, tries again after a
    second, and is then refused, or served by whoever listens there by then. Where the system
    has no such filter, nothing changes.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in _NO_SYN))
    filtered = struct.pack("HP", len(_NO_SYN), ctypes.addressof(program))
    with suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filtered)


_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python has no name for it

_NO_SYN = (  # (code, jump if true, jump if false, k), as in linux/filter.h
    (0x30, 0, 0, 13),  # load the byte of the TCP header that has its flags
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),  # it is dropped,
    (0x06, 0, 0, 0xFFFF),  # and everything else is kept
)
