"""Times as a page shows them: in UTC, and how long ago in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from federation.text import counted

_UNITS = ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute"))


class Moment(NamedTuple):
    """A time for a `<time>` element: machines read *iso*, people *text* and *age*."""

    iso: str
    text: str
    age: str


def moment(when: float | str, now: float) -> Moment | None:
    """*when*, in seconds since the epoch or as RFC 3339; None if it is no time."""
    try:
        if isinstance(when, str):
            at = datetime.fromisoformat(when)
            at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        else:
            at = datetime.fromtimestamp(when, UTC)
        iso = at.isoformat(timespec="seconds").replace("+00:00", "Z")
        return Moment(iso, f"{at:%Y-%m-%d %H:%M:%S} UTC", _age(now - at.timestamp()))
    except (ValueError, OverflowError, OSError):
        return None


def _age(seconds: float) -> str:
    """`3 hours ago`, `in 2 minutes` or `just now`."""
    size = abs(seconds)
    for length, unit in _UNITS:
        if size >= length:
            words = counted(int(size // length), unit)
            return f"{words} ago" if seconds > 0 else f"in {words}"
    if size < 5:
        return "just now"
    words = counted(int(size), "second")
    return f"{words} ago" if seconds > 0 else f"in {words}"
