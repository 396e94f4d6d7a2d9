"""
Rate limit: a token bucket of failed exchanges for each address, so that guessing is slow.

Successful exchanges and faults of the broker are not counted, so a working CI system never
reaches the limit. Requests that are running when the bucket empties are still answered; their
failures make the wait longer. The address is the peer's. If the peer is a trusted proxy, it is
the address that the last trusted proxy saw. Each process counts alone, for a bounded number of
addresses.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import Scope

from federation.errors import Reason, Refusal

_ADDRESSES = 10_000
_MINUTE_SECONDS = 60.0
_ROUNDING_SECONDS = 1e-6
_IPV6_PREFIX = 64  # one machine can choose any address of its /64
_HOPS = 32
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_NOT_THE_CALLERS_FAULT = frozenset({Reason.TOO_MANY_FAILURES, Reason.SERVER_ERROR})

Network = IPv4Network | IPv6Network


class FailedExchanges:
    """
    Allows each address *a_minute* failures a minute, also all at once. 0 means no limit.

    *clock* counts seconds and never goes back.
    """

    def __init__(
        self, a_minute: int, clock: Callable[[], float], *, addresses: int = _ADDRESSES
    ) -> None:
        self._a_minute = a_minute
        self._failure_seconds = _MINUTE_SECONDS / a_minute if a_minute else 0.0
        """The time in which a bucket gains one failure."""
        self._clock = clock
        self._addresses = addresses
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """For each address, the time when its bucket is full again."""

    def __len__(self) -> int:
        return len(self._full_at)

    def check(self, address: str) -> None:
        """Make sure that *address* has a failure left. Raises: Refusal with `too_many_failures`."""
        filling = self._full_at.get(address, -math.inf) - self._clock()
        # An empty bucket fills in a minute. One failure must be left.
        wait = filling - (_MINUTE_SECONDS - self._failure_seconds) - _ROUNDING_SECONDS
        if wait > 0:
            raise Refusal(
                Reason.TOO_MANY_FAILURES,
                evidence={"address": address, "failures_a_minute": self._a_minute},
                retry_after_seconds=math.ceil(wait),
            )

    def count(self, address: str, reason: Reason) -> None:
        """Count an exchange of *address* that was refused for *reason*."""
        if not self._a_minute or reason.temporary or reason in _NOT_THE_CALLERS_FAULT:
            return
        full_at = max(self._full_at.pop(address, -math.inf), self._clock())
        self._full_at[address] = full_at + self._failure_seconds
        # The address that failed longest ago has the fullest bucket, so it is dropped first.
        if len(self._full_at) > self._addresses:
            self._full_at.popitem(last=False)


def caller_of(scope: Scope, trusted: Sequence[Network] = ()) -> str:
    """
    The address that a request comes from, for IPv6 its /64 network.

    `X-Forwarded-For` is read from its end, as far as *trusted* proxies wrote it. Entries before
    those can be made up by the caller.
    """
    address = _address(scope["client"][0]) if scope.get("client") else None
    if address is None:
        return "unknown"
    for hop in _hops_backwards(scope) if trusted else ():
        by_proxy = any(address in network for network in trusted)
        if not by_proxy or (before := _address(hop)) is None:
            break
        address = before
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def _hops_backwards(scope: Scope) -> Iterable[str]:
    lines = [str(v, "latin-1") for name, v in scope["headers"] if name == b"x-forwarded-for"]
    hops = ",".join(lines).split(",")
    return [hop.strip() for hop in hops[: -_HOPS - 1 : -1]]


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in *text*, with or without a port. An IPv4-mapped IPv6 address becomes IPv4."""
    if found := _WITH_PORT.fullmatch(text):
        text = found[1] or found[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
