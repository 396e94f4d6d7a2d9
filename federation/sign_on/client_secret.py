"""
The client secret of a confidential client, read from its file when it is needed.

It is never an argument, a variable or a part of a session: a person who can see processes, or a
backup of the home folder, would have it.
"""

from __future__ import annotations

import re
from pathlib import Path

from federation import ownership
from federation.client import ClientError
from federation.sign_on.provider import Client
from federation.sign_on.sessions import SignInSettings

_SECRET = re.compile(rb"[!-~]+(?: [!-~]+)*")
_MAX_BYTES = 4096


def client_of(settings: SignInSettings) -> Client:
    """
    Return the client of *settings*, with its secret if it has one.

    Raises: ClientError if the secret cannot be read, or if others can read it.
    """
    place = settings.client_secret_file
    secret = secret_in(Path(place)) if place else ""
    return Client(settings.client_id, settings.scopes, secret)


def secret_in(place: Path) -> str:
    """Return the secret in the file *place*. Raises: ClientError, which does not quote it."""
    try:
        secret = ownership.read_key(place).strip()
    except ownership.NotTrusted as refused:
        raise ClientError(f"{refused.problem}.", f"To mend it, {refused.remedy}") from refused
    except OSError as error:
        raise ClientError(
            f"The client secret cannot be read from {place}: {error.strerror}."
        ) from error
    if not _SECRET.fullmatch(secret) or len(secret) > _MAX_BYTES:
        raise ClientError(
            f"{place} does not hold a client secret.", "It is one line of printable characters."
        )
    return secret.decode("ascii")
