"""A server that does nothing, run as `federation serve` runs the broker."""

from __future__ import annotations

import json
import socket
import sys

from starlette.types import Receive, Scope, Send

from federation.server.http_limits import http_config
from federation.server.shutdown import GracefulServer


async def nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    """Give the shortest answer, without a framework."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [_EMPTY]})
        await send({"type": "http.response.body"})


_EMPTY = (b"content-length", b"0")


def main() -> None:
    """Serve on a free loopback port, and log which, as the broker does."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listening = {"event": "listening", "port": listener.getsockname()[1]}
    print(json.dumps(listening), file=sys.stderr, flush=True)
    config = http_config(nothing)
    config.lifespan = "off"
    GracefulServer(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
