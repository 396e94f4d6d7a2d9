"""The error of variables and files that say how other machines are reached, and cannot be used."""

from __future__ import annotations

from collections.abc import Iterable


class OutboundError(ValueError):
    """
    Variables of the environment, or CAs, that cannot be used.

    Each of *problems* is a sentence with the variable, what is wrong and what to write instead. No
    part of a password is in it.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
