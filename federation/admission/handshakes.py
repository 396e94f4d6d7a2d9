"""
TLS handshakes with a bound on their number and their time.

A connection counts for the limits of `server.http_limits` only once its handshake has ended, and
each handshake takes some hundred KiB. Anybody in the cluster may reach the port. So few are begun
at once; when one more comes, the one that has waited longest is cut off: an honest API server ends
its handshake in milliseconds.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from federation.server.shutdown import GracefulServer

AT_ONCE = 64
SECONDS = 5.0
_PAUSE_SECONDS = 0.1


class TlsServer(GracefulServer):
    """A server that accepts connections itself and shakes hands with few of them at once."""

    _accepting: tuple[asyncio.Task[None], ...] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then accept connections."""
        self._shaking: dict[socket.socket, asyncio.Task[None]] = {}
        """The connections whose handshake has not ended, the one that began first comes first."""
        await super().startup([])
        if self.started:
            accept = asyncio.get_running_loop().create_task
            self._accepting = tuple(accept(self._accept(each)) for each in sockets or [])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and close every connection."""
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # too many open files, or a client that is gone already
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            connection.setblocking(False)
            if len(self._shaking) >= AT_ONCE:
                self._cut_off_oldest()
            self._shaking[connection] = loop.create_task(self._shake(connection))

    def _cut_off_oldest(self) -> None:
        oldest = next(iter(self._shaking))
        del self._shaking[oldest]
        with suppress(OSError):
            oldest.shutdown(socket.SHUT_RDWR)

    async def _shake(self, connection: socket.socket) -> None:
        try:
            await self._serve_connection(connection, SECONDS)
        except OSError:  # also those of TLS, and a handshake that took too long
            connection.close()
        finally:
            self._shaking.pop(connection, None)
