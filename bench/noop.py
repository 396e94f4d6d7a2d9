"""A server that does nothing, run as `federation serve` runs the broker."""

from __future__ import annotations

import json
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def nothing(_request: Request) -> Response:
    """The shortest answer."""
    return Response()


def main() -> None:
    """Serve on a free loopback port and tell which, as the broker's log does."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listening = {"event": "listening", "port": listener.getsockname()[1]}
    print(json.dumps(listening), file=sys.stderr, flush=True)
    config = uvicorn.Config(
        Starlette(routes=[Route("/oauth/token", nothing, methods=["POST"])]),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=2000,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
