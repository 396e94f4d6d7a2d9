"""
Connects to a receiver and sends it no request: to find out whether events could be sent.

The client's own proxy, CA and time limits apply. A proxy is asked for the tunnel (`CONNECT`), which
is as far as it goes.
"""

from __future__ import annotations

from typing import Any

import httpx2

_ABOUT_TO_SEND = ("http11.send_request_headers.started", "http2.send_request_headers.started")


class _ConnectedError(Exception):
    """The connection stands, and the request would be sent now."""


async def connect_only(client: httpx2.AsyncClient, url: str) -> None:
    """Connect to *url*, with TLS where it says https. Raises: httpx2.HTTPError, OSError."""
    try:
        async with client.stream("POST", url, extensions={"trace": _stop_before_sending}):
            # Not reached: the client tells each step, and the last one stops it.
            raise AssertionError("the request was sent")
    except _ConnectedError:
        return


async def _stop_before_sending(event: str, info: dict[str, Any]) -> None:
    if event in _ABOUT_TO_SEND and info["request"].method != b"CONNECT":
        raise _ConnectedError
