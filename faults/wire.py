"""A TCP proxy that can be slow, or cut a connection in the middle of a command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from federation.state.redis_scripts import SPENT

_CARRIED_OUT_SECONDS = 0.05
_SPENT = SPENT.encode("ascii")


class Wire:
    """A TCP proxy to *port*, at a port of its own."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.delay_seconds = 0.0
        """The delay of each answer."""
        self.cut_after_requests = 0
        """The number of next requests that are passed on, and whose answers are not."""
        self._to = port
        self._open: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def up(self) -> AsyncIterator[Wire]:
        """Run the proxy inside the `with` block."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._open):
                writer.transport.abort()
            await server.wait_closed()

    async def _carry(self, near: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        try:
            far, far_out = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            near_out.transport.abort()
            return
        self._open |= {near_out, far_out}
        there = asyncio.create_task(self._requests(near, near_out, far_out))
        back = asyncio.create_task(self._answers(far, near_out))
        await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        for task in (there, back):
            task.cancel()
        await asyncio.gather(there, back, return_exceptions=True)
        for writer in (near_out, far_out):
            self._open.discard(writer)
            writer.transport.abort()

    async def _requests(
        self,
        near: asyncio.StreamReader,
        near_out: asyncio.StreamWriter,
        far_out: asyncio.StreamWriter,
    ) -> None:
        with suppress(OSError):
            while data := await near.read(65536):
                # Cut claims of exchanges only: no polls, and no claims that check the readiness.
                is_claim = _SPENT in data and _SPENT + b"probe:" not in data
                cut = self.cut_after_requests > 0 and is_claim
                if cut:
                    self.cut_after_requests -= 1
                far_out.write(data)
                await far_out.drain()
                if cut:
                    near_out.transport.abort()
                    await asyncio.sleep(_CARRIED_OUT_SECONDS)
                    return

    async def _answers(self, far: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await far.read(65536):
                await asyncio.sleep(self.delay_seconds)
                near_out.write(data)
                await near_out.drain()
