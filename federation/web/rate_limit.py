"""
Token buckets that limit three things: failed requests of an address, revocations, and exchanges of
one token.

Successful exchanges and faults of the broker are not counted as failures, so a working CI system
never reaches that limit. Requests that are running when the bucket empties are still answered, and
their failures make the wait longer, up to a minute. The address is the peer's. If the peer is a trusted
proxy, it is the address that the last trusted proxy saw. Each process counts alone, for a bounded
number of addresses.
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
_REVOCATIONS_A_MINUTE = 300  # more than the jobs that end in a minute, also those of a matrix
_EXCHANGES_OF_A_TOKEN = 600  # faas-cli trades one for each call of a function
_MINUTE_SECONDS = 60.0
_ROUNDING_SECONDS = 1e-6
_IPV6_PREFIX = 64  # one machine can choose any address of its /64
_HOPS = 32
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_NOT_THE_CALLERS_FAULT = frozenset(
    {
        Reason.TOO_MANY_FAILURES,
        Reason.TOO_MANY_REVOCATIONS,
        Reason.TOO_MANY_EXCHANGES,
        Reason.SERVER_ERROR,
    }
)

Network = IPv4Network | IPv6Network


class Buckets:
    """
    A token bucket for each key: *a_minute* a minute, also all at once. 0 means no limit.

    *clock* counts seconds and never goes back.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float], keys: int = _ADDRESSES) -> None:
        self._limited = a_minute > 0
        self._one_seconds = _MINUTE_SECONDS / a_minute if a_minute else 0.0
        """The time in which a bucket gains one."""
        self._clock = clock
        self._keys = keys
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """For each key, the time when its bucket is full again."""

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_seconds(self, key: str) -> int:
        """The seconds until the bucket of *key* has one again, 0 if it has one."""
        filling = self._full_at.get(key, -math.inf) - self._clock()
        # An empty bucket fills in a minute. One must be left.
        wait = filling - (_MINUTE_SECONDS - self._one_seconds) - _ROUNDING_SECONDS
        return math.ceil(wait) if wait > 0 else 0

    def take(self, key: str) -> None:
        """Take one out of the bucket of *key*, which may be empty; it then owes at most a minute."""
        if not self._limited:
            return
        now = self._clock()
        full_at = max(self._full_at.pop(key, -math.inf), now) + self._one_seconds
        # A thousand requests that pass the check together must not shut an address out for long.
        most = now + 2 * _MINUTE_SECONDS - self._one_seconds
        self._full_at[key] = min(full_at, most)
        # The key that was used longest ago has the fullest bucket, so it is dropped first.
        if len(self._full_at) > self._keys:
            self._full_at.popitem(last=False)


class Failures:
    """Allows each address *a_minute* failures a minute, also all at once. 0 means no limit."""

    def __init__(
        self, a_minute: int, clock: Callable[[], float], *, addresses: int = _ADDRESSES
    ) -> None:
        self._a_minute = a_minute
        self._buckets = Buckets(a_minute, clock, addresses)

    def __len__(self) -> int:
        return len(self._buckets)

    def check(self, address: str) -> None:
        """Make sure that *address* has a failure left. Raises: Refusal with `too_many_failures`."""
        if wait := self._buckets.wait_seconds(address):
            raise Refusal(
                Reason.TOO_MANY_FAILURES,
                evidence={"address": address, "failures_a_minute": self._a_minute},
                retry_after_seconds=wait,
            )

    def count(self, address: str, reason: Reason) -> None:
        """Count a request of *address* that was refused for *reason*."""
        if not reason.temporary and reason not in _NOT_THE_CALLERS_FAULT:
            self._buckets.take(address)


class InvalidTokens:
    """
    Counts the tokens that the gateway refused, by address.

    Valid tokens are never limited, also from an address that sent too many others: callers behind
    one proxy would otherwise shut each other out. Nothing is lost by that, since nobody can guess a
    signature.
    """

    def __init__(self, failures: Failures, trusted_proxies: Sequence[Network]) -> None:
        self._failures = failures
        self._trusted_proxies = trusted_proxies

    def count(self, scope: Scope, reason: Reason) -> None:
        """
        Count a token that was refused for *reason*.

        Raises: Refusal with `too_many_failures` if the address had none left.
        """
        address = caller_of(scope, self._trusted_proxies)
        self._failures.check(address)
        self._failures.count(address, reason)


class RepeatedExchanges:
    """Allows a token that is taken more than once *a_minute* exchanges, also all at once."""

    def __init__(
        self, clock: Callable[[], float], *, a_minute: int = _EXCHANGES_OF_A_TOKEN
    ) -> None:
        self._a_minute = a_minute
        self._buckets = Buckets(a_minute, clock)

    def take(self, token: str) -> None:
        """Count one for what identifies a *token*. Raises: Refusal with `too_many_exchanges`."""
        if wait := self._buckets.wait_seconds(token):
            raise Refusal(
                Reason.TOO_MANY_EXCHANGES,
                evidence={"exchanges_a_minute": self._a_minute},
                retry_after_seconds=wait,
            )
        self._buckets.take(token)


class Revocations:
    """
    Allows each subject, and each address, a number of revocations a minute.

    With *by_address* false only subjects are counted: all callers seem to have one address.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        by_address: bool = True,
        a_minute: int = _REVOCATIONS_A_MINUTE,
    ) -> None:
        self._a_minute = a_minute
        self._addresses = Buckets(a_minute if by_address else 0, clock)
        self._subjects = Buckets(a_minute, clock)

    def take(self, address: str, subject: str) -> None:
        """Count a revocation. Raises: Refusal with `too_many_revocations`, and counts nothing."""
        wait = max(self._addresses.wait_seconds(address), self._subjects.wait_seconds(subject))
        if wait:
            raise Refusal(
                Reason.TOO_MANY_REVOCATIONS,
                evidence={"address": address, "revocations_a_minute": self._a_minute},
                retry_after_seconds=wait,
            )
        self._addresses.take(address)
        self._subjects.take(subject)


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


def is_from_proxy(scope: Scope, trusted: Sequence[Network]) -> bool:
    """Return whether the peer is one of the *trusted* proxies."""
    peer = _address(scope["client"][0]) if scope.get("client") else None
    return peer is not None and any(peer in network for network in trusted)


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
