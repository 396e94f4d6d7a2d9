"""
The dashboard's two cookies: the session's id, and the sign-in that is under way.

Both carry the prefix `__Host-`, so no sibling host, such as one on which functions run, can set
them. They are Secure, HttpOnly and SameSite=Lax: with Strict, the first page after the provider's
redirect would have no session.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

SESSION = "__Host-federation"
SIGN_IN = "__Host-federation-login"
NOTICE = "__Host-federation-notice"
"""The cookie with the message for the next page, sealed, so that it need not stand in a URL."""
_VALUE_CHARS = 4096


def cookie(request: Request, name: str) -> str:
    """The value of the cookie *name*; empty if there is none, or more than one."""
    found = [
        value.strip()
        for line in request.headers.getlist("cookie")
        for pair in line.split(";")
        for given, equals, value in [pair.partition("=")]
        if equals and given.strip() == name
    ]
    return found[0] if len(found) == 1 and len(found[0]) <= _VALUE_CHARS else ""


def set_cookie(response: Response, name: str, value: str, seconds: int | None = None) -> None:
    """Give the browser a cookie, for *seconds* or until it is closed."""
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax"
    )


def drop_cookie(response: Response, name: str) -> None:
    """Take a cookie away."""
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")
