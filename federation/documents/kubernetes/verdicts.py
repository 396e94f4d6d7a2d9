"""The verdict on an object of a Kubernetes API server: how it stands, and what is in force."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from federation.errors import Problem, Severity

CODE_CHARS = 8
FIELD_CHARS = 512
PROBLEM_CHARS = 2048
"""The most that a message or a hint may have in the status of an object."""
PROBLEMS = 64
"""So many problems fit into a status."""


class Standing(StrEnum):
    """The reason of an object's condition `Ready`."""

    ACCEPTED = "Accepted"
    INVALID = "Invalid"
    """It cannot be read: its shape has errors (`D…`)."""
    REFUSED = "Refused"
    """It can be read, and a rule refuses it (`T…`, and `D…` that need other documents)."""
    POLICY_MISSING = "PolicyMissing"
    """It is a Role, and a Policy that it names is not in force."""
    CONFLICT = "Conflict"
    """A file, or an older object, has its name or its `iss`."""
    PENDING = "Pending"
    """It is good, and waits for another object: a Role whose JwtIssuer is not in force."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one object."""

    standing: Standing
    message: str
    """One sentence, which says what is in force."""
    problems: tuple[Problem, ...] = ()
    """Its errors and warnings."""
    held: bool = False
    """True if its last good version is in force instead of it."""
    refuses: bool = False
    """True if it refuses the tokens that it would admit, because it cannot be read safely."""

    @property
    def explained(self) -> str:
        """
        The message, and of an object that is not in force as it is the first error with its hint.

        `kubectl get -o wide`, Argo CD, Flux, Events and the log show this and none of the other
        problems.
        """
        first = next(iter(errors_of(self.problems)), None)
        if self.standing is Standing.ACCEPTED or first is None:
            return self.message
        field = f"{first.field}: " if first.field else ""
        said = "" if first.message in self.message else f"{field}{first.message}"
        return f"{self.message} {first.code}: {'; '.join(filter(None, (said, first.hint)))}"


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return those of *problems* that are errors."""
    return tuple(problem for problem in problems if problem.severity is Severity.ERROR)
