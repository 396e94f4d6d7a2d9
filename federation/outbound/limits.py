"""Answers that break a limit of ours. Each error has our own words, which `failures` hands on."""

from __future__ import annotations

import httpx2


class LimitBroken(Exception):
    """An answer broke a limit. The text says which, and nothing of the request is in it."""


class TooLong(LimitBroken, httpx2.ReadError):
    """The answer has more bytes than are read."""

    def __init__(self, request: httpx2.Request, limit_kib: int) -> None:
        super().__init__(f"answered with more than {limit_kib} KiB", request=request)


class TooSlow(LimitBroken, httpx2.ReadTimeout):
    """The whole answer took longer than it may, though pieces of it came in time."""

    def __init__(self, request: httpx2.Request) -> None:
        super().__init__("the answer did not end in time", request=request)


class Compressed(LimitBroken, httpx2.DecodingError):
    """The answer is compressed, though none was asked for: a small one may unpack to a large one."""

    def __init__(self, request: httpx2.Request) -> None:
        super().__init__("it is compressed, though asked not to", request=request)
