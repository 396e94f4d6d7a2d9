"""
HTTP limits: uvicorn's HTTP/1.1 protocol with bounded bytes and bounded time for each connection.

uvicorn alone limits neither the headers of a request, nor pipelined requests, nor how long an
answer stays unread. It also answers a malformed request before the answers to earlier ones have
ended. Here heads and trailers have a size and a deadline, at most four requests wait on a
connection, and the number of connections is bounded.

Only plain requests of HTTP/1.1 or 1.0 are accepted: the request line has a path, one Host is named,
values are text, and trailers never become headers. `Upgrade` is passed over.

`tests/test_http_limits.py` lists the names of uvicorn that this module leans on.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import socket
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from federation.gateway.headers import is_utf8
from federation.gateway.request import ARRIVED, LEFT
from federation.server.http_1_0 import without_chunks
from federation.server.write_coalescing import CoalescingTransport

HEAD_BYTES = 64 * 1024
"""The URL and all header fields; a token of 16 KiB fits with room to spare."""
HEAD_SECONDS = 10.0
CONNECTIONS = 2000
"""The connections that one process serves."""
KEEP_ALIVE_SECONDS = 185.0
"""Longer than the three minutes of the slowest reverse proxies, which then close first."""
SEND_SECONDS = 60.0
_GRACE_SECONDS = 20
_WAITING_REQUESTS = 4
"""The requests of one connection that are kept while another one of it is answered."""

_REFUSED_CONNECTIONS = 500
"""The connections beyond the limit that still get a 503; further ones are closed at once."""
_LINGER_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_LOOKED_AT = 10

_FIELDS = 128
"""The most fields of a head. Each costs Python more memory than its bytes."""
_FIELD_OVERHEAD_BYTES = 32  # as RFC 9113, section 6.5.2 counts it: small fields cost memory too
_LARGE = "the head is too large"
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)

_SMALLEST_REQUEST_BYTES = len(b"GET / HTTP/1.0\r\n\r\n")
_HEAD_END = b"\r\n\r\n"
# The end of a head may be split between two reads: then its rest begins the second one.
_NEXT_HEAD_END = re.compile(rb"\A(?:(?:\r?\n)?\r\n|\n)|\r\n\r\n")

_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8  # include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class _Limits:
    """The settings of one server, and what its connections know of each other."""

    send_seconds: float
    without_request: dict[BoundedHttp, None] = field(default_factory=dict)
    """The connections without a whole request, the one that has waited longest first."""


def http_config(
    app: Callable[..., Awaitable[None]],
    connections: int = CONNECTIONS,
    grace_seconds: int = _GRACE_SECONDS,
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    send_seconds: float = SEND_SECONDS,
) -> uvicorn.Config:
    """The configuration that serves *app* over HTTP/1.1 within the limits, and nothing else."""
    return uvicorn.Config(
        app,
        http=partial(BoundedHttp, _Limits(send_seconds)),  # type: ignore[arg-type]  # is only called
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_keep_alive=keep_alive_seconds,  # type: ignore[arg-type]  # goes to `call_later`
        timeout_graceful_shutdown=grace_seconds,
    )


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    flow: _Flow
    _field_bytes = 0
    """The size of this request's URL and fields so far, trailers included."""
    _unparsed_bytes = 0
    """The bytes that arrived since the parser last reported an element: one unfinished field, or garbage."""
    _held = b""
    """Input that is parsed once fewer requests wait."""
    _body_left = 0
    """The bytes of this request's body that have not arrived, none if it states no length."""
    _begun = False
    """True if a request has begun to arrive and has not ended."""
    _in_head = False
    """True from the first byte of a head to its last."""
    _running: RequestResponseCycle | None = None
    """The request that is being answered, or was last. `cycle` is the one that arrived last."""
    _deadline: asyncio.TimerHandle | None = None
    """Closes a connection whose request does not end."""
    _looking: asyncio.TimerHandle | None = None
    """Looks whether a client is gone from which nothing is read."""
    _stopping = False
    _deaf = False
    """True after a fault in the input. What follows it cannot be understood."""
    _refusal = ""
    """The refusal of a head that could be parsed; empty if it is not refused."""

    def __init__(self, limits: _Limits, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._lost = asyncio.Event()
        """Set at the end of the connection. It holds nothing of a request, so no cycle arises."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base does
        """Make room for this connection, and wait for its first request."""
        super().connection_made(transport)
        self.client = _plain(self.client)
        self.flow = _Flow(transport)
        self.transport = CoalescingTransport(transport, self.loop, self._limits.send_seconds)  # type: ignore[assignment]  # it has the same methods
        most = self.limit_concurrency or 0
        if len(self.connections) >= most:
            self._close_longest_without_request()
        # Too many connections would use up file descriptors and memory, so even a 503 is too much.
        if len(self.connections) > most + _REFUSED_CONNECTIONS:
            transport.abort()
            return
        self._limits.without_request[self] = None
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop everything, and tell the request that is being answered."""
        self._lost.set()
        self._cancel_deadline()
        self._limits.without_request.pop(self, None)
        self._held = b""
        self.pipeline.clear()
        if self._looking is not None:
            self._looking.cancel()
        # The base tells only the request that arrived last, which may wait behind this one.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse *data*, as far as there is room for its requests."""
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._begun = True
        self._held += data
        self._parse()
        self._set_timer()

    def on_message_begin(self) -> None:
        """Start counting this request's head."""
        super().on_message_begin()
        self._begun = self._in_head = True
        self._field_bytes = self._unparsed_bytes = self._body_left = 0

    def on_url(self, url: bytes) -> None:
        self._field_bytes += len(url)
        if self._field_bytes > HEAD_BYTES:
            raise httptools.HttpParserError(_LARGE)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or a trailer. A trailer is then dropped."""
        self._field_bytes += len(name) + len(value) + _FIELD_OVERHEAD_BYTES
        if self._field_bytes > HEAD_BYTES:
            raise httptools.HttpParserError(_LARGE)
        # RFC 9110, section 6.5.1: a trailer is not merged into the headers. Otherwise a caller
        # could add `Authorization` after a proxy has checked the headers.
        if not self._in_head:
            return
        if len(self.headers) == _FIELDS:
            self._field_bytes = HEAD_BYTES + 1
            raise httptools.HttpParserError(_LARGE)
        if not value.isascii() and not is_utf8(value):
            self._refuse_head("The value of a header is neither ASCII nor UTF-8.")
        # RFC 9110, section 5.5: white space around a value is no part of it.
        super().on_header(name, value.rstrip(b" \t"))

    def on_headers_complete(self) -> None:
        """Refuse what two parsers could read differently, which is how requests are smuggled."""
        self._in_head = False
        version = self.parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            self._refuse_head("Only HTTP/1.1 and HTTP/1.0 are supported.")
        if not self.url.startswith(b"/") or b"#" in self.url:
            # An absolute URL names a second host; a fragment is cut off by some parsers.
            self._refuse_head("The request line must have a path that begins with a slash.")
        if self.parser.get_method() == b"CONNECT":
            self._refuse_head("CONNECT is not supported.")
        names = [name for name, _ in self.headers]
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._refuse_head("The request must have one Host header.")
        if self.parser.should_upgrade():
            return  # it is parsed again without that
        super().on_headers_complete()
        self.scope["extensions"] = {LEFT: self._lost.is_set}  # type: ignore[dict-item]  # it is ours
        if b"content-length" in names:  # the parser has checked that it is a number
            self._body_left = int(self.headers[names.index(b"content-length")][1])
        self._limits.without_request.pop(self, None)
        if self.pipeline:
            # The base stops reading once a request waits. Then no disconnect would be noticed.
            self.flow.resume_reading()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass *body* on; the application bounds its size and time."""
        self._unparsed_bytes = 0
        self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Tell the application that the whole request is here, so that it need not wait."""
        if self.parser.should_upgrade():
            return
        self._begun = False
        self.scope["extensions"] = {ARRIVED: {}}
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answer the next request, or wait for it."""
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._held:
            self._parse()
        if not self._is_busy():
            self._limits.without_request[self] = None
            if self._stopping:
                self._close_after_linger()
        self._set_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, unless its next request is here and only not read yet."""
        self.timeout_keep_alive_task = None
        if self._has_unread_bytes():
            self._set_timer()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """
        Close this connection after its current request, or after a moment if it is idle.

        A client that keeps a connection may send its next request just now. Closing at once would
        lose it, so an idle connection lingers, and that request is answered as its last one.
        """
        self._stopping = True
        if self.pipeline:
            newest, _ = self.pipeline[0]
            newest.keep_alive = False
        elif self._running and self._is_busy() and not self._running.response_started:
            self._running.keep_alive = False
        else:
            # Idle, or an answer has begun that did not announce the close.
            self._close_after_linger()

    def send_400_response(self, msg: str) -> None:
        """Answer a head that is too large with 431, and one that is malformed with 400."""
        self._deaf, self._held = True, b""
        if self._ends_after_others():
            return
        if self._field_bytes > HEAD_BYTES:
            self.transport.write(_TOO_LARGE)
            self.transport.close()
        else:
            super().send_400_response(self._refusal or msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if cycle.scope["http_version"] == "1.0":
            app = without_chunks(app, cycle)
        super()._start_asgi_task(cycle, app)

    def _parse(self) -> None:
        """
        Parse the input that is held, until `_WAITING_REQUESTS` wait.

        One read can hold thousands of requests, and the parser reports all that it is given. So it
        is given no more than can hold the requests for which there is room.
        """
        held, self._held = self._held, b""
        if held.count(_HEAD_END) < _WAITING_REQUESTS - len(self.pipeline):
            self._feed(held)
        else:
            self._parse_by_heads(held)
        if self._held:
            self._stop_reading()
        elif self.flow.full:
            self.flow.full = False
            self.flow.resume_reading()

    def _parse_by_heads(self, held: bytes) -> None:
        view, at = memoryview(held), 0
        while at < len(held) and not self._deaf and not self.transport.is_closing():
            room = _WAITING_REQUESTS - len(self.pipeline)
            if room <= 0:
                self._held = held[at:]
                return
            if self._body_left > 0:
                end = at + self._body_left  # at once, since the ends of heads in it are none
            else:
                found = _NEXT_HEAD_END.search(view, max(0, at - 3))  # it may have begun before
                end = found.end() if found else len(held)
                # A chunked body can be made of what looks like ends of heads. This much holds no
                # more than *room* requests either, and saves a step for each of them.
                end = max(end, at + room * _SMALLEST_REQUEST_BYTES)
            self._feed(view[at:end])
            at = end

    def _feed(self, piece: bytes | memoryview) -> None:
        """Give *piece* to the parser. Refuse a single field, URL or chunk extension that does not end."""
        # The parser reports a field when it is complete, and keeps all of it until then.
        self._unparsed_bytes += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser would take the request's own body for the other protocol's first bytes.
            # A fresh one gets the same head without `Upgrade`, and reads the body as a body.
            rest = bytes(piece[upgrade.args[0] :])
            head = self._head_without_upgrade()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the base does
            self._feed(head + rest)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._unparsed_bytes > HEAD_BYTES and not self._deaf:
            self._field_bytes = self._unparsed_bytes
            self.send_400_response("")

    def _head_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode("ascii")
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)
        fields = (b"%b: %b\r\n" % each for each in self.headers if each[0] != b"upgrade")
        return b"".join((line, *fields, b"\r\n"))

    def _stop_reading(self) -> None:
        self.flow.full = True
        self.flow.pause_reading()
        if self._looking is None:
            self._looking = self.loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """While nothing is read from it, ask the system whether the client has left."""
        self._looking = None
        if not self.flow.full or self.transport.is_closing() or not hasattr(socket, "TCP_INFO"):
            return
        connection = self.transport.get_extra_info("socket")
        (state,) = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        if state in {_TCP_CLOSE, _TCP_CLOSE_WAIT}:
            self.transport.abort()
        else:
            self._looking = self.loop.call_later(_LOOK_SECONDS, self._look)

    def _ends_after_others(self) -> bool:
        """
        Let the connection end after the requests before a fault, if any are being answered.

        An answer to the fault, sent now, would be taken for the answer to one of them.
        """
        running = self._running
        if running is None or not self._is_busy():
            return False
        if self.pipeline and self.pipeline[0][0].more_body:
            self.pipeline.popleft()  # the fault is in its body, so it is never answered
        if self.pipeline:
            self.pipeline[0][0].keep_alive = False
        elif not running.more_body:
            running.keep_alive = False
        elif running.response_started:
            self.transport.close()
        else:
            return False  # the fault is in its own body
        return True

    def _close_longest_without_request(self) -> None:
        """Make room: half-sent heads and idle connections must not keep new clients out."""
        for longest in islice(self._limits.without_request, _LOOKED_AT):
            if not longest._has_unread_bytes() and not longest.transport.get_write_buffer_size():
                del self._limits.without_request[longest]
                self.connections.discard(longest)
                longest.transport.abort()
                return

    def _has_unread_bytes(self) -> bool:
        """True if the system has received bytes that this event loop has not read yet."""
        if self.transport.is_closing():  # and perhaps without a descriptor
            return False
        connection = self.transport.get_extra_info("socket")
        return any(fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4)))

    def _refuse_head(self, why: str) -> None:
        self._refusal = why
        raise httptools.HttpParserError(why)

    def _is_busy(self) -> bool:
        """True while a request is being answered."""
        return self._running is not None and not self._running.response_complete

    def _close_after_linger(self) -> None:
        self.loop.call_later(_LINGER_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        # A request that has begun to arrive has its own deadline.
        if self._is_busy() or self._begun or self.transport.is_closing():
            return
        if not self._has_unread_bytes():
            self.transport.close()

    def _set_timer(self) -> None:
        """Limit the wait for a request: until it begins, and from then until it ends."""
        if self._is_busy() or self.transport.is_closing():
            self._cancel_deadline()
        elif not self._begun:
            self._cancel_deadline()
            if self.timeout_keep_alive_task is None:
                self.timeout_keep_alive_task = self.loop.call_later(
                    self.timeout_keep_alive, self.timeout_keep_alive_handler
                )
        elif self._deadline is None:
            # After an answer, this also bounds a body that its sender never ends.
            self._unset_keepalive_if_required()
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Flow(FlowControl):
    """uvicorn's flow control, which reads nothing more while too many requests wait."""

    full = False

    def resume_reading(self) -> None:
        # An application that asks for its body, or waits for a disconnect, calls this.
        if not self.full:
            super().resume_reading()


def _plain(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return *address* with an IPv4 address as such: a socket for both writes `::ffff:192.0.2.7`."""
    if address is None:
        return None
    host, port = address
    is_mapped = host.startswith("::ffff:") and host.count(".") == 3
    return (host.removeprefix("::ffff:"), port) if is_mapped else address
