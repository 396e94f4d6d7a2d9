"""
The dashboard's secrets on disk: session keys, and the client's secret at the provider.

They are read anew when they change, so a rotation needs no restart: put the new session key first,
and take the old one away after the longest session.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from federation.client import ClientError
from federation.dashboard.sealing import session_key
from federation.errors import SettingsRefused
from federation.ownership import NotTrusted, read_key
from federation.sign_on.client_secret import secret_in

_KEY_FILE = "session-key"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """The files of *session_keys*, and that of the client secret if there is one."""

    session_keys: tuple[Path, ...]
    client_secret: Path | None

    def read_keys(self) -> tuple[bytes, ...]:
        """The session keys, the first one first. Raises: SettingsRefused with every problem."""
        keys, problems = [], []
        for path in self.session_keys:
            try:
                keys.append(session_key(read_key(path)))
            except NotTrusted as error:
                problems.append(f"session-key: {error}")
            except OSError as error:
                problems.append(f"session-key: {path} cannot be read: {error.strerror}")
            except ValueError as error:
                problems.append(f"session-key: {path} cannot be used: {error}")
        if problems:
            raise SettingsRefused(problems)
        return tuple(keys)

    def read_client_secret(self) -> str:
        """The client's secret, empty for a public client. Raises: SettingsRefused."""
        if self.client_secret is None:
            return ""
        try:
            return secret_in(self.client_secret)
        except ClientError as error:
            problem = f"client-secret-file: {error.problem} {error.advice}"
            raise SettingsRefused([problem.rstrip()]) from error


def made_key(state: Path) -> Path:
    """The file of the session key in the folder *state*, which is made if it is not there."""
    path = state / _KEY_FILE
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            draft = path.with_name(f".{_KEY_FILE}-{secrets.token_hex(8)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_hex(_KEY_BYTES).encode("ascii"))
                with suppress(FileExistsError):  # another process was first
                    os.link(draft, path)
            finally:
                draft.unlink()
    except OSError as error:
        raise SettingsRefused([f"state: {path} cannot be made: {error.strerror}"]) from error
    return path
