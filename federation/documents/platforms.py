"""
Files of other programs beside documents, and templates that were not rendered.

Kustomize, Helm and others keep files of their own in the folder of the documents. They are passed
over by their exact names, and only if they say nothing of ours: a mistake in the head of a Role,
or a Deny in a file with the wrong name, must not be dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from federation.text import quoted

_NEIGHBOURS: Mapping[str, str] = {
    **dict.fromkeys(("kustomization.yaml", "kustomization.yml"), "Kustomize"),
    **dict.fromkeys(("Chart.yaml", "values.yaml", "values.yml", "values.schema.json"), "Helm"),
    **dict.fromkeys(("helmfile.yaml", "helmfile.yml"), "Helmfile"),
    **dict.fromkeys(("skaffold.yaml", "skaffold.yml"), "Skaffold"),
    **dict.fromkeys(("stack.yaml", "stack.yml"), "faas-cli"),
    **dict.fromkeys(("compose.yaml", "compose.yml"), "Docker Compose"),
    **dict.fromkeys(("docker-compose.yaml", "docker-compose.yml"), "Docker Compose"),
    **dict.fromkeys(("Taskfile.yaml", "Taskfile.yml"), "Task"),
    **dict.fromkeys(("package.json", "package-lock.json"), "npm"),
    "azure-pipelines.yml": "Azure Pipelines",
    "bitbucket-pipelines.yml": "Bitbucket Pipelines",
    "catalog-info.yaml": "Backstage",
    "codecov.yml": "Codecov",
    "documents.schema.json": "an editor",
    "fleet.yaml": "Fleet",
    "renovate.json": "Renovate",
    "tsconfig.json": "TypeScript",
}
"""Files that other programs look for by name, and the program."""


def owner_of(name: str) -> str:
    """Return the program that looks for a file called *name*, nothing if none is known."""
    return _NEIGHBOURS.get(name, "")


_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{\{-?")
_VARIABLE = re.compile(r"\$\{[^}]*\}|\$\([^)]*\)|\$\[\[.*?\]\]|%[A-Z_]+%|<[A-Za-z][A-Za-z _-]*>")
_NEAR_LINES = 3
_SEARCHED_CHARS = 256


def unrendered(text: str) -> tuple[str, str] | None:
    """Return the placeholder in *text* that was not filled, and what to do; None if there is none."""
    # A longer one could hold so many open braces that the search takes minutes.
    text = text[:_SEARCHED_CHARS]
    if found := _TEMPLATE.search(text):
        return (
            f"holds {quoted(found[0])}, a template that was not rendered",
            "render it first (helm template, kustomize build) and give what that writes",
        )
    if found := _VARIABLE.search(text):
        return (
            f"holds {quoted(found[0])}, a placeholder that was not filled",
            "write the value, or fill the placeholder before the documents are read",
        )
    return None


def template_near(data: bytes, line: int) -> tuple[int, str, str] | None:
    """
    Return the line, what is wrong and what to do where a template is near *line*, else None.

    *data* is YAML with an error at *line*. A parser finds the mistake that braces make at them or
    some lines after.
    """
    lines = data.split(b"\n")
    for number in range(min(line, len(lines)), max(0, line - _NEAR_LINES), -1):
        text = lines[number - 1]
        if text.startswith(b"---"):
            return None
        _, braces, rest = text.partition(b"{{")
        if braces:
            told = unrendered((braces + rest[:_SEARCHED_CHARS]).decode("utf-8", "replace"))
            return (number, *told) if told else None
    return None
