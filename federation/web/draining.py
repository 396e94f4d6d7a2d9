"""
A server that stops without dropping what was sent to it.

To close a listening socket resets the connections that wait in its queue, and to close an idle
connection loses the request that is just on its way. So the queue is emptied first, and idle
connections are kept for a moment, in which whatever comes is answered as the last of its
connection.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn

__all__ = ["DrainingServer"]


class DrainingServer(uvicorn.Server):
    """uvicorn's server, with another end."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Nothing new is taken, and what was taken is answered."""
        # A second descriptor keeps the queue alive once nobody else takes from it.
        queues = [listener.dup() for listener in sockets or []]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for queue in queues:
            await self._empty(queue)
        await super().shutdown(sockets)

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
