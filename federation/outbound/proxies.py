"""
The proxies that `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` name, checked at the start.

The variable in lower case wins, as in curl. An empty one counts as unset. In a CGI program,
`HTTP_PROXY` is the request header `Proxy` that anybody may send, so there it is not read (httpoxy).
A proxy may hold a password: no message shows more than its scheme, host and port.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import unquote

from federation.outbound.exceptions import address_of, canonical
from federation.text import host_and_port

_SOCKS = frozenset({"socks", "socks4", "socks4a", "socks5", "socks5h"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_PLACE = re.compile(r"(?P<host>\[[^][]*\]|[^][:]*)(?::(?P<port>[0-9]{0,5}))?")
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_WRITE = "write http://host:port"


class _Wrong(Exception):
    """A variable has a wrong value. The message quotes nothing of the value but its scheme."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, with the variable that named it."""

    url: str
    """Scheme, host and port."""
    variable: str
    auth: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """The proxy without its user and password."""
        return self.url

    @property
    def place(self) -> str:
        """Its host and port."""
        return self.url.partition("://")[2]


def read_proxies(environ: Mapping[str, str]) -> tuple[dict[str, Proxy], list[str], list[str]]:
    """
    Return the proxy for URLs of each scheme, what is wrong, and what was passed over.

    A variable that counts for no scheme is not checked.
    """
    notes: list[str] = []
    found = {name: _variable(environ, name, notes) for name in ("https", "http", "all")}
    if "REQUEST_METHOD" in environ and found["http"] == "HTTP_PROXY":
        notes.append(
            "HTTP_PROXY is passed over, since REQUEST_METHOD is set: in a CGI program, whoever"
            " sends a request may set it. Set http_proxy instead"
        )
        found["http"] = ""
    proxies, problems = {}, []
    for scheme in ("https", "http"):
        if not (variable := found[scheme] or found["all"]):
            continue
        try:
            proxies[scheme] = _proxy(environ[variable].strip(), variable)
        except _Wrong as wrong:
            problems.append(f"{variable} {wrong}")
    return proxies, list(dict.fromkeys(problems)), notes


def _variable(environ: Mapping[str, str], name: str, notes: list[str]) -> str:
    """Return the variable that names the proxy for *name*, empty if none does."""
    lower, upper = f"{name}_proxy", f"{name.upper()}_PROXY"
    if not environ.get(lower, "").strip():
        return upper if environ.get(upper, "").strip() else ""
    if environ.get(upper, "").strip() not in {"", environ[lower].strip()}:
        notes.append(f"{upper} is passed over: {lower} is set too, and wins")
    return lower


def _proxy(value: str, variable: str) -> Proxy:
    """Return the proxy that *value* names. Raises: _Wrong."""
    found = _SCHEME.fullmatch(value)
    scheme, rest = (found[1].lower(), found[2]) if found else ("http", value)
    if scheme in _SOCKS and find_spec("socksio") is None:
        raise _Wrong(
            "is a SOCKS proxy, and the Python package socksio, which speaks to those, is not"
            f" installed. Install it, or set HTTPS_PROXY to a proxy that speaks HTTP: {_WRITE}"
        )
    if scheme not in _PORTS:
        raise _Wrong(f"has a scheme that is not http, https, socks5 or socks5h: {_WRITE}")
    if any(char.isspace() or not char.isprintable() for char in rest):
        raise _Wrong(f"has a blank or a line end within: {_WRITE}")
    authority, _, path = re.sub(r"[?#]", "/", rest).partition("/")
    # A password with one of these ends the authority early, and its end would be taken for a path.
    if "@" in path:
        raise _Wrong(
            "has a user or a password with a character that must be percent-encoded: / as %2F,"
            " ? as %3F, # as %23"
        )
    userinfo, _, at = authority.rpartition("@")
    url = f"{scheme}://{_place(at, _PORTS[scheme])}"
    return Proxy(url, variable, _auth(userinfo) if userinfo else None)


def _place(written: str, default_port: int) -> str:
    """Return host and port. Raises: _Wrong."""
    found = _PLACE.fullmatch(written)
    host = canonical(found["host"]) if found else ""
    address = address_of(host)
    if not found or not host or not (address or _NAME.fullmatch(host)):
        raise _Wrong(f"names no host: {_WRITE}")
    port = int(found["port"] or default_port)
    if not 0 < port < 65536:
        raise _Wrong(f"has a port that is not between 1 and 65535: {_WRITE}")
    return host_and_port(host, port)


def _auth(userinfo: str) -> tuple[str, str]:
    """Return user and password. Raises: _Wrong."""
    user, _, password = userinfo.partition(":")
    try:
        pair = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise _Wrong("has a user or a password that is not percent-encoded UTF-8") from None
    if not all(part.isprintable() for part in pair):
        raise _Wrong("has a user or a password with a control character")
    return pair
