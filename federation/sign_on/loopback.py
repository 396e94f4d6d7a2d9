"""
The sockets of the loopback callback: on this machine only, and on a port that no one else holds.

`127.0.0.1` is the default: it names no interface that others reach, and needs no resolver (RFC
8252, section 8.3). `localhost` is for providers and systems that want that name; a browser may
read it as 127.0.0.1 or as ::1, so both are bound where the machine has both.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass, field

from federation.client import ClientError

DEFAULT_PORT = 31111
HOSTS = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 16
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Loopback:
    """Listening sockets, and the origin under which a browser reaches them."""

    origin: str
    sockets: tuple[socket.socket, ...] = field(repr=False)


def bind(host: str, port: int) -> Loopback:
    """
    Listen on *port* of *host*, one of `HOSTS`. Port 0 picks a free one.

    Raises: ClientError that says what to do.
    """
    if host.strip("[]") not in HOSTS:
        raise ClientError(
            f"The callback cannot listen on {host!r}.", f"Choose one of {', '.join(HOSTS)}."
        )
    if not 0 <= port <= 65535:
        raise ClientError(f"There is no port {port}.", "Choose one from 1024 to 65535, or 0.")
    host = host.strip("[]")
    for attempt in range(_TRIES):
        try:
            sockets = _bound(host, port)
        except OSError as error:
            # A free port of 127.0.0.1 may be taken at ::1: then another one is picked.
            if port == 0 and attempt < _TRIES - 1 and error.errno == errno.EADDRINUSE:
                continue
            raise _refused(host, port, error) from error
        break
    name = f"[{host}]" if ":" in host else host
    return Loopback(f"http://{name}:{sockets[0].getsockname()[1]}", sockets)


def _bound(host: str, port: int) -> tuple[socket.socket, ...]:
    if host == "::1":
        return (_listen(socket.AF_INET6, "::1", port),)
    first = _listen(socket.AF_INET, "127.0.0.1", port)
    if host != "localhost":
        return (first,)
    try:
        return first, _listen(socket.AF_INET6, "::1", first.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            # Whoever listens there would get the code of a browser that prefers ::1.
            first.close()
            raise
        return (first,)  # a machine without IPv6


def _listen(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            # On Windows SO_REUSEADDR would let another program take over the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            # Or the connections of the last sign-in keep the port for a minute (TIME_WAIT).
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            with suppress(OSError):
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _refused(host: str, port: int, error: OSError) -> ClientError:
    if error.errno == errno.EADDRINUSE:
        return ClientError(
            f"Port {port} of this machine is taken.",
            "Another sign-in may be waiting: finish it, or stop it. Else choose another port with"
            " --port, and register its redirect URI at the provider. Port 0 picks a free one, for"
            " providers that take any port on 127.0.0.1.",
        )
    return ClientError(
        f"The callback cannot listen on port {port} of {host}: {error.strerror}.",
        "Choose another port with --port, or sign in on another device with --grant device.",
    )
