"""
One HTTP request on a loopback connection, read within limits and answered once.

h11 reads it (RFC 9112). Head and body are bounded in size, the whole in time, and after the answer
the connection is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import h11

from federation.sign_on.callback_pages import REASONS, Page

_HEAD_BYTES = 32 * 1024
"""Codes of some providers have two thousand characters, and their states come back beside them."""
_BODY_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
_DROPPED_READS = 64
_MAX_PARAMETERS = 50
_FORM = "application/x-www-form-urlencoded"


class Malformed(Exception):
    """A request that cannot be read, or is too large."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it was read."""

    method: str
    path: str
    query: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)

    def header(self, name: str) -> str | None:
        """Return the header *name*, in lower case. None if it is absent, or there twice."""
        values = [value for given, value in self.headers if given == name]
        return values[0] if len(values) == 1 else None

    @property
    def query_parameters(self) -> list[tuple[str, str]]:
        """The parameters in the query, in their order. Raises: Malformed."""
        return _parameters(self.query)

    @property
    def form_parameters(self) -> list[tuple[str, str]]:
        """The parameters in the body, in their order. Raises: Malformed."""
        given = (self.header("content-type") or "").partition(";")[0].strip().lower()
        if given != _FORM:
            raise Malformed
        return _parameters(self.body.decode("latin-1"))


def _parameters(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
        )
    except ValueError:
        raise Malformed from None


async def read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> Request:
    """Read one request. Raises: Malformed, OSError."""
    head: h11.Request | None = None
    body = bytearray()
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _BODY_BYTES:
                    raise Malformed
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head, bytes(body))
            else:  # closed, or paused
                raise Malformed
    except h11.RemoteProtocolError:
        raise Malformed from None


def _request(head: h11.Request, body: bytes) -> Request:
    target = head.target.decode("latin-1")
    path, _, query = target.partition("?")
    return Request(
        method=head.method.decode("latin-1"),
        path=path,
        query=query,
        body=body,
        headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers],
    )


def new_connection() -> h11.Connection:
    """Return the state of a new connection."""
    return h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_BYTES)


async def send_page(
    connection: h11.Connection, writer: asyncio.StreamWriter, page: Page, *, head: bool = False
) -> None:
    """Answer with *page*, without its body if *head* is True. The peer may have gone."""
    response = h11.Response(
        status_code=page.status, headers=page.headers, reason=REASONS[page.status]
    )
    with suppress(OSError, h11.LocalProtocolError):
        writer.write(connection.send(response) or b"")
        if not head:
            writer.write(connection.send(h11.Data(data=page.body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()


async def drop_rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """
    Read what is left of a request that was not read to its end.

    If a connection is closed while data waits in it, the peer may lose the answer.
    """
    with suppress(OSError):
        writer.write_eof()
        for _ in range(_DROPPED_READS):
            if not await reader.read(_READ_BYTES):
                return
