"""
One of several workers that share a port, with about as many connections as each of the others.

Which process gets a connection is the system's choice, and it may choose one for all of them.
So a worker that has more connections than another lets that one go first, for a moment: nobody
waits for a worker that does not take its turn.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import MutableSequence

import uvicorn

from federation.server.shutdown import DrainingServer

__all__ = ["SharingServer"]

_PATIENCE_SECONDS = 0.002
_FAILED_SECONDS = 0.5


class SharingServer(DrainingServer):
    """
    A server that takes turns. *counts* are the connections of all workers, seen by all of them;
    *place* says which is its own.
    """

    def __init__(self, config: uvicorn.Config, counts: MutableSequence[int], place: int) -> None:
        super().__init__(config)
        self._counts = counts
        self._place = place
        self._joining: set[asyncio.Task[None]] = set()
        self._taking = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections from *sockets*."""
        await super().startup(sockets=[])
        self._counts[self._place] = 0
        for listener in sockets or []:
            listener.setblocking(False)
            asyncio.get_running_loop().add_reader(listener, self._offered, listener)

    async def on_tick(self, counter: int) -> bool:
        """Tell the others how many connections there are."""
        self._counts[self._place] = len(self.server_state.connections)
        return await super().on_tick(counter)

    def _announce_end(self, listeners: list[socket.socket]) -> None:
        """Leave the port open: one worker's end is not the end of all."""

    async def _take_no_more(self, listeners: list[socket.socket]) -> None:
        self._taking = False
        for listener in listeners:
            asyncio.get_running_loop().remove_reader(listener)
        await asyncio.gather(*self._joining, return_exceptions=True)

    def _offered(self, listener: socket.socket) -> None:
        """A connection waits on *listener*, for this worker or for another."""
        if self._counts[self._place] <= min(self._counts):
            self._take(listener)
        else:
            self._pause(listener, _PATIENCE_SECONDS)

    def _pause(self, listener: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener)
        loop.call_later(seconds, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if not self._taking:
            return
        asyncio.get_running_loop().add_reader(listener, self._offered, listener)
        self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return  # another worker took it
        except OSError:  # it was given up already, or there are no descriptors left
            self._pause(listener, _FAILED_SECONDS)
            return
        self._counts[self._place] += 1
        task = asyncio.create_task(self._join(connection))
        self._joining.add(task)
        task.add_done_callback(self._joined)

    def _joined(self, task: asyncio.Task[None]) -> None:
        self._joining.discard(task)
        if not task.cancelled():
            task.exception()  # a connection that was lost before it began is nobody's fault
