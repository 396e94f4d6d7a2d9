"""The workflow or the pipeline of one repository: it logs in, deploys, and logs out."""

from __future__ import annotations

import json
import re
from importlib import resources

from federation.client import ClientError
from federation.starter.forge import Kind, Repository

PLACEHOLDER = "0123456789abcdef0123456789abcdef01234567"
SOURCES = {
    "github": f"your-org/federation@{PLACEHOLDER}",
    "gitlab": f"your-group/federation@{PLACEHOLDER}",
}
"""Placeholder for the place of this project, which people replace with their own."""
FILES = {"github": ".github/workflows/deploy.yml", "gitlab": ".gitlab-ci.yml"}
_SOURCE = re.compile(
    r"([A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)+)@([0-9a-f]{40})"
)


def workflow_yaml(repository: Repository, url: str, environment: str, source: str) -> str:
    """
    Return the workflow that deploys through the broker at *url* when the branch is pushed.

    *source* says where this project is kept, as `OWNER/NAME@COMMIT`. Raises: ClientError.
    """
    place, commit = _divided(source, repository.kind)
    template = resources.files("federation.starter").joinpath(f"{repository.kind}.yml")
    text = template.read_text("utf-8")
    indent = "    " if repository.kind == "github" else "  "
    filled = {
        "%PLACE": place,
        "%COMMIT": commit,
        "%URL": _scalar(url),
        "%BRANCH": _scalar(repository.branch),
        "%BRANCH_RULE": json.dumps(f'$CI_COMMIT_BRANCH == "{repository.branch}"'),
        "%ENVIRONMENT\n": f"{indent}environment: {_scalar(environment)}\n" if environment else "",
    }
    # In one pass, so that no value is read as a part of the template.
    return re.sub(r"%ENVIRONMENT\n|%[A-Z_]+", lambda found: filled[found[0]], text)


def _divided(source: str, kind: Kind) -> tuple[str, str]:
    found = _SOURCE.fullmatch(source)
    if not found:
        raise ClientError(
            "--source is no OWNER/NAME@COMMIT.",
            f"Write where you keep this project, and the 40 digits of the commit that you reviewed:"
            f" {SOURCES[kind]}",
        )
    return found[1], found[2]


def _scalar(text: str) -> str:
    """Return *text* as YAML: as it is if it can only be a text, else in quotes."""
    plain = re.fullmatch(r"https?://[A-Za-z0-9./:-]+|[A-Za-z][A-Za-z0-9/_.-]*", text)
    words = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
    return (
        text if plain and not text.endswith(":") and text.lower() not in words else json.dumps(text)
    )
