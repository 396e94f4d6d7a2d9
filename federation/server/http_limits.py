"""
What a connection may cost before any application sees a request: bounded bytes, bounded time.

The parser below keeps every header it is sent and waits for the next one for ever. Here a
request's head and trailers have a size, a head has a deadline, and so has whatever a client
still sends after its answer. Connections have a number; those beyond it are not even heard.

And what is heard is a plain request of HTTP/1.1 or 1.0: a path on the request line, no change to
another protocol, no headers after the body that could be taken for those before it.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from federation.gateway.request import ARRIVED
from federation.server.joining import JoiningTransport

__all__ = ["CONNECTIONS", "HEAD_BYTES", "HEAD_SECONDS", "BoundedHttp"]

HEAD_BYTES = 64 * 1024
"""The URL and all header fields; a token of 16 KiB fits with room to spare."""
HEAD_SECONDS = 10.0
CONNECTIONS = 2000
"""Of one process. Requests on a few more are told that there are too many."""

_CONNECTIONS_AT_ALL = CONNECTIONS + 500
_LINGER_SECONDS = 1.0

_FIELD_OVERHEAD_BYTES = 32  # as RFC 9113, section 6.5.2 counts it: small fields cost memory too
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, with limits."""

    _field_bytes = 0
    """The URL and the fields of this request so far, its trailers included."""
    _silent_bytes = 0
    """What came since the parser last told of anything: one unfinished field, or nonsense."""
    _deadline: asyncio.TimerHandle | None = None
    _begun = False
    """Whether a head has begun to come, and not ended."""
    _stopping = False
    _refused = ""
    """Why a head that can be parsed is refused nevertheless."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base does
        """Wait for a first head."""
        super().connection_made(transport)
        self.transport = JoiningTransport(transport, self.loop)
        if len(self.connections) > _CONNECTIONS_AT_ALL:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_is_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take *data* in, unless it is of an endless field."""
        self._silent_bytes += len(data)
        super().data_received(data)
        if self._silent_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Wait for this request's head."""
        super().on_message_begin()
        self._begun = True
        self._field_bytes = self._silent_bytes = 0
        if self._deadline is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """Count *url*."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer, which is dropped."""
        self._count(len(name) + len(value) + _FIELD_OVERHEAD_BYTES)
        if self._begun:  # RFC 9110, section 6.5.1: a trailer is never merged into the headers
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is here, and one that is taken."""
        self._begun = False
        self._head_is_here()
        if self.parser.get_http_version() not in {"1.0", "1.1"}:
            self._refuse_head("Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if not self.url.startswith(b"/") or b"#" in self.url:
            self._refuse_head("The request line must have a path that begins with a slash.")
        if self.parser.should_upgrade():
            # The parser would take the request's own body for the other protocol's first bytes.
            self._refuse_head("Another protocol cannot be changed to here; leave out Upgrade.")
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """The application bounds the body."""
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is here, and the application need not wait for it."""
        self.scope["extensions"] = {ARRIVED: {}}
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next head, whatever of this request may still come."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._await_head()
            if self._stopping:
                self._linger()

    def shutdown(self) -> None:
        """The request at work is the connection's last, or the one that may be on its way."""
        self._stopping = True
        if self.pipeline:
            newest, _ = self.pipeline[0]
            newest.keep_alive = False
        elif self._at_work() and not self.cycle.response_started:
            self.cycle.keep_alive = False
        else:
            # Nothing told this client that there will be no other request.
            self._linger()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, and what was not because it is too large."""
        if self._field_bytes > HEAD_BYTES:
            self._refuse()
        else:
            super().send_400_response(self._refused or msg)

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > HEAD_BYTES:
            raise httptools.HttpParserError("the head is too large")

    def _refuse_head(self, why: str) -> None:
        self._refused = why
        raise httptools.HttpParserError(why)

    def _refuse(self) -> None:
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _at_work(self) -> bool:
        return not getattr(self.cycle, "response_complete", True)  # before the first it is None

    def _linger(self) -> None:
        self.loop.call_later(_LINGER_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        # What has begun to come has its own deadline.
        if not self._at_work() and not self._begun and not self.transport.is_closing():
            self.transport.close()

    def _await_head(self) -> None:
        self._head_is_here()
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
