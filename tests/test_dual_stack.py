"""One socket for IPv4 and IPv6: each caller has the address that it would have on its own socket."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx2
import pytest
from starlette.types import Receive, Scope, Send

from federation.demo.stage import serving
from federation.server.http_limits import _plain, http_config
from federation.server.listener import listen


async def tell_address(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer with the caller's address."""
    if scope["type"] == "http":
        body = json.dumps(scope["client"][0]).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_callers_of_both_kinds_reach_the_wildcard_host_with_their_own_address() -> None:
    async def story() -> list[str]:
        config = http_config(tell_address)
        config.lifespan = "off"
        with listen("::", 0) as listener:
            port = listener.getsockname()[1]
            async with serving(tell_address, listener, config), httpx2.AsyncClient() as client:
                hosts = ("127.0.0.1", "[::1]")
                return [(await client.get(f"http://{host}:{port}/")).json() for host in hosts]

    assert asyncio.run(story()) == ["127.0.0.1", "::1"]


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:0:c000:207", "::ffff:0:c000:207"),
        ("::ffff", "::ffff"),
    ],
)
def test_only_a_mapped_address_changes(host: str, plain: str) -> None:
    assert _plain((host, 1)) == (plain, 1)
    assert _plain(None) is None
