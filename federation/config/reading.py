"""
Reads the settings of a command from flags and environment variables, and reports every problem.

A setting is the flag `--x`, or a variable with the prefix of the command; the flag wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from federation.errors import SettingsRefused
from federation.ownership import NotTrusted

Model = TypeVar("Model", bound=BaseModel)
Given = Mapping[str, object]

_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Reading(Generic[Model]):
    """The names, the parsing and the checks of the settings of one command."""

    model: type[Model]
    prefix: str
    """The beginning of its variables, such as `FEDERATION_`."""
    repeatable: Collection[str]
    """The settings that may be given more than once."""
    combination: Callable[[Given], list[str]]
    """Settings that lack or contradict another one. What it is given may be incomplete."""
    private_files: Callable[[Given], Iterable[tuple[str, Path, Callable[[Path], object]]]]
    """Each setting's files that nobody else may write, and how that is checked."""

    def variable(self, field: str) -> str:
        """The environment variable that sets *field*."""
        return self.prefix + field.upper()

    def where(self, field: str) -> str:
        """The two places where *field* is set."""
        return f"{flag(field)} or {self.variable(field)}"

    def service_links(self, environ: Mapping[str, str]) -> list[str]:
        """
        Return the variables of settings that hold what Kubernetes writes about a Service.

        It puts FEDERATION_PORT=tcp://10.0.0.1:8080 into every pod beside a Service that is called
        `federation`.
        """
        variables = map(self.variable, self.model.model_fields)
        return [name for name in variables if _SERVICE_LINK.match(environ.get(name, ""))]

    def read(
        self,
        flags: Mapping[str, str | Sequence[str] | None],
        environ: Mapping[str, str],
        *,
        check_files: bool = True,
    ) -> Model:
        """
        The settings from *flags*, which are named as the fields, and from *environ*.

        An empty value counts as unset, and so does what Kubernetes writes about a Service of the
        same name. A variable separates several paths as `PATH` does. Without *check_files*, files
        that somebody else could have written are no problem.
        Raises: SettingsRefused with every problem and the flag or variable that solves it.
        """
        given: dict[str, object] = {}
        links = self.service_links(environ)
        for field in self.model.model_fields:
            variable = self.variable(field)
            from_environ = environ.get(variable)
            if flags.get(field):
                given[field] = flags[field]
            elif from_environ and variable not in links:
                several = field in self.repeatable
                given[field] = from_environ.split(os.pathsep) if several else from_environ
        distrusted = list(self._distrusted(given)) if check_files else []
        try:
            settings = self.model.model_validate(given)
        except ValidationError as error:
            # pydantic skips what is checked of all together if a single setting is invalid.
            single = [self._sentence(problem) for problem in error.errors() if problem["loc"]]
            raise SettingsRefused([*single, *self.combination(given), *distrusted]) from error
        if distrusted:
            raise SettingsRefused(distrusted)
        return settings

    def _distrusted(self, given: Given) -> Iterator[str]:
        """
        Yield a sentence for each file of a setting that somebody else could have written.

        Documents and certificates hold no secret, and are often kept by another user. *given* may
        be invalid or incomplete; what does not exist is another check's matter.
        """
        for field, path, check in self.private_files(given):
            try:
                check(path)
            except NotTrusted as error:
                where = self.where(field)
                yield f"{name_of(field)}: {error.problem} (set by {where}); {error.remedy}"
            except OSError:
                continue  # whoever reads the file says why it cannot

    def _sentence(self, problem: ErrorDetails) -> str:
        field = str(problem["loc"][0])
        if problem["type"] == "missing":
            return f"{name_of(field)} is needed; set {self.where(field)}"
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "string_pattern_mismatch" and field.endswith("namespace"):
            what = "a namespace has at most 63 lower-case letters, digits and hyphens"
        return f"{name_of(field)}: {what}; set by {self.where(field)}"


def flag(field: str) -> str:
    """The flag that sets *field*."""
    return "--" + field.replace("_", "-")


def name_of(field: str) -> str:
    """The setting's name, as documents write it."""
    return field.replace("_", "-")


def paths_of(given: object) -> Iterator[Path]:
    """Yield the paths of a setting, which is one or several."""
    if isinstance(given, str | Path):
        yield Path(given)
    elif isinstance(given, Iterable):
        yield from (Path(str(path)) for path in given)
