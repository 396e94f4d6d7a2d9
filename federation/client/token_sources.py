"""
Read an ID token from one source of the provider table.

A source that a job does not have is `Missing`; one that it has and that gives no token is an error.
What a source gives is bounded in size and time. No message holds a token or a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

import httpx2

from federation.client import ClientError
from federation.client.http import Sender, json_of, require_secure_url, server_of
from federation.client.token_command import find_program, printed_by
from federation.providers.profile import (
    ByCommand,
    ByMetadata,
    ByRequest,
    InFile,
    InVariable,
    TokenSource,
)
from federation.text import printable

_TOKEN_BYTES = 16 * 1024
_LOOKS_LIKE_TOKEN = re.compile(r"eyJ[\w-]+(?:\.[\w-]*)*")
_NOT_FINAL = frozenset({403})
_HEADER_VALUE = re.compile(r"[!-~]+(?: [!-~]+)*")


@dataclass(frozen=True, slots=True)
class Job:
    """A job that needs an ID token for *audience*."""

    system: str
    """The CI system's name, for messages."""
    environ: Mapping[str, str] = field(repr=False)
    audience: str
    sender: Sender


@dataclass(frozen=True, slots=True)
class Missing:
    """The job does not have a source."""

    what: str
    """Ends a sentence that begins with "This job"."""


def token_from(source: TokenSource, job: Job) -> str | Missing:
    """
    Return the token that *source* gives *job*.

    Raises: ClientError if the job has the source, and it gives no token.
    """
    job.sender.trace(f"Looking for the ID token {_where(source)}")
    match source:
        case InVariable():
            return _variable(source, job)
        case InFile():
            return _file(source, job)
        case ByRequest():
            return _request(source, job)
        case ByCommand():
            return _command(source, job)
        case ByMetadata():
            return _metadata(source, job)
    assert_never(source)


def _where(source: TokenSource) -> str:
    match source:
        case InVariable(names=names):
            return f"in {' or '.join(names)}"
        case InFile(path=path, named_by=named_by):
            return f"in the file {path}" + (f", or that of {named_by}" if named_by else "")
        case ByRequest(url=url):
            return f"by asking the URL in {url}"
        case ByCommand(command=command):
            return f"in the output of {command[0]}"
        case ByMetadata():
            return "at the metadata server"
    assert_never(source)


def _variable(source: InVariable, job: Job) -> str | Missing:
    for name in source.names:
        if token := job.environ.get(name):
            return _checked(token, name)
    return Missing(f"has no {' or '.join(source.names)}")


def _file(source: InFile, job: Job) -> str | Missing:
    place = job.environ.get(source.named_by) or source.path
    path = Path(place)
    try:
        if not path.is_file():  # a pipe or a device could keep the job waiting
            return Missing(f"has no file {place}")
        with path.open("rb") as file:
            token = file.read(_TOKEN_BYTES + 2)  # a line end may follow the token
    except OSError as error:
        raise ClientError(f"The ID token in {place} cannot be read: {error.strerror}.") from error
    return _checked(token.decode("ascii", "replace"), place)


def _request(source: ByRequest, job: Job) -> str | Missing:
    missing = [name for name in (source.url, source.bearer) if not job.environ.get(name)]
    if missing:
        return Missing(f"may not ask for an ID token: {' and '.join(missing)} not set")
    url, secret = job.environ[source.url], job.environ[source.bearer]
    require_secure_url(url, source.url)
    if not _HEADER_VALUE.fullmatch(secret):
        raise ClientError(f"{source.bearer} holds characters that no header can carry.")
    joined = "&" if "?" in url else "?"
    headers = {"Authorization": f"{source.scheme} {secret}".strip(), "Accept": "application/json"}
    if source.method == "POST":
        headers["Content-Type"] = "application/json"  # Azure DevOps wants it, without a body too
    response = job.sender.send(
        source.method,
        f"{url}{joined}{_filled(source.query, quote(job.audience, safe=''))}",
        headers=headers,
        # GitHub answers 403 "Pending" now and then to a job that may ask, and later gives a token.
        not_final=_NOT_FINAL,
    )
    if response.status_code != 200:
        raise ClientError(
            f"{job.system} answered HTTP {response.status_code} instead of an ID token"
            f"{_message_in(response, secret)}.",
            "Run the job again. If it fails again, check what the job may do.",
        )
    match json_of(response):
        case {source.member: str(token)} if token:
            return _checked(token, f"{job.system}'s answer")
        case _:
            raise ClientError(f"{job.system}'s answer holds no ID token.", "Run the job again.")


def _message_in(response: httpx2.Response, secret: str) -> str:
    """Return the service's own message after a colon, without *secret*. Empty if it has none."""
    match json_of(response):
        case {"message": str(message)} if message.strip():
            said = message.replace(secret, "...").strip().rstrip(".")
            return f": {_LOOKS_LIKE_TOKEN.sub('...', printable(said, 300))}"
        case _:
            return ""


def _command(source: ByCommand, job: Job) -> str | Missing:
    name = source.command[0]
    program = find_program(name, job.environ)
    if program is None:
        return Missing(f"has no program {name} on its PATH")
    if not re.fullmatch(r"[!-~]+", job.audience) or job.audience.startswith("-"):
        raise ClientError(f"{name} cannot be asked for the audience {job.audience!r}.")
    words = [
        _filled(word.replace('"{audience}"', json.dumps(job.audience)), job.audience)
        for word in source.command[1:]
    ]
    return _checked(printed_by(program, words, job.environ), f"the output of {name}")


def _metadata(source: ByMetadata, job: Job) -> str:
    url = _filled(source.url, quote(job.audience, safe=""))
    response = job.sender.send("GET", url, headers=dict(source.headers))
    server = f"{job.system}'s metadata server"
    if response.status_code != 200:
        raise ClientError(f"{server} answered HTTP {response.status_code} instead of an ID token.")
    if any(response.headers.get(name) != value for name, value in source.headers):
        raise ClientError(f"{server_of(response.url)} answered, but not as {server} does.")
    return _checked(response.text, f"the answer of {server}")


def _filled(template: str, audience: str) -> str:
    return template.replace("{audience}", audience)


def _checked(text: str, place: str) -> str:
    """*text* without the space around it, if it may be a token."""
    token = text.strip()
    if not token:
        raise ClientError(f"There is no ID token in {place}: it is empty.")
    if len(token) > _TOKEN_BYTES:
        raise ClientError(f"There is no ID token in {place}: it is longer than 16 KiB.")
    if not re.fullmatch(r"[!-~]+", token):
        raise ClientError(
            f"There is no ID token in {place}: it holds spaces, line ends or other characters "
            "that no token has."
        )
    return token
