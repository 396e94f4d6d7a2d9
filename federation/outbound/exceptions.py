"""
Exceptions from proxies: the entries of `NO_PROXY`, as curl and Go read them.

An entry is one of these, and may have a port:

- a name, which is for its subdomains too; `.name` is the same, `*.name` is for subdomains alone
- an address, or a range of addresses such as `10.0.0.0/8`; one of IPv6 with or without brackets
- `*`, for every host

Commas or blanks stand between entries. No name is looked up, so an address is compared with hosts
that are written as addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from federation.text import printable

_MOST_ENTRIES = 2000
_SHOWN_CHARS = 100
_NOT_SHOWN = "an entry that is not shown, as it may hold a password,"
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_BRACKETS = re.compile(r"\[([^][]*)\](/[0-9]+)?(?::([0-9]+))?")
_WITH_PORT = re.compile(r"([^:]+):([0-9]+)")
_PARTS = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One exception: for a *name*, for a *network*, or for every host if it has neither."""

    written: str
    name: str = ""
    network: IPv4Network | IPv6Network | None = None
    port: int | None = None
    apex: bool = True
    """True if *name* itself is covered, and not its subdomains alone."""

    def covers(self, host: str, port: int) -> bool:
        """Return True if *host*, as `canonical` writes it, is reached without a proxy at *port*."""
        if self.port not in {None, port}:
            return False
        if self.network is not None:
            address = address_of(host)
            return address is not None and address in self.network
        if not self.name:
            return True
        return (self.apex and host == self.name) or host.endswith("." + self.name)


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The entries of `NO_PROXY`."""

    entries: tuple[Entry, ...] = ()
    passed_over: tuple[str, ...] = ()
    """Texts that are no entry. Other programs ignore them too, so they are no error."""

    @classmethod
    def of(cls, text: str) -> Exceptions:
        """Return the exceptions that *text* lists."""
        written = [part for part in _PARTS.split(text) if part]
        entries = [(part, _entry(part)) for part in written[:_MOST_ENTRIES]]
        wrong = [part for part, entry in entries if entry is None]
        wrong += written[_MOST_ENTRIES:][:1]
        if wrong and "@" in text:
            # Somebody wrote a proxy here, whose password may have a comma or a blank.
            wrong = [_NOT_SHOWN]
        return cls(
            tuple(entry for _, entry in entries if entry),
            tuple(printable(part, _SHOWN_CHARS) for part in wrong),
        )

    def cover(self, host: str, port: int) -> bool:
        """Return True if *host* is reached without a proxy at *port*."""
        host = canonical(host)
        return any(entry.covers(host, port) for entry in self.entries)

    @property
    def cover_everything(self) -> bool:
        """True if no host is reached through a proxy."""
        return any(
            not entry.name and entry.network is None and entry.port is None
            for entry in self.entries
        )


def canonical(host: str) -> str:
    """Return *host* in lower case, without brackets and the dot at its end; names in ASCII."""
    host = host.strip("[]").rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode("ascii")
    except UnicodeError:
        return host


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that *host* is, None if it is a name."""
    try:
        address = ip_address(host.partition("%")[0])  # the zone names an interface of this machine
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _entry(written: str) -> Entry | None:
    """Return the exception that *written* is, None if it is none."""
    if network := _network(written):
        return Entry(written, network=network)
    host, port = _split_port(written)
    if host is None or (port is not None and not 0 < port < 65536):
        return None
    if network := _network(host):
        return Entry(written, network=network, port=port)
    if host == "*":
        return Entry(written, port=port)
    apex = not host.startswith("*.")
    name = canonical(host.removeprefix("*").removeprefix("."))
    # 10.0.0 and 10.0.0.* are meant as a range, and would be the name of no host.
    if len(name) > 253 or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdecimal():
        return None
    return Entry(written, name=name, port=port, apex=apex)


def _split_port(written: str) -> tuple[str | None, int | None]:
    """Return host and port of *written*. The host is None if there is none."""
    if found := _BRACKETS.fullmatch(written):
        host = found[1] + (found[2] or "")
        return (host if _network(host) else None), int(found[3]) if found[3] else None
    if found := _WITH_PORT.fullmatch(written):
        return found[1], int(found[2])
    return (None if ":" in written else written), None


def _network(written: str) -> IPv4Network | IPv6Network | None:
    """Return the range that *written* is; an address is the range of itself."""
    if "/" not in written:
        address = address_of(written)
        return ip_network(address) if address else None
    try:
        return ip_network(written, strict=False)
    except ValueError:
        return None
