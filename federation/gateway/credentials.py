"""
Whose request this is: the access token that a request carries, in either of two ways.

`Authorization: Bearer <token>`, or Basic with the user `token` and the access token as its
password, which is what an unmodified `faas-cli login` sends.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

__all__ = ["access_token"]

_HEADER_CHARS = 40 * 1024
_USER = "token"


def access_token(authorization: Sequence[str]) -> str | None:
    """The token in the only `Authorization` header (RFC 9110, section 11.6.2), None without one."""
    if len(authorization) != 1 or len(authorization[0]) > _HEADER_CHARS:
        return None
    scheme, _, credentials = authorization[0].partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip() or None
        case "basic":
            return _password(credentials.strip())
        case _:
            return None


def _password(credentials: str) -> str | None:
    try:
        user, colon, password = (
            base64.b64decode(credentials, validate=True).decode("ascii").partition(":")
        )
    except (binascii.Error, ValueError):
        return None
    return password if colon and user == _USER and password else None
