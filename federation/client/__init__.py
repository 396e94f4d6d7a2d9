"""The client in a CI job: get an ID token, exchange it, and save the access token for faas-cli."""

from __future__ import annotations

from federation.errors import FederationError


class ClientError(FederationError):
    """An error of the client: one sentence about the problem, and advice on what to change."""

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}\n{self.advice}" if self.advice else self.problem
