"""The session store that the settings name: SQLite in the state folder, or a shared Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from federation.config.dashboard import DashboardSettings
from federation.distribution import how_to_install
from federation.errors import Refusal, SettingsRefused
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
    store = _redis(settings.shared_state.get_secret_value(), settings, time.time)
    try:
        problem = asyncio.run(_unusable(store))
    except Refusal as refusal:
        structlog.get_logger("federation.dashboard").warning(
            "the session store does not answer; nobody can sign in until it does",
            **refusal.evidence,
        )
        return
    if problem:
        raise SettingsRefused([f"shared-state: {problem}"])


async def _unusable(store: RedisSessions) -> str:
    try:
        return await store.unusable()
    finally:
        await store.aclose()


def _redis(url: str, settings: DashboardSettings, clock: Callable[[], float]) -> RedisSessions:
    try:
        from federation.state.redis_sessions import (  # noqa: PLC0415  an extra, often not installed
            RedisSessions,
        )
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        problem = f"shared-state: redis is not installed. {how_to_install('redis', 'dashboard')}"
        raise SettingsRefused([problem]) from error
    try:
        return RedisSessions(url, clock, settings.state / "shared-state-epoch")
    except ValueError as error:
        # The text of the error may quote the URL, which may hold a password.
        raise SettingsRefused(["shared-state: the URL cannot be used"]) from error
