"""
HTTP limits: uvicorn's HTTP/1.1 protocol with bounded bytes and bounded time for each connection.

By itself the parser keeps every header that arrives and waits for the next one without end. Here
the head and the trailers of a request have a size and a deadline, and connections have a number.

Only plain requests of HTTP/1.1 or 1.0 are accepted: the request line has a path, the request does
not switch to another protocol, and trailers never become headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from federation.gateway.request import ARRIVED
from federation.server.write_coalescing import CoalescingTransport

HEAD_BYTES = 64 * 1024
"""The URL and all header fields; a token of 16 KiB fits with room to spare."""
HEAD_SECONDS = 10.0
CONNECTIONS = 2000
"""The connections that one process serves; requests on further ones get 503."""
_GRACE_SECONDS = 20

_REFUSED_CONNECTIONS = 500
"""The connections beyond the limit that still get a 503; further ones are closed at once."""
_LINGER_SECONDS = 1.0

_FIELD_OVERHEAD_BYTES = 32  # as RFC 9113, section 6.5.2 counts it: small fields cost memory too
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def http_config(
    app: Callable[..., Awaitable[None]],
    connections: int = CONNECTIONS,
    grace_seconds: int = _GRACE_SECONDS,
) -> uvicorn.Config:
    """The configuration that serves *app* over HTTP/1.1 within the limits, and nothing else."""
    return uvicorn.Config(
        app,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=grace_seconds,
    )


class BoundedHttp(HttpToolsProtocol):
    """One connection."""

    _field_bytes = 0
    """The size of this request's URL and fields so far, trailers included."""
    _unparsed_bytes = 0
    """The bytes that arrived since the parser last reported an element: one unfinished field, or garbage."""
    _deadline: asyncio.TimerHandle | None = None
    _in_head = False
    """True from the first byte of a head to its last."""
    _stopping = False
    _refusal = ""
    """Why a head is refused although it can be parsed."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base does
        """Start the deadline of the first head."""
        super().connection_made(transport)
        self.client = _plain(self.client)
        self.transport = CoalescingTransport(transport, self.loop)  # type: ignore[assignment]  # it has the same methods
        # Too many connections would use up file descriptors and memory, so even a 503 is too much.
        if len(self.connections) > (self.limit_concurrency or 0) + _REFUSED_CONNECTIONS:
            transport.abort()
            return
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse *data*, and refuse a single field, URL or chunk extension that does not end."""
        # The parser reports a field when it is complete, and keeps all of it until then.
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse_large_head()

    def on_message_begin(self) -> None:
        """Start counting this request's head, and its deadline."""
        super().on_message_begin()
        self._in_head = True
        self._field_bytes = self._unparsed_bytes = 0
        if self._deadline is None:
            self._start_deadline()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header or a trailer. A trailer is then dropped."""
        self._count(len(name) + len(value) + _FIELD_OVERHEAD_BYTES)
        # RFC 9110, section 6.5.1: a trailer is not merged into the headers. Otherwise a caller
        # could add `Authorization` after a proxy has checked the headers.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Refuse what two parsers could read differently, which is how requests are smuggled."""
        self._in_head = False
        self._cancel_deadline()
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            self._refuse_head("Only HTTP/1.1 and HTTP/1.0 are supported.")
        if not self.url.startswith(b"/") or b"#" in self.url:
            # An absolute URL names a second host; a fragment is cut off by some parsers.
            self._refuse_head("The request line must have a path that begins with a slash.")
        if self.parser.should_upgrade():
            # The parser would take the request's own body for the other protocol's first bytes.
            self._refuse_head("Switching to another protocol is not supported; leave out Upgrade.")
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass *body* on; the application bounds its size and time."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Tell the application that the whole request is here, so that it need not wait."""
        self.scope["extensions"] = {ARRIVED: {}}
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """
        Start the next head's deadline.

        It also bounds a body that its sender never ends, once the request is answered.
        """
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._start_deadline()
            if self._stopping:
                self._close_after_linger()

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
        elif self._is_busy() and not self.cycle.response_started:
            self.cycle.keep_alive = False
        else:
            # Idle, or an answer has begun that did not announce the close.
            self._close_after_linger()

    def send_400_response(self, msg: str) -> None:
        """Answer a head that is too large with 431, and one that is malformed with 400."""
        if self._field_bytes > HEAD_BYTES:
            self._refuse_large_head()
        else:
            super().send_400_response(self._refusal or msg)

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > HEAD_BYTES:
            raise httptools.HttpParserError("the head is too large")

    def _refuse_head(self, why: str) -> None:
        self._refusal = why
        raise httptools.HttpParserError(why)

    def _refuse_large_head(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _is_busy(self) -> bool:
        """True while a request is being answered."""
        return not getattr(self.cycle, "response_complete", True)  # before the first it is None

    def _close_after_linger(self) -> None:
        self.loop.call_later(_LINGER_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        # A head that has begun to arrive has its own deadline.
        if not self._is_busy() and not self._in_head and not self.transport.is_closing():
            self.transport.close()

    def _start_deadline(self) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _plain(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """Return *address* with an IPv4 address as such: a socket for both writes `::ffff:192.0.2.7`."""
    if address is None:
        return None
    host, port = address
    is_mapped = host.startswith("::ffff:") and host.count(".") == 3
    return (host.removeprefix("::ffff:"), port) if is_mapped else address
