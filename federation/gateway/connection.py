"""
A connection to the upstream, and the answer that arrives on it.

Each answer has a parser and a buffer of its own, so nothing of it is there for the next caller. A
connection is used again only if its answer ended where its head said, its request was sent whole,
and nothing came after it: anything else could become the answer to another caller's request.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
from collections.abc import AsyncIterator

import httptools

from federation.gateway.headers import UNCLEAR_END, has_no_body
from federation.gateway.refusals import UpstreamFailed

# A socket is read in large bursts; no more is read while this much waits for the caller.
_RECEIVE_BYTES = 64 * 1024
_BUFFERED_BYTES = 32 * 1024
_FIELDS = 128
_HEAD_BYTES = 64 * 1024
_START_BYTES = 4 * _HEAD_BYTES
"""The most that arrives before a head is complete: it, interim answers and what divides fields."""
_BROKE_OFF = "the body of the request broke off"
_TOO_LARGE = "a part of its answer is too large"
_CODING = b"transfer-encoding"
_FRAMING = frozenset({b"content-length", _CODING})
# The final answer may follow empty lines and interim answers. The parser also takes RTSP and ICE.
_HTTP = re.compile(rb"(?>[\r\n]*+HTTP/[0-9.]+ 1.*?\n\r?\n)*+[\r\n]*+HTTP/", re.DOTALL)


class Closed(UpstreamFailed):
    """The upstream closed the connection too early."""

    def __init__(self) -> None:
        super().__init__("it closed the connection before its answer was complete")


class Connection(asyncio.Protocol):
    """One connection, for one request after the other."""

    transport: asyncio.Transport
    idle_since: float
    """The time at which its last answer ended."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.parser: httptools.HttpResponseParser | None = None
        self.answer: Answer | None = None
        """The answer that is awaited."""
        self._is_used = False
        self._room: asyncio.Future[None] | None = None
        """Done once the transport takes more; None if it does now."""

    def ask(self, method: str) -> Answer:
        """The answer to the next request, which is still to be written."""
        self.answer = answer = Answer(self, method, may_repeat=self._is_used)
        self._is_used = True
        self.parser = parser = httptools.HttpResponseParser(answer)
        # What the parser lets pass then, `check_answer` looks at.
        parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return answer

    async def send_body(
        self, answer: Answer, body: AsyncIterator[bytes], length: int | None, seconds: float
    ) -> None:
        """Send a *body* of *length*, in chunks if it has none. Each piece gives the upstream time."""
        left = length
        try:
            async for piece in body:
                if left is not None and (left := left - len(piece)) < 0:
                    break
                chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if left is None else piece
                self.transport.write(chunk)
                if self._room is not None:
                    await self._room
                answer.allow(seconds)
        except Exception as failure:
            answer.fail(UpstreamFailed(_BROKE_OFF) if answer.begun else failure)
            return
        if left:
            answer.fail(UpstreamFailed(_BROKE_OFF))
        elif left is None:
            self.transport.write(b"0\r\n\r\n")
        answer.is_sent = True

    def rest(self) -> bool:
        """End with the last answer. True if the connection may be used again."""
        answer, self.answer, self.parser = self.answer, None, None
        self.idle_since = self.loop.time()
        return answer is not None and answer.is_clean() and not self.transport.is_closing()

    def is_quiet(self) -> bool:
        """True if nothing has arrived on an idle connection, not even in the system's buffer."""
        return not self.transport.is_closing() and not self._arrived.poll(0)

    def close(self) -> None:
        """Close it at once."""
        self.transport.abort()

    # -- for the event loop

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a stream's
        self.transport = transport
        connected = transport.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._arrived = select.poll()
        self._arrived.register(connected.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self.answer is None or self.parser is None:
            self.close()  # nobody has asked
        else:
            self.answer.hear(self.parser, data)

    def eof_received(self) -> None:
        if self.answer is not None:
            self.answer.end()

    def connection_lost(self, error: Exception | None) -> None:
        self.resume_writing()
        if self.answer is not None:
            self.answer.fail(error or Closed())

    def pause_writing(self) -> None:
        self._room = self.loop.create_future()

    def resume_writing(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None


class Answer:
    """The answer to one request. Its parser calls the methods that begin `on_`."""

    # These are there once it has a head.
    status: int
    version: str
    _is_framed: bool
    """True if its head says where it ends. Else it ends with its connection."""

    def __init__(self, connection: Connection, method: str, *, may_repeat: bool) -> None:
        self.connection = connection
        self.may_repeat = may_repeat
        """True while a lost connection only says that it was an old one."""
        self.is_sent = True
        """True if the body of its request was sent to its end."""
        self.sending: asyncio.Task[None] | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self._method = method
        self.begun = False
        """True if it has a head, and nothing was wrong with what came together with it."""
        self._has_head = self._has_end = self._is_followed = False
        self._is_bodiless = False
        self._has_padded_coding = False
        """True if white space follows a `Transfer-Encoding`."""
        self._is_last = False
        """True if the connection must not be used again."""
        self._start = b""
        """The bytes that arrived before the head was complete."""
        self._pieces: list[bytes] = []
        self._fields = self._head_bytes = self._buffered_bytes = self._unparsed_bytes = 0
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._late: asyncio.TimerHandle | None = None

    async def begin(self, until: float) -> None:
        """Wait for its head, no longer than *until*. Raises: what went wrong."""
        while not self.begun:
            if self._failure is not None:
                raise self._taken_failure()
            await self._news(until)

    async def piece(self, seconds: float | None) -> bytes:
        """The next piece of its body, empty at the end. Raises: what went wrong."""
        while not self._pieces:
            if self._failure is not None:
                raise self._taken_failure()
            if self._has_end:
                return b""
            await self._news(None if seconds is None else self.connection.loop.time() + seconds)
        return self.taken()

    def taken(self) -> bytes:
        """The part of its body that has arrived and was not taken yet."""
        pieces, self._pieces = self._pieces, []
        if self._buffered_bytes > _BUFFERED_BYTES and not self.connection.transport.is_closing():
            self.connection.transport.resume_reading()
        self._buffered_bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def is_whole(self) -> bool:
        """True if all of it has arrived, and it is certain that nothing is missing."""
        return self._has_end and self._failure is None and self._is_framed

    def is_clean(self) -> bool:
        """True if the connection has nothing of it or of its request left."""
        whole = self.begun and self._has_end and self.is_sent
        return whole and not self._is_last and not self._pieces

    def allow(self, seconds: float) -> None:
        """Give the upstream time again, since it has taken a piece of the request."""
        if self._late is not None and self._waiter is not None:
            self._late.cancel()
            self._late = self.connection.loop.call_later(seconds, self._give_up)

    def fail(self, error: Exception) -> None:
        """End it and its connection by *error*. An answer that was complete stays so."""
        self._is_last = True
        if self._failure is None and not (self.begun and self._has_end):
            # Without the frames that it has passed, which hold this answer.
            self._failure = error.with_traceback(None)
        self.connection.close()
        self._wake()

    def hear(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        """Parse *data*."""
        self.may_repeat = False
        self._unparsed_bytes += len(data)
        if not self._has_head:
            self._start += data
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(UpstreamFailed("it answered with the status 101"))
            return
        except httptools.HttpParserError as error:
            if not (self._is_bodiless and self._is_followed):
                raised = error.__context__  # by a method below
                self.fail(raised if isinstance(raised, UpstreamFailed) else error)
                return
        # The parser keeps a field until it is complete.
        is_endless = self._unparsed_bytes > _HEAD_BYTES and not self._has_end
        if is_endless or (len(self._start) > _START_BYTES and not self._has_head):
            self.fail(UpstreamFailed(_TOO_LARGE))
        elif self._start and self._has_head and not _HTTP.match(self._start):
            self.fail(UpstreamFailed("it is not HTTP: RTSP or ICE"))
        elif self._has_head:
            self.begun, self._start = True, b""
            self._wake()

    def end(self) -> None:
        """Take the end of the connection as its end, if it has no other."""
        if self.begun and not self._is_framed:
            self._has_end = True
        self.fail(Closed())

    def on_message_begin(self) -> None:
        if self._has_end:  # nobody has asked for a second one
            self._drop_rest()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # a trailer (RFC 9110, section 6.5.1), or of an answer that nobody asked for
        self._unparsed_bytes = 0
        self._fields += 1
        self._head_bytes += len(name) + len(value)
        if self._fields > _FIELDS or self._head_bytes > _HEAD_BYTES:
            raise UpstreamFailed(_TOO_LARGE)
        # RFC 9110, section 5.5: white space around a value is no part of it.
        stripped = value.rstrip(b" \t")
        if stripped != value and name.lower() == _CODING:
            self._has_padded_coding = True
        self.headers.append((name, stripped))

    def on_headers_complete(self) -> None:
        parser = self.connection.parser
        if self._has_head or parser is None:
            return
        self.status = parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:
            self.headers.clear()
            return
        self._has_head = True
        self.version = parser.get_http_version()
        self._is_last = not parser.should_keep_alive()
        if self._has_padded_coding and self._is_last:
            # For the parser, `chunked` before a tab or a folded line is another coding.
            raise UpstreamFailed(UNCLEAR_END)
        # The parser does not know the method.
        self._is_bodiless = self._has_end = has_no_body(self._method, self.status)
        framing = {name.lower() for name, _ in self.headers} & _FRAMING
        self._is_framed = self._has_end or bool(framing)
        if self.status == 204 and _CODING in framing:
            self._is_last = True  # RFC 9112, section 6.1 forbids it; its chunks may come later

    def on_body(self, piece: bytes) -> None:
        self._unparsed_bytes = 0
        if self._has_end or not self._has_head:
            self._drop_rest()
            return
        self._pieces.append(piece)
        self._buffered_bytes += len(piece)
        if self._buffered_bytes > _BUFFERED_BYTES >= self._buffered_bytes - len(piece):
            self.connection.transport.pause_reading()

    def on_message_complete(self) -> None:
        self._has_end = self._has_head

    def _drop_rest(self) -> None:
        """Drop what no request has asked for (RFC 9112, section 6.3), and the connection."""
        self._is_followed = self._is_last = True
        self.connection.close()  # the parser would keep it

    def _taken_failure(self) -> Exception:
        taken, self._failure = self._failure, Closed()
        return taken or self._failure

    async def _news(self, until: float | None) -> None:
        loop = self.connection.loop
        self._waiter = waiter = loop.create_future()
        self._late = None if until is None else loop.call_at(until, self._give_up)
        try:
            await waiter
        finally:
            self._waiter = None
            if self._late is not None:
                self._late.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _give_up(self) -> None:
        self.fail(UpstreamFailed("it did not answer in time", timed_out=True))
