"""The CI side: find this job's identity, trade it, put the result where tools look."""

from __future__ import annotations

from federation.errors import FederationError

__all__ = ["ClientError"]


class ClientError(FederationError):
    """What went wrong on the CI side, in one sentence, and what to change."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}\n{self.advice}" if self.advice else self.problem
