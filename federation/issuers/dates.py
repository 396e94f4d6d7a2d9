"""
Compares the clock of this machine with the `Date` of issuers' answers.

A token is refused if it comes from the future by more than the leeway, so a clock that is wrong
stops every exchange. `Date` has whole seconds and was written somewhere between question and
answer: what these two explain is no difference.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

import httpx2

Connect = Callable[[str | None], httpx2.AsyncClient]
"""Opens the client for a CA bundle, as the key ring asks for it."""

_BEGAN = "federation.began"
_LONGEST_AGE = 86_400 * 365


@dataclass(frozen=True, slots=True)
class Dates:
    """The seconds by which this machine's *clock* is ahead of each host that answered."""

    clock: Callable[[], float]
    ahead: MutableMapping[str, float] = field(default_factory=dict)
    """By host; below 0 where it is behind."""

    def watching(self, connect: Connect) -> Connect:
        """Return a *connect* whose clients compare the dates of all answers."""

        def connected(ca_bundle: str | None) -> httpx2.AsyncClient:
            client = connect(ca_bundle)
            client.event_hooks = {"request": [self._asked], "response": [self._answered]}
            return client

        return connected

    async def _asked(self, request: httpx2.Request) -> None:
        request.extensions = {**request.extensions, _BEGAN: self.clock()}

    async def _answered(self, response: httpx2.Response) -> None:
        began, ended = response.request.extensions.get(_BEGAN), self.clock()
        date = _date(response)
        if date is None or began is None:
            return
        host, ahead = response.request.url.host, difference(began, ended, date)
        known = self.ahead.get(host)
        if known is None or abs(ahead) < abs(known):
            self.ahead[host] = ahead


def difference(began: float, ended: float, date: float) -> float:
    """
    Return how far a clock is ahead at the least, by an answer that came between *began* and *ended*.

    It was made at *date*, or up to a second later.
    """
    least, most = began - date - 1, ended - date
    if least > 0:
        return least
    return min(most, 0.0)


def _date(response: httpx2.Response) -> float | None:
    """Return when *response* says that it is; a cache adds how old it is (RFC 9111, section 5.1)."""
    try:
        date = parsedate_to_datetime(response.headers.get("Date", ""))
        age = response.headers.get("Age", "0").strip()
        seconds = int(age) if age.isascii() and age.isdecimal() and len(age) < 10 else 0
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp() + min(seconds, _LONGEST_AGE)
    except (ValueError, TypeError, OverflowError):
        return None
