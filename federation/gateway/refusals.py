"""
What the gateway road says no to before anybody's permissions are asked.

    RequestRefused
    ├── NotMapped     403  not a call that is offered here
    ├── Ambiguous     403  two programs could read it as two different calls
    ├── Malformed     400  not what this call takes
    ├── TooLarge      413  more than this call takes
    └── TooSlow       408  the body does not come

Each has one plain sentence that a person at a command line can act on. A refused request
never reaches the upstream.
"""

from __future__ import annotations

import re
from typing import ClassVar

from federation.errors import FederationError

__all__ = ["Ambiguous", "Malformed", "NotMapped", "RequestRefused", "TooLarge", "TooSlow", "quoted"]


class RequestRefused(FederationError):
    """A request that is not forwarded. *sentence* is for the caller."""

    status: ClassVar[int] = 403

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class NotMapped(RequestRefused):
    """The method and path stand for no action."""


class Ambiguous(RequestRefused):
    """The request can be read in more than one way."""


class Malformed(RequestRefused):
    """The request can be read in no way at all."""

    status = 400


class TooLarge(RequestRefused):
    """The request is larger than any honest one."""

    status = 413


class TooSlow(RequestRefused):
    """The body takes longer than any honest one."""

    status = 408


_PLAIN = re.compile(r"[A-Za-z0-9_./-]{1,60}")


def quoted(text: str) -> str:
    """*text* from a request, to stand in a sentence; a placeholder where it is not plain."""
    return f'"{text}"' if _PLAIN.fullmatch(text) else "(a name that cannot be shown)"
