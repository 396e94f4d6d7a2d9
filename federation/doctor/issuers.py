"""
The issuers: whether their keys can be had, which are passed over, and how this clock agrees.

The keys are fetched as the broker fetches them, by a key ring of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, suppress
from itertools import islice

from federation.app import parts
from federation.config import Settings
from federation.doctor.advice import for_answer, for_connection
from federation.doctor.finding import Finding, fail, ok, split, warn
from federation.documents.model import JwtIssuer
from federation.issuers.dates import Dates
from federation.issuers.key_ring import KeyStatus
from federation.outbound import Outbound
from federation.providers.table import LEEWAY
from federation.text import counted

_FETCH_SECONDS = 8.0
_NOTICED_SECONDS = 5.0
_SHORT_LIFE_SECONDS = 300.0
"""GitHub's and GitLab's tokens live about so long."""
_SHOWN = 50
_SHOWN_KEYS = 10
_LATE = f"not asked within {_FETCH_SECONDS:g} s"
_NOT_ASKED = KeyStatus(0, False, None, _LATE)
_SET_THE_CLOCK = (
    "let the machine follow a time server: timedatectl set-ntp true, or chronyc makestep"
)


async def issuers(
    known: Iterable[JwtIssuer],
    settings: Settings,
    outbound: Outbound,
    clock: Callable[[], float],
) -> list[Finding]:
    """Fetch the keys of all *known* issuers at once, and compare the clocks."""
    trusted, dates = list(known), Dates(clock)
    ring = parts.key_ring(settings, outbound, dates=dates)
    async with aclosing(ring):
        with suppress(TimeoutError):
            async with asyncio.timeout(_FETCH_SECONDS):
                await ring.refresh_due(trusted)
        status = ring.status()
    found = [
        finding
        for issuer in trusted[:_SHOWN]
        for finding in _keys(issuer, status.get(issuer.iss, _NOT_ASKED), outbound)
    ]
    if more := trusted[_SHOWN:]:
        bad = sum(status.get(issuer.iss, _NOT_ASKED).keys == 0 for issuer in more)
        said = f"{len(more)} more issuers, {bad} of them without keys"
        found.append(fail("issuers", said, "/readyz names each") if bad else ok("issuers", said))
    return [*found, compared(dates.ahead)]


def not_asked(issuer: JwtIssuer) -> Finding:
    """Say that *issuer* was not asked, since its document names a file that is the broker's."""
    said = f"{issuer.iss}: not asked, since its bearerTokenFile is for the broker's user to read"
    return warn(f"issuer {issuer.name}", said, "run this command as the broker's user")


def _keys(issuer: JwtIssuer, status: KeyStatus, outbound: Outbound) -> Iterator[Finding]:
    check, place = f"issuer {issuer.name}", issuer.iss
    asked = issuer.jwks_uri or issuer.internal_url or issuer.iss
    proxy = None if status.pinned else outbound.proxy_for(asked)
    way = f" through {proxy}" if proxy else ""
    if status.keys:
        where = "pinned in the document" if status.pinned else f"fetched{way}"
        yield ok(check, f"{place}: {counted(status.keys, 'key')} {where}")
    elif status.unusable:
        said = f"no keys of {place}{way}: none that it publishes can be used"
        yield fail(check, said, "tell its operator the reasons below")
    else:
        failure = status.failure or _LATE
        late = failure == _LATE or "no complete answer" in failure
        advice = for_connection(asked, proxy) if late else for_answer(asked)
        said, advice = split(failure, advice)
        yield fail(check, f"no keys of {place}{way}: {said}", advice)
    yield from _passed_over(check, status.unusable)


def _passed_over(check: str, keys: Mapping[str, str]) -> Iterator[Finding]:
    for kid, why in islice(keys.items(), _SHOWN_KEYS):
        # Its issuer wrote a part of *why*, so nothing of it is taken for advice.
        advice = "tokens that it signs are refused; those of other keys are not"
        yield warn(check, f"key {kid} is passed over: {why}", advice)
    if len(keys) > _SHOWN_KEYS:
        more = f"{len(keys) - _SHOWN_KEYS} more keys are passed over"
        yield warn(check, more, "the broker's log and /readyz have the reasons")


def compared(ahead: Mapping[str, float]) -> Finding:
    """
    Say how this machine's clock agrees with hosts that it is *ahead* of by so many seconds.

    A clock that is behind finds tokens of the future, and one that is ahead expired ones. If one
    host agrees, the clocks of the others are wrong.
    """
    if not ahead:
        return ok("clock", "not compared: no issuer was asked that says the time")
    best = min(ahead, key=lambda host: abs(ahead[host]))
    worst = max(ahead, key=lambda host: abs(ahead[host]))
    seconds, leeway = ahead[best], LEEWAY.total_seconds()
    said = _told(best, seconds)
    if seconds < -leeway:
        return fail("clock", f"{said}, so new tokens seem to be of the future", _SET_THE_CLOCK)
    if seconds > _SHORT_LIFE_SECONDS:
        return fail("clock", f"{said}, so most CI tokens seem to have expired", _SET_THE_CLOCK)
    if abs(seconds) > _NOTICED_SECONDS:
        limit = f"tokens are refused from {leeway:g} s behind or {_SHORT_LIFE_SECONDS:g} s ahead"
        return warn("clock", f"{said}; {limit}", _SET_THE_CLOCK)
    if abs(ahead[worst]) > leeway:
        said = f"it agrees with {best}, but is {_told(worst, ahead[worst])}"
        return warn("clock", said, f"the clock of {worst} seems to be wrong; tell who runs it")
    return ok("clock", f"it agrees with {best}" + (" and others" if len(ahead) > 1 else ""))


def _told(host: str, seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} {host}"
