"""The session store that the settings name: SQLite in the state folder, or a shared Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from federation.config.dashboard import DashboardSettings
from federation.errors import Refusal, SettingsRefused
from federation.state.redis_start import check_redis, redis_of_extra
from federation.state.sessions import SessionStore
from federation.state.sqlite_sessions import SqliteSessions

if TYPE_CHECKING:
    from federation.state.redis_sessions import RedisSessions


def store_of(settings: DashboardSettings, clock: Callable[[], float]) -> SessionStore:
    """The store of *settings*. Raises: SettingsRefused."""
    if settings.shared_state is None:
        return SqliteSessions(settings.state / "state.db", clock)
    return _redis(settings.shared_state.get_secret_value(), settings, clock)


def check_shared_state(settings: DashboardSettings) -> None:
    """
    Make sure that the shared state can be used, unless it cannot be reached now.

    Raises: SettingsRefused with the reason.
    """
    if settings.shared_state is None:
        return
    try:
        check_redis(_redis(settings.shared_state.get_secret_value(), settings, time.time))
    except Refusal as refusal:
        structlog.get_logger("federation.dashboard").warning(
            "the session store does not answer; nobody can sign in until it does",
            **refusal.evidence,
        )


def _redis(url: str, settings: DashboardSettings, clock: Callable[[], float]) -> RedisSessions:
    with redis_of_extra("dashboard"):
        from federation.state.redis_sessions import RedisSessions  # noqa: PLC0415  often not installed
    try:
        return RedisSessions(url, clock, settings.state / "shared-state-epoch")
    except ValueError as error:
        # The text of the error may quote the URL, which may hold a password.
        raise SettingsRefused(["shared-state: the URL cannot be used"]) from error
