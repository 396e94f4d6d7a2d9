"""
A graceful shutdown: stop accepting, answer every accepted request, then close.

Closing a listening socket resets the connections that wait in its queue. So the queue is accepted
to its end first, and only then is the socket closed. A connection that arrives between the last
accept and the close is still reset. Its request was not read, so the client can safely repeat it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn

BACKLOG = 2048
"""The most connections that wait in the listener's queue."""


class GracefulServer(uvicorn.Server):
    """
    uvicorn's server, which also answers the connections in the listener's queue on shutdown.

    *serving* is called in the event loop as soon as connections are accepted.
    """

    def __init__(self, config: uvicorn.Config, serving: Callable[[], None] = lambda: None) -> None:
        super().__init__(config)
        self._serving = serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections."""
        await super().startup(sockets)
        if self.started:
            self._serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and close every connection."""
        # The servers close their descriptor. A second one keeps the queue from being reset.
        queues = [listener.dup() for listener in sockets or []]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        accepted = [connection for queue in queues for connection in _accept_all(queue)]
        serving = [self._serve_connection(connection) for connection in accepted]
        # One client that already hung up must not end the shutdown for all others.
        await asyncio.gather(*serving, return_exceptions=True)
        await super().shutdown(sockets)

    async def _serve_connection(
        self, connection: socket.socket, handshake_seconds: float | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            self._protocol,
            connection,
            ssl=self.config.ssl,
            ssl_handshake_timeout=handshake_seconds,
        )

    def _protocol(self) -> asyncio.Protocol:
        # The same call as in uvicorn's `startup`, whose own factory is a local function.
        return self.config.http_protocol_class(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )  # type: ignore[call-arg]  # as the base does


def _accept_all(listener: socket.socket) -> list[socket.socket]:
    """
    Every connection that waits in the queue of *listener*, which is then closed.

    Nothing is awaited in between, since each moment until the close can reset a connection.
    """
    connections: list[socket.socket] = []
    listener.setblocking(False)
    with listener:
        for _ in range(BACKLOG):  # bounded, so that new clients cannot keep this loop running
            try:
                connection, _ = listener.accept()
            except ConnectionAbortedError:
                continue  # this client gave up while it waited
            except OSError:
                break  # BlockingIOError: the queue is empty
            connection.setblocking(False)
            connections.append(connection)
    return connections
