"""The listening socket. It is bound before anything runs, so that one start shows every mistake."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from federation.errors import SettingsRefused
from federation.server.shutdown import BACKLOG


def listen(host: str, port: int) -> socket.socket:
    """
    Return a socket that listens on *host* and *port*; port 0 picks a free one.

    Raises: SettingsRefused.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # `::` is every address of the machine, those of IPv4 too.
        both = ":" in host and ip_address(host).is_unspecified and socket.has_dualstack_ipv6()
        address = (host, port)
        return socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except (OSError, ValueError) as error:
        problem = f"cannot listen on {host} port {port}: {_why(error)}"
        raise SettingsRefused([problem]) from error


def _why(error: OSError | ValueError) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return str(said).partition(" (while attempting")[0]  # Python adds the address
