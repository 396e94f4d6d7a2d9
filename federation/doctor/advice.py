"""
One line of advice for a connection that failed in a way that does not say what to do.
"""

from __future__ import annotations

import shlex
from urllib.parse import urlsplit

from federation.text import host_and_port

_PORTS = {"http": 80, "redis": 6379, "rediss": 6379}


def for_connection(url: str, proxy: str | None = None) -> str:
    """Return what to do if *url* does not answer in time, asked by *proxy* if there is one."""
    host, port = place_of(url)
    if proxy:
        return f"let {host_of(proxy)} reach {host} port {port}, or name {host} in NO_PROXY"
    return f"let packets out to {host} port {port} (firewall, NetworkPolicy), or use a proxy"


def for_answer(url: str) -> str:
    """Return how to look at an answer of *url* that cannot be used."""
    # Whoever wrote the document chose the URL, and the operator pastes the line into a shell.
    return f"look at what it answers: curl -v {shlex.quote(url)}"


def place_of(url: str) -> tuple[str, int]:
    """Return host and port of *url*, without user, password, path or query."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 443)
    except ValueError:
        return "the host", 443
    return parts.hostname or "the host", port


def host_of(url: str) -> str:
    """Return what `place_of` returns as one word."""
    return host_and_port(*place_of(url))
