"""Serves the admission webhook over HTTPS, with the broker's limits on connections and time."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from federation.admission.handshakes import TlsServer
from federation.server.http_limits import http_config

CONNECTIONS = 256
_GRACE_SECONDS = 10


def server_of(
    app: Callable[..., Awaitable[None]],
    context: ssl.SSLContext,
    serving: Callable[[], None] = lambda: None,
) -> TlsServer:
    """The server of *app*; every connection is TLS with the certificate that *context* has then."""
    config: uvicorn.Config = http_config(app, CONNECTIONS, _GRACE_SECONDS)
    config.ssl_context_factory = lambda *_: context
    return TlsServer(config, serving)


def run(
    app: Any, listener: socket.socket, context: ssl.SSLContext, serving: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT. Requests that were accepted are answered first."""
    server_of(app, context, serving).run(sockets=[listener])
