"""Lines of a workflow's log that GitHub shows as annotations, at a place in a file."""

from __future__ import annotations

from collections.abc import Mapping

from federation.errors import Problem
from federation.text import no_command_within, printable

# The escapes of actions/toolkit. The percent sign comes first, or it would be escaped twice.
_IN_MESSAGE = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_IN_PROPERTY = {**_IN_MESSAGE, ":": "%3A", ",": "%2C"}


def annotation(level: str, path: str, line: int, title: str, message: str) -> str:
    """Return the line for a problem of *level* `error` or `warning` at *line* of the file *path*."""
    properties = {"file": path, "line": str(line or ""), "title": title}
    written = ",".join(f"{k}={_escaped(v, _IN_PROPERTY)}" for k, v in properties.items() if v)
    return no_command_within(f"::{level} {written}::{_escaped(message, _IN_MESSAGE)}")


def problem_annotation(problem: Problem) -> str:
    """Return the line for *problem*, whose place GitHub shows by itself."""
    title = f"{problem.code} {subject(problem)}".strip()
    return annotation(problem.severity, problem.path, problem.line, title, sentence(problem))


def subject(problem: Problem) -> str:
    """Return the document of *problem*, such as `Role/deployer`; empty if it is about none."""
    return f"{problem.kind}/{problem.name}" if problem.kind else ""


def sentence(problem: Problem) -> str:
    """Return what is wrong, in which field, and what to write instead."""
    field = f"{problem.field}: " if problem.field else ""
    return field + problem.message + (f"; {problem.hint}" if problem.hint else "")


def _escaped(text: str, escapes: Mapping[str, str]) -> str:
    for char, escape in escapes.items():
        text = text.replace(char, escape)
    return printable(text)
