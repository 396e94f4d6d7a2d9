"""
Get this CI job's ID token from GitHub Actions or GitLab CI.

On GitHub the job asks a URL for the token; URL and request token are in its environment. On
GitLab the token is in a variable. If either is missing, the error names it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from federation.client import ClientError
from federation.client.http import Sender, json_of, require_secure_url

GITLAB_VARIABLE = "FEDERATION_ID_TOKEN"
_URL, _TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_EVENT_BYTES = 16 * 1024 * 1024


def subject_token(environ: Mapping[str, str], audience: str, sender: Sender) -> str:
    """
    Return an ID token of this job for *audience*.

    Raises: ClientError if this is not a CI job, or if the job may not get an ID token.
    """
    if environ.get(_URL) or environ.get(_TOKEN) or environ.get("GITHUB_ACTIONS") == "true":
        return _github(environ, audience, sender)
    if token := environ.get(GITLAB_VARIABLE):
        return token
    if environ.get("GITLAB_CI") == "true":
        raise ClientError(
            f"This GitLab job has no {GITLAB_VARIABLE}.",
            f"Add to the job:\n  id_tokens:\n    {GITLAB_VARIABLE}:\n      aud: {audience}",
        )
    raise ClientError(
        "No CI identity was found: this is neither a GitHub Actions job nor a GitLab CI job.",
        "Run it in one, or give a token with --token FILE.",
    )


def _github(environ: Mapping[str, str], audience: str, sender: Sender) -> str:
    missing = [name for name in (_URL, _TOKEN) if not environ.get(name)]
    if missing:
        raise ClientError(
            f"This GitHub job may not ask for an ID token: {' and '.join(missing)} not set.",
            _permission_advice(environ),
        )
    require_secure_url(environ[_URL], _URL)
    if not re.fullmatch(r"[!-~]+", environ[_TOKEN]):
        raise ClientError(f"{_TOKEN} holds characters that no header can carry.")
    joined = "&" if "?" in environ[_URL] else "?"
    response = sender.send(
        "GET",
        f"{environ[_URL]}{joined}audience={quote(audience, safe='')}",
        headers={"Authorization": f"bearer {environ[_TOKEN]}", "Accept": "application/json"},
    )
    if response.status_code != 200:
        raise ClientError(
            f"GitHub answered HTTP {response.status_code} instead of an ID token.",
            "Run the job again. If it fails again, check that it has permissions: id-token: write.",
        )
    match json_of(response):
        case {"value": str(token)} if token:
            return token
        case _:
            raise ClientError("GitHub's answer holds no ID token.", "Run the job again.")


def _permission_advice(environ: Mapping[str, str]) -> str:
    if _from_fork(environ):
        return (
            "The pull request comes from a fork, and GitHub gives those no ID token, whatever"
            " the job asks for. Deploy after the merge, from a push."
        )
    return (
        "Add to the job:\n  permissions:\n    id-token: write\n    contents: read\n"
        "In a reusable workflow the calling job must grant it too."
    )


def _from_fork(environ: Mapping[str, str]) -> bool:
    # A pull_request_target job runs as the base repository. It may get a token even for a fork.
    event_name = environ.get("GITHUB_EVENT_NAME", "")
    if event_name == "pull_request_target" or not event_name.startswith("pull_request"):
        return False
    try:
        with Path(environ.get("GITHUB_EVENT_PATH", "")).open("rb") as file:
            event = json.loads(file.read(_EVENT_BYTES))
        return bool(
            event["pull_request"]["head"]["repo"]["full_name"] != event["repository"]["full_name"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
