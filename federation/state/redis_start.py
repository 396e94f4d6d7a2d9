"""
The start with a shared Redis: a missing library, or a Redis that cannot be used, is a problem of the setting.

The broker and the dashboard ask for the same, each with a store and words of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from federation.distribution import how_to_install
from federation.errors import SettingsRefused

if TYPE_CHECKING:
    from federation.state.redis import RedisStore


@contextmanager
def redis_of_extra(extra: str) -> Iterator[None]:
    """Turn an import without the library into a problem that names *extra*. Raises: SettingsRefused."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        problem = f"shared-state: redis is not installed. {how_to_install('redis', extra)}"
        raise SettingsRefused([problem]) from error


def check_redis(store: RedisStore) -> None:
    """
    Make sure that *store* can be used, then close it.

    Raises: SettingsRefused with the reason; Refusal if Redis is away, which may pass.
    """
    if problem := asyncio.run(_unusable(store)):
        raise SettingsRefused([f"shared-state: {problem}"])


async def _unusable(store: RedisStore) -> str:
    async with aclosing(store):
        return await store.unusable()
