"""
The session of a person with an access token that is live, renewed if it has to be.

Scripts call this often and in parallel, so it loads few modules, and sends no request while the
token is valid.
"""

from __future__ import annotations

from collections.abc import Callable

from federation.client import ClientError
from federation.sign_on.outliving import run_outliving
from federation.sign_on.sessions import Session, Sessions

_RENEWAL = "federation.sign_on.renewal"


class SessionOver(ClientError):
    """A session that cannot be renewed. The person signs in again."""

    def __init__(self, gateway: str, why: str) -> None:
        super().__init__(
            f"Your session for {gateway} is over: {why}.",
            f"Sign in again: federation login --gateway {gateway}",
        )


def signed_in(sessions: Sessions, gateway: str) -> Session:
    """Return the session for *gateway*. Raises: ClientError if nobody is signed in."""
    session = sessions.of(gateway)
    if session is None:
        raise ClientError(
            f"You are not signed in to {gateway}.",
            f"Sign in: federation login --gateway {gateway}",
        )
    return session


def live_session(
    sessions: Sessions,
    gateway: str,
    seconds: float,
    clock: Callable[[], float],
    notice: Callable[[str], None],
) -> Session:
    """
    Return the session for *gateway* with an access token for *seconds* more; renew it if needed.

    Raises: ClientError if it cannot be renewed.
    """
    session = signed_in(sessions, gateway)
    if session.lives_for(seconds, clock()):
        return session
    with sessions.locked(gateway, notice) as lock:
        session = signed_in(sessions, gateway)  # perhaps another caller has renewed it
        if not session.lives_for(seconds, clock()):
            if session.is_over:  # many callers would otherwise find out one after the other
                raise SessionOver(gateway, "it cannot be renewed any more")
            run_outliving(_RENEWAL, [str(sessions.home), gateway], lock, notice)
            session = signed_in(sessions, gateway)
    return session
